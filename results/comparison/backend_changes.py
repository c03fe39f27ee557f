"""Whether a whole backend changed between two runs: a test over its cases.

Sixty cases that are undecided one by one may decide together. What all backends of a run share may
be the machine's, so a backend is held against the others: it became worse where it did so by
itself, and by more than they. What all of them share is held against the sentinel, the same work
in every version. Pairs of launches, taken side by side, need neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

from results.comparison.verdicts import FALSE_DISCOVERIES, REGRESSIONS, Verdict, verdict_of
from results.statistics.inference import (
    Difference,
    adjusted,
    apart_from,
    beyond_chance,
    together,
)
from results.statistics.intervals import Estimate

MIN_GROUP = 3
"""Cases from which on a backend is judged as one."""

MIN_OTHERS = 2
"""Other backends that tell what a backend has in common with them."""

LEAST_BETWEEN = 0.03
"""What two runs of the same code may differ by in all cases of a backend alike, a logarithm:
another placement of its code and data. Backends are too few to tell less."""

EVERY = "every backend"

_NONE = Estimate(math.nan, math.nan, math.nan)


class Member(NamedTuple):
    """A case of a backend, and what changed in it.

    Attributes:
        machine: on which it is in the new run.
        backend: with its options.
        mode: of the case.
        difference: with the launches' error alone.
        is_judged: whether it counts for its own backend; else it tells of the others alone.
        taken: the share of what the machine changed that `difference` is free of already
            (`results.comparison.fitting`).
    """

    machine: str
    backend: str
    mode: str
    difference: Difference
    is_judged: bool = True
    taken: float = 0.0


@dataclass(frozen=True)
class BackendChange:
    """A backend's cases as one, in both runs.

    Attributes:
        machine: on which they are in the new run.
        backend: with its options; `EVERY` = what most backends share.
        mode: of the cases; "" = all modes.
        name: backend and mode.
        cases: how many it rests on.
        ratio: new over base, the mean over the cases, with its 95 % interval.
        apart: `ratio` over that of the other backends, of `EVERY` over the sentinel's; of pairs
            `ratio` itself.
        p: of so large an `apart` where there is none, adjusted for the number of tests.
        smallest: the smallest change that could have been seen, as a ratio.
        threshold: the fraction from which on a change matters.
        verdict: in the words of a case's.
        reason: why there is none.
        pairs: pairs of launches taken side by side that it rests on; 0 = the two runs alone.
    """

    machine: str
    backend: str
    mode: str
    name: str
    cases: int
    ratio: Estimate = _NONE
    apart: Estimate = _NONE
    p: float = math.nan
    smallest: float = math.nan
    threshold: float = 0.0
    verdict: Verdict = "inconclusive"
    reason: str = ""
    pairs: int = 0

    @property
    def is_regression(self) -> bool:
        """Whether this backend alone makes the comparison fail."""
        return self.verdict in REGRESSIONS


class _Row(NamedTuple):
    """A change, what is tested of it, and what it must agree with."""

    change: BackendChange
    own: Difference | None
    tested: Difference | None


def backend_changes(
    members: Sequence[Member],
    *,
    sentinels: Mapping[str, Difference | None],
    threshold: Callable[[str], float],
    moves: bool = True,
) -> list[BackendChange]:
    """Test every backend over its cases, in each mode and in all.

    Args:
        members: the cases with two launches or more in both runs.
        sentinels: machine to what changed in its sentinel; None = unknown.
        threshold: the fraction from which on a change matters, by backend.
        moves: whether the machine may have changed what is compared: times, not memory.
    """
    rows: list[_Row] = []
    for machine in dict.fromkeys(m.machine for m in members):
        own = [m for m in members if m.machine == machine]
        modes = list(dict.fromkeys(m.mode for m in own))
        whole = modes[0] if len(modes) == 1 else ""
        known = _known(own)
        test = _Test(machine, sentinels.get(machine), threshold, moves)
        rows += test.of(own, whole)
        if moves and len(known) > MIN_OTHERS and all(m.is_judged for m in own):
            rows.append(test.of_all(own, known, whole))
        for mode in modes if len(modes) > 1 else ():
            rows += test.of([m for m in own if m.mode == mode], mode)
    levels = adjusted([math.nan if r.tested is None else r.tested.p for r in rows])
    count = max(1, sum(not math.isnan(q) for q in levels))
    return [_judged(row, q, count) for row, q in zip(rows, levels, strict=True)]


def _known(members: Sequence[Member]) -> dict[str, Difference]:
    """Return what changed in each backend that has enough cases."""
    parts: dict[str, list[Difference]] = {}
    for member in members:
        parts.setdefault(member.backend, []).append(member.difference)
    return {b: together(own) for b, own in parts.items() if len(own) >= MIN_GROUP}


@dataclass(frozen=True)
class _Test:
    """What one machine's backends are held against."""

    machine: str
    sentinel: Difference | None
    threshold: Callable[[str], float]
    moves: bool

    def of(self, members: Sequence[Member], mode: str) -> Iterator[_Row]:
        """Yield what is tested of each backend in a mode."""
        every = _known(members)
        judged = [m for m in members if m.is_judged]
        known = _known(judged)
        for backend in dict.fromkeys(m.backend for m in judged):
            cases = sum(m.backend == backend for m in judged)
            change = self._change(backend, mode, cases)
            if backend not in known:
                reason = f"{counted(cases)}: needs {MIN_GROUP} for a verdict"
                yield _Row(replace(change, reason=reason), None, None)
                continue
            own = known[backend]
            others = [d for b, d in every.items() if b != backend]
            if not self.moves:
                yield _Row(change, own, own)
            elif len(others) >= MIN_OTHERS:
                rest = [m.difference for m in members if m.backend != backend]
                least = max(LEAST_BETWEEN, beyond_chance(rest))
                yield _Row(change, own, apart_from(own, others, least)[0])
            else:
                yield self._beside_the_sentinel(
                    change, own, [m.taken for m in judged if m.backend == backend]
                )

    def of_all(
        self, members: Sequence[Member], known: Mapping[str, Difference], mode: str
    ) -> _Row:
        """Return what is tested of what most backends share."""
        own, *_ = known.values()
        least = max(LEAST_BETWEEN, beyond_chance([m.difference for m in members]))
        shared = apart_from(own, list(known.values()), least)[1]
        change = self._change(EVERY, mode, len(members))
        return self._beside_the_sentinel(change, shared, [m.taken for m in members])

    def _change(self, backend: str, mode: str, cases: int) -> BackendChange:
        name = f"{backend} {mode}" if mode else backend
        return BackendChange(
            self.machine, backend, mode, name, cases, threshold=self.threshold(backend)
        )

    def _beside_the_sentinel(
        self, change: BackendChange, own: Difference, taken: Sequence[float]
    ) -> _Row:
        if self.sentinel is None or math.isinf(self.sentinel.error):
            reason = "no control benchmark"
            return _Row(replace(change, reason=reason), own, None)
        between = 0.0 if change.backend == EVERY else LEAST_BETWEEN
        left = 1 - fmean(taken)  # of the machine's change, after what the model took off
        error = math.hypot(own.error, left * self.sentinel.error, between)
        df = min(own.df, self.sentinel.df)
        tested = Difference(own.centre - left * self.sentinel.centre, error, df)
        return _Row(change, own, tested)


