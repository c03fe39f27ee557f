"""The peers' tables as rows of text: one a pair of backend and peer, a row a case."""

from __future__ import annotations

import math
from collections.abc import Sequence

from results.chapters.peers.rows import PAIR, PeerChapter
from results.page.blocks import Cell, TableView
from results.page.cells import plus_minus, status_cell, time
from results.page.columns import Columns, Row, of, table
from results.records.frames import as_rows
from results.text import numbers
from results.text.labels import label
from results.text.numbers import small_number, status_word


def peer_tables(chapter: PeerChapter) -> list[TableView]:
    """Return the tables of a chapter, those with numbers first."""
    groups = [part for _, part in chapter.rows.groupby(list(PAIR), sort=False)]
    groups.sort(key=lambda part: not part["ratio"].notna().any())
    return [_pair(as_rows(part)) for part in groups]


def _pair(rows: Sequence[Row]) -> TableView:
    first = rows[0]
    causal = ", causal" if first["is_causal"] else ""
    around = ", with projections" if first["level"] == "layer" else ""
    title = f"{label(first['backend'], first['options'])} and {first['peer']}{causal}{around}"
    is_cpu = first["device"] == "cpu"
    columns: Columns[Row] = {
        "mode": of("mode"),
        "allocator": lambda row: row["allocator"] if is_cpu else numbers.NONE,
        "tokens": of("seq_len", numbers.tokens),
        "ours": lambda row: time(row, "latency") if row["status"] == "ok" else status_cell(row),
        "theirs": lambda row: time(row, "peer_latency"),
        "theirs / ours": lambda row: _ratio(row, "ratio", "ratio_low", "ratio_high"),
        "attention alone": lambda row: _ratio(
            row, "attention_ratio", "attention_low", "attention_high"
        ),
        "memory ratio": of("memory_ratio", _times),
        "output difference": of("output_difference", small_number),
        "processes": of("num_launches"),
    }
    return table(title, rows, columns, text_columns=2, notes=_notes(rows), is_long=False)


def _ratio(row: Row, value: str, low: str, high: str) -> Cell:
    known = {"value": row[value], "ci_low": row[low], "ci_high": row[high]}
    between = numbers.interval(row[low], row[high], numbers.ratio_digits).strip("()")
    return Cell(_times(row[value]), between if plus_minus(known) else "")


def _times(value: float) -> str:
    return f"{numbers.ratio_digits(value)} ×" if math.isfinite(value) else numbers.NONE


def _notes(rows: Sequence[Row]) -> list[str]:
    """Say which library ran, whether both compute the same function, and what went wrong."""
    libraries = dict.fromkeys(row["library"] for row in rows if row["library"])
    notes = [f"Theirs: {library}." for library in libraries]
    for row in rows:
        if math.isfinite(row["input_scale"]):
            notes.append(
                f"Output difference: relative L2, for inputs of scale {row['input_scale']:g}."
            )
        if row["same_function"] is True:
            allowed = small_number(row["allowed_difference"])
            notes.append(
                f"Both compute the same function (a difference above {allowed} fails the case)."
            )
        elif row["same_function"] is False:
            notes.append(f"They compute different functions: {row['difference']}.")
    for row in rows:
        if row["reason"]:
            word = "" if row["status"] == "ok" else f", {status_word(row['status'])}"
            notes.append(f"{row['mode']}{word}: {row['reason']}.")
    return list(dict.fromkeys(notes))
