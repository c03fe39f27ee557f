"""What keeps a case's process in its place: its parent, its memory, its time, the run's lock.

A case runs in a child of asv's fork server (or of the driver, under spawn). It dies with its
parent: a killed driver must not leave a measurement behind that disturbs the next one. A death
signal does not pass on to grandchildren, so a case stays in its parent's process group, where the
driver kills whatever is left after each case, and starts nothing that goes on by itself: the
compiler's pool of workers is off.
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
"""From ``linux/prctl.h``: the signal this process gets when its parent dies."""

OOM_SCORE = 1000
"""The highest ``oom_score_adj``: of all processes the kernel takes this one first."""

GRACE_S = 5.0
"""How long a case past its deadline may take to reach the next Python instruction."""

OVERDUE_SIGNAL = signal.SIGVTALRM
"""Ends a process that a single operation kept from noticing its deadline. Python handles it not,
so its default action, to end the process, needs nobody's cooperation."""


class TimeLimitError(BaseException):
    """The case exceeded its time limit. Not an `Exception`, so no backend swallows it."""

    interrupts = True  # an import that it ends is not a broken plug-in


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends; end at once if it already has.

    Args:
        parent: process id that must be this process's parent.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if os.getppid() != parent:  # it ended before the call above could notice
        os._exit(1)


def offer_to_oom_killer() -> None:
    """Let the kernel, short of memory, end this process before the driver."""
    path = Path("/proc/self/oom_score_adj")
    if path.exists():
        path.write_text(str(OOM_SCORE))


@contextmanager
def large_files() -> Iterator[None]:
    """Let the block write files as large as this process may; what a case prints stays bounded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def hold_lock(path: str) -> int:
    """Share the run's lock for the rest of this process's life.

    Returns:
        The open file descriptor; a program that this process executes does not inherit it.

    Raises:
        RuntimeError: if another driver holds the lock exclusively.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RuntimeError(f"lock: another run holds {Path(path).name}") from None
    return descriptor


def status_bytes(key: str) -> int:
    """Return a memory field of ``/proc/self/status``, e.g. ``VmRSS``, in bytes.

    Raises:
        RuntimeError: on a system that does not have it.
    """
    try:
        text = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        raise RuntimeError("/proc/self/status: memory is measured on Linux only") from None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/self/status: no field {key}")


@contextmanager
def memory_limit(extra: int | None) -> Iterator[None]:
    """Let this process allocate at most `extra` bytes more; beyond, an allocation fails cleanly.

    The limit is on private writable memory, as mapped, not as touched. ``None`` means no limit.
    """
    if extra is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = status_bytes("VmData") + extra
    if before[1] != resource.RLIM_INFINITY:
        wanted = min(wanted, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def seconds_left() -> float:
    """Return the seconds until the `deadline` around this call is over; infinity without one."""
    return signal.getitimer(signal.ITIMER_REAL)[0] or math.inf


@contextmanager
def deadline(seconds: float, *, grace: float = GRACE_S) -> Iterator[None]:
    """Raise `TimeLimitError` in the block when `seconds` have passed; main thread only.

    Python runs a signal's handler between two of its own instructions, which one long tensor
    operation delays. So a second guard ends the process by `OVERDUE_SIGNAL` when the block is
    still running `grace` seconds later.
    """
    over, outer = False, (0.0, 0.0)

    def expire(_signal: int, _frame: FrameType | None) -> None:
        if not over:
            raise TimeLimitError(f"exceeded the time limit of {seconds:g} s")

    guard = threading.Timer(seconds + grace, os.kill, (os.getpid(), OVERDUE_SIGNAL))
    guard.daemon = True
    previous = signal.signal(signal.SIGALRM, expire)
    try:
        guard.start()
        # Again every second: an exception raised inside a finaliser is lost.
        outer = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        guard.cancel()
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *outer)
