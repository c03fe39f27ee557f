"""The errors' tables as rows of text."""

from __future__ import annotations

import math
from statistics import median

from results.analysis.warm_up import converged, marked
from results.chapters.error.rows import MOST_INPUTS, USELESS, ErrorChapter, budget_text, line_name
from results.chapters.error.sentences import are_single
from results.page.blocks import Cell, TableView
from results.page.cells import name, status_cell, time
from results.page.columns import Columns, Row, Spread, across, of, spread, table
from results.records.frames import records
from results.text import numbers
from results.text.numbers import small_number, status_word


def error_tables(chapter: ErrorChapter) -> list[TableView]:
    """Return errors by inputs at one length, and every case."""
    views = [_by_inputs(chapter), _every(chapter)]
    return [view for view in views if view.rows]


def _by_inputs(chapter: ErrorChapter) -> TableView:
    """Return a row a backend at a budget, a column a distribution."""
    rows = chapter.rows[chapter.rows["seq_len"] == chapter.seq_len]
    notes = [
        "Relative L2 distance of the output from exact softmax attention, at sampled rows; an "
        f"output of zeros has {USELESS:g}. Latency and executed FLOPs: medians over the inputs."
    ]
    if are_single(rows):
        notes.append("One process each: differences in latency have no interval.")
    title = f"Relative error at {numbers.tokens(chapter.seq_len)} tokens, by inputs"
    columns: Columns[Spread] = [
        ("backend", lambda row: name(row[0])),
        ("latency", _latency),
        ("FLOPs", lambda row: _operations(_median(row, "operations"))),
        *across(chapter.inputs[:MOST_INPUTS], lambda inputs: inputs or "inputs", _error),
    ]
    return table(title, spread(rows, ("backend", "options"), "inputs"), columns, notes=notes)


def _median(row: Spread, column: str) -> float:
    known = [one[column] for one in row[1].values() if not math.isnan(one[column])]
    return median(known) if known else math.nan


def _latency(row: Spread) -> str:
    over_inputs = {"converged": converged([one["converged"] for one in row[1].values()])}
    return marked(numbers.seconds(_median(row, "latency")), over_inputs)


def _error(row: Row) -> Cell:
    if math.isfinite(row["relative_error"]):
        return Cell(small_number(row["relative_error"]))
    return Cell(status_word(row["status"]), is_status=True)


def _every(chapter: ErrorChapter) -> TableView:
    columns: Columns[Row] = {
        "backend": line_name,
        "budget": budget_text,
        "inputs": of("inputs"),
        "tokens": of("seq_len", numbers.tokens),
        "latency": lambda row: time(row, "latency"),
        "FLOPs": of("operations", _operations),
        "memory": of("peak_memory", numbers.size),
        "relative error": lambda row: Cell(small_number(row["relative_error"]), _apart(row)),
        "weights' error": of("weights_error", small_number),
        "weights' KL (nat)": of("weights_kl", small_number),
        "status": status_cell,
        "reason": of("reason"),
    }
    notes = [
        "Weights' error: relative L2 distance of the attention weights from those of exact "
        "softmax; KL: mean divergence of their rows, where they are distributions. Below an "
        "error: its range over processes and seeds."
    ]
    rows = records(chapter.rows)
    return table("Every error", rows, columns, text_columns=3, notes=notes, is_long=True)


def _operations(value: float) -> str:
    return f"{numbers.rate(value)}FLOP" if math.isfinite(value) else numbers.NONE


def _apart(row: Row) -> str:
    low, high = row["error_low"], row["error_high"]
    return f"{small_number(low)}–{small_number(high)}" if low < high else ""
