"""What changed between two runs: a ratio per case, and a verdict that holds over the whole table.

Two finished runs are judged by the variance between their launches, and by how far the machine
itself moved between them, where the sentinel tells. Few launches on a noisy machine leave most
cases inconclusive, as they should; pairs of launches taken side by side decide those
(`results.comparison.confirmation`).

A case is worse where no change is ruled out, over the whole table, and the best estimate is beyond
the threshold; it has not changed where its whole interval is within the threshold. A backend's
cases are judged as one beside that (`results.comparison.backend_changes`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from statistics import fmean
from typing import NamedTuple

import numpy as np

from results.analysis.selection import Selection, chosen
from results.comparison.backend_changes import (
    BackendChange,
    Member,
    backend_changes,
    counted,
    where_nothing_changed,
)
from results.comparison.pairing import (
    IncomparableError,
    Known,
    Pairing,
    Place,
    Side,
    differences,
    named,
    ours,
    sides,
)
from results.comparison.verdicts import (
    FALSE_DISCOVERIES,
    REGRESSIONS,
    THRESHOLD,
    Verdict,
    verdict_of,
)
from results.metrics import COMPARED, METRICS
from results.records.load import Run, machine_names
from results.schema import Status
from results.statistics.inference import (
    MIN_CASES,
    MOST_DF,
    Difference,
    adjusted,
    apart,
    beyond_launches,
    scatters,
)
from results.statistics.intervals import ONE_LAUNCH, Estimate
from results.text.labels import name_of

BROKEN: tuple[Status, ...] = ("failed", "crashed", "out_of_memory")
"""Ends of a launch that count against a case that ran before."""

LAYOUTS = 5
"""Launches from which on two runs are judged where memory's layout may decide (`may_fault`)."""

LAYOUT_FACTOR = 2.5
"""So much may lie between two layouts: a larger change is judged from fewer launches too. Of
processes with equal code one may give freed memory back to the system after each call, and fault
its pages in anew, and the next may not; three launches all have the same fortune now and then."""

_NONE = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Change:
    """One case in both runs.

    Attributes:
        machine: on which it is in the new run.
        case_id: of the case.
        arm: place of the contestant in the case.
        name: backend, options, mode and length, and the setting where it differs in the table.
        base, new: what was measured.
        ratio: new over base with its 95 % interval; above 1 is worse.
        p: of so large a difference where there is none, adjusted for the number of cases; NaN
            where it was not tested.
        verdict: see the module.
        reason: why there is no verdict, or what it rests on.
        pairs: pairs of launches taken side by side that it rests on; 0 = the two runs alone.
        resolution: a difference up to this is none, in the metric's unit.
        backend: with its options.
        mode: of the case.
        threshold: the fraction from which on a change of this case matters.
        smallest: the smallest change that could have been seen, as a ratio; NaN = none.
    """

    machine: str
    case_id: str
    arm: int
    name: str
    base: Side
    new: Side
    ratio: Estimate = _NONE
    p: float = math.nan
    verdict: Verdict = "inconclusive"
    reason: str = ""
    pairs: int = 0
    resolution: float = 0.0
    backend: str = ""
    mode: str = ""
    threshold: float = THRESHOLD
    smallest: float = math.nan

    @property
    def key(self) -> Place:
        """Machine, case and arm."""
        return self.machine, self.case_id, self.arm

    @property
    def is_regression(self) -> bool:
        """Whether this case alone makes the comparison fail."""
        return self.verdict in REGRESSIONS

    @property
    def may_be_worse(self) -> bool:
        """Whether it is worse, or not shown not to be."""
        if self.new.launches and self.new.reason and not self.base.reason:
            return True  # some launches of the new run alone did not end well
        if self.verdict != "inconclusive":
            return self.is_regression
        return bool(self.base.launches) and not self.ratio.high < 1 + self.threshold


