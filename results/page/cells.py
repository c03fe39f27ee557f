"""Cells that several tables write: an interval, a ratio, an error, a name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from results.analysis.warm_up import marked
from results.page.blocks import Cell
from results.text import numbers
from results.text.labels import label
from results.text.numbers import small_number, status_word


def plus_minus(row: Mapping[Any, Any]) -> str:
    """Write an interval as a share of the value, where there is one that is not nothing."""
    low, high, value = (row.get(c, math.nan) for c in ("ci_low", "ci_high", "value"))
    if not (math.isfinite(low) and math.isfinite(high)) or high == low or value <= 0:
        return ""
    half = max(high / value, value / low if low > 0 else math.inf) - 1
    if half > 10:
        return "± more than tenfold"
    return f"±{numbers.digits(100 * half, 2 if half > 0.01 else 1, to='up')} %"


def ratio_cell(row: Mapping[Any, Any]) -> Cell:
    """Write the columns `speedup`, `speedup_low` and `speedup_high` of a row."""
    if not math.isfinite(row["speedup"]):
        return Cell(numbers.NONE)
    text = numbers.times(row["speedup"], row["speedup_low"], row["speedup_high"])
    value, _, between = text.partition(" × ")
    return Cell(f"{value.removesuffix(' ×')} ×", between)


def gate_error(row: Mapping[Any, Any]) -> str:
    """Write the larger of the gate's errors of a row: the output's and the gradient's."""
    known = [row.get(c, math.nan) for c in ("gate_error", "gradient_error")]
    return small_number(max((e for e in known if math.isfinite(e)), default=math.nan))


def name(row: Mapping[Any, Any]) -> str:
    """Return a backend with its options."""
    return label(row["backend"], row["options"])


def time(row: Mapping[Any, Any], column: str = "value") -> str:
    """Write a time of a row, marked where its warm-up was cut short."""
    return marked(numbers.seconds(row[column]), row)


def share_of_peak(share: float) -> str:
    """Write a share of a measured peak: what is above all of it says that the peak is wrong."""
    return ABOVE_PEAK if share > WHOLE else numbers.percent(share)


WHOLE = 1.005
"""A share of a peak above this is none: the rest is rounding."""

ABOVE_PEAK = "≥ 100 %, peak probe disturbed"


def time_cell(row: Mapping[Any, Any]) -> Cell:
    """Write the columns `value`, `ci_low` and `ci_high` of a row that are a time.

    It has the digits that its interval supports, and the interval as a share.
    """
    known = numbers.supported(*(row.get(c, math.nan) for c in ("value", "ci_low", "ci_high")))
    return Cell(marked(numbers.seconds(row["value"], significant=known), row), plus_minus(row))


def status_cell(row: Mapping[Any, Any]) -> Cell:
    """Write the column `status` of a row."""
    return Cell(status_word(row["status"]), is_status=row["status"] != "ok")
