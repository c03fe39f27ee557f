"""The report's list of every case with its status: a table a setting, and one of other kinds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.analysis.series import label
from results.analysis.warm_up import converged, marked
from results.chapters.speed.chapter import Chapter
from results.chapters.speed.tables import LONG, Cell, TableView, every_case, status_word
from results.page.blocks import Section
from results.records.frames import as_rows
from results.records.load import Run
from results.records.validation import clean
from results.schema import CONTEXT
from results.text import numbers

_IN_CHAPTERS = ("speed",)

_CASE = ("kind", "machine", "environment", "version", "case_id", "arm")

Row = Mapping[Any, Any]
"""Of the tidy frame."""

_FIRST = ("latency", "accuracy", "bits_per_byte", "relative_error")
"""Of several metrics the first of these that a case has is shown, else its own first."""


def case_sections(run: Run, found: list[Chapter]) -> list[Section]:
    """Return the tables of all cases: of kind speed a setting each, of the other kinds one."""
    sections = [Section(c.title, tables=[every_case(c)]) for c in found]
    others = _others(run.frame[~run.frame["kind"].isin(_IN_CHAPTERS)])
    return (
        [*sections, Section("Cases of other kinds", tables=[others])] if others.rows else sections
    )


def _others(frame: pd.DataFrame) -> TableView:
    cases: dict[tuple[Any, ...], list[Row]] = {}
    for row in as_rows(frame.drop(columns="samples")):
        cases.setdefault(tuple(row[column] for column in _CASE), []).append(row)
    rows = [_row(own) for own in cases.values()]
    head = ["kind", "backend", "of", "tokens", "value", "launches", "status", "reason"]
    notes = ["Value: the median over launches of the metric that the kind is about."]
    return TableView(
        "Cases of other kinds", head, rows, 3, notes if rows else [], is_long=len(rows) > LONG
    )


def _row(rows: list[Row]) -> list[Cell]:
    """Return the cells of one arm of a case; `rows` are of all its launches and metrics."""
    first = rows[0]
    bad = next((row for row in rows if row["status"] != "ok"), None)
    status, reason = ("ok", "") if bad is None else (bad["status"], bad["reason"])
    launches = {(row["run"], row["launch"]): row["status"] for row in rows}
    good = sum(found == "ok" for found in launches.values())
    return [
        Cell(str(first["kind"])),
        Cell(label(first["backend"], first["options"]) or numbers.NONE),
        Cell(_what(first)),
        Cell(numbers.tokens(first["seq_len"])),
        Cell(_value(rows)),
        Cell(f"{good} of {len(launches)}"),
        Cell(status_word(str(status)), is_status=status != "ok"),
        Cell(str(reason)),
    ]


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
    name = next((n for n in _FIRST if n in names), names[0])
    own = [row for row in known if row["metric"] == name]
    value, unit = statistics.median(row["value"] for row in own), str(own[0]["unit"])
    if unit == "s":
        told = converged(row["converged"] for row in own)
        return marked(numbers.seconds(value), {"converged": told})
    if unit == "B":
        return numbers.size(value)
    shown = f"{value:.1e}" if 0 < abs(value) < 1e-3 else numbers.digits(value)
    return f"{shown} {unit}" if unit not in ("", "1") else shown
