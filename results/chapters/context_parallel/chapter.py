"""The chapter of one sequence over several ranks: its figure, tables and sentences."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.context_parallel.rows import (
    ContextChapter,
    context_chapters,
    memory_growths,
)
from results.chapters.context_parallel.tables import context_tables
from results.figures import plot_data
from results.figures.axes import finish, pad, size_ticks, time_ticks
from results.figures.panels import keys, lines, panel_row, shared_legend
from results.figures.theme import looks
from results.page.blocks import Drawing, Paragraph, Part, Section
from results.records.frames import as_rows
from results.schema import CONTEXT, CONTEXT_MODE
from results.text import numbers
from results.text.labels import label
from results.text.memory_growth import sentences

HEADING = "Context parallelism"

CAPTION = (
    "Left: time of a training step over the longest sequence, by the number of ranks. Right: "
    "bytes that a rank receives per step (average), by the length of the whole sequence, at the "
    "most ranks. Log-log; bands are 95 % intervals over processes."
)

SHARED = (
    "On a CPU the ranks share cores and memory bandwidth: compare the times of the methods with "
    "one another, not with those of several machines. Bytes do not depend on that."
)


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
                tables=context_tables(chapter),
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
        f"Bytes exchanged per token, in a training step on {numbers.tokens(longest)} tokens over "
        f"{most} ranks: {numbers.listing(named)}."
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
            f"In {len(off)} of {count} cases the bytes of a forward pass differ from the formula: "
            f"{numbers.listing(off[:3])}."
        )
    else:
        told.append(f"The bytes of a forward pass match the formula in all {count} cases.")
    growths = [(name, vars(growth)) for name, growth in memory_growths(chapter, most)]
    return [
        *told,
        *(f"Memory of the rank that takes most, of {most}: {s}" for s in sentences(growths)),
    ]


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
            axes[1], f"Received over {most} ranks", "bytes per rank and step", part, size_ticks,
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
