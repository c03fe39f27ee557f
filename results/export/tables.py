"""The tables that leave the house: cases, scaling, crossover, as csv, json or parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from results.analysis.crossovers import crossover_table
from results.analysis.exponents import scaling_table
from results.analysis.roofline import Roofs, with_limits
from results.analysis.series import SERIES, points, speed_frame, summarise
from results.chapters.claims.verdicts import claims_table
from results.chapters.context_parallel.rows import context_table
from results.chapters.error.rows import error_table
from results.chapters.peers.rows import comparison_table
from results.chapters.quality.rows import task_table
from results.chapters.quantized.chapter import quantized_table
from results.export.launches import launch_table
from results.metrics import METRICS, of_role
from results.records.atomic_write import write_bytes
from results.records.case_columns import AROUND, RESOURCES
from results.records.csv_text import csv_text
from results.records.frames import as_rows
from results.records.load import Run
from results.schema import format_option
from results.text.clean import clean
from results.text.labels import rank

CASE_TABLE = (
    "backend", "options", "level", "mode", "device", "dtype", "batch", "num_heads", "head_dim",
    "seq_len", "is_causal", "metric", "value", "unit", "ci_low", "ci_high", "num_samples",
    "status", "reason",
)  # fmt: skip
"""The columns of `cases`; those of `CASE_CONTEXT`, machine and environment follow."""

CASE_CONTEXT = (
    "num_kv_heads", "key_len", *RESOURCES, "seed", *AROUND, "num_launches", "converged", "kernel",
    "case_id", "commit", "machine", "environment",
)  # fmt: skip

MACHINE = ("cpu", "cores", "ram_bytes", "os", "gpu", "gpu_memory_bytes")
ENVIRONMENT = (
    "attnbench", "python", "torch", "blas", "numpy", "asv", "xformers", "triton", "transformers",
    "cuda", "driver", "thp", "governor", "flags", "glibc",
)  # fmt: skip

FORMATS = ("csv", "json", "parquet")

_WHOLE = ("seq_len_min", "seq_len_max")


def cases(run: Run) -> pd.DataFrame:
    """Return one row per case, arm and metric: `CASE_TABLE`, context, machine, environment.

    Beside the measured metrics stand those that follow from them: throughput, the declared
    operations, exponentials and bytes, achieved rate, fraction of the limit and efficiencies.
    """
    frame = speed_frame(run)
    times = {
        tuple(row[c] for c in (*SERIES, "seq_len")): row
        for row in as_rows(points(run)) if row["metric"] == "latency"
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    keys = ["machine", "environment", "version", "case_id", "arm"]
    for _, part in frame.groupby(keys, sort=False):
        rows.extend(_case_rows(part, times))
    measured = pd.DataFrame.from_records(rows) if rows else pd.DataFrame(columns=[*CASE_TABLE])
    if rows:
        measured = pd.concat([measured, _derived(run, measured)], ignore_index=True)
    columns = [*CASE_TABLE, *CASE_CONTEXT]
    table = measured.reindex(columns=columns)
    for source, names, known in (
        ("machine", MACHINE, run.machines),
        ("environment", ENVIRONMENT, run.environments),
    ):
        for name in names:
            table[name] = _alike([_plain(known.get(i, {}).get(name)) for i in table[source]])
    table["rank"] = [rank(b) for b in table["backend"]]
    order = ["machine", "environment", "level", "mode", "rank", "options", "seq_len", "case_id"]
    return table.sort_values(order, kind="stable").drop(columns="rank").reset_index(drop=True)


def _case_rows(
    part: pd.DataFrame, times: Mapping[tuple[Any, ...], Mapping[Any, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield a row a metric of one case and arm; a time is that of the model of launches."""
    first = part.iloc[0]
    time = times.get(tuple(first[c] for c in (*SERIES, "seq_len")), {"launches": ()})
    kernels = [k for k in dict.fromkeys(part["kernel"]) if k]
    shared = {c: first[c] for c in (*CASE_TABLE[:11], *CASE_CONTEXT) if c in part.columns}
    shared["kernel"] = " / ".join(kernels)
    shared["commit"] = " ".join(c for c in dict.fromkeys(part["commit"]) if c)
    succeeded = part[part["status"] == "ok"]
    shared["num_launches"] = len(
        (part if succeeded.empty else succeeded).drop_duplicates(["run", "launch"])
    )
    for row in summarise(part):
        # Cases of several seeds are one point.
        if row["metric"] == "latency" and len(row["launches"]) == len(time["launches"]) > 0:
            row |= {c: time[c] for c in ("value", "ci_low", "ci_high")}
        yield {**shared, **row}