def _judged(row: _Row, level: float, tests: int) -> BackendChange:
    """Return a change with its verdict: in itself as well as beside what it is held against."""
    change, own, tested = row
    if own is None:
        return change
    change = replace(change, ratio=own.ratio, p=level)
    if tested is None:
        return change
    smallest = max(1 + change.threshold, tested.smallest_seen(FALSE_DISCOVERIES / tests))
    change = replace(change, apart=tested.ratio, smallest=smallest)
    found = verdict_of(tested.ratio, level <= FALSE_DISCOVERIES, change.threshold)
    excludes_none = not own.ratio.low <= 1 <= own.ratio.high
    by_itself = verdict_of(own.ratio, excludes_none, change.threshold)
    if found == by_itself:
        return replace(change, verdict=found)
    if by_itself in ("worse", "better") and found == "no change":
        like = "the control benchmark" if change.backend == EVERY else "the other backends"
        return replace(change, reason=f"like {like}: the machine, or something shared")
    return change


def where_nothing_changed(
    changes: Sequence[BackendChange], verdicts: Sequence[tuple[str, str, str, Verdict]]
) -> list[BackendChange]:
    """Return the changes, *no change* where that is what every case of an open one has.

    Args:
        changes: of whole backends.
        verdicts: machine, backend, mode and verdict of each case.
    """
    found = []
    for change in changes:
        own = [v for *place, v in verdicts if _holds(change, *place)]
        is_settled = change.verdict == "inconclusive" and set(own) == {"no change"}
        found.append(replace(change, verdict="no change", reason="") if is_settled else change)
    return found


def _holds(change: BackendChange, machine: str, backend: str, mode: str) -> bool:
    """Return whether a case is among those that a change rests on."""
    return (
        machine == change.machine
        and change.backend in (EVERY, backend)
        and change.mode in ("", mode)
    )


def by_pairs(
    changes: Sequence[BackendChange],
    members: Sequence[tuple[Member, int]],
    false_alarms: float,
) -> list[BackendChange]:
    """Return the changes as pairs of launches settle them: the machine is the same in both.

    Args:
        changes: from the two finished runs.
        members: the cases that have pairs, with how many.
        false_alarms: of the changes that are confirmed, the share that is false.
    """
    settled: list[tuple[BackendChange, Difference | None]] = []
    for change in changes:
        own = [
            (m.difference, pairs) for m, pairs in members
            if _holds(change, m.machine, m.backend, m.mode)
        ]  # fmt: skip
        if change.verdict in ("better", "no change"):
            settled.append((change, None))
        elif len(own) >= MIN_GROUP:
            found = together([d for d, _ in own])
            settled.append((replace(change, cases=len(own), pairs=sum(n for _, n in own)), found))
        elif change.is_regression:
            reason = f"not confirmed: {counted(len(own))} with pairs"
            settled.append((replace(change, verdict="inconclusive", reason=reason), None))
        else:
            settled.append((change, None))
    levels = adjusted([math.nan if d is None else d.p for _, d in settled])
    tests = max(1, sum(d is not None for _, d in settled))
    return [
        change if own is None else replace(
            change, ratio=own.ratio, apart=own.ratio, p=q, reason="",
            smallest=max(1 + change.threshold, own.smallest_seen(false_alarms / tests)),
            verdict=verdict_of(own.ratio, q <= false_alarms, change.threshold),
        )
        for (change, own), q in zip(settled, levels, strict=True)
    ]  # fmt: skip


def counted(cases: int) -> str:
    """Write a number of cases."""
    return f"{cases} case{'s'[: cases != 1]}"
