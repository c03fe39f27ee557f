"""Medians, intervals and ratios, with the launch as the unit.

Samples of one process agree with each other more than with the next process, so an interval from
samples is too narrow: here a launch enters as one number, the median of its samples, and only
launches are resampled. With the handful of launches a sweep has, drawing them with replacement
understates the spread (by (n−1)/n, and as if it were known), so a resample draws the centre from
Student's t with the launches' own spread in the log domain. One launch gives no interval.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

LEVEL = 0.95
"""Two-sided level of every interval."""

DRAWS = 4000
"""Resamples behind an interval of a ratio or a crossover."""

MEDIAN_COST = math.sqrt(math.pi / 2)
"""How much wider a median of launches scatters than their mean does, at most."""

ONE_LAUNCH_FACTOR = 1.25
"""Two medians of which one is of a single launch are in no order within this factor."""

ONE_LAUNCH = "one launch: no interval"

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value and its 95 % interval; without an interval the bounds are NaN, `reason` says why."""

    value: float
    low: float
    high: float
    reason: str = ""

    @property
    def has_interval(self) -> bool:
        """Whether the bounds are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@functools.cache
def t_quantile(df: float, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t: P(|T| < t) = `level`.

    Raises:
        ValueError: if `df` is not above 0.
    """
    if not df > 0:
        raise ValueError(f"df: expected a number above 0, got {df}")
    return float(stdtrit(df, (1 + level) / 2))


def t_within(t: float, df: float) -> float:
    """Return P(|T| < t) for Student's t."""
    return 1.0 - 2.0 * float(stdtr(df, -abs(t)))


def estimate(launches: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Return the median over launches with its interval.

    Args:
        launches: one number a launch, in any unit, shape [n].
        level: of the interval.

    Raises:
        ValueError: if `launches` is empty or not finite.
    """
    values = _checked(launches)
    centre = float(np.median(values))
    if len(values) == 1:
        return Estimate(centre, math.nan, math.nan, ONE_LAUNCH)
    if np.ptp(values) == 0:
        return Estimate(centre, centre, centre)
    if np.all(values > 0):
        half = t_quantile(len(values) - 1, level) * _scatter(np.log(values))
        # Two far-apart launches can ask for more than a float holds.
        half = min(half, 300.0)
        return Estimate(centre, centre * math.exp(-half), centre * math.exp(half))
    half = t_quantile(len(values) - 1, level) * _scatter(values)
    return Estimate(centre, centre - half, centre + half)


def resample(launches: ArrayLike, rng: np.random.Generator, count: int = DRAWS) -> Array:
    """Return `count` plausible centres of the launches, shape [count].

    Equal launches, and a single one, give equal draws.

    Args:
        launches: one positive number a launch, shape [n].
        rng: the source of the draws.
        count: how many.

    Raises:
        ValueError: if `launches` is empty, not finite or not positive.
    """
    values = _checked(launches)
    if np.any(values <= 0):
        raise ValueError("launches: expected positive numbers")
    centre = math.log(float(np.median(values)))
    if np.ptp(values) == 0:
        return np.full(count, float(values[0]))
    shift = rng.standard_t(len(values) - 1, count) * _scatter(np.log(values))
    drawn: Array = np.exp(centre + np.clip(shift, -300, 300))
    return drawn


def ratio(numerator: ArrayLike, denominator: ArrayLike, *, seed: int = 0) -> Estimate:
    """Return the ratio of two medians with an interval from resampled launches of both sides.

    Raises:
        ValueError: if a side is empty, not finite or not positive.
    """
    top, bottom = _checked(numerator), _checked(denominator)
    rng = np.random.default_rng(seed)
    drawn = resample(top, rng) / resample(bottom, rng)
    value = float(np.median(top) / np.median(bottom))
    if min(len(top), len(bottom)) == 1:
        return Estimate(value, math.nan, math.nan, ONE_LAUNCH)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def is_less(one: ArrayLike, other: ArrayLike) -> bool:
    """Whether the median of `one` is told to be below that of `other`.

    With several launches on both sides the interval of their ratio has to be below 1; with one
    launch on a side the ratio has to be below 1 / `ONE_LAUNCH_FACTOR`.

    Raises:
        ValueError: as `ratio`.
    """
    found = ratio(one, other)
    if found.has_interval:
        return found.high < 1
    return found.value * ONE_LAUNCH_FACTOR < 1


def _scatter(values: Array) -> float:
    """Return the standard error of the median of `values`, shape [n], n ≥ 2."""
    cost = MEDIAN_COST if len(values) > 2 else 1.0  # of two, the median is the mean
    return cost * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _checked(launches: ArrayLike) -> Array:
    values = np.asarray(launches, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"launches: expected a non-empty list of numbers, got {launches!r}")
    if not np.all(np.isfinite(values)):
        raise ValueError("launches: expected finite numbers")
    return values
