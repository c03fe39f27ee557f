"""The chapters of the report, a folder each: rows, tables, figures, sentences.

May import every room but `comparison`, `recommendation` and `export`; no chapter imports another.
A folder's `chapter.py` has the `CHAPTER` of the report; a plug-in's folder may have one too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from results.analysis.analysis import Analysis
from results.page.blocks import Part


@dataclass(frozen=True)
class ReportChapter:
    """What the report asks of a chapter.

    Attributes:
        kinds: of the records that it shows; what it computes from all of them counts too.
        order: its place among the chapters; those of plug-ins stand where this says, too.
        part: returns what it shows of a run; None where the run has nothing of it.
        method: how its records are measured, for the end of a report that has the chapter.
        absent: what the summary says of a run that has nothing of it.
    """

    kinds: tuple[str, ...]
    order: int
    part: Callable[[Analysis], Part | None]
    method: str = ""
    absent: str = ""
