"""The report's list of every case with its status: a table a setting, and one of other kinds."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pandas as pd

from results.analysis.analysis import Analysis, SettingAnalysis
from results.analysis.warm_up import converged, marked
from results.metrics import METRICS, metric
from results.page.blocks import Cell, Section, TableView
from results.page.cells import gate_error, name, share_of_peak, status_cell, time_cell
from results.page.columns import Columns, Row, of, table
from results.records.frames import as_rows
from results.schema import CONTEXT, SENTINEL
from results.text import numbers
from results.text.clean import clean
from results.text.modes import WORDS
from results.text.numbers import small_number

_IN_CHAPTERS = ("speed",)

_CASE = ("kind", "machine", "environment", "version", "case_id", "arm")

_KINDS = {SENTINEL: "control benchmark", "roof": "peaks of the machine"}
"""Kinds that measure the machine, in words: they have no backend."""

_LEADING = tuple(name for name, row in METRICS.items() if row.leads)
"""Of several metrics the first of these that a case has is shown, else its own first."""


def case_sections(analysis: Analysis) -> list[Section]:
    """Return the tables of all cases: of kind speed a setting each, of the other kinds one."""
    sections = [Section(one.title, tables=[every_case(one)]) for one in analysis.settings]
    frame = analysis.run.frame
    others = _others(frame[~frame["kind"].isin(_IN_CHAPTERS)])
    return (
        [*sections, Section("Cases of other kinds", tables=[others])] if others.rows else sections
    )


def _others(frame: pd.DataFrame) -> TableView:
    cases: dict[tuple[Any, ...], list[Row]] = {}
    for row in as_rows(frame.drop(columns="samples")):
        cases.setdefault(tuple(row[column] for column in _CASE), []).append(row)
    columns: Columns[list[Row]] = {
        "kind": _kind,
        "backend": lambda rows: (
            numbers.NONE if rows[0]["kind"] in _KINDS else name(rows[0]) or numbers.NONE
        ),
        "of": lambda rows: _what(rows[0]),
        "tokens": lambda rows: numbers.tokens(rows[0]["seq_len"]),
        "value": _value,
        "processes": _launches,
        "status": lambda rows: status_cell(_end(rows)),
        "reason": lambda rows: _end(rows)["reason"],
    }
    notes = ["Value: the kind's main metric, its median over processes."]
    return table("Cases of other kinds", cases.values(), columns, text_columns=3, notes=notes)


def _kind(rows: list[Row]) -> str:
    kind = str(rows[0]["kind"])
    return _KINDS.get(kind, kind)


def _end(rows: list[Row]) -> Row:
    """Return status and reason of a case: of its first row that did not end well."""
    return next((row for row in rows if row["status"] != "ok"), {"status": "ok", "reason": ""})


def _launches(rows: list[Row]) -> str:
    launches = {(row["run"], row["launch"]): row["status"] for row in rows}
    return f"{sum(status == 'ok' for status in launches.values())} of {len(launches)}"


def _what(row: Row) -> str:
    """Say what of a case its backend and length do not."""
    told = [row[c] for c in ("level", "mode", "model", "task", "inputs", "training", "weights")]
    causal = ["causal"] if row["is_causal"] else []
    over = [f"{row['ranks']} rank{'s'[: row['ranks'] != 1]}"] if row["kind"] == CONTEXT else []
    return clean(", ".join([*(str(t) for t in told if t), *causal, *over]))


def _value(rows: list[Row]) -> str:
    known = [row for row in rows if row["metric"] and math.isfinite(row["value"])]
    if not known:
        return numbers.NONE
    names = [row["metric"] for row in known]
    shown = next((n for n in _LEADING if n in names), names[0])
    own = [row for row in known if row["metric"] == shown]
    value, unit = statistics.median(row["value"] for row in own), str(own[0]["unit"])
    written = metric(shown, unit).written
    if written == "seconds":
        told = converged(row["converged"] for row in own)
        return marked(numbers.seconds(value), {"converged": told})
    if written == "bytes":
        return numbers.size(value)
    if unit.endswith("/s") and value >= 1e6:
        return f"{numbers.rate(value)}{unit.replace('op/s', 'FLOP/s')}"
    text = f"{value:.1e}" if 0 < abs(value) < 1e-3 else numbers.digits(value)
    return f"{text} {unit}" if unit not in ("", "1") else text


def every_case(chapter: SettingAnalysis) -> TableView:
    """Return a row for every case of a chapter, with its status."""
    keys = ["mode", "backend", "options", "seq_len"]
    limits = chapter.limits.set_index(keys)[["fraction_of_limit", "tile_efficiency",
                                             "kernel_efficiency", "bound"]]  # fmt: skip
    limits = limits[~limits.index.duplicated()]
    cases = []
    for key, part in chapter.points.groupby(keys, sort=False):
        rows = as_rows(part)
        reached = limits.loc[key].to_dict() if key in limits.index else _NO_LIMIT
        cases.append({**rows[0], **reached, "metrics": {row["metric"]: row for row in rows}})

    def value(row: Row, metric: str) -> float:
        return float(row["metrics"].get(metric, {}).get("value", math.nan))

    columns: Columns[Row] = {
        "backend": name,
        "mode": of("mode"),
        "tokens": of("seq_len", numbers.tokens),
        "time": lambda row: time_cell(row["metrics"].get("latency", _NO_TIME)),
        "memory": lambda row: numbers.size(value(row, WORDS[row["mode"]].memory)),
        "bytes per token": lambda row: numbers.digits(
            value(row, WORDS[row["mode"]].memory) / (row["batch"] * row["seq_len"])
        ),
        "relative error": lambda row: small_number(value(row, "relative_error")),
        "reference check": lambda row: _gate(row["metrics"].get("latency", {})),
        "% of peak": lambda row: Cell(
            share_of_peak(row["fraction_of_limit"]), _BOUNDS.get(row["bound"], "")
        ),
        "useful FLOPs": of("tile_efficiency", numbers.percent),
        "kernel": of("kernel_efficiency", share_of_peak),
        "processes / samples": lambda row: _counts(row["metrics"].get("latency", {})),
        "status": status_cell,
        "reason": of("reason"),
    }
    notes = [
        "% of peak: the shortest possible time by the roofline (FLOPs, exponentials and bytes of "
        "the pattern, at this machine's measured peaks) over the time taken, and what limits it. "
        "It is useful FLOPs (of the pattern over executed ones) times kernel efficiency.",
        *(f"Memory, {mode}: {WORDS[mode].memory_title}." for mode in chapter.modes),
        "Reference check: relative L2 distance of the timed output (in training the larger of it "
        "and the gradient of q) from the method's formula in float64; reduced: within the budget "
        "of reduced matmul precision only.",
    ]
    return table("Every case", cases, columns, text_columns=2, notes=notes)


_NO_LIMIT = {
    "fraction_of_limit": math.nan, "tile_efficiency": math.nan, "kernel_efficiency": math.nan,
    "bound": "",
}  # fmt: skip
_NO_TIME = {"value": math.nan}

_BOUNDS = {"products": "matmul", "exponentials": "exp", "bytes": "memory"}
"""What limits a case, by the words of `results.analysis.roofline`."""


def _gate(latency: Row) -> Cell:
    return Cell(gate_error(latency), "reduced" if latency.get("reduced") else "")


def _counts(latency: Row) -> str:
    return f"{len(latency.get('launches', ()))} / {latency.get('num_samples', 0)}"
