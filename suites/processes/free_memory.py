"""Memory that is free for a case, asked of the system without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.schema import Case

MEMORY_SHARE = 0.9
"""Of the free memory, what a case may have: the rest is for the driver and the system."""


def free_memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the bytes that a new process may fill without swapping; ``None`` if not told.

    The kernel's estimate, or less where the control group of this process (a container's) has a
    limit: then what the limit leaves, counting the group's page cache as free.
    """
    found: list[int] = []
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            used = int((cgroup / "memory.current").read_text())
            stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
            found.append(max(0, int(limit) - used + int(stat.get("inactive_file", 0))))
    except OSError:  # no control groups, or another version of them
        pass
    return min(found) if found else None


def total_memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the bytes of the machine, or of the control group's limit; ``None`` if not told."""
    found: list[int] = []
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemTotal:"):
                found.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # no control groups, or no limit
        found.append(int((cgroup / "memory.max").read_text()))
    return min(found) if found else None


def memory_for_case(case: Case, machine: Mapping[str, Any]) -> int | None:
    """Return the bytes a case may have on its device: a share of what is free there."""
    if case.device == "cuda":
        total = machine.get("gpu_memory_bytes")
        return None if total is None else int(MEMORY_SHARE * total)
    free = free_memory()
    return None if free is None else int(MEMORY_SHARE * free)
