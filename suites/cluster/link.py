"""All that is asked of Ray: a cluster at an address, its machines, and an actor on one of them.

Ray is imported where it is used: nobody needs it but for ``--cluster``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from results.schema import Case
from suites.cluster.worker import Worker
from suites.engine.session import MisuseError
from suites.processes.free_memory import memory_for_case
from suites.processes.launcher import IMPORT_TIMEOUT_S, WATCHDOG_S, Method
from suites.processes.outcome import Outcome

PROBE_S = 5.0
"""How long an address has to answer, and then to answer as a head of Ray does."""
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 begins with, gRPC's too: the preface and settings (RFC 9113, 3.4)."""
SETTINGS = 4
"""The type of frame with which a server answers it."""
CONNECT_S = 20.0
"""How long Ray has to take this process as a driver, once the address answers."""
FACTS_S = 60.0
"""How long a machine has to say what is installed there."""
GRACE_S = IMPORT_TIMEOUT_S + 2 * WATCHDOG_S
"""Seconds beyond a request's own limit after which its machine counts as lost."""
LOOK_S = 30.0
"""How long a machine has to answer what takes no time."""

FRESH_S = 1.0
"""How long holds what was seen of a machine when a case ended."""

LOOPBACK = "127."
KIND = "accelerator_type:"
"""What Ray's resource that names a kind of GPU begins with."""


class LostError(RuntimeError):
    """A machine of the cluster went away, or can start no case; one line that says why."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, or its share around one of its GPUs.

    Attributes:
        node: Ray's id of it, new each time that it joins.
        name: what Ray calls it; an address unless it was given a name.
        cpus: processors that are the share's.
        gpus: GPUs that are the share's: 0 or 1.
        part: which share of the machine, from 0.
    """

    node: str
    name: str
    cpus: int
    gpus: int
    part: int = 0


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
    own = {"_node_ip_address": host} if _needs_own(host) else {}
    failures: list[BaseException] = []

    def connect() -> None:
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.CRITICAL,
                include_dashboard=None, **own,
            )  # fmt: skip
        except BaseException as error:
            failures.append(error)

    # In a thread: Ray takes no signals from there, and what hangs ends with the process.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    if thread.is_alive():
        raise MisuseError(
            f"--cluster: {address} answers, but takes no driver within {CONNECT_S:g} s; expected "
            "the address of a Ray cluster that this machine is a node of (`ray start`)"
        )
    if failures:
        raise MisuseError(f"--cluster: {address}: {_first_line(failures[0])}")
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
            f"--cluster: nobody answers at {address} ({why}); expected the address of a Ray "
            "cluster"
        ) from None
    with listener:
        if not _greets(listener):
            raise MisuseError(
                f"--cluster: what listens at {address} is no Ray cluster; expected the address "
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


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]


# -- machines ------------------------------------------------------------------------------------


def nodes(device: str, kind: str | None) -> list[Node]:
    """Return the machines that are there now and have what is asked for.

    Args:
        device: ``cuda`` = a share for each GPU; ``cpu`` = each machine whole.
        kind: a GPU of this kind, or a resource of this name; ``None`` = any.

    Raises:
        LostError: if the cluster does not say, as when its head is gone.
    """
    found: list[Node] = []
    for node in _every_node():
        resources = node["Resources"]
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        fits = kind is None or f"{KIND}{kind}" in resources or kind in resources
        if not node["Alive"] or not fits or not cpus:
            continue
        name = node.get("NodeName") or node["NodeManagerAddress"]
        if device == "cpu":
            found.append(Node(node["NodeID"], name, cpus, 0))
        else:
            share = cpus // gpus if gpus else 0
            found += [Node(node["NodeID"], name, share, 1, part) for part in range(gpus)]
    return sorted(found, key=lambda one: (one.name, one.part))


