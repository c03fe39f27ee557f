"""The memory guard: a case that takes the machine's last memory is ended before the kernel acts.

A case's own limit (RLIMIT_DATA) is on the private memory of one process. Shared memory, files in a
file system that lies in memory, and many children that each stay below it are not covered: so
while a case runs, the driver watches what is left.
"""

from __future__ import annotations

from collections.abc import Callable

from suites.processes.free_memory import MEMORY_SHARE, free_memory, total_memory
from suites.processes.watcher import Watcher

POLL_S = 0.2
"""Between two looks at the free memory; a look takes about 50 µs."""

RESERVE_SHARE, RESERVE_BYTES, RESERVE_MOST = 0.03, 256 << 20, 0.1
"""What is left for the driver and the system: this share of the memory or these bytes, whichever
is more, but not more than the second share."""


def reserve(total: int, free: int) -> int:
    """Return the bytes below which a case is ended.

    Args:
        total: memory of the machine, or of the control group.
        free: what is free before the case, of which its own limit lets it take `MEMORY_SHARE`:
            a case that keeps to that is never ended.
    """
    wanted = max(RESERVE_SHARE * total, min(RESERVE_BYTES, RESERVE_MOST * total))
    return int(min(wanted, (1 - MEMORY_SHARE) / 2 * free))


class MemoryGuard(Watcher):
    """While its block runs, kills when memory gets short; a context manager.

    Args:
        kill: ends the case; called again for as long as memory stays short.
        look: called at every look, too.

    Attributes:
        reason: what was found, once it has killed; else ``None``.
    """

    def __init__(self, kill: Callable[[], object], look: Callable[[], object]) -> None:
        super().__init__(POLL_S)
        self.reason: str | None = None
        self._kill, self._also = kill, look
        self._reserve = reserve(total_memory(), free_memory())

    def look(self) -> None:
        """Kill if too little memory is free."""
        self._also()
        if (free := free_memory()) >= self._reserve:
            return
        if self.reason is None:
            self.reason = (
                f"stopped to protect the machine's memory: {_size(free)} were left; "
                f"{_size(self._reserve)} are kept free"
            )
        self._kill()


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
