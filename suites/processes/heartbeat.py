"""What a case that takes long says of itself while the driver waits for its answer.

The case writes a line into a file now and then; a thread of the driver looks at it. What is not
read is lost, and costs nothing: it is for people who watch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from suites.processes.watcher import Watcher

LOOK_S = 1.0
LONGEST = 500


class HeartbeatWriter:
    """Writes how a case goes into a file; older words are overwritten.

    Args:
        path: the file; ``None`` = nobody looks.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last = ""

    def __call__(self, line: str) -> None:
        """Write a line, unless it is the one that stands there."""
        if self._path is None or line == self._last:
            return
        self._last = line
        with contextlib.suppress(OSError):  # a full disk ends no training for a word on it
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".part")
            partial.write_text(f"{time.time():.0f}\n{line}\n")
            partial.replace(self._path)


class HeartbeatReader(Watcher):
    """Looks at the file of a `HeartbeatWriter` for as long as the block lasts.

    Args:
        path: the file; it need not be there, ever.
        tell: called with each new line, from another thread.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        super().__init__(LOOK_S)
        self._path, self._tell = path, tell
        self._last = self._read()  # what an earlier case wrote is not this one's

    def look(self) -> None:
        """Pass a new line on."""
        text = self._read()
        if text and text != self._last:
            self._last = text
            self._tell(text.splitlines()[-1])

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                return file.read(LONGEST).decode("utf-8", "replace")
        except OSError:
            return ""
