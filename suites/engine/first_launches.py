"""The first launches of cases: what they found out, the launches behind them are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suites.kind import FirstLaunch
from suites.plan import Item

ORIGIN = ("measurement", "machine", "environment", "commit")
"""Fields of a record that must be equal for it to be of the same version."""

MEMORY_LAUNCHES = 3
"""Launches of a case that measure its memory, which hardly differs between them."""


class FirstLaunches:
    """By case: the first launch that ended well, of one version on one machine.

    It is read from the records of the run alone, so that it is known when the run is resumed.

    Args:
        origin: of the launches to come.
    """

    def __init__(self, origin: Mapping[str, Any]) -> None:
        self._origin = origin
        self._firsts: dict[str, FirstLaunch] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record into account."""
        if all(record[name] == self._origin[name] for name in ORIGIN):
            first = FirstLaunch.of_record(record)
            if first is not None:
                self._firsts.setdefault(record["case"]["id"], first)

    def fields(self, item: Item) -> dict[str, Any]:
        """Return what a launch's request says of the case's first; nothing, if it is that."""
        if (first := self._firsts.get(item.case.id)) is None:
            return {}
        return {"first": first.to_json(), "with_memory": item.launch < MEMORY_LAUNCHES}
