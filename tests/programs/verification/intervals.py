"""The 95 % intervals of a median and of a ratio cover the truth in at least 93 % of tries,
whether the launches scatter normally, with heavy tails or with outliers.

How: 3, 5 or 10 launches drawn with 3 % or 10 % between them: log-normal; with Student's t of 3
degrees of freedom in place of the normal; or log-normal with one launch in ten slower by 30 %, as
on a machine that others use. The truth is the median of the distribution, of the ratio that of
two such sides, one twice the other.

Failure: the interval does not hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from results.statistics.intervals import Array, estimate, ratio
from verification import Measured, Report, Scale
from verification.rates import lower

COVERAGE = 0.93
COUNTS = (3, 5, 10)
NOISES = (0.03, 0.10)
TRIES = {"full": 4000, "short": 150}
SLOW_SHARE, SLOW_FACTOR = 0.1, 1.3


def _normal(noise: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.exp(noise * rng.standard_normal(shape))


def _heavy(noise: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.exp(noise * rng.standard_t(3, shape))


def _disturbed(noise: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw launches of which some are slower; the median of the mixture is 1."""
    slow = rng.random(shape) < SLOW_SHARE
    drawn: Array = _normal(noise, rng, shape) * np.where(slow, SLOW_FACTOR, 1.0)
    return drawn / _mixed_median(noise)


def _mixed_median(noise: float) -> float:
    """Return the median of the mixture, by bisection on its distribution in the log domain."""
    low, high = 0.0, math.log(SLOW_FACTOR)
    for _ in range(60):
        middle = (low + high) / 2
        below = (1 - SLOW_SHARE) * _phi(middle / noise)
        below += SLOW_SHARE * _phi((middle - math.log(SLOW_FACTOR)) / noise)
        low, high = (middle, high) if below < 0.5 else (low, middle)
    return math.exp(low)


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


TAILS: dict[str, Callable[[float, np.random.Generator, tuple[int, ...]], Array]] = {
    "log-normal": _normal,
    "Student's t, 3 degrees": _heavy,
    "one in ten slower by 30 %": _disturbed,
}


def measure(scale: Scale, report: Report) -> Measured:
    """Draw every kind of launches, and look at the intervals of their medians and ratios."""
    rng, tries = np.random.default_rng(5), TRIES[scale]
    rows: list[dict[str, Any]] = []
    for tails, draw in TAILS.items():
        for noise in NOISES:
            for count in COUNTS:
                tops, bottoms = (draw(noise, rng, (tries, count)) for _ in range(2))
                medians = [estimate(launches) for launches in tops]
                ratios = [
                    ratio(2 * top, bottom, seed=seed)
                    for seed, (top, bottom) in enumerate(zip(tops, bottoms, strict=True))
                ]
                for of, found, truth in (("median", medians, 1.0), ("ratio", ratios, 2.0)):
                    covered = sum(got.low <= truth <= got.high for got in found)
                    rows.append(
                        {
                            "of": of, "tails": tails, "noise": noise, "launches": count,
                            "tries": tries, "covered": covered, "coverage": covered / tries,
                            "bound": lower(covered, tries),
                        }
                    )  # fmt: skip
        own = [row["coverage"] for row in rows if row["tails"] == tails]
        report(f"{tails}: covers {min(own):.1%} to {max(own):.1%}")
    worst = min(rows, key=lambda row: row["coverage"])
    missed = [row["tries"] - row["covered"] for row in rows]
    # Of few tries the bound alone can tell, at a level that many settings can bear.
    possible = all(1 - lower(m, tries, level=0.999) >= COVERAGE for m in missed)
    return Measured(
        figure=f"coverage, the worst of {len(rows)} settings",
        tried=tries * len(rows), failed=sum(missed),
        rate=worst["coverage"], bound=worst["bound"], limit=COVERAGE, side="at least",
        passed=worst["coverage"] >= COVERAGE if scale == "full" else possible, details=rows,
    )  # fmt: skip
