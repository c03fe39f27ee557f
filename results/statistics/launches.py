"""The model of launches: one estimate behind every time, ratio, exponent and crossover.

The log of a launch's median time is taken to be

    log time = case + β · (log sentinel − its mean) + error

Each series (one backend and mode over its lengths) has one coefficient β and one variance of the
error. The sentinel is a fixed piece of work that was timed in the same launch: what it tells of
the machine's speed is taken off, as far as the series itself bears that out. A variance is never
taken below what is usual among the series (Smyth 2004, the moderated variance), so that a series
that scatters less by chance gets no narrower interval.

Everything reported is a contrast of cases, a weighted sum of their logs, with Student's t
interval: a time is one case, a ratio the difference of two, an exponent the least-squares slope
over the lengths, a crossover the length at which an interpolated difference is zero.

numpy and scipy alone: the planner of a sweep uses it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from results.statistics.inference import Difference, summed
from results.statistics.intervals import ONE_LAUNCH, Array, Estimate
from results.statistics.scatter import Scatter, moderated

MIN_DF_FOR_SENTINEL = 3
"""Degrees of freedom within cases from which on a coefficient of the sentinel is estimated."""


@dataclass(frozen=True, eq=False)
class Launches:
    """The launches of one case.

    Attributes:
        values: the median of each launch's samples, positive, in any unit, shape [n].
        sentinels: the median of the sentinel's times in each launch, in seconds, shape [n]; NaN
            where a launch has none.
    """

    values: Array
    sentinels: Array

    @classmethod
    def of(cls, values: Iterable[float], sentinels: Iterable[float] | None = None) -> Launches:
        """Make launches of numbers.

        Raises:
            ValueError: if there is no launch, a value is not positive and finite, or there is not
                one sentinel to each value.
        """
        taken = np.asarray(list(values), dtype=np.float64)
        if not len(taken) or not np.all((taken > 0) & (taken < np.inf)):
            raise ValueError(f"values: expected positive finite numbers, got {taken.tolist()}")
        beside = np.full(len(taken), math.nan) if sentinels is None else np.asarray(
            list(sentinels), dtype=np.float64)  # fmt: skip
        if len(beside) != len(taken):
            raise ValueError(f"sentinels: expected {len(taken)}, one a launch, got {len(beside)}")
        return cls(taken, beside)


@dataclass(frozen=True, eq=False)
class SeriesModel:
    """What is estimated of a series: its scatter, and what the sentinel tells of it.

    Attributes:
        variance: of one launch's log, never below what is usual; NaN where no case was launched
            twice.
        df: its degrees of freedom; 0 where no case was launched twice.
        coefficient: β; 0 where the sentinel is not used.
        coefficient_error: its standard error; NaN where the sentinel is not used.
        sentinel_squares: sum of squares of the log sentinel within cases; infinite where the
            sentinel is not used.
        sd_without: standard deviation of a launch's log within cases, the sentinel left aside.
        sd: the same once the sentinel's part is taken off.
    """

    variance: float
    df: int
    coefficient: float = 0.0
    coefficient_error: float = math.nan
    sentinel_squares: float = math.inf
    sd_without: float = math.nan
    sd: float = math.nan

    @property
    def uses_sentinel(self) -> bool:
        """Whether launches are adjusted by the sentinel."""
        return math.isfinite(self.sentinel_squares)


class Cell(NamedTuple):
    """One case as the model sees it.

    Attributes:
        log_value: mean log of its launches, at the mean speed of the machine.
        num_launches: how many.
        offset: by how much its mean log sentinel is off that of all launches; 0 where the
            sentinel is not used.
        series: what is estimated of its series.
    """

    log_value: float
    num_launches: int
    offset: float
    series: SeriesModel

    @property
    def value(self) -> float:
        """The case's value, in the unit of its launches."""
        return math.exp(self.log_value)


def fit_series(series: Sequence[Sequence[Launches]]) -> list[list[Cell]]:
    """Fit the model to series that were measured together.

    Args:
        series: of each its cases. The machine's mean speed and what is usual are those of all.

    Returns:
        The cells, in the same order.
    """
    logs = [[np.log(case.values) for case in cases] for cases in series]
    beside = [[np.log(case.sentinels) for case in cases] for cases in series]
    known = [z for cases in beside for case in cases for z in case if math.isfinite(z)]
    centre = float(np.mean(known)) if known else 0.0
    fitted = [_fit_one(y, z) for y, z in zip(logs, beside, strict=True)]
    variances = moderated([Scatter(one.variance, one.df) for one in fitted])
    result = []
    for y, z, one, scatter in zip(logs, beside, fitted, variances, strict=True):
        model = SeriesModel(
            scatter.variance, scatter.df, one.coefficient, one.coefficient_error,
            one.sentinel_squares, one.sd_without, one.sd,
        )  # fmt: skip
        cells = []
        for case, case_z in zip(y, z, strict=True):
            offset = float(case_z.mean()) - centre if model.uses_sentinel else 0.0
            mean = float(case.mean()) - model.coefficient * offset
            cells.append(Cell(mean, len(case), offset, model))
        result.append(cells)
    return result


