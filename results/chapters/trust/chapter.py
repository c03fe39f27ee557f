"""The chapter that says how far to trust the numbers."""

from __future__ import annotations

from dataclasses import replace

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.trust.rows import trust
from results.chapters.trust.tables import trust_section
from results.page.blocks import Part
from results.schema import SENTINEL


def trust_part(analysis: Analysis) -> Part:
    """Return what the records say about the measuring; disturbances are warnings."""
    found = trust(analysis)
    section = trust_section(found)
    sections = [replace(section, title="")]
    return Part("trust", section.title, sections, warnings=found.warnings, layout="trust")


CHAPTER = ReportChapter(kinds=(SENTINEL,), order=110, part=trust_part)
