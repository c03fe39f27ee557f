"""The peers' tables as rows of text: one a pair of backend and peer, a row a case."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from results.analysis.warm_up import marked
from results.chapters.peers.rows import PAIR, PeerChapter
from results.page.blocks import Cell, TableView
from results.page.cells import plus_minus
from results.records.frames import as_rows
from results.text import numbers
from results.text.labels import label
from results.text.numbers import small_number, status_word

HEAD = [
    "mode", "allocator", "tokens", "ours", "peer", "peer / ours", "attention alone",
    "memory ratio", "output difference", "launches",
]  # fmt: skip


def peer_tables(chapter: PeerChapter) -> list[TableView]:
    """Return the tables of a chapter, those with numbers first."""
    groups = [part for _, part in chapter.rows.groupby(list(PAIR), sort=False)]
    groups.sort(key=lambda part: not part["ratio"].notna().any())
    return [_pair(as_rows(part)) for part in groups]


def _pair(rows: list[dict[Hashable, Any]]) -> TableView:
    first = rows[0]
    causal = ", causal" if first["is_causal"] else ""
    around = ", with projections" if first["level"] == "layer" else ""
    title = f"{label(first['backend'], first['options'])} beside {first['peer']}{causal}{around}"
    is_cpu = first["device"] == "cpu"
    return TableView(
        title,
        HEAD,
        [_row(row, is_cpu) for row in rows],
        text_columns=2,
        notes=_notes(rows),
    )


def _row(row: Mapping[Hashable, Any], is_cpu: bool) -> list[Cell]:
    ended_well = row["status"] == "ok"
    return [
        Cell(row["mode"]),
        Cell(row["allocator"] if is_cpu else numbers.NONE),
        Cell(numbers.tokens(row["seq_len"])),
        Cell(marked(numbers.seconds(row["latency"]), row))
        if ended_well
        else Cell(status_word(row["status"]), is_status=True),
        Cell(marked(numbers.seconds(row["peer_latency"]), row)),
        _ratio(row, "ratio", "ratio_low", "ratio_high"),
        _ratio(row, "attention_ratio", "attention_low", "attention_high"),
        Cell(_times(row["memory_ratio"])),
        Cell(small_number(row["output_difference"])),
        Cell(f"{row['num_launches']}"),
    ]


def _ratio(row: Mapping[Hashable, Any], value: str, low: str, high: str) -> Cell:
    known: Mapping[Hashable, Any] = {"value": row[value], "ci_low": row[low], "ci_high": row[high]}
    between = numbers.interval(row[low], row[high], numbers.ratio_digits).strip("()")
    return Cell(_times(row[value]), between if plus_minus(known) else "")


def _times(value: float) -> str:
    return f"{numbers.ratio_digits(value)} ×" if math.isfinite(value) else numbers.NONE


def _notes(rows: list[dict[Hashable, Any]]) -> list[str]:
    """Say which library ran, whether both compute the same function, and what went wrong."""
    libraries = dict.fromkeys(row["library"] for row in rows if row["library"])
    notes = [f"The peer: {library}." for library in libraries]
    for row in rows:
        if math.isfinite(row["input_scale"]):
            notes.append(
                f"Output difference: relative L2, inputs of scale {row['input_scale']:g}."
            )
        if row["same_function"] is True:
            allowed = small_number(row["allowed_difference"])
            notes.append(
                f"The same function: as timed, a difference beyond {allowed} fails the case."
            )
        elif row["same_function"] is False:
            notes.append(f"Not the same function: {row['difference']}.")
    for row in rows:
        if row["reason"]:
            word = "" if row["status"] == "ok" else f", {status_word(row['status'])}"
            notes.append(f"{row['mode']}{word}: {row['reason']}.")
    return list(dict.fromkeys(notes))
