"""Exponents of memory: a + c·Nᵖ over the part of the lengths where memory grows as declared.

A curve is fitted where the declared cost already grows with its declared exponent and a peak is
well above the resolution of a peak on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from results.metrics import METRICS
from results.statistics.power_law import fit_exponent

COST_TOLERANCE = 0.08
"""How far the declared cost's local exponent may be from the declared one."""

MEMORY_FLOOR = 2 * 2**20
"""Bytes: a peak on a CPU is known to about 1 MiB, so a smaller one than this says no slope."""


def fit_memory(part: pd.DataFrame, series: Mapping[str, Any]) -> dict[str, Any]:
    """Return the exponent of a series' memory: what is known of `exponents.COLUMNS`.

    Args:
        part: the rows of `series.points` of one series and metric.
        series: values of `series.SERIES` and ``metric``.
    """
    good = part[part["value"] > 0].sort_values("seq_len")
    if good.empty:
        statuses = ", ".join(dict.fromkeys(part["status"]))
        return {"reason": f"nothing was measured ({statuses})"}
    declared = _first(good[METRICS[str(series["metric"])].declared])
    start, reason = asymptotic(
        list(good["seq_len"]), list(good["executed_ops"]), _first(good["expected_time"])
    )
    good = good.iloc[start:]
    if series["metric"] == "peak_memory" and not reason and series["device"] == "cpu":
        above = good["value"] > MEMORY_FLOOR
        good = good[above.iloc[::-1].cummin().iloc[::-1]]
        if good.empty:
            reason = f"every peak is below {MEMORY_FLOOR // 2**20} MiB"
    if not reason and len(good) < 2:
        reason = f"one asymptotic length ({good['seq_len'].iloc[-1]}): no slope"
    if reason:
        return {"expected": declared, "reason": reason}
    # What is declared not to grow has no part that grows apart from a constant.
    fit = fit_exponent(list(good["seq_len"]), list(good["launches"]), with_constant=declared != 0)
    return {
        "expected": declared, "exponent": fit.exponent, "ci_low": fit.low, "ci_high": fit.high,
        "seq_len_min": int(good["seq_len"].iloc[0]), "seq_len_max": int(good["seq_len"].iloc[-1]),
        "num_lengths": len(good), "reason": fit.reason,
    }  # fmt: skip


def _first(column: pd.Series) -> float:
    known = column.dropna()
    return float(known.iloc[0]) if len(known) else math.nan


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
