"""Fit t = a + c·Nᵖ, with an interval for p.

The noise is a factor between processes, so the fit is least squares in log t. For every p the
constant a is profiled out under 0 ≤ a < t(N_min); the interval holds the p whose residual is not
worse than the best by more than Student's t allows. The residual's variance comes from the
launches around the curve; where the lengths miss the curve by more than the launches scatter
(caches, tiles), from the lengths alone, with their fewer degrees of freedom.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.statistics.intervals import Array, t_quantile

MIN_LENGTHS = 4
MIN_FACTOR = 4.0
LACK_OF_FIT = 3.0
"""From this ratio of variances on, the lengths miss the curve by more than launches scatter."""

_EXPONENTS = np.arange(-0.5, 4.0 + 1e-9, 0.005)
# The share of a in the shortest value: fine near 0 and near 1, then refined around the best.
_SHARES = np.concatenate([[0.0], np.geomspace(1e-3, 0.5, 36), 1 - np.geomspace(0.5, 1e-3, 36)[1:]])
_REFINEMENTS = 2
_REFINED = np.linspace(0.0, 1.0, 13)


@dataclass(frozen=True)
class Fit:
    """A fitted curve: ``constant + coefficient * N ** exponent``, in the metric's unit."""

    exponent: float
    low: float
    high: float
    constant: float
    coefficient: float
    reason: str = ""

    def curve(self, lengths: Array) -> Array:
        """Return the fitted values at `lengths`."""
        return self.constant + self.coefficient * np.power(lengths, self.exponent)


def fit_exponent(
    lengths: Sequence[int],
    launches: Sequence[Sequence[float] | Array],
    *,
    with_constant: bool = True,
) -> Fit:
    """Fit t = a + c·Nᵖ.

    Args:
        lengths: increasing lengths in tokens, shape [L].
        launches: per length the launches' medians, all positive.
        with_constant: whether a may be more than 0: beside a constant, one that a flat line
            consists of, any exponent would fit.

    Returns:
        The fit. Below four lengths or a factor of four it is the plain slope without interval,
        with the reason.

    Raises:
        ValueError: if lengths and launches do not fit each other, there are fewer than two
            lengths, or a value is not positive.
    """
    logs = _logs(lengths, launches)
    n = np.asarray(lengths, dtype=np.float64)
    means = np.array([x.mean() for x in logs])
    counts = np.array([len(x) for x in logs], dtype=np.float64)
    if reason := _too_few(lengths):
        slope, level = np.polyfit(np.log(n), means, 1, w=np.sqrt(counts))
        return Fit(float(slope), math.nan, math.nan, 0.0, math.exp(level), reason)
    plain, profile, shares = _profile(tuple(int(v) for v in lengths), means, counts)
    if not with_constant:
        profile = plain
    least = float(profile.min())
    variance, df = _variance(logs, least, free=3 if least < plain.min() else 2)
    limit = least + t_quantile(df) ** 2 * variance
    low, high = _bounds(profile, limit)
    if plain.min() <= limit:  # a constant the data do not ask for would only add scatter
        slope, level = np.polyfit(np.log(n), means, 1, w=np.sqrt(counts))
        p = float(slope)
        return Fit(p, min(low, p), max(high, p), 0.0, math.exp(level))
    best = int(profile.argmin())
    p, offset = float(_EXPONENTS[best]), float(shares[best] / (1 - shares[best]))
    basis = offset + (n / n[0]) ** p
    scale = math.exp(float(np.average(means - np.log(basis), weights=counts)))
    return Fit(p, min(low, p), max(high, p), scale * offset, scale / float(n[0]) ** p)


