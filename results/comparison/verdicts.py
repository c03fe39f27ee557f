"""The words of a comparison, and when each holds."""

from __future__ import annotations

from typing import Literal

from results.statistics.intervals import Estimate

THRESHOLD = 0.03
"""A change smaller than this fraction does not matter in practice."""

FALSE_DISCOVERIES = 0.01
"""Of the changes that a table of two finished runs claims, the share that is false on average."""

Verdict = Literal["worse", "better", "no change", "inconclusive", "fails"]

REGRESSIONS: tuple[Verdict, ...] = ("worse", "fails")


def verdict_of(ratio: Estimate, is_certain: bool, threshold: float) -> Verdict:
    """Return the verdict of a ratio.

    Args:
        ratio: new over base, with its interval.
        is_certain: whether no change at all is ruled out.
        threshold: the fraction from which on a change matters.
    """
    limit = 1 + threshold
    if is_certain and ratio.value >= limit:
        return "worse"
    if is_certain and ratio.value <= 1 / limit:
        return "better"
    if ratio.has_interval and 1 / limit < ratio.low and ratio.high < limit:
        return "no change"
    return "inconclusive"
