"""The chapter of every case, with its status."""

from __future__ import annotations

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.cases.tables import case_sections
from results.page.blocks import Part


def cases_part(analysis: Analysis) -> Part | None:
    """Return the tables of all cases."""
    sections = case_sections(analysis)
    return Part("cases", "Every case", sections, layout="cases") if sections else None


CHAPTER = ReportChapter(kinds=(), order=100, part=cases_part)
