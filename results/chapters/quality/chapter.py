"""The chapter of tasks: its tables and figures as a part of the report."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.quality.figures import (
    COST_CAPTION,
    CURVE_CAPTION,
    GROUP_CAPTION,
    MOST_SERIES,
    MOST_TRIALS,
    cost_figure,
    curve_figure,
    group_figure,
)
from results.chapters.quality.overview import answers, overview
from results.chapters.quality.published import published_tables
from results.chapters.quality.rows import QualityChapter, chapters_of_tasks
from results.chapters.quality.sentences import quality_paragraphs
from results.chapters.quality.tables import quality_tables
from results.page.blocks import MOST_DRAWN, Drawing, Part, Section

AT_A_GLANCE = "All tasks at a glance"
PUBLISHED = "Long Range Arena's published figures"


def task_part(analysis: Analysis) -> Part | None:
    """Return the tasks: all at a glance, one section a setting, and what was published."""
    chapters = chapters_of_tasks(analysis.run)
    if not chapters:
        return None
    sections = []
    if glance := overview(chapters):
        sections.append(Section(AT_A_GLANCE, tables=glance))
    sections += [
        Section(
            chapter.title,
            lead=chapter.place,
            paragraphs=quality_paragraphs(chapter),
            drawings=list(_task_drawings(chapter)) if index < MOST_DRAWN else [],
            tables=quality_tables(chapter),
        )
        for index, chapter in enumerate(chapters)
    ]
    if theirs := published_tables(chapters):
        sections.append(Section(PUBLISHED, tables=theirs))
    return Part("quality", "Tasks", sections, answers(chapters))


def _task_drawings(chapter: QualityChapter) -> Iterator[Drawing]:
    several = len(chapter.trials) > 1
    for index, trial in enumerate(chapter.trials[:MOST_TRIALS]):
        what = "Bits per byte" if trial.lower else "Accuracy"
        beside = f", {trial.name}" if several else ""
        yield Drawing(
            f"score{index}", f"{what} against cost{beside}",
            "As above." if index else _of(COST_CAPTION, chapter),
            partial(cost_figure, chapter, trial),
        )  # fmt: skip
    group = next((t.group for t in chapter.trials if t.group), "")
    yield Drawing(
        "groups", f"Accuracy by {group}", _of(GROUP_CAPTION.format(group=group), chapter),
        partial(group_figure, chapter),
    )  # fmt: skip
    texts = [trial for trial in chapter.trials[:MOST_TRIALS] if trial.lower]
    for index, trial in enumerate(texts):
        beside = f", {trial.name}" if several else ""
        yield Drawing(
            f"curves{index}", f"Learning curves{beside}",
            "As above." if index else _of(CURVE_CAPTION, chapter),
            partial(curve_figure, chapter, trial),
        )  # fmt: skip


def _of(told: str, chapter: QualityChapter) -> str:
    """Add to a caption how many series are drawn where that is not all."""
    count = max(len(trial.rows) for trial in chapter.trials)
    if count <= MOST_SERIES:
        return told
    return f"{told} Of {count} series the first {MOST_SERIES} are drawn."


CHAPTER = ReportChapter(
    kinds=("task",),
    order=30,
    part=task_part,
    method="Tasks: a model with each backend is trained on the\n"
    "same data with the same budget. Scores are on a test split, means over seeds; a seed sets "
    "both weights\nand data.",
)
