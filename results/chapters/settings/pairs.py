"""The same case under two values of one setting: threads, precision of products, compiled or not.

Between chapters nothing else is compared: every other column of `case_columns.SETTING` is equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.analysis.series import SERIES
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.schema import FULL_PRECISION
from results.statistics.intervals import Estimate
from results.statistics.launches import ratio_of

BASE: Mapping[str, Any] = {
    "matmul_precision": FULL_PRECISION, "compile": False, "checkpointing": False,
}  # fmt: skip
"""What the others are compared with; of threads it is the smallest number in the run."""

_ADDED = (
    "base", "base_value", "base_converged", "base_gate_error", "base_gradient_error",
    "base_memory", "speedup", "speedup_low", "speedup_high",
)  # fmt: skip


def along(table: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return the latency rows of `table` beside those of the same case at the axis's base value.

    The base is full precision, not compiled, nothing computed again, and of threads the fewest
    that the run holds. Every other row is there, with NaN where the case was not measured at the
    base.

    Args:
        table: `series.points` of a run.
        axis: ``threads``, ``matmul_precision``, ``compile`` or ``checkpointing``.

    Returns:
        The rows, with `base` (its value of the axis), `base_value` in s and whether its warm-ups
        converged (`base_converged`), the gate's errors of the base, `speedup` = base / own with
        `speedup_low` and `speedup_high` over launches, and the
        peak memory of both, `memory` and `base_memory`, in B.
    """
    base = BASE.get(axis, min(table[axis], default=None))
    shared = [c for c in (*SERIES, "seq_len") if c != axis]
    cases: dict[tuple[Any, ...], list[dict[Any, Any]]] = {}
    if (table[axis] != base).any():  # most runs hold one value of the axis
        for row in _with_memory(table):
            cases.setdefault(tuple(row[c] for c in shared), []).append(row)
    rows = []
    for alike in cases.values():
        first = next((r for r in alike if r[axis] == base), None)
        rows += [{**r, **_against(first, r, base)} for r in alike if r[axis] != base]
    return pd.DataFrame.from_records(rows, columns=[*table.columns, "memory", *_ADDED])


def _with_memory(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the latency rows, each with its peak memory as `memory`."""

    def case(row: Mapping[Any, Any]) -> tuple[Any, ...]:
        return tuple(row[c] for c in (*SERIES, "seq_len"))

    rows = as_rows(table)
    peaks = {case(row): row["value"] for row in rows if row["metric"] == "peak_memory"}
    times = [row for row in rows if row["metric"] == "latency"]
    return [{**row, "memory": peaks.get(case(row), math.nan)} for row in times]


def _against(first: Mapping[Any, Any] | None, own: Mapping[Any, Any], base: Any) -> dict[str, Any]:
    got = Estimate(math.nan, math.nan, math.nan)
    if first is not None and first["value"] > 0 and own["value"] > 0:
        got = ratio_of(first["cell"], own["cell"])
    known: Mapping[Any, Any] = {} if first is None else first
    kept = ("gate_error", "gradient_error", "memory")
    values = known.get("value", math.nan), known.get("converged")
    errors = (known.get(c, math.nan) for c in kept)
    return dict(zip(_ADDED, (base, *values, *errors, got.value, got.low, got.high), strict=True))


def varying(table: pd.DataFrame, axis: str) -> list[str]:
    """Return the other columns of the setting that differ within a table."""
    return [c for c in SETTING if c != axis and table[c].nunique() > 1]
