"""`attnbench compare` knows a case's change as exactly from four processes in each run, with the
control benchmark in them, as it did from five before a series had one variance and processes a
control.

How: two simulated runs of the same code, of twelve series at four lengths, with 3 %, 10 % or 15 %
between launches, of which the machine has a part that the sentinel sees: in some series nearly
all, in others hardly any. The half-width of the 95 % interval of a case's change, its median over
the cases, by the model of launches with and without the sentinel, and as it was before: a variance
of each case, not below what is usual. How often the interval leaves out no change is counted.

Failure: at some noise, four launches with the sentinel have a wider interval than five had before;
or an interval leaves out no change in more than 7 % of cases.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from results.statistics.inference import Difference
from results.statistics.intervals import Array
from results.statistics.launches import Launches, contrast, fit_series
from results.statistics.scatter import Scatter, moderated
from verification import Measured, Report, Scale
from verification.rates import lower
from verification.simulated.launches import Sweep, draw

NOISES = (0.03, 0.10, 0.15)
COUNTS = (2, 3, 4, 5)
BEFORE, NOW = 5, 4
RUNS = {"full": 200, "short": 6}
MISSED = 0.07
WAYS = ("before", "the model", "the model, with the sentinel")


def pair_of_runs(count: int, noise: float, rng: np.random.Generator) -> list[Sweep]:
    """Draw forward and training of two runs of the same code: a sweep with both runs' launches."""
    return [draw(2 * count, noise, rng, tails="log-normal") for _ in range(2)]


def before(sweeps: list[Sweep], count: int) -> list[Difference]:
    """Compare by a variance of each case, never below what is usual."""
    sides = [
        (y[:count], y[count:])
        for sweep in sweeps for ys in np.log(sweep.values) for y in ys
    ]  # fmt: skip
    df = 2 * (count - 1)
    scatters = moderated(
        [Scatter(float(sum(((s - s.mean()) ** 2).sum() for s in case)) / df, df) for case in sides]
    )
    return [
        Difference(float(new.mean() - base.mean()), math.sqrt(s.variance * 2 / count), s.df)
        for (base, new), s in zip(sides, scatters, strict=True)
    ]


def by_model(sweeps: list[Sweep], count: int, *, with_sentinel: bool) -> list[Difference]:
    """Compare by the model: a series has the cells of both runs."""

    def launches(y: Array, z: Array) -> Launches:
        return Launches(y, z if with_sentinel else np.full_like(z, math.nan))

    series = [
        [
            launches(y[part], z[part])
            for y, z in zip(ys, zs, strict=True)
            for part in (slice(0, count), slice(count, None))
        ]
        for sweep in sweeps for ys, zs in zip(sweep.values, sweep.sentinels, strict=True)
    ]  # fmt: skip
    return [
        contrast([(1.0, new), (-1.0, base)])
        for cells in fit_series(series)
        for base, new in zip(cells[::2], cells[1::2], strict=True)
    ]


def setting(noise: float, count: int, runs: int, seed: int) -> list[dict[str, Any]]:
    """Simulate pairs of runs; return a row for each way to compare them."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[Difference]] = {way: [] for way in WAYS}
    for _ in range(runs):
        sweeps = pair_of_runs(count, noise, rng)
        found["before"] += before(sweeps, count)
        found["the model"] += by_model(sweeps, count, with_sentinel=False)
        found[WAYS[2]] += by_model(sweeps, count, with_sentinel=True)
    return [
        {
            "noise": noise, "launches": count, "way": way, "cases": len(own),
            "half_width": math.expm1(float(np.median([d.half_width for d in own]))),
            "missed": sum(abs(d.centre) > d.half_width for d in own),
        }
        for way, own in found.items()
    ]  # fmt: skip


def measure(scale: Scale, report: Report) -> Measured:
    """Compare runs of the same code by every number of launches, at every noise."""
    rows: list[dict[str, Any]] = []
    for seed, (noise, count) in enumerate((n, c) for n in NOISES for c in COUNTS):
        rows += setting(noise, count, RUNS[scale], seed)
        report("; ".join(
            f"{row['way']} ±{row['half_width']:.1%}" for row in rows[-3:]
        ) + f" from {count} launches at {noise:.0%}")  # fmt: skip

    def width(noise: float, count: int, way: str) -> float:
        return next(
            float(row["half_width"]) for row in rows
            if (row["noise"], row["launches"], row["way"]) == (noise, count, way)
        )  # fmt: skip

    shares = {n: width(n, NOW, WAYS[2]) / width(n, BEFORE, WAYS[0]) for n in NOISES}
    least = 0.0 if scale == "full" else 0.999
    wrong = [
        row for row in rows
        if (row["missed"] / row["cases"] if not least
            else lower(row["missed"], row["cases"], level=least)) > MISSED
    ]  # fmt: skip
    worst = max(shares.values())
    return Measured(
        figure=f"half-width from {NOW} launches now, as a share of that from {BEFORE} before",
        tried=sum(row["cases"] for row in rows), failed=sum(row["missed"] for row in rows),
        rate=worst, bound=None, limit=1.0, side="at most",
        passed=worst <= 1.0 and not wrong, details=rows,
        reason=f"{NOW} launches of every case in each run in place of {BEFORE}",
    )  # fmt: skip
