"""Which processors this program may use, and how OpenMP is told to place its threads. No torch.

OpenMP binds the thread that loads it where ``OMP_PROC_BIND`` or its like is set: from the import
of torch on, that thread's affinity is the one processor of its place, not what the process has.
So it is read here, which the command imports before torch, and a case asks for its driver's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

DRIVER_VARIABLE = "ATTNBENCH_DRIVER_PID"
"""Names the driver's process to its children, which end with it."""

PLACING = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PLACES", "OMP_PROC_BIND")
"""Environment variables by which OpenMP binds threads to processors."""

PLAIN = re.compile(r"[\w,:;{}()!*+. -]{1,80}", re.ASCII)
"""What they may hold; anything else is told as ``set``, since it may name a user."""


def _bound_to() -> frozenset[int]:
    if not hasattr(os, "sched_getaffinity"):
        return frozenset(range(os.cpu_count() or 1))
    return frozenset(os.sched_getaffinity(0))


_AT_IMPORT = _bound_to()


def usable() -> frozenset[int]:
    """Return the numbers of the processors that this process, or its driver, may use."""
    driver = os.environ.get(DRIVER_VARIABLE, "")
    if driver.isdecimal() and hasattr(os, "sched_getaffinity"):
        try:
            return frozenset(os.sched_getaffinity(int(driver)))
        except OSError:  # it has ended
            pass
    return _AT_IMPORT


def placing(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return how OpenMP binds its threads, as ``OMP_PROC_BIND=close``; ``None`` if not told."""
    settings = {name: environ[name].strip() for name in PLACING if environ.get(name)}
    shown = (f"{n}={value if PLAIN.fullmatch(value) else 'set'}" for n, value in settings.items())
    return " ".join(shown) or None