def _derived(run: Run, measured: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in as_rows(with_limits(measured, Roofs(run))):
        if not row["value"] > 0:
            continue
        tokens = row["batch"] * (1 if row["mode"] == "decode" else row["seq_len"])
        rows.append(_over_latency(row, "throughput", tokens))
        for name in (*of_role("declared"), *of_role("derived")):
            if not math.isfinite(row[name]):
                continue
            if name in of_role("declared") or name == "tile_efficiency":  # counts: no noise
                rows.append(_constant(row, name))
            else:
                rows.append(_over_latency(row, name, row[name] * row["value"]))
    return pd.DataFrame.from_records(rows, columns=list(measured.columns))


def _over_latency(row: Mapping[str, Any], metric: str, amount: float) -> dict[str, Any]:
    return {
        **row, "metric": metric, "unit": METRICS[metric].unit, "value": amount / row["value"],
        "ci_low": amount / row["ci_high"], "ci_high": amount / row["ci_low"],
    }  # fmt: skip


def _constant(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    value = row[metric]
    return {
        **row, "metric": metric, "unit": METRICS[metric].unit, "value": value, "ci_low": value,
        "ci_high": value, "num_samples": 0, "converged": None,
    }  # fmt: skip


def _alike(values: list[str | int | float | None]) -> list[Any]:
    """Return a column's cells, as text where one of them is: no file mixes kinds in a column."""
    if not any(isinstance(value, str) for value in values):
        return values
    return [None if value is None else str(value) for value in values]


def _plain(value: object) -> str | int | float | None:
    """Return a machine's or environment's entry as one cell."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else clean(value)[:200]
    if isinstance(value, list):
        return clean(" ".join(format_option(v) for v in value))
    return clean(value)


TABLES: Mapping[str, Callable[[Run], pd.DataFrame]] = {
    "cases": cases,
    "launches": launch_table,
    "scaling": scaling_table,
    "crossover": crossover_table,
    "peers": comparison_table,
    "tasks": task_table,
    "errors": error_table,
    "quantized": quantized_table,
    "claims": claims_table,
    "context": context_table,
}


def export_table(
    run: Run,
    table: str,
    format: str,
    out: str | Path | None = None,
    *,
    delimiter: str = ",",
    decimal: str = ".",
) -> str | None:
    """Write a table to `out`, or return it as text where `out` is None.

    Args:
        run: what was loaded.
        table: a name of `TABLES`.
        format: ``csv``, ``json`` (a list of objects, null where unknown) or ``parquet``.
        out: the file; parquet needs one.
        delimiter: between the cells of csv, one of `DELIMITERS`.
        decimal: the mark in its numbers, one of `DECIMALS`.

    Raises:
        ValueError: if `table`, `format`, `delimiter` or `decimal` is unknown, the last two are
            equal or given for another format than csv, parquet has no `out`, or its folder does
            not exist.
        OSError: if `out` cannot be written.
    """
    if table not in TABLES:
        raise ValueError(f"table: expected one of {', '.join(TABLES)}, got {table!r}")
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if format != "csv" and (delimiter, decimal) != (",", "."):
        raise ValueError(f"delimiter, decimal: go with csv, got {format}")
    _check_dialect(delimiter, decimal)
    if format == "parquet" and out is None:
        raise ValueError("out: parquet is no text; expected the file to write")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise ValueError(f"out: {Path(out).parent} is no folder; expected a file in one")
    frame = TABLES[table](run)
    for column in _WHOLE:
        if column in frame:
            frame[column] = frame[column].astype("Int64")
    if format == "parquet":
        content = frame.to_parquet(None, index=False)
    else:
        is_csv = format == "csv"
        text = csv_text(frame, delimiter, decimal) if is_csv else _json(frame)
        content = text.encode()
    if out is None:
        return str(content.decode())
    write_bytes(Path(out), content)
    return None


DELIMITERS = (",", ";", "\t", "|")
"""What may stand between the cells of CSV."""

DECIMALS = (".", ",")
"""What may stand for the decimal point in CSV."""


def _check_dialect(delimiter: str, decimal: str) -> None:
    if delimiter not in DELIMITERS:
        accepted = ", ".join(map(repr, DELIMITERS))
        raise ValueError(f"delimiter: expected one of {accepted}, got {delimiter!r}")
    if decimal not in DECIMALS:
        raise ValueError(
            f"decimal: expected one of {', '.join(map(repr, DECIMALS))}, got {decimal!r}"
        )
    if delimiter == decimal:
        raise ValueError(f"decimal: expected another mark than the delimiter, got {decimal!r}")


def _json(frame: pd.DataFrame) -> str:
    known = frame.astype(object).where(frame.notna(), None)
    rows = [{k: _native(v) for k, v in row.items()} for row in as_rows(known)]
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _native(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
