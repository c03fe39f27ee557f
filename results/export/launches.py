"""The table of launches: a row a launch and arm, in the order in which they were run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.series import LAUNCH
from results.metrics import of_role
from results.records.case_columns import CASE_COLUMNS
from results.records.frames import as_rows
from results.records.load import Run
from results.schema import CONDITIONS
from results.statistics.spread import number
from results.text.clean import clean

QUANTILES: Mapping[str, float] = {
    "latency_min": 0.0, "latency_q05": 0.05, "latency_q25": 0.25, "latency": 0.5,
    "latency_q75": 0.75, "latency_q95": 0.95, "latency_max": 1.0,
}  # fmt: skip
"""Column to the quantile of a launch's samples, in s."""

METRICS = tuple(name for name in of_role("cost") if name != "latency")
"""Beside the latency."""

LAUNCH_TABLE = (
    "run", "launch", "order", "started", "wall_s", "load", "status", "reason", "backend",
    "options", "arm", "kernel", *CASE_COLUMNS, *QUANTILES, "num_samples", "every", "stopped",
    "warm_up_calls", "converged", *METRICS, *CONDITIONS, "case_id", "commit", "machine",
    "environment",
)  # fmt: skip
"""The columns of `launch_table`."""

_NUMBERS = ("wall_s", "load", *QUANTILES, *METRICS, *CONDITIONS)
_WHOLE = ("order", "num_samples", "every", "warm_up_calls")


def launch_table(run: Run) -> pd.DataFrame:
    """Return one row a launch and arm, with the columns `LAUNCH_TABLE`.

    What a record does not say is empty: it ended badly, is of another kind, or is older.
    """
    records = {
        (clean(r["machine"]), clean(r["environment"]), clean(r["run"]), r["case"]["id"],
         r["launch"]["index"]): r
        for r in run.records
    }  # fmt: skip
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for measured in as_rows(run.frame):
        place = tuple(measured[c] for c in LAUNCH)
        record = records[place]
        row = rows.setdefault((*place, measured["arm"]), {})
        if not row:
            row |= {c: measured[c] for c in LAUNCH_TABLE if c in measured} | _of_the_launch(record)
        if measured["metric"] == "latency":
            row |= _of_the_samples(measured, record["arms"][measured["arm"]]["metrics"]["latency"])
        elif measured["metric"] in METRICS:
            row[measured["metric"]] = measured["value"]
    table = pd.DataFrame.from_records(list(rows.values())).reindex(columns=list(LAUNCH_TABLE))
    table = table.astype(dict.fromkeys(_NUMBERS, "float64")).astype(dict.fromkeys(_WHOLE, "Int64"))
    order = ["machine", "environment", "run", "order", "arm"]
    return table.sort_values(order, kind="stable").reset_index(drop=True)


def _of_the_launch(record: Mapping[str, Any]) -> dict[str, Any]:
    launch, conditions = record["launch"], record.get("conditions") or {}
    return {
        "order": _whole(launch.get("order")),
        **{name: number(launch.get(name)) for name in ("wall_s", "load")},
        **{name: number(conditions.get(name)) for name in CONDITIONS},
    }


def _of_the_samples(measured: Mapping[Any, Any], latency: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a latency's samples say, and how they were taken."""
    warm_up = latency.get("warm_up")
    values = np.quantile(measured["samples"], list(QUANTILES.values()))
    return {
        **dict(zip(QUANTILES, map(float, values), strict=True)),
        "num_samples": len(measured["samples"]),
        "every": _whole(latency.get("every")),
        "stopped": measured["stopped"],
        "warm_up_calls": _whole(warm_up.get("calls")) if isinstance(warm_up, dict) else None,
        "converged": measured["converged"],
    }


def _whole(value: object) -> int | None:
    """Return a record's whole number, None for what is none or out of a table's range."""
    known = number(value)
    return int(known) if known.is_integer() and abs(known) < 2**53 else None
