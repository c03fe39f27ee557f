"""The chapter that says where the numbers come from."""

from __future__ import annotations

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.environment.facts import provenance
from results.page.blocks import Part, Section


def environment_part(analysis: Analysis) -> Part:
    """Return machines, environments, runs and peaks."""
    sections = [Section(facts.title, facts=facts.pairs) for facts in provenance(analysis)]
    return Part("environment", "Environment", sections, layout="facts")


CHAPTER = ReportChapter(kinds=(), order=120, part=environment_part)
