"""How far launches of a series scatter, what the sentinel in them takes off, and two checks.

The sentinel corrects times only if its own time does not depend on the case beside it, which may
leave cold caches or a hot processor to it: over the length of the cases it must not change. And a
series' variance is shared by its cases only if none of them scatters by far more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import fdtrc

from results.analysis.series import SERIES
from results.chapters.trust.drift import WORK
from results.records.case_columns import RUN, SETTING
from results.records.frames import as_rows
from results.statistics.inference import Difference
from results.statistics.launches import Launches, SeriesModel, residual_squares
from results.text.labels import label
from results.text.settings import differing

STEADY = 0.02
"""Per unit of log length, by so much the sentinel's log time may change: an exponent then is off
by as much times its coefficient."""

WIDEST = 0.05
"""Where that is known to no better than this, nothing is said of it."""

ODD = 3.0
"""A case whose launches scatter by so many times as much as those of its series is named."""

SURE = 0.001
"""And only if so large a ratio is rarer than this where both scatter alike."""

_MIN_DF = 3
"""Degrees of freedom of a series' other cases from which on one is held against them."""

Rows = Sequence[Mapping[Any, Any]]


@dataclass(frozen=True)
class Series:
    """One series whose launches have a sentinel.

    Attributes:
        name: backend and options.
        mode: of its calls.
        setting: what differs among the settings, in words.
        launches: how many.
        model: what is estimated of it.
    """

    name: str
    mode: str
    setting: str
    launches: int
    model: SeriesModel


@dataclass(frozen=True)
class Odd:
    """A case whose launches scatter by far more than those of its series.

    Attributes:
        name: of the case.
        sd: standard deviation of its launches' logs.
        ratio: over that of the series' other cases.
    """

    name: str
    sd: float
    ratio: float


@dataclass(frozen=True)
class BetweenLaunches:
    """How far launches scatter, over all series of a run.

    Attributes:
        series: those whose launches have a sentinel.
        odd: cases that scatter by far more than their series.
        slope: of the sentinel's log time on the log length of the case beside it; None = too few
            cases.
        p: of the F test that the sentinel's time is the same beside every case; NaN likewise.
    """

    series: tuple[Series, ...]
    odd: tuple[Odd, ...]
    slope: Difference | None
    p: float

    @property
    def is_biased(self) -> bool:
        """Whether the sentinel's time surely changes with length by more than `STEADY`."""
        if self.slope is None:
            return False
        return abs(self.slope.centre) - self.slope.half_width > STEADY

    def pooled(self, sd: str) -> float:
        """Return a standard deviation of the models, ``sd`` or ``sd_without``, over all series."""
        parts = [(getattr(one.model, sd), one.launches) for one in self.series]
        return math.sqrt(sum(v**2 * n for v, n in parts) / sum(n for _, n in parts))


def between_launches(points: pd.DataFrame) -> BetweenLaunches:
    """Return how far launches scatter.

    Args:
        points: `series.points` of a run.
    """
    times = points[(points["metric"] == "latency") & points["cell"].notna()]
    varying = [c for c in SETTING if times[c].nunique() > 1]
    found, odd = [], []
    for _, part in times.groupby(list(SERIES), sort=False):
        rows = as_rows(part)
        first, cell = rows[0], rows[0]["cell"]
        setting = differing(first, varying)
        name = label(first["backend"], first["options"])
        if cell.series.uses_sentinel:
            count = sum(row["cell"].num_launches for row in rows)
            found.append(Series(name, first["mode"], setting, count, cell.series))
        where = (name, first["mode"], "{} tokens", setting)
        odd += _odd(rows, ", ".join(part for part in where if part))
    slope, p = _depends(times)
    return BetweenLaunches(tuple(found), tuple(odd), slope, p)


def _odd(rows: Rows, name: str) -> list[Odd]:
    """Return the cases of a series that scatter by far more than the others.

    Args:
        rows: of the series.
        name: of a case, with a place for its length.
    """
    cases = [Launches(row["launches"], row["sentinels"]) for row in rows]
    model = rows[0]["cell"].series
    parts = [(residual_squares(case, model), len(case.values) - 1) for case in cases]
    found = []
    for (squares, df), row in zip(parts, rows, strict=True):
        others = sum(d for _, d in parts) - df
        beside = sum(s for s, _ in parts) - squares
        if not df or others < _MIN_DF or beside <= 0:
            continue
        ratio = (squares / df) / (beside / others)
        if ratio >= ODD**2 and fdtrc(df, others, ratio) < SURE:
            length = f"{row['seq_len']:,}"
            found.append(Odd(name.format(length), math.sqrt(squares / df), math.sqrt(ratio)))
    return found


def _depends(times: pd.DataFrame) -> tuple[Difference | None, float]:
    """Return the slope of the log sentinel on log length, and p of no difference at all.

    Of a case its median over launches counts; the same work on the same machine is compared.
    """
    groups: dict[tuple[Any, ...], list[tuple[float, Any]]] = {}
    for row in as_rows(times):
        if np.all(np.isfinite(row["sentinels"])):
            place = tuple(row[c] for c in (*RUN, *WORK))
            case = math.log(row["seq_len"]), np.log(row["sentinels"])
            groups.setdefault(place, []).append(case)
    cases = [case for group in groups.values() for case in group]
    df = len(cases) - len(groups) - 1
    lengths = [np.array([x for x, _ in group]) for group in groups.values()]
    medians = [np.array([np.median(z) for _, z in group]) for group in groups.values()]
    x = np.concatenate([one - one.mean() for one in lengths]) if groups else np.empty(0)
    y = np.concatenate([one - one.mean() for one in medians]) if groups else np.empty(0)
    squares = float(x @ x)
    if df < 1 or squares == 0:
        return None, math.nan
    slope = float(x @ y) / squares
    error = math.sqrt(float(((y - slope * x) ** 2).sum()) / df / squares)
    return Difference(slope, error, df), _f_test(list(groups.values()))


def _f_test(groups: Sequence[Sequence[tuple[float, Any]]]) -> float:
    """Return p of the analysis of variance of the log sentinel over cases, within groups."""
    between, within, df_within = 0.0, 0.0, 0
    for group in groups:
        middle = np.concatenate([z for _, z in group]).mean()
        for _, z in group:
            between += len(z) * float(z.mean() - middle) ** 2
            within += float(((z - z.mean()) ** 2).sum())
            df_within += len(z) - 1
    df_between = sum(len(group) - 1 for group in groups)
    if not df_within or within == 0:
        return math.nan
    return float(fdtrc(df_between, df_within, (between / df_between) / (within / df_within)))
