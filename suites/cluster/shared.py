"""What the threads of a cluster's machines write into together: one journal, a history a kind."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from results.schema import Case, content_id
from suites.engine.declared import Declared
from suites.engine.journal import Journal
from suites.engine.prediction import History
from suites.plan import Item


class SharedJournal:
    """A journal that the sessions of several machines write into, each record in its turn."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._order = len(journal.records)
        self._failed: Exception | None = None
        self.folder, self.run, self.records = journal.folder, journal.run, journal.records
        self.child_lock = journal.child_lock

    def append(self, record: dict[str, Any]) -> None:
        """Write a record, the next in the run's order."""
        with self._writing():
            record["launch"]["order"] = self._order
            self._journal.append(record)
            self._order += 1

    def add_machine(self, content: Mapping[str, Any]) -> str:
        """Describe a machine once and return its address."""
        with self._writing():
            return self._journal.add_machine(content)

    def add_environment(self, content: Mapping[str, Any]) -> str:
        """Describe an environment once and return its address."""
        with self._writing():
            return self._journal.add_environment(content)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Let one write at a time, and after one that failed none.

        A record behind half a line would be lost with it.

        Raises:
            OSError: of the first that failed.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed
            try:
                yield
            except Exception as error:
                self._failed = error
                raise


class SharedHistory(History):
    """What was seen on all machines of one kind."""

    def __init__(self, declared: Mapping[str, Declared]) -> None:
        super().__init__(declared)
        self._lock = threading.RLock()

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record into account."""
        with self._lock:
            super().add(record)

    def foretold(self, case: Case) -> dict[str, float | int | None]:
        """Return the record's ``launch.predicted``."""
        with self._lock:
            return super().foretold(case)

    def objection(self, case: Case, *, timeout_s: float, free_bytes: int | None) -> str | None:
        """Say why a case should not be started; ``None`` = start it."""
        with self._lock:
            return super().objection(case, timeout_s=timeout_s, free_bytes=free_bytes)

    def remaining(self, items: Sequence[Item], **limits: Any) -> float | None:
        """Estimate the seconds that `items` will take."""
        with self._lock:
            return super().remaining(items, **limits)


def machines_of_kind(file: Path, kind: str) -> set[str]:
    """Return the ids of the machines in a run's file that are described alike."""
    ids = set()
    for line in file.read_bytes().splitlines() if file.exists() else ():
        machine = json.loads(line)
        content = {key: value for key, value in machine.items() if key not in ("id", "node")}
        if content_id(content) == kind:
            ids.add(str(machine["id"]))
    return ids
