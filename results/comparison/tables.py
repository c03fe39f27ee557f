"""The tables of a comparison's page: whole backends, every case, the fastest, crossovers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from results.analysis.warm_up import MARK, marked
from results.comparison import words
from results.comparison.backend_changes import BackendChange
from results.comparison.changes import Comparison
from results.comparison.verdicts import REGRESSIONS
from results.metrics import METRICS
from results.page.blocks import Cell, TableView
from results.page.cells import name
from results.page.columns import Columns, Row, Writer, of, table
from results.records.frames import as_rows
from results.statistics.intervals import Estimate
from results.statistics.launches import is_less
from results.text import numbers
from results.text.written import writer

BACKENDS_NOTE = (
    "Mean over a backend's cases. A backend counts as changed if it changed on its own and by "
    "more than the other backends (or the control benchmark, where there are few): what all share "
    "may be the machine's. Detectable: the smallest change seen with a probability of 80 %."
)


# -- sentences -----------------------------------------------------------------------------------


# -- settings ------------------------------------------------------------------------------------


# -- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sides:
    """What the page calls the two runs: base and new, or their machines where those differ."""

    base: str = "base"
    new: str = "new"


def backend_views(every: Sequence[Comparison]) -> list[TableView]:
    """Return a table a metric: what changed in whole backends."""
    return [_backend_view(found) for found in every if found.backends]


def _backend_view(comparison: Comparison) -> TableView:
    heads = words.BACKEND_HEAD
    rows = [
        (change, dict(zip(heads, words.backend_cells(comparison, change), strict=True)))
        for change in words.backends_in_order(comparison)
    ]

    def verdict(row: tuple[BackendChange, Mapping[str, str]]) -> Cell:
        return Cell(row[1]["verdict"], is_status=row[0].is_regression)

    columns: Columns[tuple[BackendChange, Mapping[str, str]]] = {
        **{head: partial(_cell_of, head) for head in heads[1:-1]},
        "verdict": verdict,
        "remark": partial(_cell_of, heads[-1]),
    }
    title = f"{METRICS[comparison.metric].title}: whole backends"
    return table(title, rows, columns, notes=[BACKENDS_NOTE], is_long=False)


def _cell_of(head: str, row: tuple[BackendChange, Mapping[str, str]]) -> str:
    return row[1][head]


def case_view(metric: str, part: pd.DataFrame, sides: Sides) -> TableView:
    """Return a row a case of a setting."""
    write = writer(metric)
    beside = part["kind"].nunique() > 1
    where: list[tuple[str, Writer[Row]]] = [
        ("where", of("kind", lambda kind: "beside a peer" if kind == "peer" else ""))
    ]
    columns: Columns[Row] = [
        ("backend", name),
        ("mode", of("mode")),
        *(where if beside else []),
        ("tokens", of("seq_len", numbers.tokens)),
        (sides.base, lambda row: _measured(row, "base", write)),
        (sides.new, lambda row: _measured(row, "new", write)),
        ("new / base", _ratio),
        ("detectable", of("smallest")),
        ("verdict", lambda row: Cell(row["word"], is_status=row["verdict"] in REGRESSIONS)),
        ("remark", of("remark")),
    ]
    title = f"{METRICS[metric].title}: every case"
    return table(title, as_rows(part), columns, text_columns=2 + beside)


def _measured(row: Row, side: str, write: Any) -> Cell:
    if not math.isfinite(row[side]):
        return Cell(numbers.status_word(row[f"{side}_status"]), is_status=True)
    between = numbers.interval(row[f"{side}_low"], row[f"{side}_high"], write)
    return Cell(_marked(write(row[side]), row, side), between.strip("()"))


def _marked(text: str, row: Row, side: str) -> str:
    return marked(text, {"converged": row[f"{side}_cut_short"] == 0})


def _ratio(row: Row) -> Cell:
    estimate = Estimate(row["value"], row["ci_low"], row["ci_high"])
    value, _, between = words.ratio(estimate).partition(" × ")
    return Cell(f"{value.removesuffix(' ×')} ×" if math.isfinite(row["value"]) else numbers.NONE,
                between.strip("()"))  # fmt: skip


def fastest_view(part: pd.DataFrame, sides: Sides) -> TableView:
    """Return, for each mode and length, which backend is fastest in either run."""
    alone = part[part["kind"] == "speed"]
    rows = [
        {"mode": mode, "seq_len": n, "base": _best(group, "base"), "new": _best(group, "new")}
        for (mode, n), group in alone.groupby(["mode", "seq_len"], sort=False)
        if group["backend"].nunique() > 1
    ]
    columns: Columns[Row] = [
        ("mode", of("mode")),
        ("tokens", of("seq_len", numbers.tokens)),
        (f"fastest: {sides.base}", lambda row: row["base"][0]),
        ("time", lambda row: row["base"][1]),
        (f"fastest: {sides.new}", lambda row: row["new"][0]),
        ("time", lambda row: row["new"][1]),
        ("remark", _another),
    ]
    notes = ["By time alone, whatever its error. Below a name: statistically tied with it."]
    return table("The fastest at each length", rows, columns, notes=notes)


def _another(row: Row) -> str:
    """Say whether another backend is fastest, and surely so in the old run."""
    was, now = row["base"][0], row["new"][0]
    alike = was.small.replace(f" {MARK}", "").split(", ")
    return "changed" if was.text != now.text and now.text not in alike else ""


def _best(group: pd.DataFrame, side: str) -> tuple[Cell, Cell]:
    measured = as_rows(group[group[side].notna()].sort_values(side, kind="stable"))
    if not measured:
        return Cell(numbers.NONE), Cell(numbers.NONE)
    first, *others = measured
    run = ("base", "new").index(side)
    alike = [_marked(name(o), o, side) for o in others if not _is_less(first, o, run)]
    time = _marked(numbers.seconds(first[side]), first, side)
    return Cell(name(first), ", ".join(alike)), Cell(time)


def _is_less(one: Row, other: Row, run: int) -> bool:
    """Whether a case is told to be faster than another of a run; one launch tells no order."""
    cells = one["cells"], other["cells"]
    return all(cells) and is_less(cells[0][run], cells[1][run])


def crossover_view(part: pd.DataFrame, sides: Sides) -> TableView:
    """Return from which length on a backend is faster, in both runs."""
    columns: Columns[Row] = [
        ("backend", name),
        ("mode", of("mode")),
        ("faster than", of("baseline")),
        (f"from tokens: {sides.base}", lambda row: numbers.tokens(row["seq_len_base"], to="up")),
        (f"from tokens: {sides.new}", lambda row: numbers.tokens(row["seq_len"], to="up")),
        ("remark", lambda row: _reasons(row, sides)),
    ]
    title = "From which length on a backend is faster"
    return table(title, as_rows(part), columns, text_columns=3)


def _reasons(row: Row, sides: Sides) -> str:
    reasons = {sides.base: row["reason_base"], sides.new: row["reason"]}
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
