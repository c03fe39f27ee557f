"""Benchmarks as asv describes them, and the rows of its result files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.series import outcome
from results.export.asv_history import ExportError, seconds
from results.metrics import METRICS
from results.schema import content_id
from results.statistics.intervals import estimate
from results.text.modes import WORDS

MOST_CELLS = 200_000
"""Combinations of parameters in one of asv's tables."""


RESULT_COLUMNS = (
    "result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b",
    "stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile",
)  # fmt: skip


_KINDS = {name: row.asv for name, row in METRICS.items() if row.asv}
"""Metric to asv's kind of benchmark, its unit, and what its pages call it."""


AXES = ("backend", "tokens")


def benchmarks_of(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return asv's description of every level, mode and metric that was measured."""
    described: dict[str, dict[str, Any]] = {}
    for (level, mode), part in frame.groupby(["level", "mode"], sort=True):
        backends = list(part.sort_values(["order", "backend"])["backend"].unique())
        lengths = sorted(part["tokens"].unique())
        if (cells := len(backends) * len(lengths)) > MOST_CELLS:
            raise ExportError(
                f"asv's table of level {level}, mode {mode} holds every combination of "
                f"{' and '.join(AXES)}: {cells:,} of them, more than {MOST_CELLS:,}; export runs "
                "that vary less"
            )
        for metric in [m for m in _KINDS if m in set(part["metric"])] or ["latency"]:
            kind, unit, words = _KINDS[metric]
            name = f"{level}.{mode}.{metric}"
            described[name] = {
                "name": name, "pretty_name": f"{level} {mode}: {words}", "type": kind,
                "unit": unit, "params": [[repr(b) for b in backends], lengths],
                "param_names": list(AXES), "timeout": 60.0, "version": content_id(name),
                "code": f"{_measured(mode, metric)}, at level {level}: mean over processes.",
            }  # fmt: skip
    return described


def _measured(mode: str, metric: str) -> str:
    words = WORDS[mode]
    titles = {"latency": words.call, words.memory: words.memory_title}
    return titles.get(metric, "Relative L2 distance from exact softmax attention")


def result_file(
    part: pd.DataFrame, benchmarks: Mapping[str, Mapping[str, Any]], head: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of one of asv's result files.

    Args:
        part: tidy rows of one commit, machine, setting and environment.
        benchmarks: of `benchmarks_of`.
        head: commit, environment and parameters of the file.
    """
    started = min(seconds(s) for s in part["started"])
    rows = {
        key: row
        for key, benchmark in benchmarks.items()
        if (row := _result_row(part, benchmark, started_at=started * 1000)) is not None
    }
    return {
        **head, "date": int(part["commit_date"].iloc[0]) * 1000, "env_vars": {},
        "requirements": {}, "result_columns": list(RESULT_COLUMNS), "results": rows,
        "durations": {}, "version": 2,
    }  # fmt: skip


def _result_row(
    part: pd.DataFrame, benchmark: Mapping[str, Any], *, started_at: int
) -> list[Any] | None:
    """Return the row of one benchmark in the order of its parameters; None = nothing of it."""
    level, mode, metric = benchmark["name"].split(".")
    rows = part[(part["level"] == level) & (part["mode"] == mode)]
    cells = {
        (repr(backend), tokens): group
        for (backend, tokens), group in rows.groupby(list(AXES), sort=False)
    }
    products = list(itertools.product(*benchmark["params"]))
    values_of = [_cell(cells.get(values), metric) for values in products]
    if all(cell is None for cell in values_of):
        return None
    columns: list[Any] = [[c["result"] if c else math.nan for c in values_of], benchmark["params"]]
    columns += [benchmark["version"], started_at, None]
    for key in ("ci_99_a", "ci_99_b", "q_25", "q_75", "number", "repeat", "samples"):
        values = [c.get(key) if c else None for c in values_of]
        columns.append(values if any(v is not None for v in values) else None)
    while columns[-1] is None:
        columns.pop()
    return columns


def _cell(group: pd.DataFrame | None, metric: str) -> dict[str, Any] | None:
    """Return one result with its statistics; asv's null = failed, NaN = skipped."""
    if group is None:
        return None
    rows = group[group["metric"] == metric]
    if rows.empty:
        status, _ = outcome(group)
        skipped = status in ("ok", "unsupported", "not_run")
        return {"result": math.nan if skipped else None}
    launches = list(rows["value"])
    got = estimate(launches, level=0.99)
    samples = [s for sample in rows["samples"] for s in sample]
    cell: dict[str, Any] = {"result": got.value, "number": 1, "repeat": len(samples)}
    if got.has_interval:
        cell |= {"ci_99_a": got.low, "ci_99_b": got.high}
    cell["q_25"], cell["q_75"] = (float(q) for q in np.quantile(samples, [0.25, 0.75]))
    if metric == "latency":
        cell["samples"] = samples
    return cell
