"""One quantity of one series at one length: measured there, between two lengths, or not known.

What lies outside the lengths tried, or beside one that failed, is not said here but predicted
(`prediction`), and marked as such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from results.analysis.warm_up import converged
from results.statistics.intervals import ONE_LAUNCH, Array, Estimate
from results.statistics.launches import Cell, contrast, estimate_of
from results.text import numbers

_LARGEST_LOG = 600.0
"""Of a factor: two lengths that are neighbours may ask for more than a float holds."""

LEAST_EXPONENT, GREATEST_EXPONENT = 0.0, 2.0
"""How time and memory may grow with length where no third length says so."""


Basis = Literal["measured", "interpolated", "predicted"]


@dataclass(frozen=True)
class Reading:
    """A value at the length asked for, or why there is none.

    Attributes:
        value: in the metric's unit; NaN = not known.
        low: of its 95 % interval, of a value that was not measured its lower bound; NaN = there is
            none, and `note` says why.
        high: likewise.
        between: the two measured lengths that it was interpolated between; None = it was not.
        fitted: the measured lengths that it was predicted from; empty = it was not.
        note: what a reader must know of it; where there is no value, why.
        launches: the launches behind a measured value, in its unit.
        terms: of a time, the cells of the model of launches that its log is a weighted sum of,
            each with its weight.
        bend: of a time that was not measured, the factors by which the curve may lie below and
            above it.
        converged: of a time, whether the warm-ups behind it did; None = not known.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    between: tuple[int, int] | None = None
    fitted: tuple[int, ...] = ()
    note: str = ""
    launches: Array = field(default_factory=lambda: np.empty(0), compare=False)
    converged: bool | None = None
    terms: tuple[tuple[float, Cell], ...] = field(default=(), compare=False)
    bend: tuple[float, float] = (1.0, 1.0)

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return math.isfinite(self.value)

    @property
    def basis(self) -> Basis:
        """Where a known value is from."""
        return "interpolated" if self.between else "predicted" if self.fitted else "measured"

    @property
    def has_interval(self) -> bool:
        """Whether the bounds are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def greatest(self) -> float:
        """The upper end of the interval; the value where there is none."""
        return self.high if self.has_interval else self.value

    @property
    def least(self) -> float:
        """The lower end of the interval; the value where there is none."""
        return self.low if self.has_interval else self.value


Row = Mapping[Any, Any]
"""Of `series.points` or `series.summarise`, with its `seq_len`."""


def at_length(rows: Sequence[Row], seq_len: int) -> Reading:
    """Return what one series' rows of one metric say about a length.

    Between two lengths that were tried one after the other and both measured, the logarithm of the
    value is interpolated over that of the length. Of a time the interval is that of the contrast
    of both cells of the model of launches; of others it is the wider of both ends', relative to
    their values, on either side. It is opened as far as the curve may bend in between: to where
    the neighbouring segments come when they are continued. Where there are none, the curve may
    have any exponent from 0 to 2.

    What is interpolated has bounds and no level of confidence.

    Args:
        rows: one a length.
        seq_len: the length asked for, in tokens.

    Returns:
        The value with its interval, or the reason why there is none.
    """
    tried = sorted(rows, key=lambda row: int(row["seq_len"]))
    for row in tried:
        if row["seq_len"] == seq_len:
            return replace(_measured(row), converged=converged([row.get("converged")]))
    above = next((i for i, row in enumerate(tried) if row["seq_len"] > seq_len), len(tried))
    if 0 < above < len(tried) and _has(tried[above - 1]) and _has(tried[above]):
        told = converged(row.get("converged") for row in tried[above - 1 : above + 1])
        return replace(_between(tried, above, seq_len), converged=told)
    return Reading(note=_why_unknown(tried, above, seq_len))


def _has(row: Row) -> bool:
    return math.isfinite(row["value"])


def _measured(row: Row) -> Reading:
    if not _has(row):
        return Reading(note=ending(row))
    got = Estimate(row["value"], row["ci_low"], row["ci_high"])
    notes = [] if got.has_interval else [ONE_LAUNCH]
    if row["reason"]:
        notes.append(str(row["reason"]))
    cell = row.get("cell")
    return Reading(
        got.value, got.low, got.high, note="; ".join(notes), launches=np.asarray(row["launches"]),
        terms=() if cell is None else ((1.0, cell),),
    )  # fmt: skip


def ending(row: Row) -> str:
    """Return why a row has no value: its status, and the reason if there is one."""
    status = numbers.STATUS_WORDS.get(str(row["status"]), str(row["status"]))
    if status == "ok":
        return "never measured"
    return f"{status}: {row['reason']}" if row["reason"] else status


def _why_unknown(tried: Sequence[Row], above: int, seq_len: int) -> str:
    """Say what was tried nearest; `above` is the index of the first longer length."""
    measured = [int(row["seq_len"]) for row in tried if _has(row)]
    beside = [row for row in tried[max(0, above - 1) : above + 1] if not _has(row)]
    if not tried:
        return "never measured"
    failed = [f"at {int(row['seq_len']):,} {ending(row)}" for row in beside]
    if not measured:
        return failed[0]
    if seq_len > measured[-1]:
        reach = f"the longest measured is {measured[-1]:,}"
    elif seq_len < measured[0]:
        reach = f"the shortest measured is {measured[0]:,}"
    else:
        reach = f"between lengths of which one failed; the longest measured is {measured[-1]:,}"
    return "; ".join([f"never measured at {seq_len:,}: {reach}", *failed])


# -- between two lengths -------------------------------------------------------------------------


def _between(tried: Sequence[Row], above: int, seq_len: int) -> Reading:
    a, b = tried[above - 1], tried[above]
    ends = int(a["seq_len"]), int(b["seq_len"])
    if a.get("cell") is not None and b.get("cell") is not None:
        return _of_cells(tried, above, seq_len, ends)
    intervals = [(row["ci_low"], row["ci_high"]) for row in (a, b)]
    known = all(math.isfinite(bound) for bounds in intervals for bound in bounds)
    note = "" if known else ONE_LAUNCH
    if min(a["value"], b["value"]) <= 0:  # no logarithm
        share = (seq_len - ends[0]) / (ends[1] - ends[0])
        value = a["value"] + share * (b["value"] - a["value"])
        low, high = min(i[0] for i in intervals), max(i[1] for i in intervals)
        if not known:
            low = high = math.nan
        return Reading(value, low, high, ends, note=note)
    value = on_line(a, b, seq_len)
    if not known:
        return Reading(value, between=ends, note=note)
    bent = [value, *_continued(tried, above, seq_len)]
    low = min(bent) * min(row["ci_low"] / row["value"] for row in (a, b))
    high = max(bent) * max(row["ci_high"] / row["value"] for row in (a, b))
    return Reading(value, low, high, ends)


def _of_cells(tried: Sequence[Row], above: int, seq_len: int, ends: tuple[int, int]) -> Reading:
    """Return a time by the contrast of both ends, opened as far as the curve may bend."""
    share = math.log(seq_len / ends[0]) / math.log(ends[1] / ends[0])
    terms = ((1 - share, tried[above - 1]["cell"]), (share, tried[above]["cell"]))
    got = estimate_of(contrast(terms))
    bent = [got.value, *_continued(tried, above, seq_len)]
    bend = min(bent) / got.value, max(bent) / got.value
    return Reading(
        got.value, got.low * bend[0], got.high * bend[1], ends, note=got.reason, terms=terms,
        bend=bend,
    )  # fmt: skip


def on_line(a: Row, b: Row, seq_len: int) -> float:
    """Return where the line through two rows, in logarithms, is at a length."""
    x, y = math.log(b["seq_len"] / a["seq_len"]), math.log(b["value"] / a["value"])
    rise = y / x * math.log(seq_len / a["seq_len"])
    return float(a["value"] * math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, rise))))


def _continued(tried: Sequence[Row], above: int, seq_len: int) -> list[float]:
    """Return where the segments beside one, or else the exponents, would be at a length in it."""
    pairs = ((above - 2, above - 1), (above, above + 1))
    inside = [(i, j) for i, j in pairs if i >= 0 and j < len(tried)]
    found = [
        on_line(tried[i], tried[j], seq_len)
        for i, j in inside
        if min(tried[i]["value"], tried[j]["value"]) > 0  # false for NaN
    ]
    if found:
        return found
    a, b = tried[above - 1], tried[above]
    up, down = seq_len / a["seq_len"], seq_len / b["seq_len"]
    least = a["value"] * up**LEAST_EXPONENT, b["value"] * down**GREATEST_EXPONENT
    greatest = a["value"] * up**GREATEST_EXPONENT, b["value"] * down**LEAST_EXPONENT
    return [float(max(least)), float(min(greatest))]
