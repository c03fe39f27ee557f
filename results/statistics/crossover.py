"""Where one series overtakes another: where their interpolated difference is zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from results.statistics.inference import ROUNDING, Difference
from results.statistics.intervals import Array, t_quantile
from results.statistics.launches import Cell, contrast
from results.statistics.scatter import MOST_DF

GRID = 64
"""Places between two lengths at which a crossover is looked for."""


def lead_between(
    lengths: Sequence[int], ours: Sequence[Cell], theirs: Sequence[Cell], at: float
) -> Difference:
    """Return log(theirs / ours) at a length, interpolated between the two measured around it.

    Args:
        lengths: increasing, in tokens, shape [L].
        ours: a cell each.
        theirs: likewise.
        at: a length within them, in tokens.
    """
    weights = interpolation(lengths, [at])[0].tolist()
    return contrast(
        [(w, cell) for w, cell in zip(weights, theirs, strict=True) if w]
        + [(-w, cell) for w, cell in zip(weights, ours, strict=True) if w]
    )


def interpolation(lengths: Sequence[int], places: Sequence[float] | Array) -> Array:
    """Return the weights of the lengths that interpolate over log length at places, [P, L]."""
    x, at = np.log(np.asarray(lengths, dtype=np.float64)), np.log(places)
    right = np.clip(np.searchsorted(x, at), 1, len(x) - 1)
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    weights = np.zeros((len(at), len(x)))
    rows = np.arange(len(at))
    weights[rows, right - 1], weights[rows, right] = 1 - share, share
    return weights


def _bands(weights: Array, cells: Sequence[Cell]) -> tuple[Array, Array]:
    """Return `contrast` of many weights at once: centres and half-widths of the intervals, [P].

    Args:
        weights: shape [P, K].
        cells: shape [K].
    """
    centres = weights @ np.array([cell.log_value for cell in cells])
    if any(cell.series.df == 0 for cell in cells):
        return centres, np.full(len(weights), math.inf)
    counts = np.array([cell.num_launches for cell in cells], dtype=np.float64)
    offsets = np.array([cell.offset for cell in cells])
    whole, of_parts = np.zeros(len(weights)), np.zeros(len(weights))
    for model in {id(cell.series): cell.series for cell in cells}.values():
        own = np.array([cell.series is model for cell in cells])
        shift = weights[:, own] @ offsets[own]
        spread = weights[:, own] ** 2 @ (1 / counts[own]) + shift**2 / model.sentinel_squares
        whole += model.variance * spread
        of_parts += (model.variance * spread) ** 2 / model.df
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(of_parts > 0, np.floor(whole**2 / of_parts + ROUNDING), MOST_DF).clip(
            1, MOST_DF
        )
    quantiles = np.array([t_quantile(int(one)) for one in df])
    return centres, quantiles * np.sqrt(whole)


class Crossover(NamedTuple):
    """Where one series overtakes another, in tokens.

    Attributes:
        at: from this length on it is faster for good; NaN = not within the lengths; the shortest
            length where it is faster at every one.
        low: the interval's lower end: below it, it surely is not faster; the shortest length
            where that cannot be said of any.
        high: from this length on it surely is faster; NaN = of none.
        has_interval: whether the ends are known.
        is_always: whether it is faster at every length.
    """

    at: float
    low: float
    high: float
    has_interval: bool
    is_always: bool


def crossover_of(
    lengths: Sequence[int], ours: Sequence[Cell], theirs: Sequence[Cell]
) -> Crossover:
    """Return the length from which on `ours` is less than `theirs`, by inverting the difference.

    Between two lengths the difference of logs is interpolated over log length. The interval holds
    the lengths at which it is not told from zero.

    Args:
        lengths: increasing, two or more, in tokens, shape [L].
        ours: cells of one series, shape [L].
        theirs: of the other.
    """
    at = last_sign_change(
        lengths, [t.log_value - o.log_value for o, t in zip(ours, theirs, strict=True)]
    )
    is_always = at == lengths[0]
    grid = _grid(lengths)
    weights = interpolation(lengths, grid)
    centres, halves = _bands(np.hstack([weights, -weights]), [*theirs, *ours])
    if not np.all(np.isfinite(halves)):
        return Crossover(at, math.nan, math.nan, False, is_always)
    surely_slower = np.flatnonzero(centres + halves < 0)
    not_faster = np.flatnonzero(centres - halves <= 0)
    low = float(grid[surely_slower[-1]] if len(surely_slower) else lengths[0])
    first = not_faster[-1] + 1 if len(not_faster) else 0
    high = float(grid[first]) if first < len(grid) else math.nan
    if math.isfinite(at):
        low, high = min(low, at), max(high, at) if math.isfinite(high) else high
    return Crossover(at, low, high, True, is_always)


def last_sign_change(lengths: Sequence[int], leads: Sequence[float]) -> float:
    """Return where a lead becomes positive for good; NaN = nowhere, the first length = always."""
    behind = [i for i, lead in enumerate(leads) if lead <= 0]
    if not behind:
        return float(lengths[0])
    last = behind[-1]
    if last == len(lengths) - 1:
        return math.nan
    before, after = leads[last], leads[last + 1]
    x0, x1 = math.log(lengths[last]), math.log(lengths[last + 1])
    return math.exp(x0 + (x1 - x0) * -before / (after - before))


def _grid(lengths: Sequence[int]) -> Array:
    """Return places from the first length to the last, evenly in log length between each two."""
    at = np.arange(GRID * (len(lengths) - 1) + 1) / GRID
    places: Array = np.exp(np.interp(at, np.arange(len(lengths)), np.log(lengths)))
    places[::GRID] = lengths  # exactly
    return places
