"""Become a driver of a Ray cluster, or say in one line within seconds why not.

Ray is imported where it is used: nobody needs it but for ``--cluster``. Of a listener that is no
head of a cluster it says nothing for more than a minute; so an address is tried first.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import threading
from collections.abc import Iterator
from types import ModuleType

from suites.engine.session import MisuseError

PROBE_S = 5.0
"""How long an address has to answer, and then to answer as a head of Ray does."""

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 begins with, gRPC's too: the preface and settings (RFC 9113, 3.4)."""

SETTINGS = 4
"""The type of frame with which a server answers it."""

CONNECT_S = 20.0
"""How long Ray has to take this process as a driver, once the address answers."""

LOOPBACK = "127."


def ray_module() -> ModuleType:
    """Return Ray.

    Raises:
        MisuseError: if it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MisuseError("--cluster: needs Ray: pip install 'attnbench[cluster]'")
    # Ray tells its makers of its use, and of its warnings the console; neither is asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    return ray


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster at an address, as long as the block lasts.

    Raises:
        MisuseError: if there is none, or it does not take this process.
    """
    ray = ray_module()
    host = _probed(address)
    # Ray takes the address by which others would reach this machine, unless told: with a cluster
    # on a loopback address it would look for that in vain, for minutes.
    place = {"_node_ip_address": host} if _needs_own(host) else {}
    failures: list[BaseException] = []

    def connect() -> None:
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.CRITICAL,
                include_dashboard=None, **place,
            )  # fmt: skip
        except BaseException as error:
            failures.append(error)

    # In a thread: Ray takes no signals from there, and what hangs ends with the process.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    if thread.is_alive():
        raise MisuseError(
            f"--cluster: {address} answers, but accepts no connection within {CONNECT_S:g} s; "
            "expected the address of a Ray cluster that this machine is a node of (`ray start`)"
        )
    if failures:
        raise MisuseError(f"--cluster: {address}: {first_line(failures[0])}")
    try:
        yield
    finally:
        ray.shutdown()


def _probed(address: str) -> str:
    """Return the host of an address at which a server of gRPC listens, as Ray's head is.

    Raises:
        MisuseError: if it is none, or nobody does.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise MisuseError(f"--cluster: expected HOST:PORT, as `ray start` has it, got {address!r}")
    try:
        listener = socket.create_connection((host, int(port)), PROBE_S)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise MisuseError(
            f"--cluster: nothing answers at {address} ({why}); expected the address of a Ray "
            "cluster"
        ) from None
    with listener:
        if not _greets(listener):
            raise MisuseError(
                f"--cluster: {address} is not a Ray cluster; expected the address "
                "that `ray start` has"
            )
    return host


def _greets(listener: socket.socket) -> bool:
    """Say whether a server greets as gRPC's do; Ray itself would wait for long."""
    heard = b""
    try:
        listener.sendall(GREETING)
        while len(heard) < 4 and (more := listener.recv(64)):
            heard += more
    except OSError:  # it has hung up, or says nothing
        return False
    return len(heard) >= 4 and heard[3] == SETTINGS


def _needs_own(host: str) -> bool:
    """Say whether an address is a loopback one that Ray does not itself replace."""
    return host.startswith(LOOPBACK) and host != "127.0.0.1"


def first_line(error: BaseException) -> str:
    """Return what an error says on one line, or its type."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
