"""The verdict of each case, by its launches in both runs.

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
from typing import NamedTuple

import numpy as np

from results.comparison.backend_changes import Member
from results.comparison.changes import Change
from results.comparison.pairing import Known
from results.comparison.verdicts import FALSE_DISCOVERIES, verdict_of
from results.schema import Status
from results.statistics.inference import Difference, adjusted, apart, beyond_launches
from results.statistics.intervals import ONE_LAUNCH, Estimate
from results.statistics.scatter import MIN_CASES, MOST_DF, scatters

BROKEN: tuple[Status, ...] = ("failed", "crashed", "out_of_memory")
"""Ends of a launch that count against a case that ran before."""


class Pair(NamedTuple):
    """A case in both runs, before it is judged, and by how much its machine moved between them."""

    change: Change
    case: Known
    shift: float | None


def tested(
    pairs: Sequence[Pair], is_judged: Sequence[bool], limit: Callable[[str], float]
) -> tuple[list[Change], list[Member]]:
    """Return the judged changes with ratio and p, or with the verdict that needs none.

    And what changed in each case, judged or not, by its launches alone.
    """
    changes = [
        replace(_without_a_test(pair), threshold=limit(pair.change.backend)) for pair in pairs
    ]
    places = [i for i, c in enumerate(changes) if c.verdict == "inconclusive" and not c.reason]
    cases = [(changes[i].base.launches, changes[i].new.launches) for i in places]
    scatter_of = scatters(cases)
    plain = [apart(*case, scatter) for case, scatter in zip(cases, scatter_of, strict=True)]
    beyond = beyond_launches(plain)
    common = float(np.median([d.centre for d in plain])) if len(plain) >= MIN_CASES else 0.0
    tests = sum(is_judged[i] for i in places)
    for i, case, scatter in zip(places, cases, scatter_of, strict=True):
        # Without a sentinel, what most cases have in common may be the machine's.
        shift = common if pairs[i].shift is None else pairs[i].shift
        difference = apart(*case, scatter, beyond=beyond, shift=shift or 0.0)
        smallest = difference.smallest_seen(FALSE_DISCOVERIES / max(1, tests))
        changes[i] = replace(
            changes[i], ratio=difference.ratio, p=difference.p,
            smallest=max(1 + changes[i].threshold, smallest),
        )  # fmt: skip
    differences = dict(zip(places, plain, strict=True)) | _unresolved(changes)
    members = [
        Member(c.machine, c.backend, c.mode, differences[i], is_judged[i])
        for i, c in enumerate(changes) if i in differences
    ]  # fmt: skip
    return list(compress(changes, is_judged)), members


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
        reason = "apart by less than a peak on a CPU is known to"
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
