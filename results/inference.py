"""The tests behind a verdict: by how much two things differ, and how sure that is.

Everything is in the log domain: a difference there is a ratio. The unit is the launch, or the pair
of launches, never the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from results.statistics import Array, Estimate, t_quantile, t_within

TRIM = 0.1
"""Of a series of pairs, the share that is left out of the centre at either end: a neighbour's
burst hits one pair, and would hide a difference that all the others show."""


class Difference(NamedTuple):
    """A difference of logarithms, its standard error and degrees of freedom."""

    centre: float
    error: float
    df: int

    @property
    def p(self) -> float:
        """The two-sided probability of so large a difference where there is none."""
        if self.error == 0:
            return 0.0 if self.centre else 1.0
        return 1.0 - t_within(abs(self.centre) / self.error, self.df)

    @property
    def ratio(self) -> Estimate:
        """The ratio with its 95 % interval."""
        half = min(300.0, t_quantile(self.df) * self.error)
        low, high = math.exp(self.centre - half), math.exp(self.centre + half)
        return Estimate(math.exp(self.centre), low, high)


class Scatter(NamedTuple):
    """How far the launches of one case scatter, as a logarithm.

    Attributes:
        variance: of one launch.
        df: its degrees of freedom.
    """

    variance: float
    df: int


def scatters(cases: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[Scatter]:
    """Return how far the launches of each case scatter, the others taken into account.

    Of three launches the own variance is hardly known; that of many cases together is. So a case
    that happens to scatter less is given what is usual (the moderated variance of Smyth 2004,
    whose prior is fitted to all cases). One that scatters more keeps its own: a launch that a
    neighbour hit must not pass for an exact one.

    Args:
        cases: of each the launches of both runs, two or more positive numbers a side.

    Raises:
        ValueError: if a side has fewer than two launches or a number that is not positive.
    """
    own = [_within(base, new) for base, new in cases]
    known = [s for s in own if s.variance > 0]
    if len(known) < MIN_CASES:
        return own
    prior, weight = _prior(known)
    return [_moderated(s, prior, weight) for s in own]


NORMAL_QUARTILE = 0.6745
"""Half of a normal distribution lies within so many standard deviations."""

MIN_CASES = 5
"""Fewer cases say nothing about what is usual."""

LEAST_VARIANCE = 0.05
"""Of the median variance: what a smaller one counts as where the usual is sought."""

_CERTAIN = 1000
"""Degrees of freedom of a variance that is as good as known."""


def _within(base: ArrayLike, new: ArrayLike) -> Scatter:
    sides = [_logs(name, values) for name, values in (("base", base), ("new", new))]
    df = sum(len(side) - 1 for side in sides)
    return Scatter(float(sum(((side - side.mean()) ** 2).sum() for side in sides)) / df, df)


def _prior(known: Sequence[Scatter]) -> tuple[float, float]:
    """Return the usual variance and how many degrees of freedom it is worth (Smyth 2004, 6.2)."""
    # Launches that agree by chance to the last place are no sign that cases differ.
    least = LEAST_VARIANCE * float(np.median([s.variance for s in known]))
    logs = [
        math.log(max(least, s.variance)) - digamma(s.df / 2) + math.log(s.df / 2) for s in known
    ]
    centre = float(np.mean(logs))
    beyond = float(np.var(logs, ddof=1)) - float(np.mean([trigamma(s.df / 2) for s in known]))
    if beyond <= 0:  # they scatter alike
        return math.exp(centre), _CERTAIN
    low, high = 1e-3, float(_CERTAIN)
    for _ in range(60):  # trigamma falls
        middle = math.sqrt(low * high)
        low, high = (middle, high) if trigamma(middle) > beyond else (low, middle)
    return math.exp(centre + digamma(high) - math.log(high)), min(2 * high, _CERTAIN)


def _moderated(own: Scatter, prior: float, weight: float) -> Scatter:
    usual = (weight * prior + own.df * own.variance) / (weight + own.df)
    if own.variance >= usual:
        return own
    return Scatter(usual, min(_CERTAIN, math.floor(weight) + own.df))


class Beyond(NamedTuple):
    """What two runs of the same differ by, beyond what their launches scatter.

    Attributes:
        variance: of a case's logarithm.
        df: its degrees of freedom.
    """

    variance: float = 0.0
    df: int = _CERTAIN


def apart(
    base: ArrayLike,
    new: ArrayLike,
    scatter: Scatter,
    *,
    beyond: Beyond | None = None,
    shift: float = 0.0,
) -> Difference:
    """Compare launches of two runs: log of new / base, by their geometric means.

    Args:
        base: one positive number a launch.
        new: likewise.
        scatter: of one launch.
        beyond: what two runs differ by besides.
        shift: what the machine itself may have changed between the runs, as a logarithm; it is
            added to the standard error.
    """
    first, second = _logs("base", base), _logs("new", new)
    variance = scatter.variance * (1 / len(first) + 1 / len(second))
    df = scatter.df
    if beyond is not None and beyond.variance > 0:
        variance, df = variance + beyond.variance, min(df, beyond.df)
    centre = float(second.mean() - first.mean())
    return Difference(centre, math.hypot(math.sqrt(variance), shift), df)


def beyond_launches(differences: Sequence[Difference]) -> Beyond:
    """Return what two runs differ by beyond their launches: another hour, another placement.

    Most cases did not change, so the spread of all about their median tells.
    """
    if len(differences) < MIN_CASES:
        return Beyond()
    centre = float(np.median([d.centre for d in differences]))
    spread = float(np.median([abs(d.centre - centre) for d in differences])) / NORMAL_QUARTILE
    expected = float(np.median([d.error for d in differences]))
    return Beyond(max(0.0, spread**2 - expected**2), len(differences) - 1)


def digamma(x: float) -> float:
    """Return the derivative of log Γ, for x > 0 (Abramowitz and Stegun 6.3.5, 6.3.18)."""
    total = 0.0
    while x < 8:
        total -= 1 / x
        x += 1
    y = 1 / x**2
    return total + math.log(x) - 0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y / 240)))


def trigamma(x: float) -> float:
    """Return the second derivative of log Γ, for x > 0 (Abramowitz and Stegun 6.4.6, 6.4.12)."""
    total = 0.0
    while x < 8:
        total += 1 / x**2
        x += 1
    y = 1 / x**2
    return total + 1 / x + y / 2 + y / x * (1 / 6 - y * (1 / 30 - y * (1 / 42 - y / 30)))


def paired(base: ArrayLike, new: ArrayLike) -> Difference:
    """Compare pairs of launches taken side by side: log of new / base, by its trimmed mean.

    The trimmed mean and its error from the winsorised variance (Tukey and McLaughlin 1963, Yuen
    1974): `TRIM` at either end.

    Args:
        base: one positive number a pair, two at least.
        new: likewise.

    Raises:
        ValueError: if the sides differ in length, or hold a number that is not positive.
    """
    first, second = _logs("base", base), _logs("new", new)
    if len(first) != len(second):
        raise ValueError(f"new: expected {len(first)} launches, one a pair, got {len(second)}")
    ordered = np.sort(second - first)
    count = len(ordered)
    cut = math.floor(TRIM * count)
    kept = count - 2 * cut
    winsorised = np.clip(ordered, ordered[cut], ordered[count - cut - 1])
    spread = float(winsorised.std(ddof=1)) * math.sqrt((count - 1) / (kept - 1))
    return Difference(float(ordered[cut : count - cut].mean()), spread / math.sqrt(kept), kept - 1)


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number (Benjamini and Hochberg 1995).

    Those that are at most q are the discoveries among which a share of q is false, on average.
    NaN (not tested) stays NaN and does not count.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    result = [math.nan] * len(p_values)
    least = 1.0
    for rank in range(len(tested), 0, -1):
        p, index = tested[rank - 1]
        least = min(least, p * len(tested) / rank)
        result[index] = least
    return result


def _logs(name: str, values: ArrayLike) -> Array:
    array: Array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.all(array > 0) or not np.all(array < np.inf):
        raise ValueError(f"{name}: expected two or more positive numbers, got {values!r}")
    logs: Array = np.log(array)
    return logs