def _every_node() -> list[dict[str, Any]]:
    """Return what Ray says of its nodes.

    Raises:
        LostError: if it does not.
    """
    ray = ray_module()
    try:
        told: list[dict[str, Any]] = ray.nodes()
    except Exception as error:  # of its core, which has no kind of its own for it
        raise LostError(f"the cluster does not answer any more: {_first_line(error)}") from None
    return told


def what_is_there() -> str:
    """Return in words which machines the cluster has."""
    alive = [node["Resources"] for node in _every_node() if node["Alive"]]
    kinds = sorted({key.removeprefix(KIND) for one in alive for key in one if KIND in key})
    gpus = int(sum(one.get("GPU", 0) for one in alive))
    own = sorted(
        {
            key
            for one in alive
            for key in one
            if key not in ("CPU", "GPU", "memory", "object_store_memory") and ":" not in key
        }
    )
    named = f" ({', '.join(kinds)})" if kinds else ""
    others = f", resources {', '.join(own)}" if own else ""
    with_cpus = sum(one.get("CPU", 0) >= 1 for one in alive)
    return (
        f"{len(alive)} node{'s'[: len(alive) != 1]}, {with_cpus} with CPUs, {gpus} GPUs{named}"
        f"{others}"
    )


def facts_here() -> dict[str, str]:
    """Return what of this process's software must be alike on every machine."""
    return _asked()()


def facts_of(node: Node, stopped: Callable[[], bool]) -> dict[str, str]:
    """Return what of a machine's software must be alike.

    Args:
        node: which machine.
        stopped: says whether the sweep is over; nothing is waited for then.

    Raises:
        LostError: if it does not say.
    """
    ray = ray_module()
    task = ray.remote(_asked()).options(num_cpus=0, max_retries=0, scheduling_strategy=_on(node))
    return dict(_got(task.remote(), FACTS_S, stopped))


