"""Exact bounds of a rate: Clopper and Pearson (1934), by bisection on the binomial sum."""

from __future__ import annotations

import math

LEVEL = 0.95
"""Of every bound; one-sided."""


def at_most(count: int, tries: int, rate: float) -> float:
    """Return P(X <= count) for X binomial with `tries` tries of probability `rate`."""
    if count >= tries:
        return 1.0
    if rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    if count > tries * rate:  # the shorter tail keeps its digits
        return 1.0 - _sum(range(count + 1, tries + 1), tries, rate)
    return _sum(range(count, -1, -1), tries, rate)


def _sum(counts: range, tries: int, rate: float) -> float:
    """Add up the probabilities of `counts`, which lead away from the likeliest one."""
    first = counts[0]
    term = math.exp(
        math.lgamma(tries + 1)
        - math.lgamma(first + 1)
        - math.lgamma(tries - first + 1)
        + first * math.log(rate)
        + (tries - first) * math.log1p(-rate)
    )
    total, odds = 0.0, rate / (1 - rate)
    for k in counts:
        total += term
        if term <= total * 1e-18:
            break
        term *= (tries - k) / (k + 1) * odds if counts.step > 0 else k / (tries - k + 1) / odds
    return min(1.0, total)


def upper(count: int, tries: int, *, level: float = LEVEL) -> float:
    """Return the rate above which so few of `tries` would be seen less often than 1 - `level`.

    Raises:
        ValueError: if `count` is not within 0 and `tries`, or `tries` is below 1.
    """
    _check(count, tries)
    if count == tries:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(count, tries, middle) > 1 - level else (low, middle)
    return high


def lower(count: int, tries: int, *, level: float = LEVEL) -> float:
    """Return the rate below which so many of `tries` would be seen less often than 1 - `level`.

    Raises:
        ValueError: as `upper`.
    """
    _check(count, tries)
    return 1.0 - upper(tries - count, tries, level=level)


def _check(count: int, tries: int) -> None:
    if tries < 1 or not 0 <= count <= tries:
        raise ValueError(
            f"count: expected 0 to tries, and at least one try, got {count} of {tries}"
        )
