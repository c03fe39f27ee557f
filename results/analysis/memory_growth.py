"""How memory grows with length: as declared, otherwise, or so irregularly that no one can tell.

A backend declares that its memory grows with N, with N², or not at all. Beside what grows there is
a constant, so the curve a + c·Nᵖ with the declared p stands against that with the other p, each
with the a ≥ 0 and c that keep its largest relative miss over the lengths smallest. The verdict is
that of the misses: launches hardly scatter here, but single lengths are off the curve, so that an
interval of the exponent is often too wide to tell anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from results.metrics import METRICS
from results.statistics.power_law import fit_exponent, largest_miss

FLOOR = 2 * 2**20
"""Bytes: a peak on a CPU is known to about 1 MiB, so a smaller one than this says no growth."""

MIN_LENGTHS = 3
"""A curve has two parameters: with fewer lengths none misses."""

MIN_FACTOR = 8.0
"""Between the shortest and the longest length, at least: over a factor of four a peak that is off
by a tenth turns a line into a parabola."""

SMALLEST_MISS = 0.05
"""A curve that misses by no more than this is not ruled out."""

CLEARLY = 2.0
"""The other curve misses by so many times as much, at least, where one is preferred. In the
shipped runs it misses by 2.1 times or more where the lengths are powers of two, whose blocks fill
the memory that they take alike, and by 1.5 or less where it is not known which one is right."""

LARGEST_MISS = 0.2
"""A curve that misses by more than this does not describe the memory: N^1.13 in place of N misses
by as much over a factor of sixteen in length."""

WIDEST = 0.5
"""An interval of an exponent wider than this, ±0.25, is not shown: the memory is irregular."""

Verdict = Literal["declared", "otherwise", "irregular", ""]
"""Which curve fits: the declared one alone, the other alone, neither or both; "" = not judged."""


@dataclass(frozen=True)
class MemoryGrowth:
    """How the memory of one series grows.

    Attributes:
        exponent: p of the best a + c·Nᵖ; NaN where there is no curve.
        ci_low: its 95 % interval; NaN where it is wider than `WIDEST`, or there is none.
        ci_high: likewise.
        expected: the declared exponent; NaN = not declared.
        seq_len_min: the shortest length that counts; NaN where none does.
        seq_len_max: the longest.
        num_lengths: how many count.
        miss: by how much the curve with the declared exponent misses at its worst length, as a
            share; NaN where that is not judged.
        other: the exponent that stands against the declared one.
        other_miss: by how much its curve misses.
        growth: the verdict.
        reason: why something is missing.
    """

    exponent: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    expected: float = math.nan
    seq_len_min: float = math.nan
    seq_len_max: float = math.nan
    num_lengths: float = math.nan
    miss: float = math.nan
    other: float = math.nan
    other_miss: float = math.nan
    growth: Verdict = ""
    reason: str = ""


COLUMNS = ("miss", "other", "other_miss", "growth")
"""What a table of exponents has of memory alone."""


def fit_memory(part: pd.DataFrame, series: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the memory of a series grows, as the fields of `MemoryGrowth`.

    Args:
        part: the rows of `series.points` of one series and metric.
        series: values of `series.SERIES` and ``metric``.
    """
    return dict(vars(_fit(part, series)))


def _fit(part: pd.DataFrame, series: Mapping[str, Any]) -> MemoryGrowth:
    good = part[part["value"] > 0].sort_values("seq_len")
    declared = good[METRICS[str(series["metric"])].declared].dropna()
    expected = float(declared.iloc[0]) if len(declared) else math.nan
    if good.empty:
        statuses = ", ".join(dict.fromkeys(part["status"]))
        return MemoryGrowth(expected=expected, reason=f"nothing was measured ({statuses})")
    if series["metric"] == "peak_memory" and series["device"] == "cpu":
        above = good["value"] > FLOOR
        good = good[above.iloc[::-1].cummin().iloc[::-1]]
        if good.empty:
            reason = f"every peak is below {FLOOR // 2**20} MiB"
            return MemoryGrowth(expected=expected, reason=reason)
    if series["level"] == "attention":  # elsewhere the layers around it take most
        good = good[good["seq_len"] > _fixed_size(good)]
    return judge([int(n) for n in good["seq_len"]], list(good["value"]), expected)


def _fixed_size(rows: pd.DataFrame) -> float:
    """Return the largest fixed size of a backend: up to it a window holds the whole input."""
    return max((size for sizes in rows["fixed_size"] for _, size in sizes), default=0.0)


def judge(lengths: Sequence[int], values: Sequence[float], expected: float) -> MemoryGrowth:
    """Hold memory against its declared growth and against another.

    Linear stands against quadratic; what is declared not to grow, against what grows with N from
    nothing.

    Args:
        lengths: increasing, in tokens, shape [L].
        values: memory at each, positive, in bytes, shape [L].
        expected: the declared exponent; NaN = not declared.
    """
    if len(lengths) < 2:
        count = "no length" if not lengths else f"one length ({lengths[0]})"
        return MemoryGrowth(expected=expected, reason=f"{count} long enough: no slope")
    # What is declared not to grow has no part that grows apart from a constant.
    fit = fit_exponent(lengths, values, with_constant=expected != 0)
    low, high, reason = fit.low, fit.high, fit.reason
    if high - low > WIDEST:
        reason = (
            f"irregular: the exponent's interval, {low:.2f} to {high:.2f}, is wider than "
            f"±{WIDEST / 2:g}"
        )
        low = high = math.nan
    miss, other, other_miss = math.nan, math.nan, math.nan
    growth: Verdict = ""
    if not (len(lengths) >= MIN_LENGTHS and lengths[-1] >= MIN_FACTOR * lengths[0]):
        reason = (
            f"{len(lengths)} lengths from {lengths[0]} to {lengths[-1]}: needs {MIN_LENGTHS} "
            f"over a factor of {MIN_FACTOR:g} to judge growth"
        )
    elif math.isfinite(expected):
        has_constant = expected != 0
        miss = largest_miss(lengths, values, expected, with_constant=has_constant)
        other_miss, other = min(
            (largest_miss(lengths, values, p, with_constant=has_constant), p)
            for p in ((1.0, 2.0) if has_constant else (1.0,))
            if p != expected
        )
        growth = _verdict(miss, other_miss)
    return MemoryGrowth(
        fit.exponent, low, high, expected, lengths[0], lengths[-1], len(lengths), miss, other,
        other_miss, growth, reason,
    )  # fmt: skip


def _verdict(miss: float, other_miss: float) -> Verdict:
    less, more = sorted((miss, other_miss))
    if less > LARGEST_MISS or more <= SMALLEST_MISS or more < CLEARLY * less:
        return "irregular"
    return "declared" if miss == less else "otherwise"
