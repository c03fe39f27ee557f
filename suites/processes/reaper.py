"""Find and end every process of a run by a mark that all its descendants inherit.

A process that leaves its group and its session, or is taken over by init, keeps its environment:
the mark in it is a random token. The driver kills by it after each case. When the driver itself is
killed, nobody is left to do that but this file, run as a program of its own: a reaper that waits
for the end of a pipe whose other end only the driver holds.

It imports the standard library alone, and of that what starts fast.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Iterator

VARIABLE = "ATTNBENCH_RUN_TOKEN"
"""Marks every process of a run; its value is random, 128 bits."""

QUIET = b"."
"""What the driver writes to the reaper when there is nothing to do."""

ROUNDS = 100
"""How often the processes are looked through while new ones are still being started."""

END_S = 1.0
"""How long to wait in each round for the ends of those that were killed."""


def marked(token: str) -> list[int]:
    """Return the living processes that carry a token, their zombies left out; Linux only.

    A process that was started with an emptied environment is not among them.
    """
    pids = []
    for pid, descriptor in _marked(token):
        os.close(descriptor)
        pids.append(pid)
    return pids


def kill_marked(token: str, spare: Collection[int] = ()) -> int:
    """Kill every process that carries a token, but those in `spare`; return how many.

    It waits for their ends, with all their threads: only then their memory is free, a GPU's too.
    And it looks again until there are none: a process may start another while it is looked at.
    """
    killed: set[int] = set()
    for _ in range(ROUNDS):
        processes = dict(_marked(token, {os.getpid(), *spare}))
        if not processes:
            break
        ends = select.poll()
        for descriptor in processes.values():
            ends.register(descriptor, select.POLLIN)
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        waiting, until = set(processes.values()), time.monotonic() + END_S
        while waiting and (left := until - time.monotonic()) > 0:
            for descriptor, _ in ends.poll(left * 1000):
                ends.unregister(descriptor)
                waiting.discard(descriptor)
        for descriptor in processes.values():
            os.close(descriptor)
        killed |= processes.keys()
    return len(killed)


def _marked(token: str, spare: Collection[int] = ()) -> Iterator[tuple[int, int]]:
    """Yield each marked process and a descriptor of it, which the caller closes.

    The descriptor is taken before the mark is read: a number that passes to another process in
    between is then no danger to that one.
    """
    mark = f"{VARIABLE}={token}".encode()
    user = os.getuid()
    for name in os.listdir("/proc") if sys.platform == "linux" else ():  # noqa: PTH208 (no pathlib)
        if not name.isdecimal() or int(name) in spare:
            continue
        pid, descriptor = int(name), -1
        try:
            if os.stat(f"/proc/{pid}").st_uid != user:  # noqa: PTH116
                continue
            descriptor = os.pidfd_open(pid)
            if mark in _read(f"/proc/{pid}/environ").split(b"\0") and _lives(pid):
                yield pid, descriptor
                descriptor = -1
        except OSError:  # it ended while it was looked at
            pass
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _lives(pid: int) -> bool:
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


# -- the program ---------------------------------------------------------------------------------


def command(python: str) -> list[str]:
    """Return how the reaper is started: no site packages, no user's paths, nothing of ours."""
    return [python, "-I", "-S", os.path.abspath(__file__)]  # noqa: PTH100


def keep(token: str, scratch: str) -> None:
    """Wait for the driver's end; unless it said goodbye, kill what is left and remove its files.

    Args:
        token: of the run.
        scratch: the driver's folder of temporary files.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends after the driver, never before
    if os.read(0, 1) == QUIET:
        return
    kill_marked(token)
    import shutil  # not before: it is rarely needed

    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    keep(*sys.argv[1:])