def differing(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Return what differs between the driver and a machine, in words; "" = nothing."""
    return "; ".join(
        f"{name} is {there.get(name, 'none')} there and {value} here"
        for name, value in here.items()
        if there.get(name) != value
    )


def _asked() -> Callable[[], dict[str, str]]:
    """Return the question as a function that needs nothing of ours where it is run."""

    def facts() -> dict[str, str]:
        import hashlib
        import importlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import platform

        def version(name: str) -> str:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return "not installed"

        told = {
            "python": platform.python_version(),
            "torch": version("torch"),
            "attnbench": version("attnbench"),
        }
        digest = hashlib.sha256()
        for name in ("attention", "models", "suites"):
            spec = importlib.util.find_spec(name)
            places = spec.submodule_search_locations if spec else None
            if not places:
                told["attnbench"] = "not installed"
                continue
            root = pathlib.Path(next(iter(places)))
            for file in sorted(root.rglob("*.py")):
                digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
        told["source of attnbench"] = digest.hexdigest()[:12]
        try:
            schema = importlib.import_module("results.schema")
            told["measurement"] = str(schema.MEASUREMENT)
            told["schema"] = str(schema.SCHEMA)
        except ImportError:
            pass
        return told

    return facts


def mark_of(node: Node, gpus: str) -> str:
    """Return eight hexadecimal digits that tell a machine, or a GPU of it, from its like.

    Its name itself stays out of what is passed on.
    """
    name = f"{node.name} {gpus}" if node.gpus else node.name
    return hashlib.sha256(name.encode()).hexdigest()[:8]


class Remote:
    """A machine of the cluster, held for this driver alone until it is let go of.

    Args:
        node: which.
        stopped: says whether the sweep is over; nothing is waited for then.
        benchmark_dir: the suites there; ``None`` = those that are installed.
        plugins: Python files of this machine, whose contents are sent.
        early: modules that a fork server imports once.
    """

    def __init__(
        self,
        node: Node,
        *,
        stopped: Callable[[], bool],
        benchmark_dir: Path | None,
        plugins: Sequence[str],
        early: Sequence[str],
    ) -> None:
        ray = ray_module()
        self._stopped = stopped
        self._machine: Mapping[str, Any] = {}
        self._seen: tuple[float, int | None] = (0.0, None)
        self._seen_at = float("-inf")
        contents = [(Path(file).name, Path(file).read_bytes()) for file in plugins]
        self._actor = (
            ray.remote(Worker)
            .options(
                num_cpus=node.cpus, num_gpus=node.gpus, max_restarts=0, max_task_retries=0,
                scheduling_strategy=_on(node),
            )
            .remote(None if benchmark_dir is None else str(benchmark_dir), contents, list(early))
        )  # fmt: skip

    def ready(self) -> tuple[str, int]:
        """Wait until the machine is free for this driver; return its GPUs and its niceness.

        Raises:
            LostError: if it goes away first.
        """
        gpus, niceness = _got(self._actor.ready.remote(), None, self._stopped)
        return str(gpus), int(niceness)

    def meet(self, machine: Mapping[str, Any]) -> None:
        """Take note of what the machine is."""
        self._machine = machine

    def look(self, case: Case) -> tuple[float, int | None]:
        """Return the machine's load, and the bytes that a case may have.

        What was seen when the last case ended holds for the next that follows at once: nobody
        else is there.
        """
        if time.monotonic() - self._seen_at > FRESH_S:
            self._see(_got(self._actor.look.remote(), LOOK_S, self._stopped))
        load, free = self._seen
        return load, memory_for_case(case, self._machine) if case.device == "cuda" else free

    def _see(self, seen: tuple[float, int | None]) -> None:
        self._seen, self._seen_at = seen, time.monotonic()

    def ask(
        self,
        request: Mapping[str, Any],
        *,
        timeout_s: float,
        allocator: str = "default",
        method: Method = "forkserver",
    ) -> Outcome:
        """Run one request there to its end, as a `Launcher` does.

        Raises:
            LostError: if the machine went away meanwhile, or can start nothing.
        """
        own = ("plugins", "store", "traces", "lock", "heard")  # paths of this machine
        sent = {key: value for key, value in request.items() if key not in own}
        answer = self._actor.ask.remote(sent, timeout_s, allocator, method)
        outcome, seen = _got(answer, timeout_s + GRACE_S, self._stopped)
        self._see(seen)
        if isinstance(outcome, str):
            raise LostError(f"it can start no case: {outcome}")
        assert isinstance(outcome, Outcome)
        return outcome

    def end(self) -> None:
        """Kill the actor; with it go its children."""
        with contextlib.suppress(Exception):  # Ray has many names for what is gone already
            ray_module().kill(self._actor)

    def close(self) -> None:
        """Let the machine go in order."""
        with contextlib.suppress(Exception):
            ray_module().get(self._actor.close.remote(), timeout=LOOK_S)
        self.end()


def _on(node: Node) -> Any:
    """Return Ray's word for: there, or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.node, soft=False)


def _got(reference: Any, seconds: float | None, stopped: Callable[[], bool]) -> Any:
    """Wait for an answer.

    Raises:
        LostError: if its machine went away, or does not answer in time, or the sweep is over.
    """
    ray = ray_module()
    left = float("inf") if seconds is None else seconds
    try:
        while left > 0 and not stopped():
            some = min(left, 1.0)
            try:
                return ray.get(reference, timeout=some)
            except ray.exceptions.GetTimeoutError:
                left -= some
    except ray.exceptions.RayTaskError as error:
        raise LostError(f"the worker failed: {_first_line(error.cause or error)}") from None
    except ray.exceptions.RayError as error:
        raise LostError(_why(error)) from None
    if stopped():
        raise LostError("the sweep is over")
    raise LostError(f"it did not answer within {seconds:g} s")


def _why(error: BaseException) -> str:
    """Return in one line what Ray says of something that is gone."""
    text = str(error)
    if "node has died" in text:
        return "its node died"
    if "ModuleNotFoundError" in text:
        return "attnbench cannot be imported by Ray's workers there"
    for line in reversed(text.splitlines()):
        if "Error" in line:
            return line.strip()[:300]
    return "its worker died" if "died" in text else _first_line(error)
