"""A quantity over launches or cases: its middle, its ends, and where the worst one was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """Median, smallest and largest of `num_values` values; NaN for none.

    `where` names the worst of them.
    """

    num_values: int
    median: float
    low: float
    high: float
    where: str = ""


NOTHING = Span(0, math.nan, math.nan, math.nan)


def span(
    values: Sequence[float], names: Sequence[str], worst: Sequence[float] | None = None
) -> Span:
    """Return the span of the finite ones among `values`.

    Args:
        values: in any unit, shape [n].
        names: what each belongs to, shape [n].
        worst: the larger, the worse, shape [n]; as `values` if not given.
    """
    given = np.asarray(values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(given))
    if not len(known):
        return NOTHING
    badness = given if worst is None else np.asarray(worst, dtype=np.float64)
    place = int(known[np.argmax(badness[known])])
    low, high = float(given[known].min()), float(given[known].max())
    return Span(len(known), float(np.median(given[known])), low, high, names[place])


def number(value: object) -> float:
    """Return a record's number, NaN for what is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 1e300 else math.nan
