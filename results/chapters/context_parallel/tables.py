"""The tables of one sequence over several ranks: strong and weak scaling, and bytes exchanged."""

from __future__ import annotations

from results.chapters.context_parallel.rows import ContextChapter, speed_up, weak_efficiency
from results.page.blocks import Cell, TableView
from results.page.cells import name, status_cell, time
from results.page.columns import Columns, Row, Spread, across, of, spread, table
from results.records.frames import as_rows
from results.text import numbers


def context_tables(chapter: ContextChapter) -> list[TableView]:
    """Return the tables of a chapter that have rows."""
    return [view for view in (_strong(chapter), _weak(chapter), _bytes(chapter)) if view.rows]


def _strong(chapter: ContextChapter) -> TableView:
    def faster(row: Row) -> Cell:
        ratio = speed_up(chapter, row) if row["ranks"] > 1 else None
        return _value(row, "" if ratio is None else numbers.times(*ratio[:3]))

    ranks = sorted(set(chapter.rows["ranks"]))
    ends = (ranks[0], ranks[-1])
    columns: Columns[Spread] = [
        ("backend", lambda row: name(row[0])),
        ("tokens", lambda row: numbers.tokens(row[0]["seq_len"])),
        *across(ranks, _ranks, faster),
        *across(ends, lambda count: f"memory, {_ranks(count)}", of("memory", numbers.size)),
    ]
    notes = [
        "Time of a training step (forward and backward) of the slowest rank; below it the "
        "speed-up over one rank. Memory: above the inputs, of the rank that took most."
    ]
    rows = spread(chapter.rows, ("backend", "options", "seq_len"), "ranks")
    return table("Strong scaling: one sequence over more ranks", rows, columns, notes=notes)


def _weak(chapter: ContextChapter) -> TableView:
    def efficiency(row: Row) -> Cell:
        share = weak_efficiency(chapter, row) if row["ranks"] > 1 else None
        return _value(row, "" if share is None else numbers.percent(share.value))

    rows = chapter.rows
    even = rows[rows["seq_len"] % rows["ranks"] == 0]
    even = even.assign(own=even["seq_len"] // even["ranks"])
    even = even.sort_values(["backend", "options", "own"], kind="stable")
    columns: Columns[Spread] = [
        ("backend", lambda row: name(row[0])),
        ("tokens per rank", lambda row: numbers.tokens(row[0]["own"])),
        *across(sorted(set(rows["ranks"])), _ranks, efficiency),
    ]
    notes = [
        "The sequence grows with the ranks. Below a time: efficiency, the time on one rank over "
        "it; 100 % = communication and what grows with the whole sequence cost nothing."
    ]
    several = [
        row for row in spread(even, ("backend", "options", "own"), "ranks")
        if len(row[1]) > 1 and 1 in row[1]
    ]  # fmt: skip
    title = "Weak scaling: constant tokens per rank"
    return table(title, several, columns, notes=notes, is_long=False)


def _bytes(chapter: ContextChapter) -> TableView:
    columns: Columns[Row] = {
        "backend": name,
        "ranks": of("ranks"),
        "tokens": of("seq_len", numbers.tokens),
        "forward, per token": lambda row: numbers.size(row["forward"] / row["seq_len"]),
        "by formula": lambda row: numbers.size(row["formula"] / row["seq_len"]),
        "step, per token": lambda row: numbers.size(row["exchanged"] / row["seq_len"]),
        "step, all ranks": of("exchanged", numbers.size),
        "status": status_cell,
        "reason": of("reason"),
    }
    notes = [
        "Bytes that ranks receive from one another, summed over all ranks, counted when sent; an "
        "all-reduce counts as a ring all-reduce."
    ]
    rows = as_rows(chapter.rows[chapter.rows["ranks"] > 1])
    return table("Bytes exchanged", rows, columns, notes=notes)


def _ranks(count: int) -> str:
    return f"{count} rank{'s'[: count != 1]}"


def _value(row: Row, small: str) -> Cell:
    return Cell(time(row, "latency"), small) if row["status"] == "ok" else status_cell(row)
