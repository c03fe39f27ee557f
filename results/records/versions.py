"""Which version of attnbench measured a record, and which may stand beside one another.

Launches of a case are pooled; those of two commits are not, since what differs between them may be
the code. Where a run holds such cases, its records are of several *versions*, and a version
belongs to a setting as the machine does: nothing of two stands in one value or one ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from results.schema import MEASUREMENT, SENTINEL, TRAINING_KINDS
from results.text import numbers
from results.text.clean import clean

_SHORT = 8
"""Digits of a commit."""

_SIDE_BY_SIDE: tuple[tuple[str, ...], ...] = (("speed", "peer"), TRAINING_KINDS)
_OF_A_RUN = ("roof", SENTINEL)


def compared(kind: str) -> tuple[str, ...]:
    """Return the kinds whose numbers stand beside those of a kind, itself among them.

    There is none of a kind that tells of a whole run: its machine's roofs and its sentinel.
    """
    if kind in _OF_A_RUN:
        return ()
    return next((kinds for kinds in _SIDE_BY_SIDE if kind in kinds), (kind,))


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


def versions(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the version of each record in words; "" where each case has one alone.

    Within a machine, an environment and kinds that are compared, commits that have no case in
    common are of one version: the first commit of a case that another has measured before begins
    the next. Of a commit with changes (``+dirty``), or none, each run counts as one of its own.

    Args:
        records: as `load` keeps them. One that tells of a whole run has no version.
    """
    groups: dict[tuple[Any, ...], dict[Source, set[str]]] = {}
    first: dict[tuple[Any, ...], str] = {}
    places = [_place(record) for record in records]
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


def _place(record: Mapping[str, Any]) -> tuple[tuple[Any, ...], Source] | None:
    kinds = compared(record["case"]["kind"])
    if not kinds:
        return None
    commit = clean(record.get("commit") or "")
    is_known = commit and not commit.endswith("+dirty")
    source = commit, "" if is_known else clean(record["run"])
    return (record["machine"], record["environment"], kinds), source


def _short(commit: str) -> str:
    base, plus, rest = commit.partition("+")
    return f"{base[:_SHORT]}{plus}{rest}"


def one_measurement(records: list[dict[str, Any]], warnings: list[str]) -> list[dict[str, Any]]:
    """Keep one version of the measuring code, the newest known: numbers of two do not compare.

    What is never compared with one another, seconds with errors or accuracies, may be of two. A
    version newer than this one is taken only where there is no other. What tells of a whole run,
    its machine's roofs and its sentinel, goes only where all else of the run goes.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(compared(record["case"]["kind"]), []).append(record)
    of_runs = groups.pop((), [])
    newest = [r for kinds, some in groups.items() for r in _newest(some, kinds, warnings)]
    stay = {r["run"] for r in newest}
    gone = {r["run"] for some in groups.values() for r in some} - stay
    others = [r for r in of_runs if r["run"] not in gone]
    newest += others if stay else _newest(others, (), warnings)
    ids = {id(r) for r in newest}
    return [r for r in records if id(r) in ids]


def _newest(
    records: list[dict[str, Any]], kinds: Sequence[str], warnings: list[str]
) -> list[dict[str, Any]]:
    """Return the records of the newest known version; say which are left out."""
    if not records:
        return []
    there = {r["measurement"] for r in records}
    newest = max((m for m in there if m <= MEASUREMENT), default=max(there))
    of = f" ({', '.join(kinds)})" if kinds else ""
    for other, word in (
        ([r for r in records if r["measurement"] < newest], "an older"),
        ([r for r in records if r["measurement"] > newest], "a newer"),
    ):
        if left := len(other):
            warnings.append(
                f"{left} result{'s'[: left != 1]} of {word} version of the measuring code "
                f"left out{of}: not comparable with version {newest}"
            )
    return [r for r in records if r["measurement"] == newest]
