"""Values with intervals, with the launch as the unit, and Student's t.

Samples of one process agree with each other more than with the next process, so an interval from
samples is too narrow: here a launch enters as one number, the median of its samples. One launch
gives no interval.
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

ONE_LAUNCH = "one process: no interval"

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


def t_two_sided(t: float, df: float) -> float:
    """Return P(|T| > |t|) for Student's t: the two-sided p-value."""
    return 2.0 * float(stdtr(df, -abs(t)))


def estimate(launches: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Return the mean over launches with its interval, of numbers that stand alone.

    That is the geometric mean, with Student's t interval of the mean log; where a value is not
    positive, the arithmetic mean with that of the values. Times of a series have the model of
    launches (`results.statistics.launches`), which knows their scatter better.

    Args:
        launches: one number a launch, in any unit, shape [n].
        level: of the interval.

    Raises:
        ValueError: if `launches` is empty or not finite.
    """
    values = _checked(launches)
    if len(values) == 1:
        return Estimate(float(values[0]), math.nan, math.nan, ONE_LAUNCH)
    if np.ptp(values) == 0:
        return Estimate(float(values[0]), float(values[0]), float(values[0]))
    in_logs = bool(np.all(values > 0))
    scale = np.log(values) if in_logs else values
    centre = float(scale.mean())
    error = float(scale.std(ddof=1)) / math.sqrt(len(values))
    half = t_quantile(len(values) - 1, level) * error
    if not in_logs:
        return Estimate(centre, centre - half, centre + half)
    half = min(half, 300.0)  # two far-apart launches can ask for more than a float holds
    return Estimate(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


def _checked(launches: ArrayLike) -> Array:
    values = np.asarray(launches, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"launches: expected a non-empty list of numbers, got {launches!r}")
    if not np.all(np.isfinite(values)):
        raise ValueError("launches: expected finite numbers")
    return values
