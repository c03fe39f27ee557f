"""Two measurements of the same beside each other: do they agree within their intervals?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from results.analysis.series import SERIES, timed_rows, with_cross_len
from results.records.case_columns import SETTING
from results.records.load import load
from results.statistics.crossover import crossover_of, lead_between
from results.statistics.inference import Difference, summed
from results.statistics.launches import Cell, Launches, contrast, slope_weights
from results.statistics.questions import BASELINES

REFERENCE = Path(__file__).parents[3] / "results" / "reference"


class Series(NamedTuple):
    """A series of a run.

    Attributes:
        name: of its backend, with options.
        setting: what it shares with those that it may stand in a ratio with.
        lengths: in tokens, shape [L].
        launches: the times of each length's launches in seconds, and the sentinel's.
    """

    name: str
    setting: tuple[Any, ...]
    lengths: tuple[int, ...]
    launches: tuple[Launches, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """What the same series has in another run on this machine, too."""
        return self.name, self.setting


def series_of(folder: Path, *, least_launches: int = 2) -> list[Series]:
    """Return the series of a run, with the cases that were launched so often."""
    found = []
    for key, part in latencies(folder).groupby(list(SERIES), sort=True, dropna=False):
        cases = {
            int(length): Launches(rows["value"].to_numpy(), rows["sentinel"].to_numpy())
            for length, rows in _by_length(part) if len(rows) >= least_launches
        }  # fmt: skip
        if cases:
            mode, backend, options = key[len(SETTING) :]
            name = f"{backend}:{options}" if options else backend
            setting = (*key[: len(SETTING)], mode)
            found.append(Series(name, setting, tuple(cases), tuple(cases.values())))
    return found


def times_of(folder: Path) -> dict[tuple[str, str, int], float]:
    """Return the geometric mean over launches by mode, backend and length, in seconds."""
    rows = latencies(folder)
    rows = rows.assign(log_time=np.log(rows["value"]))
    means = rows.groupby(["mode", "backend", "seq_len"])["log_time"].mean()
    return {key: math.exp(value) for key, value in means.items()}


def latencies(folder: Path) -> pd.DataFrame:
    """Return a row for each launch of a run that gave a time."""
    frame = with_cross_len(timed_rows(load(folder).frame))
    return frame[(frame["metric"] == "latency") & (frame["status"] == "ok")]


def _by_length(part: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    yield from part.sort_values(["seq_len", "launch"]).groupby("seq_len")


def exponents(
    series: Sequence[Series], cells: Sequence[Sequence[Cell]]
) -> dict[tuple[Any, ...], Difference]:
    """Return the exponent of every series of two lengths or more, as a contrast."""
    return {
        one.key: contrast(list(zip(slope_weights(one.lengths).tolist(), own, strict=True)))
        for one, own in zip(series, cells, strict=True) if len(one.lengths) > 1
    }  # fmt: skip


def times(
    series: Sequence[Series], cells: Sequence[Sequence[Cell]]
) -> dict[tuple[Any, ...], Difference]:
    """Return the time of every case, as a contrast."""
    return {
        (*one.key, length): contrast([(1.0, cell)])
        for one, own in zip(series, cells, strict=True)
        for length, cell in zip(one.lengths, own, strict=True)
    }


def ratios(
    series: Sequence[Series], cells: Sequence[Sequence[Cell]]
) -> dict[tuple[Any, ...], Difference]:
    """Return the ratio of every two neighbouring series of a setting, at each length."""
    found = {}
    pairs = itertools.pairwise(zip(series, cells, strict=True))
    for (one, own), (other, theirs) in pairs:
        if one.setting != other.setting:
            continue
        for length in set(one.lengths) & set(other.lengths):
            top, bottom = own[one.lengths.index(length)], theirs[other.lengths.index(length)]
            found[one.key, other.name, length] = contrast([(1.0, top), (-1.0, bottom)])
    return found


def crossover_leads(
    series: Sequence[Series], first: Sequence[Sequence[Cell]], second: Sequence[Sequence[Cell]]
) -> Iterator[tuple[Difference, Difference]]:
    """Yield, where a series crosses a baseline in one run or both, its lead there in each run.

    The length is the crossover's; where the runs have two of them, their geometric mean. Two runs
    agree about a crossover as far as they agree about the lead there: zero in one of them.
    """
    at = {one.key: index for index, one in enumerate(series)}
    for index, one in enumerate(series):
        for baseline in BASELINES if one.name not in BASELINES else ():
            other = at.get((baseline, one.setting))
            if other is None or len(one.lengths) < 2 or series[other].lengths != one.lengths:
                continue
            pairs = [(run[index], run[other]) for run in (first, second)]
            found = [crossover_of(one.lengths, ours, theirs) for ours, theirs in pairs]
            inside = [c.at for c in found if math.isfinite(c.at) and not c.is_always]
            if inside:
                place = math.exp(sum(map(math.log, inside)) / len(inside))
                here, there = (lead_between(one.lengths, *pair, at=place) for pair in pairs)
                yield here, there


def agrees(first: Difference, second: Difference) -> bool:
    """Say whether two measurements of one thing differ by no more than their intervals allow."""
    apart = summed(
        first.centre - second.centre,
        [(first.error**2, first.df), (second.error**2, second.df)],
    )
    return abs(apart.centre) <= apart.half_width


def agreements(
    first: Mapping[tuple[Any, ...], Difference], second: Mapping[tuple[Any, ...], Difference]
) -> list[bool]:
    """Say of everything that both measured whether they agree."""
    return [agrees(one, second[key]) for key, one in first.items() if key in second]
