"""Hear what a case that takes long says of itself, while the driver waits for its answer.

The case writes a line into a file now and then (`suites.training.prepare.Teller`); a thread looks
at it. What is not read is lost, and costs nothing: it is for people who watch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

LOOK_S = 1.0
LONGEST = 500


class Hearing:
    """Looks at a file for as long as the block lasts; a context manager.

    Args:
        path: the file; it need not be there, ever.
        tell: called with each new line, from another thread.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = path, tell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._seen = self._read()  # what an earlier case said is not this one's

    def __enter__(self) -> Hearing:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._over.wait(LOOK_S):
            said = self._read()
            if said and said != self._seen:
                self._seen = said
                self._tell(said.splitlines()[-1])

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                return file.read(LONGEST).decode("utf-8", "replace")
        except OSError:
            return ""
