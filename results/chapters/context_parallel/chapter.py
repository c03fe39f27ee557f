"""The chapter of one sequence over several ranks: its figure, tables and sentences."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from results.analysis.analysis import Analysis
from results.analysis.warm_up import marked
from results.chapters import ReportChapter
from results.chapters.context_parallel.rows import (
    ContextChapter,
    context_chapters,
    speed_up,
    weak_efficiency,
)
from results.figures import plot_data
from results.figures.panels import (
    finish,
    keys,
    lines,
    pad,
    panel_row,
    shared_legend,
    size_ticks,
    time_ticks,
)
from results.figures.theme import looks
from results.page.blocks import LONG, Cell, Drawing, Paragraph, Part, Section, TableView
from results.records.frames import as_rows
from results.schema import CONTEXT, CONTEXT_MODE
from results.statistics.intervals import Estimate
from results.text import numbers
from results.text.labels import label
from results.text.numbers import status_word

HEADING = "One sequence over several ranks"

CAPTION = (
    "Left: a training step over the longest sequence, by the number of ranks. Right: what a rank "
    "receives on average in a step, by the length of the whole sequence, at the most ranks. Both "
    "axes are logarithmic; bands are 95 % intervals over launches."
)

SHARED = (
    "On a CPU the ranks share its cores and its memory's bandwidth: the times say what the "
    "exchange costs beside one another, not what more machines would bring. Bytes do not depend "
    "on that."
)

Row = Mapping[Hashable, Any]


def context_part(analysis: Analysis) -> Part | None:
    """Return the part of the report that has several ranks."""
    sections, answers = [], []
    for chapter in context_chapters(analysis.run):
        told = _sentences(chapter)
        answers.append(Paragraph(f"{HEADING}: {chapter.title}", told))
        on_cpu = chapter.setting["device"] == "cpu"
        sections.append(
            Section(
                chapter.title,
                lead=f"{chapter.place} {SHARED}" if on_cpu else chapter.place,
                paragraphs=[Paragraph("", told)],
                drawings=[
                    Drawing("ranks", "Time and exchange", CAPTION, partial(_figure, chapter))
                ],
                tables=[view for view in _tables(chapter) if view.rows],
            )
        )
    if not sections:
        return None
    return Part("context", HEADING, sections, [a for a in answers if a.sentences])


# -- sentences -----------------------------------------------------------------------------------


def _sentences(chapter: ContextChapter) -> list[str]:
    """Say what a token costs in bytes, and whether the count is the formula's."""
    rows = chapter.rows[(chapter.rows["ranks"] > 1) & chapter.rows["exchanged"].notna()]
    if rows.empty:
        return []
    most = int(rows["ranks"].max())
    longest = int(rows[rows["ranks"] == most]["seq_len"].max())
    at = rows[(rows["ranks"] == most) & (rows["seq_len"] == longest)].sort_values("exchanged")
    named = [
        f"{label(r['backend'], r['options'])} {numbers.size(r['exchanged'] / longest)}"
        for r in as_rows(at)
    ]
    told = [
        f"Over {most} ranks a training step on {numbers.tokens(longest)} tokens exchanges, a "
        f"token: {numbers.listing(named)}."
    ]
    off = [
        f"{label(r['backend'], r['options'])} over {r['ranks']} ranks at "
        f"{numbers.tokens(r['seq_len'])} tokens"
        for r in as_rows(rows)
        if r["forward"] != r["formula"]
    ]
    count = len(rows)
    if off:
        told.append(
            f"In {len(off)} of {count} cases the bytes of a forward pass are not those of the "
            f"formula: {numbers.listing(off[:3])}."
        )
    else:
        told.append(f"The bytes of a forward pass are those of the formula in all {count} cases.")
    return told


# -- tables --------------------------------------------------------------------------------------


def _tables(chapter: ContextChapter) -> list[TableView]:
    return [_strong(chapter), _weak(chapter), _bytes(chapter)]


def _strong(chapter: ContextChapter) -> TableView:
    ranks = sorted(set(chapter.rows["ranks"]))
    rows = []
    for (backend, options, seq_len), own in chapter.rows.groupby(
        ["backend", "options", "seq_len"], sort=False
    ):
        by_ranks = {row["ranks"]: row for row in as_rows(own)}
        cells = [Cell(label(backend, options)), Cell(numbers.tokens(seq_len))]
        for count in ranks:
            cells.append(_time(chapter, by_ranks.get(count)))
        cells += [Cell(_size(by_ranks.get(count), "memory")) for count in (ranks[0], ranks[-1])]
        rows.append(cells)
    head = [
        "backend", "tokens", *map(_ranks, ranks),
        *(f"memory, {_ranks(count)}" for count in (ranks[0], ranks[-1])),
    ]  # fmt: skip
    notes = [
        "Time of a training step (forward and backward), the slowest rank's; behind it, how many "
        "times as fast as on one rank. Memory: above the inputs, of the rank that took most."
    ]
    return TableView(
        "Strong scaling: one sequence over more ranks", head, rows, notes=notes,
        is_long=len(rows) > LONG,
    )  # fmt: skip


