"""Sections of the report: what every chapter of it hands over, whatever it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from results.chapters.speed.sentences import Paragraph
from results.chapters.speed.tables import TableView
from results.figures.svg import Draw


@dataclass(frozen=True)
class Drawing:
    """A figure that the page shows once, and the Markdown in light and dark.

    Attributes:
        name: of its ids and files: letters, digits and hyphens, once in a section.
        title: its heading.
        caption: what stands below that.
        draw: see `svg.Draw`.
    """

    name: str
    title: str
    caption: str
    draw: Draw


@dataclass(frozen=True)
class Section:
    """One setting, ready to be shown.

    Attributes:
        title: the setting in words.
        lead: what of the setting the title does not say, in a sentence.
        paragraphs: headed sentences; a heading may be empty.
        drawings: its figures.
        tables: its tables.
    """

    title: str
    lead: str = ""
    paragraphs: Sequence[Paragraph] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[TableView] = ()


@dataclass(frozen=True)
class Part:
    """Sections under one heading of the page.

    Attributes:
        name: letters; the anchor, and what the prefix of its figures begins with.
        heading: of the page, and in its table of contents.
        sections: in the order of the page.
        answers: what the summary at the top says of the part; may be empty.
    """

    name: str
    heading: str
    sections: Sequence[Section]
    answers: Sequence[Paragraph] = field(default=())
