"""Scores over seeds: their mean with its interval, and what of them counts as solved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from results.statistics.intervals import t_quantile

FEWEST = 3
"""Seeds behind an interval."""

SOLVED = 0.99
"""An accuracy from which on a task counts as solved."""

_Z = 1.959964
"""The two-sided 95 % quantile of the normal distribution."""


class Spread(NamedTuple):
    """A score over seeds: mean, smallest, largest, and the interval of the mean or NaN."""

    mean: float
    low: float
    high: float
    ci_low: float
    ci_high: float


def spread(
    values: Sequence[float],
    *,
    low: float = -math.inf,
    high: float = math.inf,
    num_labels: float = math.nan,
) -> Spread:
    """Return mean, ends and, from `FEWEST` values on, the 95 % interval of the mean.

    The interval is Student's, of the values; of shares with a known number of labels it is at
    least Wilson's (1927), for equal seeds have no spread and are no certainty. Equal values of
    which no number of labels is known give no interval.

    Args:
        values: one a seed, shape [n], n ≥ 1.
        low: no score is below, and no interval.
        high: likewise.
        num_labels: behind one value, where values are shares of labels. Those of one seed alone:
            seeds may be asked the same.
    """
    scores = np.asarray(values, dtype=np.float64)
    mean, count = float(scores.mean()), len(scores)
    ends = float(scores.min()), float(scores.max())
    has_labels = num_labels > 0
    if count < FEWEST or (ends[0] == ends[1] and not has_labels):
        return Spread(mean, *ends, math.nan, math.nan)
    half = t_quantile(count - 1) * float(scores.std(ddof=1)) / math.sqrt(count)
    bottom, top = mean - half, mean + half
    if has_labels:
        least, most = wilson(mean, num_labels)
        bottom, top = min(bottom, least), max(top, most)
    return Spread(mean, *ends, max(low, bottom), min(high, top))


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of `count` labels, `share` from 0 to 1."""
    weight = _Z**2 / count
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return centre - half, centre + half


def labels_of(rows: pd.DataFrame) -> float:
    """Return the fewest labels that a seed's accuracy is of, NaN where none says so.

    Args:
        rows: tidy rows of metric ``accuracy``.
    """
    return float(rows["num_labels"].min()) if len(rows) else math.nan


def of_seeds(num_seeds: int, num_tried: int) -> str:
    """Say how many seeds a score is of where some have none: ``2 of 3 seeds``, else ""."""
    return f"{num_seeds} of {num_tried} seeds" if num_seeds < num_tried else ""


def is_solved(row: Mapping[Any, Any]) -> bool:
    """Whether a row of `quality.scores` solves its task: its mean, and no seed without a score."""
    return bool(row["score"] >= SOLVED and row["num_seeds"] >= row["num_tried"])
