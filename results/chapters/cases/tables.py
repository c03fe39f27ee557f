"""The report's list of every case with its status: a table a setting, and one of other kinds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.analysis.analysis import Analysis, SettingAnalysis
from results.analysis.warm_up import converged, marked
from results.page.blocks import LONG, Cell, Section, TableView
from results.page.cells import gate_error, plus_minus
from results.records.frames import as_rows
from results.schema import CONTEXT
from results.text import numbers
from results.text.clean import clean
from results.text.labels import label
from results.text.modes import WORDS
from results.text.numbers import small_number, status_word

_IN_CHAPTERS = ("speed",)

_CASE = ("kind", "machine", "environment", "version", "case_id", "arm")

Row = Mapping[Any, Any]
"""Of the tidy frame."""

_FIRST = ("latency", "accuracy", "bits_per_byte", "relative_error")
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


def every_case(chapter: SettingAnalysis) -> TableView:
    """Return a row for every case of a chapter, with its status."""
    keys = ["mode", "backend", "options", "seq_len"]
    limits = chapter.limits.set_index(keys)[["fraction_of_limit", "tile_efficiency",
                                             "kernel_efficiency", "bound"]]  # fmt: skip
    limits = limits[~limits.index.duplicated()]
    rows = []
    for key, part in chapter.points.groupby(keys, sort=False):
        metric = {row["metric"]: row for row in as_rows(part)}
        time = metric.get("latency", {})
        near = limits.loc[key].to_dict() if key in limits.index else {}
        first = part.iloc[0]
        memory, error = metric.get(WORDS[key[0]].memory, {}), metric.get("relative_error", {})
        rows.append(
            [
                Cell(label(key[1], key[2])),
                Cell(key[0]),
                Cell(numbers.tokens(key[3])),
                Cell(marked(numbers.seconds(time.get("value", math.nan)), time), plus_minus(time)),
                Cell(numbers.size(memory.get("value", math.nan))),
                Cell(numbers.digits(memory["value"] / (memory["batch"] * memory["seq_len"])) if
                memory.get("value", 0) >= 0 and memory
                     else numbers.NONE),
                Cell(small_number(error.get("value", math.nan))),
                Cell(gate_error(time), "reduced" if time.get("reduced") else ""),
                Cell(numbers.percent(near.get("fraction_of_limit", math.nan)),
                     near.get("bound") or ""),
                Cell(numbers.percent(near.get("tile_efficiency", math.nan))),
                Cell(numbers.percent(near.get("kernel_efficiency", math.nan))),
                Cell(f"{len(time.get('launches', ()))} / {time.get('num_samples', 0)}"),
                Cell(status_word(first["status"]), is_status=first["status"] != "ok"),
                Cell(first["reason"]),
            ]
        )  # fmt: skip
    head = [
        "backend", "mode", "tokens", "time", "memory", "bytes per token", "relative error",
        "gate error", "of the limit", "tiles", "kernel", "launches / samples", "status", "reason",
    ]  # fmt: skip
    notes = [
        "Of the limit: the time that the pattern's products, exponentials and bytes need at this "
        "machine's measured peaks, over the time taken, with the roof that decides. It is tiles "
        "(operations of the pattern over those executed) times kernel.",
        *(f"Memory, {mode}: {WORDS[mode].memory_title.lower()}." for mode in chapter.modes),
        "Gate error: relative L2 distance of the timed output (in training the larger of it and "
        "the gradient of q) from the method's own formula in float64; reduced: more than full "
        "precision allows, within what the reduced precision of products does.",
    ]
    return TableView("Every case", head, rows, text_columns=2, notes=notes,
                     is_long=len(rows) > LONG)  # fmt: skip
