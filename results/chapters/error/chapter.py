"""The error chapter: its tables and figures as a part of the report."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.error.figures import LENGTH_CAPTION, against_cost, against_length, caption
from results.chapters.error.rows import ErrorChapter, error_chapters
from results.chapters.error.sentences import error_answers, error_paragraphs
from results.chapters.error.tables import error_tables
from results.metrics import METRICS
from results.page.blocks import MOST_DRAWN, Drawing, Part, Section


def error_part(analysis: Analysis) -> Part | None:
    """Return the errors, one section a setting."""
    chapters = error_chapters(analysis.run)
    if not chapters:
        return None
    sections = [
        Section(
            chapter.title,
            lead=chapter.place,
            paragraphs=error_paragraphs(chapter),
            drawings=list(_error_drawings(chapter)) if index < MOST_DRAWN else [],
            tables=error_tables(chapter),
        )
        for index, chapter in enumerate(chapters)
    ]
    return Part("error", "Approximation error", sections, error_answers(chapters))


def _error_drawings(chapter: ErrorChapter) -> Iterator[Drawing]:
    for metric, cost in (
        ("relative_error", "latency"), ("relative_error", "operations"),
        ("weights_error", "latency"), ("weights_kl", "latency"),
    ):  # fmt: skip
        against = {"latency": "against time", "operations": "against FLOPs"}[cost]
        yield Drawing(
            f"{metric.replace('_', '')}{cost}", f"{METRICS[metric].title} {against}",
            caption(metric, cost, chapter), partial(against_cost, chapter, metric, cost),
        )  # fmt: skip
    yield Drawing(
        "errorlength", "Error of the output against length", LENGTH_CAPTION,
        partial(against_length, chapter),
    )  # fmt: skip


CHAPTER = ReportChapter(
    kinds=("error",),
    order=40,
    part=error_part,
    method="Errors are taken at sampled rows, against exact softmax attention\nin float64.",
)
