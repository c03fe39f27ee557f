"""The methods of a setting in one mode: what the first screen says of each, a row a method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.chapters.speed.rows import Chapter
from results.records.frames import as_rows
from results.schema import IDENTITY
from results.statistics.questions import BASELINES
from results.text.labels import label
from results.text.method_types import MethodType, is_rounding, method_type
from results.text.modes import WORDS
from results.text.numbers import status_word

RESOLVED = 0.5
"""An interval of an exponent wider than this does not tell linear and quadratic apart."""

NEAR = 0.15
"""An exponent within this of a whole one is called so."""

_GROWTHS = {0: "constant", 1: "N", 2: "N²"}
UNRESOLVED = "unresolved"

Row = Mapping[Any, Any]
"""Of one of the tables of `results.analysis`."""


@dataclass(frozen=True)
class Method:
    """A method that ran, at the length that the table is about.

    Attributes:
        backend: its name.
        options: as the command line writes them.
        type: exact, sparse, approximate or own.
        time: its latency there, a row of `points`; None = it gave none there.
        memory: likewise, its memory.
        ended: why there is no time: a status in words, "" where there is one.
        speedup: over the baseline there, a row of `speedups`; None for the baseline, and where one
            of both gave no time.
        crossover: where it overtakes the baseline, a row of `crossovers`; None for the baseline.
        growth: how its time grows: ``N``, ``N²``, ``N^1.4``, ``constant`` or ``unresolved``.
        error: of its output on the inputs that it was timed on; NaN = not measured.
    """

    backend: str
    options: str
    type: MethodType
    time: Row | None
    memory: Row | None
    ended: str
    speedup: Row | None
    crossover: Row | None
    growth: str
    error: float

    @property
    def key(self) -> tuple[str, str]:
        """Backend and options."""
        return self.backend, self.options

    @property
    def label(self) -> str:
        """The method as the command line writes it."""
        return label(self.backend, self.options)

    @property
    def is_exact(self) -> bool:
        """Whether it computes softmax attention over all keys."""
        return self.type == "exact"


@dataclass(frozen=True)
class Comparison:
    """The methods of a setting in one mode.

    Attributes:
        mode: one of `schema.MODES`.
        baseline: the exact backend that the others are held against; "" = none was measured.
        length: the longest at which most of them and the baseline gave a time, in tokens.
        lengths: all that gave a time, in tokens, increasing.
        methods: exact ones first, each group by time; those without a time last.
        absent: methods that gave no time at any length, by the reason.
    """

    mode: str
    baseline: str
    length: int
    lengths: tuple[int, ...]
    methods: tuple[Method, ...]
    absent: Mapping[str, tuple[str, ...]]

    @property
    def of_baseline(self) -> Method | None:
        """The baseline's row."""
        return next((m for m in self.methods if m.key == (self.baseline, "")), None)


def comparisons(chapter: Chapter) -> list[Comparison]:
    """Return what was timed in each mode of a setting; forward first."""
    found = (_comparison(chapter, mode) for mode in chapter.modes)
    return [one for one in found if one is not None]


def _comparison(chapter: Chapter, mode: str) -> Comparison | None:
    points = chapter.points
    points = points[(points["mode"] == mode) & (points["backend"] != IDENTITY)]
    times = points[points["metric"] == "latency"]
    timed = times[times["value"].notna()]
    if timed.empty:
        return None
    own = set(timed[timed["options"] == ""]["backend"])
    baseline = next((b for b in reversed(BASELINES) if b in own), "")
    length = _common_length(timed, baseline)
    memory = points[(points["metric"] == WORDS[mode].memory) & points["value"].notna()]
    series = list(dict.fromkeys(zip(timed["backend"], timed["options"], strict=True)))
    made = [_method(chapter, mode, key, baseline, length, times, memory) for key in series]
    order = sorted(
        made, key=lambda m: (not m.is_exact, math.inf if m.time is None else m.time["value"])
    )
    lengths = tuple(sorted({int(n) for n in timed["seq_len"]}))
    return Comparison(mode, baseline, length, lengths, tuple(order), _absent(times, set(series)))


