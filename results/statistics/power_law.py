"""Fit m = a + c·Nᵖ to memory, with an interval for p, and say by how much a given p misses.

A peak hardly scatters between launches, but misses the curve at single lengths, where memory is
used again or rounded up. So a length enters as one value, and the scatter is that of the lengths
about the curve. The fit is least squares in log m. For every p the constant a is profiled out
under 0 ≤ a < m(N_min); the interval holds the p whose residual is not worse than the best by more
than Student's t allows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from results.statistics.intervals import Array, t_quantile

MIN_LENGTHS = 4
MIN_FACTOR = 4.0

LOWEST, HIGHEST = -0.5, 4.0
"""The exponents that are looked at."""

_LOG_OFFSETS = (-9.0, 9.0)
"""Of a over the growing part at the shortest length: from hardly there to nearly all."""


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
    lengths: Sequence[int], values: Sequence[float] | Array, *, with_constant: bool = True
) -> Fit:
    """Fit m = a + c·Nᵖ.

    Args:
        lengths: increasing lengths in tokens, shape [L].
        values: positive, in any unit, shape [L].
        with_constant: whether a may be more than 0: beside a constant, one that a flat line
            consists of, any exponent would fit.

    Returns:
        The fit. Below four lengths or a factor of four it is the plain slope without interval,
        with the reason.

    Raises:
        ValueError: if lengths and values do not fit each other, there are fewer than two
            lengths, or a value is not positive.
    """
    rises, logs = _checked(lengths, values)
    slope, level = np.polyfit(np.log(rises), logs, 1)
    plain = Fit(
        float(slope), math.nan, math.nan, 0.0, math.exp(level) / lengths[0] ** float(slope),
        _too_few(lengths),
    )  # fmt: skip
    if plain.reason:
        return plain

    def best(exponent: float) -> tuple[float, float]:
        """Return the log offset of the best constant, −∞ for none, and the residual with it."""
        return _smallest(lambda basis: _squares(logs, basis), rises**exponent, with_constant)

    def residual(exponent: float) -> float:
        return best(exponent)[1]

    p = float(minimize_scalar(residual, bounds=(LOWEST, HIGHEST), method="bounded").x)
    offset, least = best(p)
    if offset == -math.inf:  # no constant brings the curve closer
        p, least = plain.exponent, _squares(logs, rises**plain.exponent)
    df = len(logs) - (2 if offset == -math.inf else 3)
    limit = least * (1 + t_quantile(df) ** 2 / df)
    low = min(p, _bound(residual, limit, p, LOWEST))
    high = max(p, _bound(residual, limit, p, HIGHEST))
    basis = math.exp(offset) + rises**p
    scale = math.exp(float(np.mean(logs - np.log(basis))))
    return Fit(p, low, high, scale * math.exp(offset), scale / lengths[0] ** p)


def largest_miss(
    lengths: Sequence[int],
    values: Sequence[float] | Array,
    exponent: float,
    *,
    with_constant: bool = True,
) -> float:
    """Return the relative miss at the worst length of the curve a + c·Nᵖ that keeps it smallest.

    No curve with this exponent and a ≥ 0 comes closer at every length: max |log m − log curve|,
    as a share.

    Args:
        lengths: increasing lengths in tokens, shape [L].
        values: positive, in any unit, shape [L].
        exponent: p; 0 = the curve is flat.
        with_constant: whether a may be more than 0.

    Raises:
        ValueError: as `fit_exponent`.
    """
    rises, logs = _checked(lengths, values)
    _, half = _smallest(
        lambda basis: float(np.ptp(logs - np.log(basis))) / 2, rises**exponent, with_constant
    )
    return math.expm1(half)


def _smallest(
    loss: Callable[[Array], float], growth: Array, with_constant: bool
) -> tuple[float, float]:
    """Return the log of a over c·N₀ᵖ, −∞ for a = 0, at which a loss is smallest, and the loss.

    Args:
        loss: of the curve's shape, [L].
        growth: (N/N₀)ᵖ, shape [L].
        with_constant: whether a may be more than 0.
    """
    plain = loss(growth)
    if not with_constant:
        return -math.inf, plain
    found = minimize_scalar(
        lambda offset: loss(math.exp(offset) + growth), bounds=_LOG_OFFSETS, method="bounded"
    )
    if found.fun >= plain:
        return -math.inf, plain
    return float(found.x), float(found.fun)


def _squares(logs: Array, basis: Array) -> float:
    """Return the sum of squares of logs about log basis, the best factor before it."""
    miss = logs - np.log(basis)
    miss = miss - miss.mean()
    return float(miss @ miss)


def _bound(residual: Callable[[float], float], limit: float, inside: float, end: float) -> float:
    """Return where the residual leaves the limit between an exponent within it and an end."""
    if residual(end) <= limit:
        return end
    if residual(inside) >= limit:  # exact values: nothing but one exponent fits
        return inside
    return float(brentq(lambda p: residual(p) - limit, inside, end, xtol=1e-4))


def _checked(lengths: Sequence[int], values: Sequence[float] | Array) -> tuple[Array, Array]:
    """Return lengths over the shortest, and the logs of the values, each [L]."""
    taken = np.asarray(values, dtype=np.float64)
    if taken.shape != (len(lengths),) or len(lengths) < 2:
        raise ValueError(
            f"lengths: expected two or more, with a value each, got {len(lengths)} lengths and "
            f"values of shape {taken.shape}"
        )
    if any(b <= a for a, b in itertools.pairwise(lengths)) or lengths[0] < 1:
        raise ValueError(f"lengths: expected increasing positive numbers, got {list(lengths)}")
    if not np.all((taken > 0) & (taken < np.inf)):
        raise ValueError(f"values: expected positive finite numbers, got {taken.tolist()}")
    return np.asarray(lengths, dtype=np.float64) / lengths[0], np.log(taken)


def _too_few(lengths: Sequence[int]) -> str:
    if len(lengths) < MIN_LENGTHS or lengths[-1] < MIN_FACTOR * lengths[0]:
        return (
            f"{len(lengths)} lengths from {lengths[0]} to {lengths[-1]}: an interval needs "
            f"{MIN_LENGTHS} over a factor of {MIN_FACTOR:g}"
        )
    return ""