def _logs(lengths: Sequence[int], launches: Sequence[Sequence[float] | Array]) -> list[Array]:
    if len(lengths) != len(launches) or len(lengths) < 2:
        raise ValueError(
            f"lengths: expected two or more, with launches each, got {len(lengths)} lengths "
            f"and {len(launches)} launches"
        )
    if any(b <= a for a, b in itertools.pairwise(lengths)) or lengths[0] < 1:
        raise ValueError(f"lengths: expected increasing positive numbers, got {list(lengths)}")
    values = [np.asarray(x, dtype=np.float64) for x in launches]
    if any(not len(x) or not np.all(x > 0) or not np.all(np.isfinite(x)) for x in values):
        raise ValueError("launches: expected positive finite numbers at every length")
    return [np.log(x) for x in values]


def _too_few(lengths: Sequence[int]) -> str:
    if len(lengths) < MIN_LENGTHS or lengths[-1] < MIN_FACTOR * lengths[0]:
        return (
            f"{len(lengths)} asymptotic lengths from {lengths[0]} to {lengths[-1]}: an interval "
            f"needs {MIN_LENGTHS} over a factor of {MIN_FACTOR:g}"
        )
    return ""


@functools.lru_cache(maxsize=32)
def _powers(lengths: tuple[int, ...]) -> tuple[Array, Array]:
    """Return (N/N₀)ᵖ, [P, L], and log(a/c' + (N/N₀)ᵖ) for every coarse share, [P, S, L]."""
    n = np.array(lengths, dtype=np.float64) / lengths[0]
    powers: Array = n[None, :] ** _EXPONENTS[:, None]
    offsets = _SHARES / (1 - _SHARES)
    return powers, np.log(offsets[None, :, None] + powers[:, None, :])


def _profile(lengths: tuple[int, ...], means: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Return, per exponent, the residual sums of squares of the length means, best c each.

    Returns:
        The residual without a constant, the one with the best constant, and that constant's
        share of the shortest value, each [P].
    """
    powers, coarse = _powers(lengths)
    sums = _residual(means, coarse, counts)
    plain = sums[:, 0]
    best = sums.argmin(axis=1)
    low = _SHARES[np.maximum(best - 1, 0)]
    high = _SHARES[np.minimum(best + 1, len(_SHARES) - 1)]
    rows = np.arange(len(best))
    for _ in range(_REFINEMENTS):
        shares = low[:, None] + (high - low)[:, None] * _REFINED
        fine = np.log((shares / (1 - shares))[..., None] + powers[:, None, :])
        sums = _residual(means, fine, counts)
        best = sums.argmin(axis=1)
        low = shares[rows, np.maximum(best - 1, 0)]
        high = shares[rows, np.minimum(best + 1, len(_REFINED) - 1)]
    return plain, np.minimum(sums[rows, best], plain), shares[rows, best]


def _residual(means: Array, basis: Array, counts: Array) -> Array:
    """Return the weighted residual of `means` [L] about `basis` [P, S, L] + log c: [P, S]."""
    miss = means - basis
    miss -= (miss @ counts / counts.sum())[..., None]
    sums: Array = (miss**2) @ counts
    return sums


def _variance(logs: list[Array], residual: float, *, free: int) -> tuple[float, int]:
    """Return the variance of one launch about the curve and its degrees of freedom."""
    within = float(sum(((x - x.mean()) ** 2).sum() for x in logs))
    df_within = sum(len(x) for x in logs) - len(logs)
    df_lengths = len(logs) - free
    missed = residual / df_lengths
    if df_within and missed <= LACK_OF_FIT * within / df_within:
        return (within + residual) / (df_within + df_lengths), df_within + df_lengths
    return missed, df_lengths


def _bounds(profile: Array, limit: float) -> tuple[float, float]:
    """Return the outermost exponents whose residual is within `limit`, interpolated."""
    inside = np.flatnonzero(profile <= limit)
    first, last = int(inside[0]), int(inside[-1])

    def cross(outer: int, inner: int) -> float:
        share = (limit - profile[inner]) / (profile[outer] - profile[inner])
        return float(_EXPONENTS[inner] + share * (_EXPONENTS[outer] - _EXPONENTS[inner]))

    low = cross(first - 1, first) if first > 0 else float(_EXPONENTS[0])
    high = cross(last + 1, last) if last + 1 < len(profile) else float(_EXPONENTS[-1])
    return low, high