def _common_length(timed: pd.DataFrame, baseline: str) -> int:
    """Return the longest length that the baseline and at least half of the methods share."""
    counts = timed.groupby("seq_len").size()
    if baseline:
        exact = timed[(timed["backend"] == baseline) & (timed["options"] == "")]
        counts = counts[counts.index.isin(exact["seq_len"])]
    return int(counts[counts >= counts.max() / 2].index.max())


def _method(
    chapter: Chapter,
    mode: str,
    key: tuple[str, str],
    baseline: str,
    length: int,
    times: pd.DataFrame,
    memory: pd.DataFrame,
) -> Method:
    at = _one(times, key, seq_len=length)
    is_timed = at is not None and math.isfinite(at["value"])
    speedup = crossover = None
    if baseline and key != (baseline, ""):
        speedup = _one(chapter.speedups, key, mode=mode, baseline=baseline, seq_len=length)
        crossover = _one(chapter.crossovers, key, mode=mode, baseline=baseline)
    fit = _one(chapter.fits, key, mode=mode, metric="latency")
    error = _error(chapter.points, key, mode, length)
    is_exact = is_rounding(error, str(chapter.setting["dtype"]))
    kind = method_type(*key, is_exact=is_exact)
    if kind == "sparse" and is_exact:
        kind = "exact"  # at this length its pattern covers all keys
    return Method(
        *key, kind,
        time=at if is_timed else None,
        memory=_one(memory, key, seq_len=length),
        ended="" if is_timed else "not measured" if at is None else status_word(at["status"]),
        speedup=speedup, crossover=crossover, growth=growth(fit), error=error,
    )  # fmt: skip


def _one(table: pd.DataFrame, key: tuple[str, str], **where: object) -> Row | None:
    """Return the first row of a series where the columns have these values."""
    rows = table[(table["backend"] == key[0]) & (table["options"] == key[1])]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return as_rows(rows)[0] if len(rows) else None


def _error(points: pd.DataFrame, key: tuple[str, str], mode: str, length: int) -> float:
    """Return the error of a series' output at a length, else at the longest that has one."""
    rows = points[(points["metric"] == "relative_error") & points["value"].notna()]
    at = _one(rows, key, mode=mode, seq_len=length)
    at = at or _one(rows.sort_values("seq_len", ascending=False), key)
    return math.nan if at is None else float(at["value"])


def growth(fit: Row | None) -> str:
    """Say how a time grows: over all lengths, else over the last two, as their intervals allow."""
    if fit is None:
        return UNRESOLVED
    whole = _power(fit["exponent"], fit["ci_low"], fit["ci_high"])
    if whole in _GROWTHS.values():
        return whole
    last = _power(fit["local"], fit["local_low"], fit["local_high"])
    return last if last in _GROWTHS.values() else whole


def _power(exponent: float, low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)) or high - low > RESOLVED:
        return UNRESOLVED
    for power, words in _GROWTHS.items():
        if low <= power <= high or abs(exponent - power) <= NEAR:
            return words
    return f"N^{exponent:.1f}"


def _absent(times: pd.DataFrame, timed: set[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the series that gave no time, by the reason at their shortest length."""
    reasons: dict[str, str] = {}
    for row in as_rows(times):
        if (row["backend"], row["options"]) not in timed:
            why = row["reason"] or status_word(row["status"])
            reasons.setdefault(label(row["backend"], row["options"]), why)
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by_reason.setdefault(why, []).append(name)
    return {why: tuple(names) for why, names in by_reason.items()}


def faster_from(method: Method, comparison: Comparison) -> float:
    """Return the length from which on a method overtakes the baseline, in tokens; NaN = of none.

    One that leads at every length, but not surely, does so from where it surely does.
    """
    row = method.crossover
    if row is None:
        return math.nan
    leads = row["seq_len"] <= comparison.lengths[0]
    surely = row["ci_high"]
    return float(surely if leads and surely > row["seq_len"] else row["seq_len"])
