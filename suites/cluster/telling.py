"""What is told of a sweep over several machines: by one thread at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from suites.engine.driver import Progress
from suites.engine.session import Session
from suites.plan import Item
from suites.terminal.standing import Standing, joined

ESTIMATE_SHARE = 50
"""The time left is estimated anew after so many times the seconds that the last estimate took."""
ESTIMATED = 500
"""Launches, about, from which the time of all that are left is estimated."""


class ClusterProgress(Progress, Protocol):
    """Told what a sweep over a cluster is doing, by one thread at a time."""

    def note(self, text: str) -> None:
        """Take note of what happened to a machine."""

    def more(self, count: int) -> None:
        """Take note of launches that were not counted at the beginning."""


class Telling:
    """Tells of a sweep, whichever machine's thread has something to tell.

    Args:
        progress: told what happens.

    Attributes:
        statuses: of the launches that ended, how many ended how.
    """

    def __init__(self, progress: ClusterProgress) -> None:
        self._progress = progress
        self._lock = threading.RLock()
        self._has_begun = False
        self._early_notes: list[str] = []
        self._standings: dict[str, Standing] = {}
        self._estimate: tuple[float, float | None, float] = (0.0, None, 0.0)
        self.statuses: Counter[str] = Counter()

    def begin(self, folder: Path, total: int, done: int, notices: Sequence[str]) -> None:
        """Tell of what is there and what is to come, and then what was noted before."""
        with self._lock:
            self._progress.begin(folder, total, done, notices)
            self._has_begun = True
            for text in self._early_notes:
                self._progress.note(text)

    def note(self, text: str) -> None:
        """Tell what happened to a machine."""
        with self._lock:
            if self._has_begun:
                self._progress.note(text)
            else:
                self._early_notes.append(text)

    def more(self, count: int) -> None:
        """Tell of launches that were not counted at the beginning."""
        with self._lock:
            self._progress.more(count)

    def planned(self, machine: str, count: int, standing: Standing) -> None:
        """Tell of launches that a machine chose, and how far the questions of all are answered."""
        with self._lock:
            self._standings[machine] = standing
            whole = joined(self._standings.values())
            self._progress.planned(count, whole, whole.remaining_s)

    @property
    def standing(self) -> Standing | None:
        """How far the questions of all machines are answered; ``None`` = none was asked."""
        with self._lock:
            return joined(self._standings.values()) if self._standings else None

    def starting(self, item: Item) -> None:
        """Tell of a launch that begins."""
        with self._lock:
            self._progress.starting(item)

    def finished(
        self,
        record: Mapping[str, Any],
        session: Session,
        left: Callable[[], Sequence[Item]],
        machines: int,
    ) -> None:
        """Tell how a launch ended, and of the time left.

        Args:
            record: of the launch.
            session: whose history estimates the time.
            left: returns what is to come.
            machines: that share it.
        """
        with self._lock:
            self.statuses[record["status"]] += 1
            self._progress.finished(record, self._remaining(session, left, machines))

    def _remaining(
        self, session: Session, left: Callable[[], Sequence[Item]], machines: int
    ) -> float | None:
        """Estimate the seconds that are left; seldom, where there are many launches."""
        at, estimate, cost = self._estimate
        now = time.monotonic()
        if now - at < ESTIMATE_SHARE * cost:
            return None if estimate is None else max(0.0, estimate - (now - at))
        items = left()
        some = items[:: len(items) // ESTIMATED + 1]  # all would keep every machine waiting
        part = session.remaining(some)
        share = len(items) / max(1, len(some)) / max(1, machines)
        estimate = None if part is None else part * share
        self._estimate = (now, estimate, time.monotonic() - now)
        return estimate
