"""Compare two runs: pair their cases, judge each, and every backend over its cases.

Two finished runs are judged by the variance between their launches, and by how far the machine
itself moved between them, where the sentinel tells. Few launches on a noisy machine leave most
cases inconclusive, as they should; pairs of launches taken side by side decide those
(`results.comparison.confirmation`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress

from results.analysis.selection import Selection, chosen
from results.comparison.backend_changes import backend_changes, counted, where_nothing_changed
from results.comparison.changes import Change, Comparison
from results.comparison.judging import Pair, judge, tested
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
from results.comparison.verdicts import FALSE_DISCOVERIES, THRESHOLD
from results.metrics import COMPARED, METRICS
from results.records.load import Run, machine_names
from results.statistics.scatter import MIN_CASES
from results.text.labels import name_of

LAYOUTS = 5
"""Launches from which on two runs are judged where memory's layout may decide (`may_fault`).

It did before measurement 4: of processes with equal code one gave freed memory back to the system
after each call, and faulted its pages in anew, and the next did not, so that three launches all
had the same layout now and then. Since then each launch starts with a settled heap
(`suites.measure.heap_layout`), and the rule holds for older results only."""

LAYOUT_FACTOR = 2.5
"""So much may lie between two layouts: a larger change is judged from fewer launches too."""


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
    new_cases = named(new)
    where = machine_names(new)
    pairs: dict[Place, Pair] = {}
    for (machine, case_id, arm), side in after.items():
        place = (pairing.machines.get(machine, ""), case_id, arm)
        if place in before:
            case = new_cases[case_id, arm]
            floor = METRICS[metric].resolution if case.device == "cpu" else 0.0
            name = f"{where[machine]}: {case.name}" if len(where) > 1 else case.name
            change = Change(
                machine, case_id, arm, name, before[place], side, resolution=floor,
                backend=case.backend, mode=case.mode,
            )  # fmt: skip
            pairs[place] = Pair(change, case, pairing.sentinels[machine], pairing.alike[machine])
    if not pairs:
        raise IncomparableError(
            f"NEW: it shares no case with {metric.replace('_', ' ')} with BASE; expected runs of "
            "equal cases"
        )
    measured = [p for p in pairs.values() if p.change.base.launches or p.change.new.launches]
    if not measured:
        raise IncomparableError(
            f"metric: none of the {counted(len(pairs))} in both runs has "
            f"{metric.replace('_', ' ')}"
        )
    notes = [
        *_alone(before, after, len(pairs), len(measured), metric), *pairing.notes(threshold),
    ]  # fmt: skip
    limit = _limits(threshold, thresholds, [case.backend for case in new_cases.values()])
    is_judged = _chosen(measured, new, only)
    if left := len(measured) - sum(is_judged):
        notes.append(f"{counted(left)} not chosen by --only: not judged")
    changes, members = tested(measured, is_judged, limit, moves=metric == "latency")
    judged = [
        _doubted(change, pair.case, len(measured)) if metric == "latency" else change
        for change, pair in zip(
            judge(changes, FALSE_DISCOVERIES), compress(measured, is_judged), strict=True
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


def _chosen(pairs: Sequence[Pair], new: Run, only: Selection | None) -> list[bool]:
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

    Before measurement 4 the layout of memory alone may account for it (`LAYOUTS`); with few cases
    it is unknown what two runs differ by beyond their launches.
    """
    launches = min(len(change.base.launches), len(change.new.launches))
    if case.may_fault and launches < LAYOUTS:
        reason = f"{launches} processes may share a memory layout: needs {LAYOUTS}, or --confirm"
    elif cases < MIN_CASES:
        reason = (
            f"{counted(cases)}: too few to know the noise between runs; needs {MIN_CASES}, or "
            "--confirm"
        )
    else:
        return change
    change = replace(change, smallest=max(change.smallest, LAYOUT_FACTOR))
    if change.verdict not in ("worse", "better"):
        return change
    if not 1 / LAYOUT_FACTOR < change.ratio.value < LAYOUT_FACTOR:
        return change
    return replace(change, verdict="inconclusive", reason=reason)


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
