"""The 95 % intervals of times, ratios and crossovers cover the truth in at least 93 % of tries,
with or without the control benchmark in the process, and in at least 90 % where processes scatter
in the worst of ways: normally, with heavy tails or with outliers.

How: the simulated sweeps of `exponents`, with 3, 5 or 10 launches of each case and 3 %, 10 % or
15 % between them: log-normal; with Student's t of 3 degrees of freedom in place of the normal; or
log-normal with one launch in ten slower by 30 %, as on a machine that others use. A time is that
of a case, a ratio that of two series at the longest length, a crossover that of two series that
cross within the lengths. The truth is the geometric mean of the distribution. For a single time
with the sentinel it is taken at the speed that the machine had on average in the run: that the
machine may be another one tomorrow, no interval from one run can hold.

Failure: the interval does not hold the truth. The worst is a single time on a quiet machine where
a few launches are much slower: launches that scatter to one side alone make a mean too high or
too low.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from results.statistics.crossover import crossover_of
from results.statistics.launches import ratio_of, time_of
from verification import Measured, Report, Scale
from verification.rates import is_possible, lower
from verification.simulated.jobs import JOBS, run_all
from verification.simulated.launches import LENGTHS, TAILS, draw, row_of, true_crossover

COVERAGE, WORST = 0.93, 0.90
COUNTS = (3, 5, 10)
NOISES = (0.03, 0.10, 0.15)
SWEEPS = {"full": 1000, "short": 6}
KINDS = ("time", "ratio", "crossover")
TIMED = 2
"""The series whose times are looked at."""
TOP, BOTTOM = 1, 3
"""Those of the ratio."""
OURS, THEIRS = 4, 0
"""Those of the crossover."""


def setting(seed: int, tails: str, count: int, noise: float, tried: int) -> list[dict[str, Any]]:
    """Simulate sweeps; return a row for each kind of figure, with and without the sentinel."""
    rng = np.random.default_rng(seed)
    covered = {(kind, s): 0 for kind in KINDS for s in (False, True)}
    halves: dict[tuple[str, bool], list[float]] = {key: [] for key in covered}

    def note(kind: str, sentinel: bool, low: float, truth: float, high: float) -> None:
        covered[kind, sentinel] += low <= truth <= high
        halves[kind, sentinel].append(math.log(high / low) / 2)

    for _ in range(tried):
        sweep = draw(count, noise, rng, tails=tails)
        at = true_crossover(sweep.truth[OURS], sweep.truth[THEIRS])
        for with_sentinel in (False, True):
            cells = sweep.cells(with_sentinel=with_sentinel)
            truth = sweep.truth_in_run if with_sentinel else sweep.truth
            place = int(rng.integers(len(LENGTHS)))
            got = time_of(cells[TIMED][place])
            note("time", with_sentinel, got.low, math.exp(truth[TIMED, place]), got.high)
            got = ratio_of(cells[TOP][-1], cells[BOTTOM][-1])
            lead = math.exp(sweep.truth[TOP, -1] - sweep.truth[BOTTOM, -1])
            note("ratio", with_sentinel, got.low, lead, got.high)
            found = crossover_of(LENGTHS, cells[OURS], cells[THEIRS])
            high = found.high if math.isfinite(found.high) else math.inf
            note("crossover", with_sentinel, found.low, at, high)
    return [
        row_of(covered[key], tried, halves[key], of=key[0], sentinel=key[1], tails=tails,
               noise=noise, launches=count)
        for key in covered
    ]  # fmt: skip


def measure(scale: Scale, report: Report) -> Measured:
    """Draw every kind of launches, and look at the intervals of times, ratios and crossovers."""
    rows: list[dict[str, Any]] = []
    settings = [(t, c, n) for t in TAILS for c in COUNTS for n in NOISES]
    given = [(seed, *one, SWEEPS[scale]) for seed, one in enumerate(settings)]
    for some in run_all(setting, given, jobs=JOBS if scale == "full" else 1):
        rows += some
    for tails in TAILS:
        covers = [row["coverage"] for row in rows if row["tails"] == tails]
        report(f"{tails}: covers {min(covers):.1%} to {max(covers):.1%}")
    kinds = {}
    for kind in KINDS:
        of_kind = [row for row in rows if row["of"] == kind]
        kinds[kind] = (
            sum(row["covered"] for row in of_kind),
            sum(row["tries"] for row in of_kind),
        )
    covered, tries = min(kinds.values(), key=lambda counts: counts[0] / counts[1])
    worst = min(rows, key=lambda row: row["coverage"])
    if scale == "full":
        held = covered / tries >= COVERAGE and worst["coverage"] >= WORST
    else:
        held = is_possible(covered, tries, COVERAGE) and all(
            is_possible(row["covered"], row["tries"], WORST) for row in rows
        )
    return Measured(
        figure="coverage of times, ratios or crossovers, the worst of the three",
        tried=sum(row["tries"] for row in rows),
        failed=sum(row["tries"] - row["covered"] for row in rows),
        rate=covered / tries, bound=lower(covered, tries), limit=COVERAGE,
        side="at least", passed=held, details=rows,
        reason=f"the worst setting covers {worst['coverage']:.1%}: a {worst['of']} of "
        f"{worst['launches']} launches with {worst['noise']:.0%} between them, {worst['tails']}",
    )  # fmt: skip
