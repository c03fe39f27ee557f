"""From the tidy frame to points: what one series measured at one length, over its launches.

A *setting* is everything that must be equal before two numbers may stand in a ratio: machine,
environment, shape, device, threads, allocator, precision. A *series* is one backend with its
options in one mode of one setting, over the lengths.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.warm_up import converged
from results.records.case_columns import SETTING
from results.records.frames import as_rows, with_plain_texts
from results.records.load import Run
from results.schema import COSTS, IDENTITY, UNITS
from results.statistics.intervals import Estimate, estimate
from results.statistics.launches import Launches, fit_series, time_of
from results.text.labels import rank
from results.text.modes import WORDS

SERIES = (*SETTING, "mode", "backend", "options")

TIMED = ("speed", "peer")
"""Kinds whose latencies are results."""

LAUNCH = ("machine", "environment", "run", "case_id", "launch")
"""What names one launch: two machines may have given their runs one name."""


_Row = Mapping[Any, Any]
"""Of the tidy frame."""

_DECLARED = (*COSTS, "expected_time", "expected_memory")
_WORST = ("gate_error", "gradient_error", "graphs", "breaks", "recompiles")
"""Of several launches the largest is shown."""
_DETAILS = (*_WORST, "compile_time", "reduced", "fixed_size")


def speed_frame(run: Run) -> pd.DataFrame:
    """Return the tidy rows of kind ``speed``, with the column `cross_len`."""
    return with_cross_len(run.of("speed"))


def timed_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a tidy frame whose kinds are `TIMED`."""
    return frame[frame["kind"].isin(TIMED)]


def with_cross_len(frame: pd.DataFrame) -> pd.DataFrame:
    """Return tidy rows with the column `cross_len`: the keys of cross-attention, else 0."""
    crossed = frame["key_len"] != frame["seq_len"]
    return frame.assign(cross_len=frame["key_len"].where(crossed, 0))


def by_setting(frame: pd.DataFrame) -> Callable[[tuple[Any, ...]], pd.DataFrame]:
    """Return what gives the rows of a setting, by its values in the order of `SETTING`."""
    parts = dict(iter(frame.groupby(list(SETTING), sort=False)))
    return lambda key: parts.get(key, frame.iloc[:0])


def points(run: Run) -> pd.DataFrame:
    """Return one row per series, length and metric.

    Columns: those of `SERIES`, `seq_len`, `metric`, `unit`, `launches` (the median of each
    launch that succeeded, in `unit`), `value`, `ci_low`, `ci_high`, `num_samples`, `converged`
    (whether the warm-ups of all launches did; None = not known, and of what is no time), `status`,
    `reason`, the declared costs and exponents, what was seen beside the numbers: the errors at the
    gate, what the compiler did, the fixed sizes; and, of a latency's launches, `floors`: the
    identity arm's in the same launches, and `sentinels`: the sentinel's, in seconds; NaN where
    there was none. Of times there is the `cell` of the model of
    launches (`results.statistics.launches`), from which `value` and its interval come. A length at
    which nothing succeeded has a row for latency and one for the mode's memory with its status,
    its reason and no value.
    """
    frame = speed_frame(run)
    # The floor is measured again in every case: that a case failed says nothing about it.
    frame = frame[(frame["backend"] != IDENTITY) | (frame["status"] == "ok")]
    floors: dict[tuple[Any, ...], float] = {}
    cases: dict[tuple[Any, ...], list[_Row]] = {}
    for row in as_rows(frame):
        cases.setdefault(tuple(row[c] for c in (*SERIES, "seq_len")), []).append(row)
        if row["backend"] == IDENTITY and row["metric"] == "latency":
            floors[_launch(row)] = row["value"]
    rows: list[dict[str, Any]] = []
    for key, part in cases.items():
        shared = dict(zip([*SERIES, "seq_len"], key, strict=True))
        times = [row for row in part if row["metric"] == "latency"]
        beside = [floors.get(_launch(row), math.nan) for row in times]
        shared["floors"] = np.asarray(beside, dtype=np.float64)
        shared["sentinels"] = np.asarray([row["sentinel"] for row in times], dtype=np.float64)
        rows.extend({**shared, **row, "cell": None} for row in _summarise(part))
    _fit_times(rows)
    columns = [
        *SERIES, "seq_len", "metric", "unit", "launches", "value", "ci_low", "ci_high",
        "num_samples", "converged", "status", "reason", *_DECLARED, *_DETAILS, "floors",
        "sentinels", "cell",
    ]  # fmt: skip
    table = with_plain_texts(pd.DataFrame.from_records(rows, columns=columns))
    table["rank"] = [rank(b) for b in table["backend"]]
    order = [*SETTING, "mode", "rank", "options", "seq_len", "metric"]
    return table.sort_values(order, kind="stable").drop(columns="rank").reset_index(drop=True)