def _weak(chapter: ContextChapter) -> TableView:
    rows = chapter.rows
    own = rows["seq_len"] // rows["ranks"]
    whole = rows[(rows["seq_len"] % rows["ranks"] == 0)].assign(own=own)
    ranks = sorted(set(rows["ranks"]))
    found = []
    for (backend, options, tokens), part in whole.groupby(["backend", "options", "own"]):
        by_ranks = {row["ranks"]: row for row in as_rows(part)}
        if len(by_ranks) < 2 or 1 not in by_ranks:
            continue
        cells = [Cell(label(backend, options)), Cell(numbers.tokens(tokens))]
        for count in ranks:
            row = by_ranks.get(count)
            share = None if row is None else weak_efficiency(chapter, row)
            small = "" if share is None or count == 1 else numbers.percent(share.value)
            cells.append(_value(row, small))
        found.append(cells)
    notes = [
        "As many tokens a rank: the whole sequence grows with the ranks. Behind a time, that of "
        "one rank over it: 100 % = the exchange, and what grows with the whole sequence, cost "
        "nothing."
    ]
    head = ["backend", "tokens a rank", *map(_ranks, ranks)]
    return TableView("Weak scaling: tokens a rank stay", head, found, notes=notes)


def _bytes(chapter: ContextChapter) -> TableView:
    rows = [
        [
            Cell(label(row["backend"], row["options"])),
            Cell(f"{row['ranks']}"),
            Cell(numbers.tokens(row["seq_len"])),
            Cell(_share(row, "forward")),
            Cell(_share(row, "formula")),
            Cell(_share(row, "exchanged")),
            Cell(_size(row, "exchanged")),
            Cell(status_word(row["status"]), is_status=row["status"] != "ok"),
            Cell(row["reason"]),
        ]
        for row in as_rows(chapter.rows)
        if row["ranks"] > 1
    ]
    head = [
        "backend", "ranks", "tokens", "forward, a token", "by formula", "a step, a token",
        "a step, all ranks", "status", "reason",
    ]  # fmt: skip
    notes = [
        "Bytes that ranks receive from one another, counted where they are sent, over all ranks; "
        "an all-reduce counts as a ring moves it."
    ]
    return TableView(
        "Bytes exchanged", head, rows, notes=notes, is_long=len(rows) > LONG
    )  # fmt: skip


def _ranks(count: int) -> str:
    return f"{count} rank{'s'[: count != 1]}"


def _time(chapter: ContextChapter, row: Row | None) -> Cell:
    faster: Estimate | None = None
    if row is not None and row["ranks"] > 1:
        faster = speed_up(chapter, row)
    return _value(row, "" if faster is None else numbers.times(*faster[:3]))


def _value(row: Row | None, small: str) -> Cell:
    if row is None:
        return Cell(numbers.NONE)
    if row["status"] != "ok":
        return Cell(status_word(row["status"]), is_status=True)
    return Cell(marked(numbers.seconds(row["latency"]), row), small)


def _share(row: Row, column: str) -> str:
    return numbers.size(row[column] / row["seq_len"])


def _size(row: Row | None, column: str) -> str:
    return numbers.NONE if row is None else numbers.size(row[column])


# -- figure --------------------------------------------------------------------------------------


def _figure(chapter: ContextChapter) -> Figure | None:
    rows = chapter.rows[chapter.rows["latency"].notna()]
    if rows.empty or rows["ranks"].nunique() < 2:
        return None
    longest = rows[rows["seq_len"] == rows["seq_len"].max()]
    shared = rows[(rows["ranks"] == rows["ranks"].max()) & (rows["exchanged"] > 0)]
    made = panel_row(1 + (not shared.empty), columns=2)
    if made is None:
        return None
    figure, axes = made
    look = looks(keys(rows))
    times = longest.assign(
        value=longest["latency"], ci_low=longest["low"], ci_high=longest["high"]
    ).drop(columns="seq_len")
    lines(axes[0], times.rename(columns={"ranks": "seq_len"}), look)
    axes[0].set_yscale("log")
    pad(axes[0].set_ylim, times["value"], 1.5)
    time_ticks(axes[0].yaxis)
    _rank_axis(axes[0], sorted(set(times["ranks"])))
    axes[0].set_title(f"A step on {numbers.tokens(int(longest['seq_len'].iloc[0]))} tokens")
    axes[0].set_ylabel("time per step")
    if len(axes) > 1:
        most = int(shared["ranks"].iloc[0])
        sent = shared["exchanged"] / most
        part = shared.assign(value=sent, ci_low=sent, ci_high=sent)
        lines(axes[1], part, look)
        finish(
            axes[1], f"Received over {most} ranks", "bytes a rank and step", part, size_ticks,
            CONTEXT_MODE,
        )  # fmt: skip
    shared_legend(figure, keys(rows), look)
    return figure


def _rank_axis(ax: Any, ranks: list[int]) -> None:
    ax.set_xscale("log", base=2)
    pad(ax.set_xlim, pd.Series(ranks), 1.18)
    ax.xaxis.set_major_locator(FixedLocator(ranks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    plot_data.kind(ax.xaxis, "number")
    ax.set_xlabel("ranks")


CHAPTER = ReportChapter(kinds=(CONTEXT,), order=60, part=context_part)
