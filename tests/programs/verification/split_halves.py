"""Two halves of one real run agree within their intervals in at least 88 % of tries: exponents,
times and ratios alike.

How: the shipped runs with four launches or more of each case (`results/reference`). The launches
of every case are split into two halves, drawn anew for each case: in every way that there is if
they are five, else in 20 ways drawn with a fixed seed. The model of launches is fitted to each
half by itself, as if it were a run. Compared are the exponent of every series over its lengths,
the time of every case, and the ratio of every two neighbouring series at every length. Simulated
noise may flatter a method; these are real launches. 88 %, not 95 %: halves of two and three
launches, few runs, and tries that share launches.

Failure: the difference of both halves is beyond the 95 % interval of the difference.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from results.statistics.launches import Cell, Launches, fit_series
from verification import Measured, Report, Scale
from verification.two_runs import (
    REFERENCE,
    Series,
    agreements,
    exponents,
    ratios,
    series_of,
    times,
)

RUNS = {
    "full": (
        "epyc-2-cores/speed", "epyc-2-cores/scaling", "epyc-2-cores/decode",
        "xeon-2-cores/threads", "xeon-2-cores/short", "xeon-2-cores/short-causal",
    ),
    "short": ("epyc-2-cores/speed", "epyc-2-cores/scaling"),
}  # fmt: skip
LEAST_LAUNCHES = 4
DRAWN = 20
MOST_WAYS = 10_000
AGREE = 0.88
FIGURES = {"exponent": exponents, "time": times, "ratio": ratios}

Cells = list[list[Cell]]


def halves_of(series: Sequence[Series], rng: np.random.Generator) -> Iterator[tuple[Cells, Cells]]:
    """Yield the run in two halves, again and again: two lists of the cells of each series.

    Every case has its own split; of five launches each of the ten comes once.
    """
    orders: list[list[list[tuple[int, ...]]]] = []
    for one in series:
        cases = []
        for case in one.launches:
            count = len(case.values)
            cases.append(_ways(count, rng))
        orders.append(cases)
    for draw in range(min(len(case) for cases in orders for case in cases)):
        parts: tuple[list[list[Launches]], list[list[Launches]]] = ([], [])
        for one, cases in zip(series, orders, strict=True):
            split = [_split(c, ways[draw]) for c, ways in zip(one.launches, cases, strict=True)]
            for side in (0, 1):
                parts[side].append([halves[side] for halves in split])
        yield fit_series(parts[0]), fit_series(parts[1])


def _ways(count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return some ways to take half of so many launches; of few each comes once."""
    if math.comb(count, count // 2) > MOST_WAYS:  # the planner takes more where it needs them
        return [tuple(rng.permutation(count)[: count // 2]) for _ in range(DRAWN)]
    ways = list(itertools.combinations(range(count), count // 2))
    return [ways[i] for i in rng.permutation(len(ways))[:DRAWN]]


def _split(case: Launches, first: tuple[int, ...]) -> tuple[Launches, Launches]:
    is_first = np.isin(np.arange(len(case.values)), first)
    return (
        Launches(case.values[is_first], case.sentinels[is_first]),
        Launches(case.values[~is_first], case.sentinels[~is_first]),
    )


def tried_on(name: str) -> list[dict[str, Any]]:
    """Split a run; return a row for each kind of figure."""
    series = series_of(REFERENCE / name, least_launches=LEAST_LAUNCHES)
    tries: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    splits = 0
    for first, second in halves_of(series, np.random.default_rng(7)):
        splits += 1
        for of, figures in FIGURES.items():
            agree = agreements(figures(series, first), figures(series, second))
            tries[of] += len(agree)
            agreed[of] += sum(agree)
    launches = {len(case.values) for one in series for case in one.launches}
    return [
        {
            "of": of, "run": name, "launches": max(launches), "splits": splits,
            "tries": tries[of], "agreed": agreed[of], "share": agreed[of] / tries[of],
        }
        for of in FIGURES if tries[of]
    ]  # fmt: skip


def measure(scale: Scale, report: Report) -> Measured:
    """Split every run, and hold each kind of figure over all of them against the limit."""
    rows: list[dict[str, Any]] = []
    for name in RUNS[scale]:
        rows += tried_on(name)
        shares = ", ".join(f"{r['of']}s {r['share']:.1%}" for r in rows if r["run"] == name)
        report(f"{name}: {shares}")
    shares = {}
    for figure in FIGURES:
        of_figure = [row for row in rows if row["of"] == figure]
        counts = [sum(row[count] for row in of_figure) for count in ("agreed", "tries")]
        shares[figure] = (counts[0] / counts[1], *counts)
    worst = min(shares.values())
    return Measured(
        figure="share of halves that agree, of the worst of exponents, times and ratios",
        tried=sum(row["tries"] for row in rows),
        failed=sum(row["tries"] - row["agreed"] for row in rows),
        # The tries share launches: they are no sample that has a bound.
        rate=worst[0], bound=None, limit=AGREE, side="at least",
        passed=worst[0] >= AGREE, details=rows,
    )  # fmt: skip
