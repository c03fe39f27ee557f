"""Exact bounds of a rate: Clopper and Pearson (1934)."""

from __future__ import annotations

LEVEL = 0.95
"""Of every bound; one-sided."""


def upper(count: int, tries: int, *, level: float = LEVEL) -> float:
    """Return the rate above which so few of `tries` would be seen less often than 1 - `level`.

    Raises:
        ValueError: if `count` is not within 0 and `tries`, or `tries` is below 1.
    """
    if tries < 1 or not 0 <= count <= tries:
        raise ValueError(
            f"count: expected 0 to tries, and at least one try, got {count} of {tries}"
        )
    from scipy.stats import binomtest  # takes most of a second to import

    interval = binomtest(count, tries, alternative="less").proportion_ci(level, method="exact")
    return float(interval.high)


def lower(count: int, tries: int, *, level: float = LEVEL) -> float:
    """Return the rate below which so many of `tries` would be seen less often than 1 - `level`.

    Raises:
        ValueError: as `upper`.
    """
    return 1.0 - upper(tries - count, tries, level=level)


def is_possible(count: int, tries: int, limit: float) -> bool:
    """Say whether so few of `tries` could have been seen by chance where the rate is `limit`.

    Of few tries the bound alone can tell; at a level of 99.9 %, that many settings can bear.
    """
    return upper(count, tries, level=0.999) >= limit
