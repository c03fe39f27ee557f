"""The chapter of speed: sentences for the summary, figures and tables, a section a setting."""

from __future__ import annotations

from functools import partial

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.speed.captions import TITLES, figure_caption
from results.chapters.speed.figures import FIGURES
from results.chapters.speed.open_questions import answered, answers_of, open_tables
from results.chapters.speed.rows import Chapter, chapters
from results.chapters.speed.sentences import summarise
from results.chapters.speed.tables import tables
from results.page.blocks import MOST_DRAWN, Drawing, Part, Section
from results.records.load import Run


def speed_part(analysis: Analysis) -> Part | None:
    """Return the settings that were timed."""
    sections = [_section(chapter, analysis.run) for chapter in chapters(analysis)]
    return Part("speed", "Speed", sections, layout="spread") if sections else None


def _section(chapter: Chapter, run: Run) -> Section:
    shown = chapter.first_series(MOST_DRAWN)
    drawings = [
        Drawing(name, TITLES[name], _caption(name, run, chapter), partial(draw, shown))
        for name, draw in FIGURES.items()
    ]
    answers = answers_of(chapter)
    return Section(
        chapter.title,
        paragraphs=[*summarise(chapter), *answered(answers)],
        drawings=drawings,
        tables=[*tables(chapter), *open_tables(answers)],
    )


def _caption(name: str, run: Run, chapter: Chapter) -> str:
    """Return a figure's caption, and how many series are drawn where that is not all."""
    series = chapter.points[["backend", "options"]].drop_duplicates()
    caption = figure_caption(name, run)
    if len(series) <= MOST_DRAWN:
        return caption
    return f"{caption} Of {len(series)} series the first {MOST_DRAWN} are drawn."


CHAPTER = ReportChapter(
    kinds=("speed", "roof"), order=10, part=speed_part, absent="No speed case was measured."
)
