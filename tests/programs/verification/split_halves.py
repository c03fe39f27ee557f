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
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from results.analysis.series import SERIES, timed_rows, with_cross_len
from results.records.case_columns import SETTING
from results.records.load import load
from results.statistics.inference import Difference, summed
from results.statistics.launches import Cell, Launches, contrast, fit_series, slope_weights
from verification import Measured, Report, Scale

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
RUNS = {
    "full": (
        "epyc-2-cores", "epyc-2-cores-scaling", "epyc-2-cores-decode", "xeon-2-cores-threads",
        "xeon-2-cores-short", "xeon-2-cores-short-causal",
    ),
    "short": ("epyc-2-cores", "epyc-2-cores-scaling"),
}  # fmt: skip
LEAST_LAUNCHES = 4
DRAWN = 20
AGREE = 0.88
FIGURES = ("exponent", "time", "ratio")


class Series(NamedTuple):
    """A series of a run.

    Attributes:
        setting: what it shares with those that it may stand in a ratio with.
        lengths: in tokens, shape [L].
        launches: the times of each length's launches in seconds, and the sentinel's.
    """

    setting: tuple[Any, ...]
    lengths: tuple[int, ...]
    launches: tuple[Launches, ...]


def series_of(folder: Path) -> list[Series]:
    """Return the series of a run whose cases have `LEAST_LAUNCHES` or more."""
    frame = with_cross_len(timed_rows(load(folder).frame))
    frame = frame[(frame["metric"] == "latency") & (frame["status"] == "ok")]
    found = []
    for key, part in frame.groupby(list(SERIES), sort=True, dropna=False):
        cases = {
            int(length): Launches(rows["value"].to_numpy(), rows["sentinel"].to_numpy())
            for length, rows in _by_length(part) if len(rows) >= LEAST_LAUNCHES
        }  # fmt: skip
        if cases:
            setting = (*key[: len(SETTING)], part["mode"].iloc[0])
            found.append(Series(setting, tuple(cases), tuple(cases.values())))
    return found


def _by_length(part: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    yield from part.sort_values(["seq_len", "launch"]).groupby("seq_len")


def halves_of(series: Sequence[Series], rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    """Yield the run in two halves, again and again: two lists of the cells of each series.

    Every case has its own split; of five launches each of the ten comes once.
    """
    orders: list[list[list[tuple[int, ...]]]] = []
    for one in series:
        cases = []
        for case in one.launches:
            count = len(case.values)
            ways = list(itertools.combinations(range(count), count // 2))
            picked = rng.permutation(len(ways))[:DRAWN]
            cases.append([ways[i] for i in picked])
        orders.append(cases)
    for draw in range(min(len(case) for cases in orders for case in cases)):
        parts: tuple[list[list[Launches]], list[list[Launches]]] = ([], [])
        for one, cases in zip(series, orders, strict=True):
            split = [_split(c, ways[draw]) for c, ways in zip(one.launches, cases, strict=True)]
            for side in (0, 1):
                parts[side].append([halves[side] for halves in split])
        yield fit_series(parts[0]), fit_series(parts[1])


def _split(case: Launches, first: tuple[int, ...]) -> tuple[Launches, Launches]:
    is_first = np.isin(np.arange(len(case.values)), first)
    return (
        Launches(case.values[is_first], case.sentinels[is_first]),
        Launches(case.values[~is_first], case.sentinels[~is_first]),
    )


def figures(series: Sequence[Series], cells: Sequence[Sequence[Cell]]) -> dict[Any, Difference]:
    """Return the exponents, times and ratios of a half, as contrasts, by what they are of."""
    found: dict[Any, Difference] = {}
    for at, (one, own) in enumerate(zip(series, cells, strict=True)):
        if len(one.lengths) > 1:
            weights = slope_weights(one.lengths).tolist()
            found["exponent", at] = contrast(list(zip(weights, own, strict=True)))
        for length, cell in zip(one.lengths, own, strict=True):
            found["time", at, length] = contrast([(1.0, cell)])
    for at, (one, other) in enumerate(itertools.pairwise(series)):
        if one.setting != other.setting:
            continue
        for length in set(one.lengths) & set(other.lengths):
            top = cells[at][one.lengths.index(length)]
            bottom = cells[at + 1][other.lengths.index(length)]
            found["ratio", at, length] = contrast([(1.0, top), (-1.0, bottom)])
    return found


def agrees(first: Difference, second: Difference) -> bool:
    """Say whether two measurements of one thing differ by no more than their intervals allow."""
    apart = summed(
        first.centre - second.centre,
        [(first.error**2, first.df), (second.error**2, second.df)],
    )
    return abs(apart.centre) <= apart.half_width


def tried_on(name: str) -> list[dict[str, Any]]:
    """Split a run; return a row for each kind of figure."""
    series = series_of(REFERENCE / name)
    rng = np.random.default_rng(7)
    tries: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    splits = 0
    for cells in halves_of(series, rng):
        splits += 1
        one, other = (figures(series, half) for half in cells)
        for key, value in one.items():
            tries[key[0]] += 1
            agreed[key[0]] += agrees(value, other[key])
    launches = {len(case.values) for one in series for case in one.launches}
    return [
        {
            "of": figure, "run": name, "launches": max(launches), "splits": splits,
            "tries": tries[figure], "agreed": agreed[figure],
            "share": agreed[figure] / tries[figure],
        }
        for figure in FIGURES if tries[figure]
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
