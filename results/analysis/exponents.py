"""Exponents over the part of the lengths where the method scales as declared.

The curve t = a + c·Nᵖ is fitted where the declared cost already grows with its declared exponent
and the time is well above that of an empty case. Memory has rules of its own
(`results.analysis.memory_growth`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from results.analysis import memory_growth
from results.analysis.roofline import Roofs
from results.analysis.series import SERIES, points
from results.analysis.warm_up import of_lengths
from results.metrics import FITTED, MEMORY, METRICS
from results.records.case_columns import SERIES_COLUMNS
from results.records.load import Run
from results.statistics.power_law import fit_exponent

COST_TOLERANCE = 0.08
"""How far the declared cost's local exponent may be from the declared one."""

EMPTY_FACTOR = 20.0
"""A latency counts from this many times an empty case on."""

COLUMNS = (
    *SERIES_COLUMNS, "metric", "exponent", "ci_low", "ci_high", "expected", "seq_len_min",
    "seq_len_max", *memory_growth.COLUMNS, "converged", "reason",
)  # fmt: skip


def asymptotic(
    lengths: Sequence[int],
    executed_ops: Sequence[float],
    expected: float,
) -> tuple[int, str]:
    """Return the index of the first length of the asymptotic part, and why if there is none.

    From the longest down, a length belongs while the declared cost between it and the next grows
    with an exponent within `COST_TOLERANCE` of the declared one.

    Args:
        lengths: increasing, in tokens.
        executed_ops: the declared operations at each; NaN = not declared.
        expected: the declared exponent of time; NaN = not declared.
    """
    costs = np.asarray(executed_ops, dtype=np.float64)
    if not math.isfinite(expected) or not np.all(np.isfinite(costs)) or np.any(costs <= 0):
        return 0, ""
    if len(lengths) < 2:
        return 0, ""
    local = np.diff(np.log(costs)) / np.diff(np.log(np.asarray(lengths, dtype=np.float64)))
    start = len(lengths) - 1
    while start > 0 and abs(local[start - 1] - expected) <= COST_TOLERANCE:
        start -= 1
    if start == len(lengths) - 1:
        return start, (
            f"not asymptotic up to {lengths[-1]}: the declared cost grows with exponent "
            f"{local[-1]:.2f} there, declared is {expected:g}"
        )
    return start, ""


def scaling_table(run: Run) -> pd.DataFrame:
    """Return the exponents of time and memory per series: columns `COLUMNS`.

    Where the run holds several machines, environments or versions, these follow as columns.
    """
    table = fit_all(points(run), Roofs(run))
    places = ["machine", "environment", *(["version"] if table["version"].any() else [])]
    several = len(table[places].drop_duplicates()) > 1
    return table[[*COLUMNS, *(places if several else ())]]


def fit_all(table: pd.DataFrame, roofs: Roofs) -> pd.DataFrame:
    """Return one row per series and metric: `SERIES`, `COLUMNS` and the `Fit` (or None) as `fit`.

    Args:
        table: `points` of a run.
        roofs: of its machines.
    """
    rows = []
    for key, part in table[table["metric"].isin(FITTED)].groupby([*SERIES, "metric"], sort=False):
        series = dict(zip([*SERIES, "metric"], key, strict=True))
        if series["metric"] in MEMORY:
            growth = memory_growth.fit_memory(part, series)
            rows.append({**series, **growth, "converged": None})
        else:
            rows.append({**series, **_fit_series(part, series, roofs)})
    columns = dict.fromkeys([*SERIES, *COLUMNS, "fit"])
    return pd.DataFrame.from_records(rows, columns=list(columns))


def _fit_series(
    part: pd.DataFrame, series: Mapping[str, object], roofs: Roofs
) -> dict[str, object]:
    good = part[(part["value"] > 0)].sort_values("seq_len")
    expected = good[METRICS["latency"].declared].dropna()
    declared = float(expected.iloc[0]) if len(expected) else math.nan
    row: dict[str, object] = {
        "exponent": math.nan, "ci_low": math.nan, "ci_high": math.nan, "expected": declared,
        "seq_len_min": math.nan, "seq_len_max": math.nan, "fit": None, "converged": None,
        "miss": math.nan, "other": math.nan, "other_miss": math.nan, "growth": "", "reason": "",
    }  # fmt: skip
    if good.empty:
        statuses = ", ".join(dict.fromkeys(part["status"]))
        return {**row, "reason": f"nothing was measured ({statuses})"}
    times = good["expected_time"].dropna()
    start, reason = asymptotic(
        list(good["seq_len"]),
        list(good["executed_ops"]),
        float(times.iloc[0]) if len(times) else math.nan,
    )
    good = good.iloc[start:]
    note = ""
    if not reason and series["mode"] != "decode":
        good, reason, note = _above_empty(good, roofs.empty_latency(series))
    if not reason and len(good) < 2:
        reason = f"one asymptotic length ({good['seq_len'].iloc[-1]}): no slope"
    if reason:
        return {**row, "reason": reason}
    # What is declared not to grow has no part that grows apart from a constant.
    fit = fit_exponent(list(good["seq_len"]), list(good["value"]), with_constant=declared != 0)
    warmed_up, cut = of_lengths(dict(zip(good["seq_len"], good["converged"], strict=True)))
    return {
        **row, "exponent": fit.exponent, "ci_low": fit.low, "ci_high": fit.high, "fit": fit,
        "seq_len_min": int(good["seq_len"].iloc[0]), "seq_len_max": int(good["seq_len"].iloc[-1]),
        "converged": warmed_up, "reason": "; ".join(r for r in (fit.reason, note, cut) if r),
    }  # fmt: skip


def _above_empty(good: pd.DataFrame, empty: float) -> tuple[pd.DataFrame, str, str]:
    """Return the rows well above an empty case, the reason if none is left, and a note."""
    if not math.isfinite(empty):
        return good, "", "no empty case was measured, so short lengths are not excluded"
    kept = _from_first_above(good, EMPTY_FACTOR * empty)
    if kept.empty:
        return kept, f"every latency is below {EMPTY_FACTOR:g} × an empty case", ""
    return kept, "", ""


def _from_first_above(good: pd.DataFrame, floor: float) -> pd.DataFrame:
    """Return the longest lengths, down to the last one whose value is not above `floor`."""
    short = good["value"] <= floor
    return good[~short.iloc[::-1].cummax().iloc[::-1]]
