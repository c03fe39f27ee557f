"""All that the first screen shows, whatever a run measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from results.analysis.analysis import Analysis
from results.analysis.warm_up import is_sentence
from results.chapters.speed.rows import Chapter, chapters
from results.page.blocks import Drawing, Part, TableView
from results.summary import provenance
from results.summary.figure import drawings
from results.summary.methods import Comparison, comparisons
from results.summary.quality import qualities
from results.summary.table import method_table, not_run
from results.summary.title import title

LONGEST_TITLE = 240
"""Letters of a title that is taken from a chapter's answers."""

TRAINED = "trained"
"""How what is said of the inputs of a trained model begins."""


@dataclass(frozen=True)
class View:
    """One mode of the first screen.

    Attributes:
        mode: one of `schema.MODES`.
        table: its methods.
        not_run: what gave no time, in one line; "" for nothing.
        figures: tab to figure.
    """

    mode: str
    table: TableView
    not_run: str
    figures: dict[str, Drawing]


@dataclass(frozen=True)
class FirstScreen:
    """What a report begins with.

    Attributes:
        title: one sentence.
        measured: where its numbers come from, part by part.
        chips: what must be known before any number, in a word or two each.
        views: the modes that were timed, forward first; empty = nothing was.
        length: that the table of the first is about, in tokens; 0 = there is none.
        other_settings: how many settings stand below beside the one of the views.
    """

    title: str
    measured: Sequence[str]
    chips: Sequence[str]
    views: Sequence[View]
    length: int = 0
    other_settings: int = 0


def first_screen(analysis: Analysis, parts: Sequence[Part]) -> FirstScreen:
    """Return the first screen of a run.

    Args:
        analysis: of the run.
        parts: what its chapters show.
    """
    chips = _chips(analysis, parts)
    settings = chapters(analysis)
    compared = comparisons(settings[0]) if settings else []
    if not compared:
        return FirstScreen(_of_chapters(parts), provenance.of_run(analysis.run), chips, ())
    chapter = settings[0]
    poor = qualities(chapter, compared[0]).poor
    views = [_view(chapter, one) for one in compared]
    measured = provenance.of_setting(chapter, [one.mode for one in compared])
    measured = [part for part in measured if part]
    length, others = compared[0].length, len(settings) - 1
    return FirstScreen(title(compared[0], poor), measured, chips, views, length, others)


def _chips(analysis: Analysis, parts: Sequence[Part]) -> list[str]:
    doubts = [w for part in parts if part.layout == "trust" for w in part.warnings]
    found = {
        "incomplete run": bool(analysis.run.incomplete),
        "noisy machine": any(not is_sentence(w) for w in doubts),
        "warm-ups cut short": any(map(is_sentence, doubts)),
    }
    return [chip for chip, is_so in found.items() if is_so]


def _view(chapter: Chapter, comparison: Comparison) -> View:
    known = qualities(chapter, comparison)
    table = method_table(comparison, known)
    figures = drawings(chapter, comparison, known)
    return View(comparison.mode, table, not_run(comparison.absent), figures)


def _of_chapters(parts: Sequence[Part]) -> str:
    """Return the chapters' first answer that is short enough, else what they are about.

    What was seen on the inputs of a trained model comes first.
    """
    chapters = [part for part in parts if part.layout == "chapter"]
    for part in chapters:
        told = [sentence for paragraph in part.answers for sentence in paragraph.sentences]
        for sentence in sorted(told, key=lambda one: not one.startswith(TRAINED)):
            first = re.split(r"; | \(beside ", sentence)[0].rstrip(".")
            if len(first) <= LONGEST_TITLE:
                return f"{part.heading}: {first}"
    if not chapters:
        return "Nothing was measured that says which attention to use"
    return f"What was measured: {', '.join(part.heading.lower() for part in chapters)}"
