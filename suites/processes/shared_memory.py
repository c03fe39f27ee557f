"""What a case left behind in shared memory: removed where it is surely its own, else named.

NCCL makes segments (kind context on GPUs), and so may a plug-in, by torch or multiprocessing; the
managers that would remove them are killed with the case. What stays takes memory from all others.

``/dev/shm`` belongs to all programs of a user, in other containers too. So a segment is removed
only if a process of the case was seen with it or is named in its name, and only if nobody uses it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

SHARED = Path("/dev/shm")

TORCH_SEGMENT = re.compile(r"torch_(\d+)_")
"""torch's name of a segment: the process that made it, and a random number."""


class SharedMemoryJanitor:
    """The segments that appear while a case runs. Make one before the case starts."""

    def __init__(self, folder: Path = SHARED) -> None:
        self._folder = folder
        self._before = set(self._own())
        self._seen: set[str] = set()
        self._makers: set[int] = set()

    def meet(self, root: int, *, itself: bool) -> None:
        """Take note of the processes that descend from `root`, and of `root` if it is a case."""
        if itself:
            self._makers.add(root)
        for pid in _children(root):
            self.meet(pid, itself=True)

    def note(self, pids: Iterable[int]) -> None:
        """Take note of the segments that the case's processes use, while they live."""
        self._seen |= {name for pid in pids for name in self._used_by(pid)}

    def clear(self) -> list[str]:
        """Remove the case's segments; return the names of those that may be another's."""
        fresh = set(self._own()) - self._before
        if not fresh:
            return []
        used = {name for pid in psutil.pids() for name in self._used_by(pid)}
        left = []
        for name in sorted(fresh - used):
            maker = TORCH_SEGMENT.match(name)
            if name in self._seen or (maker and int(maker[1]) in self._makers):
                with contextlib.suppress(OSError):
                    (self._folder / name).unlink()
            else:
                left.append(name)
        return left

    def _own(self) -> Iterator[str]:
        """Yield the names of the segments that belong to this user."""
        try:
            entries = list(os.scandir(self._folder))
        except OSError:  # a system without it
            return
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == os.getuid() and entry.is_file(follow_symlinks=False):
                    yield entry.name

    def _used_by(self, pid: int) -> Iterator[str]:
        """Yield the names of the segments that a process has open or mapped."""
        prefix = f"{self._folder}/"
        with contextlib.suppress(OSError):  # it ended, or is another user's
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                _, found, name = line.partition(prefix)
                if found:
                    yield name.removesuffix(" (deleted)")
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(entry.readlink())
                    if target.startswith(prefix):
                        yield target.removeprefix(prefix)


def _children(pid: int) -> list[int]:
    """Return the children of a process's main thread, cheaply; nothing where that is not told."""
    try:
        return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
