"""The machine's speed through a run: what the sentinel, the same work every time, tells of it.

It is timed in every launch beside what is measured; in older runs it has launches of its own, now
and then. Two things can be wrong with it, and each is said. It may *drift*: processes differ by a
few percent whatever the machine does, so the drift is taken from a running median of three, whose
ends follow Tukey's end-point rule (without it six repetitions would show two thirds of a steady
drift). Of `MANY` repetitions it runs over five, of more over a sixth of them: with 4 % between
processes, a running median of three calls two of five steady runs disturbed. And it may *jump*
from one launch to the next, which a running median hides (53 of 120, 53, 16 and 107 ms): the
spread of the repetitions tells that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.records.case_columns import SETTING
from results.schema import SENTINEL
from results.text import numbers
from results.text.settings import differing

DRIFT_LIMIT = 0.10
"""A run whose speed drifted by more than this share is disturbed."""

SPREAD_LIMIT = 0.30
"""A run whose repetitions spread by more than this share is disturbed; 4 % between processes give
a spread of 10 %."""

FEWEST = 4
"""Repetitions behind a drift: three give one running median, and one value cannot drift."""

MANY = 15
"""Repetitions from which on the median runs over five."""

PARTS = 6
"""A running median over more than five runs over so much of a run: a sixth."""

DRAWN = 3
"""Repetitions behind a figure."""

_NAMED = ("device", "threads")

WORK = (*_NAMED, "matmul_precision")
"""What the sentinel's time in a launch depends on, beside the machine."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """The sentinel's times in one run.

    Attributes:
        name: the sentinel's setting in words.
        seconds: medians of the repetitions that succeeded, in the order they ran, shape [n].
        smooth: their running median, shape [n]; as `seconds` where n < `FEWEST`.
        minutes: when each was started, from the first on, shape [n]; NaN where not recorded.
        failed: how many repetitions did not succeed.
        in_launches: whether it was timed in the launches of the cases.
    """

    name: str
    seconds: Array
    smooth: Array
    minutes: Array
    failed: int
    in_launches: bool = False

    @property
    def counted(self) -> str:
        """How many repetitions there are, in words."""
        what = "processes" if self.in_launches else "repetitions"
        return f"{len(self.seconds)} {what}"

    @property
    def drift(self) -> float:
        """Largest over smallest of `smooth`, less 1; NaN where `reason` says why."""
        return math.nan if self.reason else _apart(self.smooth)

    @property
    def spread(self) -> float:
        """The 90 % quantile of `seconds` over the 10 % quantile, less 1; NaN for none.

        Quantiles are interpolated: the fewer repetitions, the more its ends count.
        """
        if not len(self.seconds):
            return math.nan
        low, high = np.quantile(self.seconds, [0.1, 0.9])
        return float(high / low) - 1

    @property
    def reason(self) -> str:
        """Why there is no drift, "" where there is one."""
        if len(self.seconds) >= FEWEST:
            return ""
        lost = f", {self.failed} failed" if self.failed else ""
        return f"{self.counted}{lost}: needs {FEWEST} to tell a drift"

    @property
    def is_disturbed(self) -> bool:
        """Whether the drift is above `DRIFT_LIMIT`, or the spread above `SPREAD_LIMIT`."""
        return self.drift > DRIFT_LIMIT or self.spread > SPREAD_LIMIT

    @property
    def has_clock(self) -> bool:
        """Whether `minutes` are known and in order: clocks may have been set."""
        return bool(
            np.all(np.isfinite(self.minutes)) and np.all(np.diff(self.minutes) >= 0)
            and self.minutes[-1] > 0
        )  # fmt: skip

    @property
    def warning(self) -> str:
        """Say what a disturbed run is worth."""
        return f"Noisy machine: {self.told}. Measure again on a quiet one."

    @property
    def told(self) -> str:
        """Say how far the machine's speed changed, without a full stop.

        Raises:
            ValueError: if there is none.
        """
        ends = dict.fromkeys(
            numbers.seconds(float(s)) for s in (min(self.seconds), max(self.seconds))
        )
        drift = self.reason if self.reason else f"a drift of {numbers.percent(self.drift)}"
        return (
            f"the control benchmark ({self.name}, {self.counted}), always the same work, took "
            f"{' to '.join(ends)}: a spread of {numbers.percent(self.spread)}, {drift}"
        )


def drifts(frame: pd.DataFrame) -> tuple[Drift, ...]:
    """Return how the sentinel's time changed in the tidy rows of one run.

    It is that of the launches of the cases, where they have one, else that of sentinel cases.
    """
    return _in_launches(frame) or _of_cases(frame)


def _in_launches(frame: pd.DataFrame) -> tuple[Drift, ...]:
    rows = frame[frame["sentinel"].notna()].sort_values("started", kind="stable")
    found = []
    for _, part in rows.groupby(list(WORK), sort=False):
        launches = part.groupby(["case_id", "launch"], sort=False)
        seconds = launches["sentinel"].median().to_numpy(dtype=np.float64)
        found.append(_drift(_named(part, rows), seconds, list(launches["started"].first()), True))
    return tuple(found)


def _of_cases(frame: pd.DataFrame) -> tuple[Drift, ...]:
    rows = frame[frame["kind"] == SENTINEL].assign(cross_len=0)
    found = []
    for _, part in rows.groupby("case_id", sort=False):
        launches = part.drop_duplicates("launch")
        good = part[(part["status"] == "ok") & (part["metric"] == "latency")]
        good = good.drop_duplicates("launch").sort_values("launch", kind="stable")
        seconds = good["value"].to_numpy(dtype=np.float64)
        one = _drift(_named(part, rows, SETTING), seconds, list(good["started"]), False)
        found.append(replace(one, failed=len(launches) - len(good)))
    return tuple(found)


def _named(part: pd.DataFrame, rows: pd.DataFrame, columns: Sequence[str] = WORK) -> str:
    """Name what a sentinel ran on: device, threads, and what else differs among all rows."""
    case = part.iloc[0]
    varying = [c for c in columns if c not in _NAMED and rows[c].nunique() > 1]
    words = (str(case["device"]), differing(case, ["threads"]), differing(case, varying))
    return ", ".join(w for w in words if w)


def _drift(name: str, seconds: Array, started: Sequence[str], in_launches: bool) -> Drift:
    smooth = running_median(seconds) if len(seconds) >= FEWEST else seconds
    return Drift(name, seconds, smooth, _minutes(started), 0, in_launches)


def running_median(values: Array) -> Array:
    """Return the running median of `values`, shape [n], n ≥ 4, with smoothed ends.

    It runs over three, and over five from `MANY` on, where the last but one at either end has
    three. An end is the median of itself, its neighbour's median, and the line through the two
    medians next to it, carried on by one place (Tukey's end-point rule). Where a sixth is more
    than five it runs over a sixth, and the first and the last such median stand for the ends.
    """
    if (width := len(values) // PARTS | 1) > 5:
        middle = np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
        return np.pad(middle, width // 2, mode="edge")
    inner = np.median([values[:-2], values[1:-1], values[2:]], axis=0)
    if len(values) >= MANY:
        windows = np.lib.stride_tricks.sliding_window_view(values, 5)
        inner[1:-1] = np.median(windows, axis=1)
    first = np.median([values[0], inner[0], 3 * inner[0] - 2 * inner[1]])
    last = np.median([values[-1], inner[-1], 3 * inner[-1] - 2 * inner[-2]])
    return np.concatenate([[first], inner, [last]])


def _apart(values: Array) -> float:
    # Equal medians may differ by the rounding of the end-point rule.
    return round(float(values.max()) / float(values.min()) - 1, 12) if len(values) else math.nan


def _minutes(started: Sequence[str]) -> Array:
    times = [_time(text) for text in started]
    first = next((t for t in times if t is not None), None)
    return np.asarray(
        [math.nan if t is None or first is None else (t - first).total_seconds() / 60
         for t in times],
        dtype=np.float64,
    )  # fmt: skip


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
