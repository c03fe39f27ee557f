"""Sections of the report: what every chapter of it hands over, whatever it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from results.analysis.warm_up import MARK, NOTE
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
        facts: names and values.
        is_setting: whether the title names a setting, which then tells tables of one title apart.
    """

    title: str
    lead: str = ""
    paragraphs: Sequence[Paragraph] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[TableView] = ()
    facts: Sequence[tuple[str, str]] = ()
    is_setting: bool = True


Layout = Literal["chapter", "spread", "cases", "trust", "facts"]
"""How a page shows a part: under a heading of its own; *spread*, with its paragraphs in the
summary, its figures among the figures and its tables among the tables; as the tables of every
case; as what the numbers are worth; as names and values."""


@dataclass(frozen=True)
class Part:
    """Sections under one heading of the page.

    Attributes:
        name: letters; the anchor, and what the prefix of its figures begins with.
        heading: of the page, and in its table of contents.
        sections: in the order of the page.
        answers: what the summary at the top says of the part; may be empty.
        warnings: what must be said before any number; may be empty.
        layout: how it is shown.
    """

    name: str
    heading: str
    sections: Sequence[Section]
    answers: Sequence[Paragraph] = ()
    warnings: Sequence[str] = ()
    layout: Layout = "chapter"


MOST_DRAWN = 16
"""Sections of a part that have figures: a page of more could not be opened."""


LONG = 40
"""A table with more rows than this is folded away on a page."""


class Cell(NamedTuple):
    """One cell: its text, what stands small behind it, and whether it is a status."""

    text: str
    small: str = ""
    is_status: bool = False


@dataclass(frozen=True)
class TableView:
    """A table to show.

    Attributes:
        title: its heading.
        head: names of the columns.
        rows: cells, as many a row as there are columns.
        text_columns: how many columns from the left hold text, not numbers.
        notes: sentences below it.
        is_long: to be folded away on a page.

    A cell with the mark of a warm-up that was cut short brings the note that explains it.
    """

    title: str
    head: list[str]
    rows: list[list[Cell]]
    text_columns: int = 1
    notes: list[str] = field(default_factory=list)
    is_long: bool = False

    def __post_init__(self) -> None:
        """Explain the mark where there is one."""
        texts = (text for cells in self.rows for cell in cells for text in cell[:2])
        if NOTE not in self.notes and any(MARK in text for text in texts):
            object.__setattr__(self, "notes", [*self.notes, NOTE])


@dataclass(frozen=True)
class Paragraph:
    """A heading and its sentences, plain text.

    A sentence with the mark of a warm-up that was cut short brings the one that explains it.
    """

    heading: str
    sentences: list[str]

    def __post_init__(self) -> None:
        """Explain the mark where there is one."""
        if NOTE not in self.sentences and any(MARK in s for s in self.sentences):
            object.__setattr__(self, "sentences", [*self.sentences, NOTE])
