"""The report's tables as rows of text: what the page and the Markdown both show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from results.analysis.warm_up import marked
from results.chapters.speed.attention_share import worth
from results.chapters.speed.memory_growth import memory_table
from results.chapters.speed.profile_tables import product_table, profile_table
from results.chapters.speed.rows import Chapter
from results.chapters.speed.short_inputs import BASELINE, FACTOR, SHORT, SLACK, short_inputs
from results.metrics import METRICS
from results.page.blocks import Cell, TableView
from results.page.cells import name, plus_minus, ratio_cell, time_cell
from results.page.columns import Columns, Row, Spread, across, of, spread, table
from results.records.frames import as_rows
from results.schema import ITEM_SIZE
from results.text import numbers
from results.text.modes import WORDS
from results.text.notes import MOST, capped
from results.text.numbers import status_word
from results.text.written import writer

IN_CASES = "in the table of every case"
"""Where the notes are that a list leaves out."""

WIDEST = 0.5
"""An interval of an exponent wider than this tells linear and quadratic hardly apart."""


def tables(chapter: Chapter) -> list[TableView]:
    """Return the tables of a chapter that have rows."""
    views = []
    for mode in chapter.modes:
        views += [_times(chapter, mode), _memory(chapter, mode)]
    views += [
        _worth(chapter), _scaling(chapter), memory_table(chapter), _crossovers(chapter),
        _short(chapter), profile_table(chapter), product_table(chapter),
    ]  # fmt: skip
    return [v for v in views if v.rows]


# -- backends by lengths -------------------------------------------------------------------------


def _times(chapter: Chapter, mode: str) -> TableView:
    rows, columns, notes = _by_length(chapter, mode, "latency")
    title = f"{WORDS[mode].call}, {mode}"
    return table(title, rows, columns, notes=notes, is_long=False)


def _memory(chapter: Chapter, mode: str) -> TableView:
    """Return backends by lengths, and what the longest one takes a token."""
    words = WORDS[mode]
    title = f"{words.memory_title}, {mode}"
    rows, columns, notes = _by_length(chapter, mode, words.memory)
    if words.memory == "peak_memory":
        measured = any(_longest(row) for row in rows)
        notes = [*notes, _io_per_token(chapter.setting)] if measured else []
        columns = [*columns, ("bytes per token", _per_token)]
    optional = ("bytes per token",)
    return table(title, rows, columns, notes=notes, optional=optional, is_long=False)


def _by_length(
    chapter: Chapter, mode: str, metric: str
) -> tuple[list[Spread], Columns[Spread], list[str]]:
    """Return backends by lengths: rows, columns, and why some cells have no value."""
    write = writer(metric)

    def cell(row: Row) -> Cell:
        if metric == "latency" and math.isfinite(row["value"]):
            return time_cell(row)
        if math.isfinite(row["value"]):
            return Cell(marked(write(row["value"]), row), plus_minus(row))
        return Cell(status_word(row["status"]), is_status=True)

    points = chapter.points
    points = points[(points["mode"] == mode) & (points["metric"] == metric)]
    lengths = sorted(set(points["seq_len"]))
    rows = spread(points, ("backend", "options"), "seq_len")
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for series, by_length in rows:
        for row in (by_length[n] for n in lengths if n in by_length):
            if row["reason"] and not math.isfinite(row["value"]):
                why = status_word(row["status"]), row["reason"]
                reasons.setdefault(why, {}).setdefault(name(series))
    notes = [
        f"{numbers.few(list(names), MOST)}, {word}: {reason}."
        for (word, reason), names in reasons.items()
    ]
    columns = [("backend", _series_name), *across(lengths, numbers.tokens, cell)]
    return rows, columns, capped(notes, IN_CASES)


def _series_name(row: Spread) -> str:
    return name(row[0])


def _longest(row: Spread) -> Row | None:
    """Return what was measured at the longest length; None where nothing was."""
    measured = [row for row in row[1].values() if not math.isnan(row["value"])]
    return max(measured, key=lambda row: row["seq_len"], default=None)


def _per_token(row: Spread) -> str:
    last = _longest(row)
    if last is None:
        return numbers.NONE
    return numbers.digits(last["value"] / (last["batch"] * last["seq_len"]))


def _io_per_token(setting: Mapping[str, Any]) -> str:
    """Say what a token costs before anything is computed: its part of inputs and output."""
    query = setting["num_heads"] * setting["head_dim"]
    key = setting["num_kv_heads"] * setting["head_dim"]
    attention = setting["level"] == "attention"
    elements = 2 * query + (2 * key if attention else 0)
    what = "q, k, v and the output" if attention else "the input and the output"
    if not elements:  # a model's heads are its own
        return "Bytes per token: the peak at the longest length, over batch × tokens."
    size = numbers.tokens(elements * ITEM_SIZE[setting["dtype"]])
    return (
        "Bytes per token: the peak at the longest length that was measured, over batch × tokens; "
        f"{what} themselves have {size}."
    )


# -- a row a case --------------------------------------------------------------------------------


def _worth(chapter: Chapter) -> TableView:
    """Return what each attention is worth within a layer, block or model, beside the floor."""
    rows = [
        {**row, "mode": mode} for mode in chapter.modes
        for row in as_rows(worth(chapter.points, mode))
    ]  # fmt: skip
    columns: Columns[Row] = {
        "backend": name,
        "mode": of("mode"),
        "tokens": of("seq_len", numbers.tokens),
        "time": time_cell,
        "tokens/s": lambda row: numbers.digits(row["tokens_per_s"], 2),
        "memory": of("memory", numbers.size),
        "attention's share": _share_cell,
        f"× {BASELINE}": ratio_cell,
    }
    notes = [
        "Attention's share: what is left of the time without the identity variant's, which has "
        "everything else and is sampled in alternation, with the 95 % interval over processes; of "
        "lstm there is none, since it stands in the place of the projections too. Of an "
        "encoder-decoder it is the encoder's self-attention. It is below 0 where a method saves "
        "more in the projections than it takes (Linformer).",
        "Tokens/s: of the input. Memory: of a model above weights and optimiser's moments.",
        f"× {BASELINE}: how many times as fast the whole is as with {BASELINE}, with the 95 % "
        "interval over processes.",
    ]
    title = f"What the attention is worth in a {chapter.setting['level']}"
    return table(title, rows, columns, text_columns=2, notes=notes)


def _share_cell(row: Row) -> Cell:
    """Write a share and its interval."""

    def write(share: float, /, *, to: numbers.To = "nearest") -> str:
        return f"{numbers.rounded(100 * share, 0, to) + 0.0:.0f}"  # nothing has no sign

    value = row["attention_share"]
    between = numbers.interval(row["share_low"], row["share_high"], write, unit=" %")
    return Cell(f"{write(value)} %" if math.isfinite(value) else numbers.NONE, between)


def _interval(row: Row, write: numbers.Write) -> str:
    return numbers.interval(row["ci_low"], row["ci_high"], write).strip("()") or numbers.NONE


def _lengths(row: Row) -> str:
    if not math.isfinite(row["exponent"]):
        return numbers.NONE
    between = f"{numbers.tokens(row['seq_len_min'])}–{numbers.tokens(row['seq_len_max'])}"
    return f"{between} ({row['num_lengths']:.0f})"


def _local(row: Row) -> Cell:
    between = numbers.interval(row["local_low"], row["local_high"], numbers.exponent)
    return Cell(numbers.exponent(row["local"]), between)


def _declared(row: Row) -> str:
    return f"{round(row['expected'], 2):g}" if math.isfinite(row["expected"]) else numbers.NONE


def _uncertain(row: Row) -> str:
    wide = row["metric"] == "latency" and row["ci_high"] - row["ci_low"] > WIDEST
    return "; ".join(part for part in (row["reason"], "too uncertain to judge" * wide) if part)


def _scaling(chapter: Chapter) -> TableView:
    columns: Columns[Row] = {
        "backend": name,
        "mode": of("mode"),
        "of": lambda row: METRICS[row["metric"]].short,
        "exponent": lambda row: marked(numbers.exponent(row["exponent"]), row),
        "95 % interval": lambda row: _interval(row, numbers.exponent),
        "declared": _declared,
        "lengths": _lengths,
        "of the last two": _local,
        "remark": _uncertain,
    }
    notes = [
        "Of time: the slope of log time on log length over the lengths (how many stands in "
        "brackets), beside that of the declared FLOPs over the same lengths."
    ]
    title = "Exponents of time and memory in the length"
    rows = as_rows(chapter.fits)
    return table(title, rows, columns, text_columns=3, notes=notes, is_long=False)


def _crossovers(chapter: Chapter) -> TableView:
    columns: Columns[Row] = {
        "backend": name,
        "mode": of("mode"),
        "faster than": of("baseline"),
        "from tokens": lambda row: marked(numbers.tokens(row["seq_len"], to="up"), row),
        "95 % interval": lambda row: _interval(row, numbers.tokens),
        "remark": of("reason"),
    }
    title = "From which length on a backend is faster"
    return table(title, as_rows(chapter.crossovers), columns, text_columns=3, is_long=False)


def _short(chapter: Chapter) -> TableView:
    """Return what short inputs cost beside exact attention, and whose size explains it."""
    short = short_inputs(chapter.points)
    columns: Columns[Row] = {
        "backend": name,
        "mode": of("mode"),
        "tokens": of("seq_len", numbers.tokens),
        "time": time_cell,
        BASELINE: of("baseline", numbers.seconds),
        "allowed": of("allowed", numbers.seconds),
        "verdict": lambda row: Cell("more" if row["over"] else "within", "", bool(row["over"])),
        "remark": lambda row: row["why"] if row["over"] else "",
    }
    notes = [
        f"Allowed at up to {SHORT} tokens: {FACTOR:g} × the time of {BASELINE} and "
        f"{SLACK * 1e6:g} µs more; full, which holds all scores, is exempt."
    ]
    rows = as_rows(short[short["baseline"].notna()])
    return table("Short inputs", rows, columns, text_columns=2, notes=notes)
