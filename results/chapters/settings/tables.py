"""Tables across chapters: what threads, precision, the compiler and checkpointing bring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from results.analysis.series import SERIES, SETTING
from results.analysis.warm_up import converged, marked
from results.chapters.settings.pairs import along, varying
from results.page.blocks import LONG, Cell, TableView
from results.page.cells import gate_error, ratio_cell
from results.records.frames import as_rows
from results.schema import FULL_PRECISION, IDENTITY
from results.text import numbers
from results.text.labels import label
from results.text.settings import differing


def axis_tables(table: pd.DataFrame, machines: Mapping[str, str] | None = None) -> list[TableView]:
    """Return the tables that compare settings of a run, those that have rows.

    Args:
        table: `series.points` of the run.
        machines: the names of its machines, by id.
    """
    views = [
        *_threads(table), _precision(table), _compiled(table), _checkpointed(table),
        *_machines(table, machines or {}),
    ]  # fmt: skip
    return [view for view in views if view.rows]


def _named(row: Mapping[Any, Any], columns: list[str]) -> list[Cell]:
    """Return what a row begins with: backend, mode and, where settings differ, the setting."""
    cells = [Cell(label(row["backend"], row["options"])), Cell(row["mode"])]
    return [*cells, Cell(differing(row, columns))] if columns else cells


def _head(columns: list[str]) -> list[str]:
    return ["backend", "mode", "setting"] if columns else ["backend", "mode"]


# -- threads -------------------------------------------------------------------------------------


def _threads(table: pd.DataFrame) -> list[TableView]:
    """Return, for each number of threads but the smallest, backends by lengths."""
    rows = along(table[table["device"] == "cpu"], "threads")
    rows = rows[rows["backend"] != IDENTITY]
    others = varying(rows, "threads")
    views = []
    for count, part in rows.groupby("threads"):
        lengths = sorted(set(part["seq_len"]))
        result: dict[tuple[Any, ...], list[Cell]] = {}
        for row in as_rows(part):
            named = _named(row, others)
            cells = result.setdefault(tuple(named), [*named, *[Cell(numbers.NONE)] * len(lengths)])
            cells[len(named) + lengths.index(row["seq_len"])] = _speedup(row)
        base = part["base"].iloc[0]
        views.append(
            TableView(
                f"Threads: speed-up from {base} to {count}",
                [*_head(others), *(numbers.tokens(n) for n in lengths)],
                list(result.values()),
                text_columns=len(_head(others)),
                notes=[
                    f"Time with {base} thread{'s' if base != 1 else ''} over time with {count}, "
                    "in the same run, with the 95 % interval over launches."
                ],
            )
        )
    return views


def _speedup(row: Mapping[Any, Any]) -> Cell:
    if row["status"] != "ok" and not row["value"] > 0:
        return Cell(numbers.STATUS_WORDS.get(row["status"], row["status"]), is_status=True)
    cell = ratio_cell(row)
    told = converged([row["converged"], row["base_converged"]])
    return cell._replace(text=marked(cell.text, {"converged": told}))


# -- precision of products -----------------------------------------------------------------------


def _precision(table: pd.DataFrame) -> TableView:
    rows = along(table[table["dtype"] == "float32"], "matmul_precision")
    others = varying(rows, "matmul_precision")
    result = []
    for row in as_rows(rows):
        first = {
            "gate_error": row["base_gate_error"],
            "gradient_error": row["base_gradient_error"],
        }
        kept = "reduced" if row["reduced"] else "full"
        result.append(
            [
                *_named(row, others),
                Cell(numbers.tokens(row["seq_len"])),
                Cell(row["matmul_precision"]),
                _base_time(row),
                _time(row),
                ratio_cell(row),
                Cell(gate_error(first)),
                Cell(gate_error(row)),
                Cell(kept if row["value"] > 0 and math.isfinite(row["gate_error"]) else ""),
            ]
        )
    base = FULL_PRECISION
    head = [
        *_head(others), "tokens", "precision", f"time, {base}", "time", "speed-up",
        f"error, {base}", "error", "kept",
    ]  # fmt: skip
    notes = [
        f"Precision of float32 matrix products, in torch's words; speed-up over {base}, with the "
        "95 % interval over launches.",
        "Error: relative L2 distance of the output (in training the larger of it and the "
        "gradient of q) from the method's formula in float64. Kept: full = within the budget of "
        "full precision, whatever was allowed; reduced = within that of the reduced one only.",
    ]
    return TableView(
        "Precision of matrix products", head, result, len(_head(others)), notes, len(result) > LONG
    )


def _time(row: Mapping[Any, Any]) -> Cell:
    if row["value"] > 0:
        return Cell(marked(numbers.seconds(row["value"]), row))
    return Cell(numbers.STATUS_WORDS.get(row["status"], row["status"]), is_status=True)


def _base_time(row: Mapping[Any, Any]) -> Cell:
    told = {"converged": row["base_converged"]}
    return Cell(marked(numbers.seconds(row["base_value"]), told))


# -- torch.compile -------------------------------------------------------------------------------


def _compiled(table: pd.DataFrame) -> TableView:
    rows = along(table, "compile")
    others = varying(rows, "compile")
    result = []
    for row in as_rows(rows):
        ran = row["value"] > 0
        result.append(
            [
                *_named(row, others),
                Cell(numbers.tokens(row["seq_len"])),
                _base_time(row),
                _time(row),
                ratio_cell(row),
                Cell(numbers.seconds(row["compile_time"])),
                *(Cell(_count(row[c])) for c in ("graphs", "breaks", "recompiles")),
                Cell(_remark(row) if ran else row["reason"]),
            ]
        )
    head = [
        *_head(others), "tokens", "eager", "compiled", "speed-up", "compile time", "graphs",
        "breaks", "recompiled", "remark",
    ]  # fmt: skip
    if result and not any(cells[-1].text for cells in result):
        head, result = head[:-1], [cells[:-1] for cells in result]
    notes = [
        "Compile time: the first call less the second. Graphs and breaks are those of the first "
        "call; recompiled: graphs that the second call at the same shape compiled anew."
    ]
    return TableView("torch.compile", head, result, len(_head(others)), notes, len(result) > LONG)


# -- activation checkpointing --------------------------------------------------------------------


def _checkpointed(table: pd.DataFrame) -> TableView:
    rows = along(table, "checkpointing")
    others = varying(rows, "checkpointing")
    result = [
        [
            *_named(row, others),
            Cell(numbers.tokens(row["seq_len"])),
            _base_time(row),
            _time(row),
            ratio_cell(row),
            Cell(numbers.size(row["base_memory"])),
            Cell(numbers.size(row["memory"])),
        ]
        for row in as_rows(rows)
    ]
    head = [
        *_head(others), "tokens", "time, kept", "time, computed anew", "speed-up", "memory, kept",
        "memory, computed anew",
    ]  # fmt: skip
    notes = [
        "A training step that keeps all activations, beside one that keeps the blocks' inputs and "
        "computes the rest anew in the backward pass."
    ]
    title = "Activation checkpointing"
    return TableView(title, head, result, len(_head(others)), notes, len(result) > LONG)


# -- machines ------------------------------------------------------------------------------------


def _machines(table: pd.DataFrame, names: Mapping[str, str]) -> list[TableView]:
    """Return, for each mode, the times of several machines side by side, without a ratio.

    A series stands there at the longest length that two of them measured.
    """
    rows = table[(table["metric"] == "latency") & (table["backend"] != IDENTITY)]
    places = list(dict.fromkeys(zip(*(rows[c] for c in _PLACE), strict=True)))
    if len({place[0] for place in places}) < 2:
        return []
    shared = [c for c in SERIES if c not in _PLACE]
    others = [c for c in SETTING if c not in _PLACE and rows[c].nunique() > 1]
    views = []
    for mode, of_mode in rows.groupby("mode", sort=False):
        result = []
        for _, part in of_mode.groupby(shared, sort=False):
            measured = part[part["value"] > 0].groupby("seq_len")["machine"].nunique()
            common = measured[measured > 1].index
            if not len(common):
                continue
            at = {tuple(r[c] for c in _PLACE): r for r in as_rows(part)
                  if r["seq_len"] == max(common)}  # fmt: skip
            first = next(iter(at.values()))
            cells = [_time(at[place]) if place in at else Cell(numbers.NONE) for place in places]
            name = Cell(label(first["backend"], first["options"]))
            setting = [Cell(differing(first, others))] if others else []
            result.append([name, *setting, Cell(numbers.tokens(max(common))), *cells])
        head = ["backend", *(["setting"] if others else []), "tokens", *_headed(places, names)]
        notes = ["At the longest length that two machines measured."]
        title = f"Machines side by side: time per call, {mode}"
        views.append(TableView(title, head, result, 1 + bool(others), notes, len(result) > LONG))
    return views


_PLACE = ("machine", "environment", "version")


def _headed(places: Sequence[tuple[str, str, str]], names: Mapping[str, str]) -> list[str]:
    """Name the columns: a machine that stands there more than once by what differs too."""
    found = []
    for machine, environment, version in places:
        name = names.get(machine, f"machine {machine[:8]}")
        own = [place for place in places if place[0] == machine]
        if len({place[1] for place in own}) > 1:
            name += f", environment {environment[:8]}"
        found.append(f"{name}, {version}" if version and len(own) > 1 else name)
    return found


def _count(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else numbers.NONE


def _remark(row: Mapping[Any, Any]) -> str:
    if row["graphs"] == 0:
        return "nothing was compiled: it ran as it is"
    return "compiles at every call" if row["recompiles"] > 0 else str(row["reason"])
