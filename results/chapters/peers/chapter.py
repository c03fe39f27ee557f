"""The chapter of peers: other libraries' implementations beside ours."""

from __future__ import annotations

from functools import partial

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.chapters.peers.figures import CAPTION, peer_figure
from results.chapters.peers.rows import peer_chapters
from results.chapters.peers.tables import peer_tables
from results.page.blocks import Drawing, Part, Section

TITLE = "Compared with other libraries"


def peer_part(analysis: Analysis) -> Part | None:
    """Return the part of the report that has the peers."""
    sections = [
        Section(
            chapter.title,
            drawings=[Drawing("peers", TITLE, CAPTION, partial(peer_figure, chapter))],
            tables=peer_tables(chapter),
        )
        for chapter in peer_chapters(analysis.run)
    ]
    return Part("peers", "Other libraries", sections) if sections else None


CHAPTER = ReportChapter(kinds=("peer",), order=20, part=peer_part)
