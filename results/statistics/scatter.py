"""How far launches scatter, what is usual for all of them taken into account."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from results.statistics.intervals import Array

MOST_DF = 1000
"""Degrees of freedom of a variance that is as good as known."""


class Scatter(NamedTuple):
    """How far launches scatter, as a logarithm.

    Attributes:
        variance: of one launch.
        df: its degrees of freedom.
    """

    variance: float
    df: int


def moderated(own: Sequence[Scatter]) -> list[Scatter]:
    """Return the variances with what is usual among them taken into account.

    Of three launches the own variance is hardly known; that of many cases together is. So one
    that happens to scatter less is given what is usual (the moderated variance of Smyth 2004,
    whose prior is fitted to all). One that scatters more keeps its own: a launch that a neighbour
    hit must not pass for an exact one. One without degrees of freedom stays as it is.

    Args:
        own: a variance and its degrees of freedom, each from its own launches alone.
    """
    known = [s for s in own if s.df > 0 and s.variance > 0]
    if len(known) < MIN_CASES:
        return list(own)
    prior, weight = _prior(known)
    return [_moderated(s, prior, weight) if s.df > 0 else s for s in own]


MIN_CASES = 5
"""Fewer cases say nothing about what is usual."""


LEAST_VARIANCE = 0.05
"""Of the median variance: what a smaller one counts as where the usual is sought."""


LEAST_HALF_DF = 1e-3
"""Half of the degrees of freedom that what is usual is worth, at least."""


def trigamma(x: float) -> float:
    """Return the second derivative of log Γ."""
    return float(polygamma(1, x))


def _prior(known: Sequence[Scatter]) -> tuple[float, float]:
    """Return the usual variance and how many degrees of freedom it is worth (Smyth 2004, 6.2)."""
    # Launches that agree by chance to the last place are no sign that cases differ.
    least = LEAST_VARIANCE * float(np.median([s.variance for s in known]))
    logs = [
        math.log(max(least, s.variance)) - float(digamma(s.df / 2)) + math.log(s.df / 2)
        for s in known
    ]
    centre = float(np.mean(logs))
    beyond = float(np.var(logs, ddof=1)) - float(np.mean([trigamma(s.df / 2) for s in known]))
    if beyond <= 0:  # they scatter alike
        return math.exp(centre), MOST_DF
    if trigamma(half_most := MOST_DF / 2) >= beyond:
        half = half_most
    elif trigamma(LEAST_HALF_DF) <= beyond:
        half = LEAST_HALF_DF
    else:
        half = brentq(lambda x: trigamma(x) - beyond, LEAST_HALF_DF, half_most)
    return math.exp(centre + float(digamma(half)) - math.log(half)), 2 * half


def _moderated(own: Scatter, prior: float, weight: float) -> Scatter:
    usual = (weight * prior + own.df * own.variance) / (weight + own.df)
    if own.variance >= usual:
        return own
    return Scatter(usual, min(MOST_DF, math.floor(weight) + own.df))


def logs(name: str, values: ArrayLike) -> Array:
    """Return the logarithms of launches, two or more positive numbers."""
    array: Array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.all(array > 0) or not np.all(array < np.inf):
        raise ValueError(f"{name}: expected two or more positive numbers, got {values!r}")
    logs: Array = np.log(array)
    return logs
