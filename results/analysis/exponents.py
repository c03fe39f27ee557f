"""Exponents of time and memory per series.

Of time it is the slope of the model of launches over the lengths measured
(`launches.slope_of`), from `EMPTY_FACTOR` times an empty case on, held against the slope of the
declared operations over the same lengths: curvature that is declared, a window that short inputs
do not fill, is in both. Of memory it is `memory_growth.fit_memory`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.analysis import memory_growth
from results.analysis.roofline import Roofs
from results.analysis.series import SERIES, points
from results.analysis.warm_up import of_lengths
from results.metrics import FITTED, MEMORY
from results.records.case_columns import SERIES_COLUMNS
from results.records.load import Run
from results.statistics.launches import declared_slope, slope_of

EMPTY_FACTOR = 20.0
"""A latency counts from this many times an empty case on."""

COLUMNS = (
    *SERIES_COLUMNS, "metric", "exponent", "ci_low", "ci_high", "expected", "seq_len_min",
    "seq_len_max", "num_lengths", "local", "local_low", "local_high", *memory_growth.COLUMNS,
    "converged", "reason",
)  # fmt: skip
"""`expected` is of time the slope of the declared operations, where there are none, and of memory,
the declared exponent. `local` is the exponent over the last two of more lengths."""

_MISSING = {
    **dict.fromkeys(COLUMNS, math.nan), "converged": None, "reason": "", "growth": "",
    "by_operations": False,
}  # fmt: skip


def scaling_table(run: Run) -> pd.DataFrame:
    """Return the exponents of time and memory per series: columns `COLUMNS`.

    Where the run holds several machines, environments or versions, these follow as columns.
    """
    table = fit_all(points(run), Roofs(run))
    places = ["machine", "environment", *(["version"] if table["version"].any() else [])]
    several = len(table[places].drop_duplicates()) > 1
    return table[[*COLUMNS, *(places if several else ())]]


def fit_all(table: pd.DataFrame, roofs: Roofs) -> pd.DataFrame:
    """Return one row per series and metric: `SERIES`, `COLUMNS` and `by_operations`.

    The last says whether `expected` is a slope of operations.

    Args:
        table: `points` of a run.
        roofs: of its machines.
    """
    rows = []
    for key, part in table[table["metric"].isin(FITTED)].groupby([*SERIES, "metric"], sort=False):
        series = dict(zip([*SERIES, "metric"], key, strict=True))
        found = (
            memory_growth.fit_memory(part, series) if series["metric"] in MEMORY
            else _fit_time(part, series, roofs)
        )  # fmt: skip
        rows.append({**_MISSING, **series, **found})
    columns = dict.fromkeys([*SERIES, *_MISSING])
    return pd.DataFrame.from_records(rows, columns=list(columns))


def _fit_time(part: pd.DataFrame, series: Mapping[str, Any], roofs: Roofs) -> dict[str, Any]:
    """Return what is known of the exponent of a series' time, as columns of `COLUMNS`."""
    good = part[part["value"] > 0].sort_values("seq_len")
    if good.empty:
        statuses = ", ".join(dict.fromkeys(part["status"]))
        return {"reason": f"nothing was measured ({statuses})"}
    declared = next(iter(good["expected_time"].dropna()), math.nan)
    note = ""
    if series["mode"] != "decode":
        good, note = _above_empty(good, roofs.empty_latency(series))
    if len(good) < 2:
        reason = (
            f"every latency is below {EMPTY_FACTOR:g} × an empty call" if good.empty
            else f"one length ({good['seq_len'].iloc[0]}): no slope"
        )  # fmt: skip
        return {"expected": declared, "reason": reason}
    lengths, cells = list(good["seq_len"]), list(good["cell"])
    operations = declared_slope(lengths, list(good["executed_ops"]))
    by_operations = math.isfinite(operations)
    slope = slope_of(lengths, cells)
    result = {
        "exponent": slope.value, "ci_low": slope.low, "ci_high": slope.high,
        "expected": operations if by_operations else declared, "by_operations": by_operations,
        "seq_len_min": int(lengths[0]), "seq_len_max": int(lengths[-1]),
        "num_lengths": len(lengths),
    }  # fmt: skip
    if len(lengths) > 2:
        last = slope_of(lengths[-2:], cells[-2:])
        result |= {"local": last.value, "local_low": last.low, "local_high": last.high}
    warmed_up, cut = of_lengths(dict(zip(lengths, good["converged"], strict=True)))
    reason = "; ".join(r for r in (slope.reason, note, cut) if r)
    return {**result, "converged": warmed_up, "reason": reason}


def _above_empty(good: pd.DataFrame, empty: float) -> tuple[pd.DataFrame, str]:
    """Return the rows from the first on that is well above an empty case, and a note."""
    if not math.isfinite(empty):
        return good, "no empty call was measured, so short lengths are not excluded"
    above = good["value"] > EMPTY_FACTOR * empty
    return good[above.iloc[::-1].cummin().iloc[::-1]], ""
