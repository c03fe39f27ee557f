"""Launches of series that are drawn with a known noise: what the promises on intervals try.

A sweep here is six series over the lengths of preset quick. The log of a launch's time is its
case, a part of the machine that the sentinel in the launch sees too, and a part of its own. Of
the noise that is asked for, the machine has `SHARED` and the series `LOADINGS` of that; the rest
is the series' own, and some scatter more than others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from results.statistics.intervals import Array
from results.statistics.launches import Cell, Launches, fit_series, slope_weights

LENGTHS = (512, 1024, 2048, 4096)
OVERHEAD = 0.05
"""Of the shortest time: a constant part, the most that a table of exponents lets through."""
KINK = 0.02
"""Standard deviation of how far a true time is off its law."""
SENTINEL_NOISE = 0.01
SLOW_SHARE, SLOW_FACTOR = 0.1, 1.3

LAWS: dict[str, Callable[[Array], Array]] = {
    "N²": lambda n: n**2,
    "N": lambda n: 10.0 * n,
    "N^1.5": lambda n: 0.8 * n**1.5,
    "N·log N": lambda n: 3.0 * n * np.log(n),
    "N, slow": lambda n: 1500.0 * n,
    "N², fast": lambda n: 0.4 * n**2,
}
"""Six series. The fifth becomes faster than the first within the lengths."""
SHARED = 0.8
LOADINGS = np.array([0.4, 1.0, 0.7, 1.0, 0.7, 0.4])
UNEQUAL = np.array([1.3, 0.7, 1.0, 0.8, 1.0, 1.2])
"""Of the own noise of each series."""


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def _heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_t(3, shape)


TAILS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "log-normal": _normal,
    "Student's t, 3 degrees": _heavy,
    "one in ten slower by 30 %": _normal,
}


class Sweep(NamedTuple):
    """A simulated sweep.

    Attributes:
        truth: log of every case's time at the mean speed of the machine, shape [S, L].
        truth_in_run: the same at the speed that the machine had on average in this run.
        values: times of the launches in seconds, shape [S, L, n].
        sentinels: the sentinel's, in seconds, likewise.
    """

    truth: Array
    truth_in_run: Array
    values: Array
    sentinels: Array

    def cells(self, *, with_sentinel: bool) -> list[list[Cell]]:
        """Fit the model of launches."""
        beside = self.sentinels if with_sentinel else np.full_like(self.values, math.nan)
        return fit_series(
            [[Launches(y, z) for y, z in zip(ys, zs, strict=True)]
             for ys, zs in zip(self.values, beside, strict=True)]
        )  # fmt: skip


def draw(launches: int, noise: float, rng: np.random.Generator, *, tails: str) -> Sweep:
    """Draw a sweep.

    Args:
        launches: of each case.
        noise: standard deviation of a launch's log; of heavy tails its scale.
        rng: the source of the draws.
        tails: one of `TAILS`.
    """
    n = np.array(LENGTHS, dtype=np.float64)
    work = np.array([law(n) for law in LAWS.values()]) * 1e-9
    cases = np.log(work + OVERHEAD * work[:, :1]) + KINK * rng.standard_normal(work.shape)
    shape = (*cases.shape, launches)
    machine = SHARED * noise * TAILS[tails](rng, shape)
    loadings = LOADINGS[:, None, None]
    rest = np.sqrt(1 - (SHARED * loadings) ** 2) * UNEQUAL[:, None, None] * noise
    y = cases[:, :, None] + loadings * machine + rest * TAILS[tails](rng, shape)
    expected = 0.0
    if tails.startswith("one in ten"):
        y += math.log(SLOW_FACTOR) * (rng.random(shape) < SLOW_SHARE)
        expected = SLOW_SHARE * math.log(SLOW_FACTOR)
    z = math.log(4e-3) + machine + SENTINEL_NOISE * rng.standard_normal(shape)
    truth = cases + expected
    in_run = truth + LOADINGS[:, None] * machine.mean()
    return Sweep(truth, in_run, np.exp(y), np.exp(z))


def true_slopes(truth: Array) -> Array:
    """Return the least-squares slope of every series' true log times, shape [S]."""
    slopes: Array = truth @ slope_weights(LENGTHS)
    return slopes


def true_crossover(ours: Array, theirs: Array, lengths: tuple[int, ...] = LENGTHS) -> float:
    """Return where two true curves cross for good; the ends where they do not, as ∓ infinity.

    Args:
        ours: true log times, interpolated over log length, shape [L].
        theirs: likewise.
        lengths: increasing, shape [L].
    """
    lead = theirs - ours
    behind = np.flatnonzero(lead <= 0)
    if not len(behind):
        return -math.inf
    last = int(behind[-1])
    if last == len(lengths) - 1:
        return math.inf
    x = np.log(lengths)
    share = -lead[last] / (lead[last + 1] - lead[last])
    return float(np.exp(x[last] + share * (x[last + 1] - x[last])))


def row_of(covered: int, tries: int, half_widths: list[float], **more: Any) -> dict[str, Any]:
    """Return a row of a table: how often the truth was held, and how wide the intervals were."""
    return {
        **more, "tries": tries, "covered": covered, "coverage": covered / tries,
        "half_width": float(np.median(half_widths)),
    }  # fmt: skip
