"""Warm up: call until calls get no faster, and see whether samples fell all the same.

A warm-up goes on however long that takes within the case's time limit. One that had not converged
when the time was over says so in its record. A case's first launch finds out how many calls it
takes; the launches behind it call as often.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from suites.measure.timers import Timed, Timer

IMPROVEMENT = 0.02
"""The warm-up goes on while the median of the last calls is below that of the calls before them by
more than this fraction."""

STEADY_CALLS, STEADY_SHARE = 4, 0.05
"""So many calls, and this share of the sampling time, must have brought no improvement. Two calls
do where four take longer than the sampling time: the samples behind them must bear them out."""

FALL, FEW_FALL, FALL_Z = 0.1, 0.3, 3.0
"""Samples have fallen if their second half is below the first by more than `FALL` and by so many
standard deviations of the rank sum; or if each of the last quarter is below all of the first half
by more than `FEW_FALL`."""

WARM_SHARE, SPARED_CALLS = 0.75, 4
"""Warming up ends when this share of the time that is left, less so many calls of every arm, is
spent: the samples, the pass for memory and the checks need the rest."""


FEW_CALLS: Sequence[tuple[float, int]] = ((0.25, 1), (0.1, 2), (0.0, 3))
"""From so many seconds a call, so many calls are enough in a launch: more of them tell less than
another launch does (Kalibera and Jones 2013, section 6), whose own calls they are."""


def few_calls(seconds: float) -> int:
    """Return how many calls of this length a launch times at least, and warms up with."""
    return next(count for least, count in FEW_CALLS if seconds >= least)


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up ended.

    Attributes:
        calls: how many.
        converged: whether the last of them got no faster.
        last: the last of them, in seconds, that the samples are to be held against; none where
            it was known how many it takes: the last ones of those may be slow.
        seconds: of all calls.
        latest: of the last call.
        needed: calls until they got no faster: those before the ones that showed it, and no fewer
            than `few_calls`.
    """

    calls: int
    converged: bool
    last: tuple[float, ...]
    seconds: float
    latest: float = 0.0
    needed: int = 0


def warm_up(
    arm: Timed,
    timer: Timer,
    *,
    budget_s: float,
    limit_s: float,
    spared: int = SPARED_CALLS,
    known: int | None = None,
) -> WarmUp:
    """Call until calls get no faster: the last ones beside those just before them.

    The first call makes what is made once, and counts for nothing.

    Args:
        arm: what is called.
        timer: times the calls.
        budget_s: sampling time.
        limit_s: time that the calls may take; it ends without having converged before that.
        spared: calls that `limit_s` must leave time for.
        known: how many calls it takes, from an earlier launch: it is called as often;
            ``None`` = find out.
    """
    times: list[float] = []
    spent, look = 0.0, 0
    while True:
        seconds = timer.sample(arm)
        times.append(seconds)
        spent += seconds
        count = len(times)
        if known is not None:
            if count >= known:
                return WarmUp(count, True, (), spent, seconds, known)
        elif count >= look:
            last = _last(times[1:], budget_s)
            if last and not _improves(last):
                needed = max(count - len(last), few_calls(seconds))
                return WarmUp(count, True, last[-STEADY_CALLS:], spent, seconds, needed)
            look = count + 1 + count // 10
        if spent + spared * seconds > limit_s:
            return WarmUp(count, False, (seconds,), spent, seconds, count)


def _last(times: Sequence[float], budget_s: float) -> tuple[float, ...]:
    """Return the last calls, as many as decide whether a warm-up is over; () if there are not."""
    if len(times) < 2:
        return ()
    if STEADY_CALLS * min(times[-2:]) > budget_s:
        return tuple(times[-2:])
    count, taken = 0, 0.0
    while count < STEADY_CALLS or taken < STEADY_SHARE * budget_s:
        count += 1
        if count > len(times):
            return ()
        taken += times[-count]
    return tuple(times[-count:])


def _improves(times: Sequence[float]) -> bool:
    """Say whether the second half of some calls is faster than the first."""
    middle = len(times) // 2
    return median(times[middle:]) < (1 - IMPROVEMENT) * median(times[:middle])


def has_fallen(times: Sequence[float]) -> bool:
    """Say whether calls became faster meanwhile, by more than they scatter.

    The ranks of both halves decide, and of few calls their last quarter alone.
    """
    middle = (len(times) + 1) // 2
    early, late = sorted(times[:middle]), times[middle:]
    if not late:
        return False
    if max(times[-max(1, len(times) // 4) :]) < (1 - FEW_FALL) * early[0]:
        return True
    if median(late) >= (1 - FALL) * median(early):
        return False
    below = sum(bisect_left(early, x) + bisect_right(early, x) for x in late) / 2
    pairs = len(early) * len(late)
    return pairs / 2 - below > FALL_Z * math.sqrt(pairs * (len(times) + 1) / 12)
