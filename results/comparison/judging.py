"""The verdict of each case, by its launches in both runs (`results.comparison.fitting`).

A case is worse where no change is ruled out, over the whole table, and the best estimate is beyond
the threshold; it has not changed where its whole interval is within the threshold. A backend's
cases are judged as one beside that (`results.comparison.backend_changes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from results.comparison.backend_changes import Member
from results.comparison.changes import Change
from results.comparison.fitting import Fitted, fit
from results.comparison.pairing import Known, Side
from results.comparison.verdicts import FALSE_DISCOVERIES, verdict_of
from results.schema import Status
from results.statistics.inference import Difference, adjusted, between_runs, beyond_launches
from results.statistics.intervals import ONE_LAUNCH, Estimate
from results.statistics.launches import Launches
from results.statistics.scatter import MIN_CASES, MOST_DF

BROKEN: tuple[Status, ...] = ("failed", "crashed", "out_of_memory")
"""Ends of a launch that count against a case that ran before."""


class Pair(NamedTuple):
    """A case in both runs, before it is judged.

    Attributes:
        change: what is measured of it.
        case: what it is.
        moved: by how much its machine changed between the runs, by the sentinel; None = unknown.
        is_alike: whether that is the machine's own change (`machine.is_alike`).
    """

    change: Change
    case: Known
    moved: Difference | None
    is_alike: bool


def tested(
    pairs: Sequence[Pair],
    is_judged: Sequence[bool],
    limit: Callable[[str], float],
    *,
    moves: bool,
) -> tuple[list[Change], list[Member]]:
    """Return the judged changes with ratio and p, or with the verdict that needs none.

    And what changed in each case, judged or not, by its launches alone.

    Args:
        pairs: the cases.
        is_judged: which of them are.
        limit: the fraction from which on a change matters, by backend.
        moves: whether the machine may have changed what is compared: times, not memory.
    """
    changes = [
        replace(_without_a_test(pair), threshold=limit(pair.change.backend)) for pair in pairs
    ]
    places = [i for i, c in enumerate(changes) if c.verdict == "inconclusive" and not c.reason]
    fitted = _fitted([pairs[i] for i in places])
    plain = [one.difference for one in fitted]
    beyond = beyond_launches(plain)
    common = float(np.median([d.centre for d in plain])) if len(plain) >= MIN_CASES else 0.0
    tests = sum(is_judged[i] for i in places)
    for i, one in zip(places, fitted, strict=True):
        moved = pairs[i].moved
        # Without a sentinel, what most cases have in common may be the machine's.
        left = common if moved is None else (1 - one.taken) * moved.centre
        difference = between_runs(one.difference, beyond, left if moves else 0.0)
        smallest = difference.smallest_seen(FALSE_DISCOVERIES / max(1, tests))
        changes[i] = replace(
            changes[i], ratio=difference.ratio, p=difference.p,
            smallest=max(1 + changes[i].threshold, smallest), cells=(one.base, one.new),
        )  # fmt: skip
    differences = dict(zip(places, plain, strict=True)) | _unresolved(changes)
    taken = {i: one.taken for i, one in zip(places, fitted, strict=True)}
    members = [
        Member(c.machine, c.backend, c.mode, differences[i], is_judged[i], taken.get(i, 0.0))
        for i, c in enumerate(changes) if i in differences
    ]  # fmt: skip
    return list(compress(changes, is_judged)), members


def _fitted(pairs: Sequence[Pair]) -> list[Fitted]:
    """Return the cases as the model sees them, in the same order."""
    settings: dict[tuple[Any, ...], dict[tuple[Any, ...], list[int]]] = {}
    for i, pair in enumerate(pairs):
        series = settings.setdefault((pair.change.machine, pair.case.setting), {})
        series.setdefault(pair.case.series, []).append(i)
    result: dict[int, Fitted] = {}
    for own in settings.values():
        launches = [
            [(_launches(pairs[i].change.base), _launches(pairs[i].change.new)) for i in places]
            for places in own.values()
        ]
        is_alike = all(pairs[i].is_alike for places in own.values() for i in places)
        for places, cases in zip(own.values(), fit(launches, is_alike=is_alike), strict=True):
            result.update(zip(places, cases, strict=True))
    return [result[i] for i in range(len(pairs))]


def _launches(side: Side) -> Launches:
    return Launches.of(side.launches, side.sentinels)


def _unresolved(changes: Sequence[Change]) -> dict[int, Difference]:
    """Return what changed where a difference is below the resolution: a backend has those too."""
    differences = {}
    for i, change in enumerate(changes):
        if change.verdict != "no change":
            continue
        before, after = fmean(change.base.launches), fmean(change.new.launches)
        if min(before, after) > 0:
            error = change.resolution / min(before, after)
            differences[i] = Difference(math.log(after / before), error, MOST_DF)
    return differences


def _without_a_test(pair: Pair) -> Change:
    """Return the change with the verdict that needs no statistics, or why there can be none."""
    change = pair.change
    before, after = change.base.launches, change.new.launches
    if not before or not after:
        return _ended(change)
    if (settled := unresolved(change, before, after)) is not None:
        return settled
    if min(len(before), len(after)) == 1:
        value = math.exp(fmean(map(math.log, after)) - fmean(map(math.log, before)))
        return replace(change, ratio=Estimate(value, math.nan, math.nan), reason=ONE_LAUNCH)
    return change


def unresolved(change: Change, before: Sequence[float], after: Sequence[float]) -> Change | None:
    """Return the change where its values have no ratio that says anything; else None."""
    if change.resolution and abs(fmean(after) - fmean(before)) <= change.resolution:
        reason = "differs by less than the resolution of peak memory on a CPU"
        return replace(change, verdict="no change", reason=reason)
    if min(*before, *after) <= 0:
        return replace(change, verdict="inconclusive", reason="a value of 0 has no ratio")
    return None


def _ended(change: Change) -> Change:
    """Return the verdict where one side measured nothing."""
    base, new = change.base, change.new
    if base.launches and new.status in BROKEN:
        return replace(change, verdict="fails", reason=f"{new.status}: {new.reason}")
    sides = {"base": base, "new": new}
    missing = [f"{name}: {s.status} ({s.reason})" for name, s in sides.items() if not s.launches]
    return replace(change, reason="; ".join(missing))


def judge(changes: Sequence[Change], false_discoveries: float) -> list[Change]:
    """Return the changes with verdicts that hold over all of them.

    Args:
        changes: with `p` not yet adjusted; one that has a verdict already keeps it.
        false_discoveries: the share of false ones among those that are claimed.
    """
    return [
        change if change.verdict != "inconclusive" else
        replace(
            change, p=q, verdict=verdict_of(change.ratio, q <= false_discoveries, change.threshold)
        )
        for change, q in zip(changes, adjusted([change.p for change in changes]), strict=True)
    ]  # fmt: skip