@dataclass(frozen=True)
class Comparison:
    """Two runs, case by case.

    Attributes:
        metric: what is compared.
        threshold: the fraction from which on a change matters.
        changes: the cases that both runs hold, in the order of the new one.
        backends: what changed in whole backends, over their cases.
        thresholds: of single backends, in place of `threshold`.
        differences: what differs between the runs: a name, the old value, the new one.
        notes: what was left out, and what to keep in mind, one sentence each.
    """

    metric: str
    threshold: float
    changes: tuple[Change, ...]
    differences: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    backends: tuple[BackendChange, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def regressions(self) -> list[Change]:
        """The cases that make the comparison fail."""
        return [change for change in self.changes if change.is_regression]

    @property
    def worse_backends(self) -> list[BackendChange]:
        """The backends that make the comparison fail."""
        return [change for change in self.backends if change.is_regression]

    @property
    def is_regression(self) -> bool:
        """Whether a case or a backend became worse."""
        return bool(self.regressions or self.worse_backends)

    @property
    def undecided(self) -> list[Change]:
        """The cases without a verdict that may have become worse."""
        return [change for change in self.suspects if change.verdict == "inconclusive"]

    @property
    def suspects(self) -> list[Change]:
        """The cases that may have become worse: all but those shown not to have."""
        return [change for change in self.changes if change.may_be_worse]

    def word(self, verdict: Verdict) -> str:
        """Return what a verdict is called."""
        compared = METRICS[self.metric]
        return {"worse": compared.worse, "better": compared.better}.get(verdict, verdict)

    def count(self, verdict: Verdict) -> int:
        """Return how many cases have a verdict."""
        return sum(change.verdict == verdict for change in self.changes)


def compare(
    base: Run,
    new: Run,
    *,
    metric: str = "latency",
    threshold: float = THRESHOLD,
    thresholds: Mapping[str, float] | None = None,
    only: Selection | None = None,
) -> Comparison:
    """Compare the cases that two runs share.

    Of a case the arms of ours are compared: not the floor, not a peer, which no commit changes.

    Args:
        base: what it was.
        new: what it is.
        metric: one of `results.metrics.COMPARED`.
        threshold: the fraction from which on a change matters.
        thresholds: of single backends in its place, by name or by name and options.
        only: the cases that are judged; the others still tell what two runs differ by.

    Raises:
        IncomparableError: if the runs were measured by different versions of the measuring code,
            share no case, or one of them holds a machine in several environments.
        ValueError: if `metric` or a threshold is not accepted, or `only` leaves no case.
    """
    if metric not in COMPARED:
        raise ValueError(f"metric: expected one of {', '.join(COMPARED)}, got {metric!r}")
    thresholds = dict(thresholds or {})
    for value in (threshold, *thresholds.values()):
        if not 0 < value < 10:
            raise ValueError(f"threshold: expected a fraction between 0 and 10, got {value!r}")
    pairing = Pairing(base, new)
    before, after = sides(base, metric, "BASE"), sides(new, metric, "NEW")
    known = named(new)
    where = machine_names(new)
    found: dict[Place, _Pair] = {}
    for (machine, case_id, arm), side in after.items():
        place = (pairing.machines.get(machine, ""), case_id, arm)
        if place in before:
            case = known[case_id, arm]
            floor = METRICS[metric].resolution if case.device == "cpu" else 0.0
            name = f"{where[machine]}: {case.name}" if len(where) > 1 else case.name
            change = Change(
                machine, case_id, arm, name, before[place], side, resolution=floor,
                backend=case.backend, mode=case.mode,
            )  # fmt: skip
            found[place] = _Pair(change, case, pairing.shift(machine))
    if not found:
        raise IncomparableError(
            f"NEW: it shares no case with {metric.replace('_', ' ')} with BASE; expected runs of "
            "equal cases"
        )
    measured = [p for p in found.values() if p.change.base.launches or p.change.new.launches]
    if not measured:
        raise IncomparableError(
            f"metric: none of the {counted(len(found))} in both runs has "
            f"{metric.replace('_', ' ')}"
        )
    notes = [
        *_alone(before, after, len(found), len(measured), metric), *pairing.notes(threshold),
    ]  # fmt: skip
    limit = _limits(threshold, thresholds, [case.backend for case in known.values()])
    kept = _chosen(measured, new, only)
    if left := len(measured) - sum(kept):
        notes.append(f"{counted(left)} not chosen by --only: not judged")
    changes, members = _tested(measured, kept, limit)
    judged = [
        _doubted(change, pair.case, len(measured)) if metric == "latency" else change
        for change, pair in zip(
            judge(changes, FALSE_DISCOVERIES), compress(measured, kept), strict=True
        )
    ]
    backends = backend_changes(
        members, sentinels=pairing.sentinels, threshold=limit, moves=metric == "latency"
    )
    backends = where_nothing_changed(
        backends, [(c.machine, c.backend, c.mode, c.verdict) for c in judged]
    )
    if len(where) > 1:
        backends = [replace(b, name=f"{where[b.machine]}: {b.name}") for b in backends]
    return Comparison(
        metric, threshold, tuple(judged), differences(base, new), tuple(notes), tuple(backends),
        thresholds,
    )  # fmt: skip


class _Pair(NamedTuple):
    """A case in both runs, before it is judged, and by how much its machine moved between them."""

    change: Change
    case: Known
    shift: float | None


def _limits(
    threshold: float, thresholds: Mapping[str, float], backends: Collection[str]
) -> Callable[[str], float]:
    """Return the threshold of each backend: its own, that of its name, or the common one."""
    names = {*backends, *map(name_of, backends)}
    if unknown := [name for name in thresholds if name not in names]:
        raise ValueError(
            f"threshold: no case of NEW is of {unknown[0]}; there are "
            f"{', '.join(dict.fromkeys(backends))}"
        )
    return lambda backend: thresholds.get(backend, thresholds.get(name_of(backend), threshold))


def _chosen(pairs: Sequence[_Pair], new: Run, only: Selection | None) -> list[bool]:
    """Return which of the cases are judged."""
    if not only:
        return [True] * len(pairs)
    rows = ours(new).drop_duplicates(["machine", "case_id", "arm"])
    rows = rows.set_index(["machine", "case_id", "arm"]).loc[[p.change.key for p in pairs]]
    try:
        return list(map(bool, chosen(rows, only)))
    except ValueError as error:
        raise ValueError(f"only: {error}") from None


def _doubted(change: Change, case: Known, cases: int) -> Change:
    """Return a change without a verdict where more than its launches is needed for one.

    Layouts of memory alone may account for it, or there are too few cases to tell what two runs
    differ by beyond their launches.
    """
    launches = min(len(change.base.launches), len(change.new.launches))
    if case.may_fault and launches < LAYOUTS:
        reason = f"{launches} launches may share a layout of memory: {LAYOUTS} tell, or --confirm"
    elif cases < MIN_CASES:
        reason = (
            f"{counted(cases)} do not tell what two runs differ by: {MIN_CASES} do, or --confirm"
        )
    else:
        return change
    change = replace(change, smallest=max(change.smallest, LAYOUT_FACTOR))
    if change.verdict not in ("worse", "better"):
        return change
    if not 1 / LAYOUT_FACTOR < change.ratio.value < LAYOUT_FACTOR:
        return change
    return replace(change, verdict="inconclusive", reason=reason)


def _tested(
    pairs: Sequence[_Pair], kept: Sequence[bool], limit: Callable[[str], float]
) -> tuple[list[Change], list[Member]]:
    """Return the kept changes with ratio and p, or with the verdict that needs none.

    And what changed in each case, kept or not, by its launches alone.
    """
    changes = [
        replace(_without_a_test(pair), threshold=limit(pair.change.backend)) for pair in pairs
    ]
    places = [i for i, c in enumerate(changes) if c.verdict == "inconclusive" and not c.reason]
    cases = [(changes[i].base.launches, changes[i].new.launches) for i in places]
    found = scatters(cases)
    plain = [apart(*case, scatter) for case, scatter in zip(cases, found, strict=True)]
    beyond = beyond_launches(plain)
    common = float(np.median([d.centre for d in plain])) if len(plain) >= MIN_CASES else 0.0
    tests = sum(kept[i] for i in places)
    for i, case, scatter in zip(places, cases, found, strict=True):
        # Without a sentinel, what most cases have in common may be the machine's.
        shift = common if pairs[i].shift is None else pairs[i].shift
        difference = apart(*case, scatter, beyond=beyond, shift=shift or 0.0)
        smallest = difference.smallest_seen(FALSE_DISCOVERIES / max(1, tests))
        changes[i] = replace(
            changes[i], ratio=difference.ratio, p=difference.p,
            smallest=max(1 + changes[i].threshold, smallest),
        )  # fmt: skip
    known = dict(zip(places, plain, strict=True)) | _unresolved(changes)
    members = [
        Member(c.machine, c.backend, c.mode, known[i], kept[i])
        for i, c in enumerate(changes) if i in known
    ]  # fmt: skip
    return list(compress(changes, kept)), members


def _unresolved(changes: Sequence[Change]) -> dict[int, Difference]:
    """Return what changed where a difference is below the resolution: a backend has those too."""
    found = {}
    for i, change in enumerate(changes):
        if change.verdict != "no change":
            continue
        before, after = fmean(change.base.launches), fmean(change.new.launches)
        if min(before, after) > 0:
            error = change.resolution / min(before, after)
            found[i] = Difference(math.log(after / before), error, MOST_DF)
    return found


def _alone(
    before: Mapping[Place, Side],
    after: Mapping[Place, Side],
    shared: int,
    measured: int,
    metric: str,
) -> Iterator[str]:
    for name, held in (("BASE", before), ("NEW", after)):
        if left := len(held) - shared:
            yield f"{counted(left)} of {name} alone: not compared"
    if left := shared - measured:
        yield f"{counted(left)} without {metric.replace('_', ' ')} in either run: not compared"


def _without_a_test(pair: _Pair) -> Change:
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
    told = {"base": base, "new": new}
    missing = [f"{name}: {s.status} ({s.reason})" for name, s in told.items() if not s.launches]
    return replace(change, reason="; ".join(missing))


def judge(found: Sequence[Change], false_discoveries: float) -> list[Change]:
    """Return the changes with verdicts that hold over all of them.

    Args:
        found: with `p` not yet adjusted; one that has a verdict already keeps it.
        false_discoveries: the share of false ones among those that are claimed.
    """
    return [
        change if change.verdict != "inconclusive" else
        replace(
            change, p=q, verdict=verdict_of(change.ratio, q <= false_discoveries, change.threshold)
        )
        for change, q in zip(found, adjusted([change.p for change in found]), strict=True)
    ]  # fmt: skip