def _fit_times(rows: Sequence[dict[str, Any]]) -> None:
    """Fit the model of launches to the times of each setting, and set what follows from it."""
    settings: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["metric"] == "latency" and len(row["launches"]):
            settings.setdefault(tuple(row[c] for c in SETTING), []).append(row)
    for part in settings.values():
        set_cells(part, SERIES)
        for row in part:
            got = time_of(row["cell"])
            row |= {"value": got.value, "ci_low": got.low, "ci_high": got.high}


def set_cells(rows: Sequence[dict[str, Any]], series: Sequence[str]) -> None:
    """Fit the model of launches to rows that were measured together; set `cell` of each.

    Args:
        rows: one a case, with `launches` (positive numbers; none: the cell is None) and, where
            they carry sentinels, `sentinels`, one a launch in seconds.
        series: names of what tells a series from the others: everything but the length.
    """
    parts: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        row["cell"] = None
        if len(row["launches"]):
            parts.setdefault(tuple(row[c] for c in series), []).append(row)
    fitted = fit_series(
        [[Launches.of(row["launches"], row.get("sentinels")) for row in part]
         for part in parts.values()]
    )  # fmt: skip
    for part, cells in zip(parts.values(), fitted, strict=True):
        for row, cell in zip(part, cells, strict=True):
            row["cell"] = cell


def _launch(row: _Row) -> tuple[Any, ...]:
    return tuple(row[column] for column in LAUNCH)


def summarise(part: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per metric for the launches of one case and arm (rows of the tidy frame)."""
    return _summarise(as_rows(part))


def _summarise(part: Sequence[_Row]) -> list[dict[str, Any]]:
    status, reason = _outcome(part)
    declared = {**{c: _first(part, c) for c in _DECLARED}, **_details(part)}
    by_metric: dict[str, list[_Row]] = {}
    for row in part:
        if row["metric"]:
            by_metric.setdefault(row["metric"], []).append(row)
    if not by_metric:
        owed = {m: UNITS[m] for m in ("latency", WORDS[part[0]["mode"]].memory)}
        return [_row(m, unit, [], status, reason, declared, 0, None) for m, unit in owed.items()]
    return [
        _row(
            metric, rows[0]["unit"], [row["value"] for row in rows], status, reason, declared,
            sum(len(row["samples"]) for row in rows), converged(row["converged"] for row in rows),
        )
        for metric, rows in by_metric.items()
    ]  # fmt: skip


def _row(
    metric: str,
    unit: str,
    launches: list[float],
    status: str,
    reason: str,
    declared: dict[str, Any],
    num_samples: int,
    warmed_up: bool | None,
) -> dict[str, Any]:
    got = estimate(launches) if launches else Estimate(math.nan, math.nan, math.nan)
    return {
        "metric": metric,
        "unit": unit,
        "launches": np.asarray(launches, dtype=np.float64),
        "value": got.value,
        "ci_low": got.low,
        "ci_high": got.high,
        "num_samples": num_samples,
        "converged": warmed_up,
        "status": status,
        "reason": reason,
        **declared,
    }


def outcome(part: pd.DataFrame) -> tuple[str, str]:
    """Return status and reason of a case over its launches: ok if one of them was."""
    return _outcome(as_rows(part[[*LAUNCH, "status", "reason"]]))


def _outcome(part: Sequence[_Row]) -> tuple[str, str]:
    launches: dict[tuple[Any, ...], tuple[str, str]] = {}
    for row in part:
        launches.setdefault(_launch(row), (row["status"], row["reason"]))
    bad = [end for end in launches.values() if end[0] != "ok"]
    if not bad:
        return "ok", ""
    status, reason = bad[0]
    if len(bad) == len(launches):
        return status, reason
    return "ok", f"{len(bad)} of {len(launches)} processes: {status} ({reason})"


def _details(part: Sequence[_Row]) -> dict[str, Any]:
    """Return `_DETAILS` over the launches of one case and arm."""
    times = _known(part, "compile_time")
    return {
        **{c: max(_known(part, c), default=math.nan) for c in _WORST},
        "compile_time": statistics.median(times) if times else math.nan,
        "reduced": any(row["reduced"] for row in part),
        "fixed_size": next((row["fixed_size"] for row in part if row["fixed_size"]), ()),
    }


def _first(part: Sequence[_Row], column: str) -> float:
    return next(iter(_known(part, column)), math.nan)


def _known(part: Sequence[_Row], column: str) -> list[float]:
    return [row[column] for row in part if not math.isnan(row[column])]
