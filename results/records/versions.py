"""Which version of attnbench measured a record, where one case has launches of several.

Launches of a case are pooled; those of two commits are not, since what differs between them may be
the code. Where a run holds such cases, its records are of several *versions*, and a version
belongs to a setting as the machine does: nothing of two stands in one value or one ratio.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from results.text import numbers
from results.text.clean import clean

_SHORT = 8
"""Digits of a commit."""

Source = tuple[str, str]
"""A commit, and the run where the commit does not say which code it was."""


@dataclass
class _Side:
    """Sources of which no two measured the same case."""

    sources: list[Source] = field(default_factory=list)
    cases: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        commits = sorted({_short(commit) for commit, run in self.sources if not run})
        runs = sorted(
            f"run {run[:60]}{f' of {_short(commit)}' if commit else ''}"
            for commit, run in self.sources if run
        )  # fmt: skip
        word = [f"commit{'s'[: len(commits) != 1]} {numbers.few(commits)}"] if commits else []
        return numbers.few([*word, *runs])


def versions(
    records: Sequence[Mapping[str, Any]], compared: Sequence[Collection[str]]
) -> list[str]:
    """Return the version of each record in words; "" where each case has one alone.

    Within a machine, an environment and kinds that are compared, commits that have no case in
    common are of one version: the first commit of a case that another has measured before begins
    the next. Of a commit with changes (``+dirty``), or none, each run counts as one of its own.

    Args:
        records: as `runs.load` keeps them.
        compared: groups of kinds; a record of no such kind (roofs, sentinels) has no version.
    """
    groups: dict[tuple[Any, ...], dict[Source, set[str]]] = {}
    first: dict[tuple[Any, ...], str] = {}
    places = [_place(record, compared) for record in records]
    for record, place in zip(records, places, strict=True):
        if place is not None:
            group, source = place
            groups.setdefault(group, {}).setdefault(source, set()).add(record["case"]["id"])
            started = str(record["launch"].get("started") or "")
            first[place] = min(started, first.get(place, started))
    names: dict[tuple[Any, ...], str] = {}
    for group, sources in groups.items():
        sides: list[_Side] = []
        for source in sorted(sources, key=lambda s: (first[group, s], s)):
            cases = sources[source]
            side = next((s for s in sides if not s.cases & cases), None)
            if side is None:
                side = _Side()
                sides.append(side)
            side.sources.append(source)
            side.cases |= cases
        if len(sides) > 1:
            names |= {(group, source): side.name for side in sides for source in side.sources}
    return [names.get(place, "") if place is not None else "" for place in places]


def one_version(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a tidy frame that are of one version, the most frequent of each place."""
    if frame.empty:
        return frame
    most = frame.groupby(["machine", "environment"])["version"].transform(
        lambda v: v.mode().iloc[0]
    )
    return frame[frame["version"] == most]


def _place(
    record: Mapping[str, Any], compared: Sequence[Collection[str]]
) -> tuple[tuple[Any, ...], Source] | None:
    kind = record["case"]["kind"]
    index = next((i for i, kinds in enumerate(compared) if kind in kinds), None)
    if index is None:
        return None
    commit = clean(record.get("commit") or "")
    is_known = commit and not commit.endswith("+dirty")
    source = commit, "" if is_known else clean(record["run"])
    return (record["machine"], record["environment"], index), source


def _short(commit: str) -> str:
    base, plus, rest = commit.partition("+")
    return f"{base[:_SHORT]}{plus}{rest}"