def _fit_one(logs: Sequence[Array], sentinels: Sequence[Array]) -> SeriesModel:
    """Return the own variance of a series and its coefficient, by least squares within cases."""
    df = sum(len(y) - 1 for y in logs)
    if df == 0:
        return SeriesModel(math.nan, 0)
    y = np.concatenate([case - case.mean() for case in logs])
    z = np.concatenate([case - case.mean() for case in sentinels])
    total = float(y @ y)
    without = math.sqrt(total / df)
    squares = float(z @ z)  # NaN where a launch has no sentinel
    if df < MIN_DF_FOR_SENTINEL or not squares > 0:
        return SeriesModel(total / df, df, sd_without=without, sd=without)
    coefficient = float(z @ y) / squares
    left = max(0.0, total - coefficient**2 * squares) / (df - 1)
    return SeriesModel(
        left, df - 1, coefficient, math.sqrt(left / squares), squares, without, math.sqrt(left)
    )


def residual_squares(case: Launches, series: SeriesModel) -> float:
    """Return the sum of squares of a case's logs about their mean, the sentinel's part taken off.

    Args:
        case: its launches.
        series: the model of its series.
    """
    logs = np.log(case.values)
    if series.uses_sentinel:
        logs = logs - series.coefficient * np.log(case.sentinels)
    return float(((logs - logs.mean()) ** 2).sum())


def contrast(terms: Sequence[tuple[float, Cell]]) -> Difference:
    """Return the weighted sum of cells' logs, with its standard error and degrees of freedom.

    Args:
        terms: of each cell its weight. Cells of one series share its coefficient.

    Returns:
        The contrast; the error is infinite where a series has no case that was launched twice.
    """
    centre = sum(weight * cell.log_value for weight, cell in terms)
    by_series: dict[int, list[tuple[float, Cell]]] = {}
    for weight, cell in terms:
        by_series.setdefault(id(cell.series), []).append((weight, cell))
    parts = []
    for own in by_series.values():
        model = own[0][1].series
        if model.df == 0:
            return Difference(centre, math.inf, 1)
        spread = sum(weight**2 / cell.num_launches for weight, cell in own)
        shift = sum(weight * cell.offset for weight, cell in own)
        parts.append((model.variance * (spread + shift**2 / model.sentinel_squares), model.df))
    return summed(centre, parts)


def estimate_of(difference: Difference) -> Estimate:
    """Return a contrast of logs as a value with its interval, exponentiated."""
    if not math.isfinite(difference.error):
        return Estimate(math.exp(difference.centre), math.nan, math.nan, ONE_LAUNCH)
    return difference.ratio


def time_of(cell: Cell) -> Estimate:
    """Return a case's value with its interval, in the unit of its launches."""
    return estimate_of(contrast([(1.0, cell)]))


def ratio_of(top: Cell, bottom: Cell) -> Estimate:
    """Return the ratio of two cases with its interval."""
    return estimate_of(contrast([(1.0, top), (-1.0, bottom)]))


def is_less(one: Cell, other: Cell) -> bool:
    """Whether a case is told to be less than another: the interval of their ratio is below 1.

    Where no case of a series was launched twice there is no interval, and no order.
    """
    return ratio_of(one, other).high < 1  # False for NaN


def slope_weights(lengths: Sequence[int]) -> Array:
    """Return the weights of the least-squares slope of logs over log length, shape [L].

    Args:
        lengths: in tokens, two or more that differ, shape [L].

    Raises:
        ValueError: if fewer than two differ.
    """
    if len(set(lengths)) < 2:
        raise ValueError(f"lengths: expected two or more that differ, got {list(lengths)}")
    x = np.log(np.asarray(lengths, dtype=np.float64))
    x = x - x.mean()
    weights: Array = x / float(x @ x)
    return weights


def slope_of(lengths: Sequence[int], cells: Sequence[Cell]) -> Estimate:
    """Return the exponent of a series: the slope of log value over log length, with its interval.

    That is the mean growth over these lengths, whatever the curve: no power law is assumed.

    Args:
        lengths: in tokens, two or more that differ, shape [L].
        cells: of one series, shape [L].
    """
    weights = slope_weights(lengths)
    found = contrast(list(zip(weights.tolist(), cells, strict=True)))
    if not math.isfinite(found.error):
        return Estimate(found.centre, math.nan, math.nan, ONE_LAUNCH)
    half = found.half_width
    return Estimate(found.centre, found.centre - half, found.centre + half)


def declared_slope(lengths: Sequence[int], operations: Sequence[float]) -> float:
    """Return the slope of declared operations over the same lengths; NaN where one is missing."""
    costs = np.asarray(operations, dtype=np.float64)
    if len(costs) < 2 or not np.all(np.isfinite(costs)) or np.any(costs <= 0):
        return math.nan
    return float(slope_weights(lengths) @ np.log(costs))
