"""Tables across chapters: what threads, precision, the compiler and checkpointing bring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from results.analysis.series import SERIES
from results.analysis.warm_up import converged, marked
from results.chapters.settings.pairs import along, varying
from results.page.blocks import Cell, TableView
from results.page.cells import gate_error, name, ratio_cell, status_cell, time
from results.page.columns import Columns, Row, Spread, Writer, across, of, table
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.schema import FULL_PRECISION, IDENTITY
from results.text import numbers
from results.text.settings import differing


def axis_tables(
    points: pd.DataFrame, machines: Mapping[str, str] | None = None
) -> list[TableView]:
    """Return the tables that compare settings of a run, those that have rows.

    Args:
        points: `series.points` of the run.
        machines: the names of its machines, by id.
    """
    views = [
        *_threads(points), _precision(points), _compiled(points), _checkpointed(points),
        *_machines(points, machines or {}),
    ]  # fmt: skip
    return [view for view in views if view.rows]


def _naming(columns: list[str]) -> dict[str, Writer[Row]]:
    """Return the first columns: backend, mode and, where settings differ, the setting."""
    naming: dict[str, Writer[Row]] = {"backend": name, "mode": of("mode")}
    return {**naming, "setting": lambda row: differing(row, columns)} if columns else naming


# -- threads -------------------------------------------------------------------------------------


def _threads(points: pd.DataFrame) -> list[TableView]:
    """Return, for each number of threads but the smallest, backends by lengths."""
    rows = along(points[points["device"] == "cpu"], "threads")
    rows = rows[rows["backend"] != IDENTITY]
    naming = _naming(varying(rows, "threads"))
    views = []
    for count, part in rows.groupby("threads"):
        by_series: dict[tuple[Cell | str, ...], dict[Any, Row]] = {}
        for row in as_rows(part):
            series = tuple(write(row) for write in naming.values())
            by_series.setdefault(series, {})[row["seq_len"]] = row
        spreads = [(next(iter(by_length.values())), by_length) for by_length in by_series.values()]
        first = [(head, partial(_of_first, write)) for head, write in naming.items()]
        lengths = across(sorted(set(part["seq_len"])), numbers.tokens, _speedup)
        base = part["base"].iloc[0]
        note = (
            f"Time with {base} thread{'s' if base != 1 else ''} over time with {count}, "
            "in the same run, with the 95 % interval over processes."
        )
        views.append(
            table(
                f"Threads: speed-up from {base} to {count}", spreads, [*first, *lengths],
                text_columns=len(naming), notes=[note], is_long=False,
            )
        )  # fmt: skip
    return views


def _of_first(write: Writer[Row], row: Spread) -> Cell | str:
    return write(row[0])


def _speedup(row: Row) -> Cell:
    if row["status"] != "ok" and not row["value"] > 0:
        return status_cell(row)
    cell = ratio_cell(row)
    both = converged([row["converged"], row["base_converged"]])
    return cell._replace(text=marked(cell.text, {"converged": both}))


# -- precision of products -----------------------------------------------------------------------


def _precision(points: pd.DataFrame) -> TableView:
    rows = along(points[points["dtype"] == "float32"], "matmul_precision")
    naming = _naming(varying(rows, "matmul_precision"))
    base = FULL_PRECISION
    columns: Columns[Row] = {
        **naming,
        "tokens": of("seq_len", numbers.tokens),
        "precision": of("matmul_precision"),
        f"time, {base}": _base_time,
        "time": _time,
        "speed-up": ratio_cell,
        f"error, {base}": lambda row: gate_error(
            {"gate_error": row["base_gate_error"], "gradient_error": row["base_gradient_error"]}
        ),
        "error": gate_error,
        "kept": _kept,
    }
    notes = [
        "Precision of float32 matmuls (torch.set_float32_matmul_precision); speed-up over "
        f"{base}, with the 95 % interval over processes.",
        "Error: relative L2 distance of the output (in training the larger of it and the "
        "gradient of q) from the method's formula in float64. Kept: full = within the error "
        "budget of full precision; reduced = within that of the reduced one only.",
    ]
    title = "Matmul precision"
    return table(title, as_rows(rows), columns, text_columns=len(naming), notes=notes)


def _kept(row: Row) -> str:
    """Say which budget an error is within."""
    if not (row["value"] > 0 and math.isfinite(row["gate_error"])):
        return ""
    return "reduced" if row["reduced"] else "full"


def _time(row: Row) -> Cell:
    return Cell(time(row)) if row["value"] > 0 else status_cell(row)


def _base_time(row: Row) -> str:
    base = {"converged": row["base_converged"]}
    return marked(numbers.seconds(row["base_value"]), base)


# -- torch.compile -------------------------------------------------------------------------------


def _compiled(points: pd.DataFrame) -> TableView:
    rows = along(points, "compile")
    naming = _naming(varying(rows, "compile"))
    columns: Columns[Row] = {
        **naming,
        "tokens": of("seq_len", numbers.tokens),
        "eager": _base_time,
        "compiled": _time,
        "speed-up": ratio_cell,
        "compile time": of("compile_time", numbers.seconds),
        "graphs": of("graphs", _count),
        "breaks": of("breaks", _count),
        "recompiled": of("recompiles", _count),
        "remark": lambda row: _remark(row) if row["value"] > 0 else row["reason"],
    }
    notes = [
        "Compile time: the first call less the second. Graphs and graph breaks: of the first "
        "call. Recompiled: graphs that the second call at the same shape compiled again."
    ]
    return table(
        "torch.compile", as_rows(rows), columns, text_columns=len(naming), notes=notes,
        optional=("remark",),
    )  # fmt: skip


# -- activation checkpointing --------------------------------------------------------------------


def _checkpointed(points: pd.DataFrame) -> TableView:
    rows = along(points, "checkpointing")
    naming = _naming(varying(rows, "checkpointing"))
    columns: Columns[Row] = {
        **naming,
        "tokens": of("seq_len", numbers.tokens),
        "time, off": _base_time,
        "time, on": _time,
        "speed-up": ratio_cell,
        "memory, off": of("base_memory", numbers.size),
        "memory, on": of("memory", numbers.size),
    }
    notes = [
        "A training step without and with activation checkpointing (blocks keep their inputs and "
        "recompute the rest in the backward pass)."
    ]
    title = "Activation checkpointing"
    return table(title, as_rows(rows), columns, text_columns=len(naming), notes=notes)


# -- machines ------------------------------------------------------------------------------------


def _machines(points: pd.DataFrame, names: Mapping[str, str]) -> list[TableView]:
    """Return, for each mode, the times of several machines side by side, without a ratio.

    A series stands there at the longest length that two of them measured.
    """
    rows = points[(points["metric"] == "latency") & (points["backend"] != IDENTITY)]
    places = list(dict.fromkeys(zip(*(rows[c] for c in _PLACE), strict=True)))
    if len({place[0] for place in places}) < 2:
        return []
    shared = [c for c in SERIES if c not in _PLACE]
    others = [c for c in SETTING if c not in _PLACE and rows[c].nunique() > 1]
    views = []
    for mode, of_mode in rows.groupby("mode", sort=False):
        at_longest = []
        for _, part in of_mode.groupby(shared, sort=False):
            measured = part[part["value"] > 0].groupby("seq_len")["machine"].nunique()
            common = measured[measured > 1].index
            if len(common):
                by_place = {tuple(row[c] for c in _PLACE): row for row in as_rows(part)
                            if row["seq_len"] == max(common)}  # fmt: skip
                at_longest.append((next(iter(by_place.values())), by_place))
        columns: Columns[Spread] = [
            ("backend", lambda row: name(row[0])),
            *([("setting", lambda row: differing(row[0], others))] if others else []),
            ("tokens", lambda row: numbers.tokens(row[0]["seq_len"])),
            *across(
                places, dict(zip(places, _headed(places, names), strict=True)).__getitem__, _time
            ),
        ]
        title = f"Machines side by side: time per call, {mode}"
        notes = ["At the longest length that two machines measured."]
        views.append(table(title, at_longest, columns, text_columns=1 + bool(others), notes=notes))
    return views


_PLACE = ("machine", "environment", "version")


def _headed(places: Sequence[tuple[str, str, str]], names: Mapping[str, str]) -> list[str]:
    """Name the columns: a machine that stands there more than once by what differs too."""
    heads = []
    for machine, environment, version in places:
        head = names.get(machine, f"machine {machine[:8]}")
        alike = [place for place in places if place[0] == machine]
        if len({place[1] for place in alike}) > 1:
            head += f", environment {environment[:8]}"
        heads.append(f"{head}, {version}" if version and len(alike) > 1 else head)
    return heads


def _count(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else numbers.NONE


def _remark(row: Row) -> str:
    if row["graphs"] == 0:
        return "nothing was compiled: it ran in eager mode"
    return "compiles at every call" if row["recompiles"] > 0 else str(row["reason"])
