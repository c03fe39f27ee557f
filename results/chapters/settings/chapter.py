"""The chapter that compares settings of a run: threads, precision, the compiler, machines."""

from __future__ import annotations

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.settings.tables import axis_tables
from results.page.blocks import Part, Section
from results.records.load import machine_names


def settings_part(analysis: Analysis) -> Part | None:
    """Return the tables that compare settings; they stand before those of the settings."""
    tables = axis_tables(analysis.points, machine_names(analysis.run))
    if not tables:
        return None
    section = Section("Between settings", tables=tables, is_setting=False)
    return Part("settings", "Between settings", [section], layout="spread")


CHAPTER = ReportChapter(kinds=(), order=0, part=settings_part)
