"""A thread that looks at something again and again while a block runs."""

from __future__ import annotations

import threading
from typing import Self


class Watcher:
    """Looks every so many seconds, from another thread; a context manager.

    Args:
        every_s: seconds between two looks.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def look(self) -> None:
        """Look once."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no more; a look that is going on is waited for, a pause is not."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            self.look()
