"""Memory that is free for a case, asked of the system without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from results.schema import Case

MEMORY_SHARE = 0.9
"""Of the free memory, what a case may have: the rest is for the driver and the system."""

CGROUP = Path("/sys/fs/cgroup")


def free_memory(cgroup: Path = CGROUP) -> int:
    """Return the bytes that a new process may fill without swapping.

    The system's estimate, or less where the control group of this process (a container's) has a
    limit: then what the limit leaves, counting the group's page cache as free.
    """
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no control groups, or no limit
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free = min(free, max(0, limit - used + int(stat.get("inactive_file", 0))))
    return free


def total_memory(cgroup: Path = CGROUP) -> int:
    """Return the bytes of the machine, or of the control group's limit if that is less."""
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):  # no control groups, or no limit
        total = min(total, int((cgroup / "memory.max").read_text()))
    return total


def memory_for_case(case: Case, machine: Mapping[str, Any]) -> int | None:
    """Return the bytes a case may have on its device: a share of what is free there."""
    if case.device == "cuda":
        total = machine.get("gpu_memory_bytes")
        return None if total is None else int(MEMORY_SHARE * total)
    return int(MEMORY_SHARE * free_memory())
