"""How suite sorting is reported: one table, and a sentence for the summary. No torch."""

from __future__ import annotations

from results.analysis.analysis import Analysis
from results.chapters import ReportChapter
from results.page.blocks import Cell, Paragraph, Part, Section, TableView
from results.text import numbers

TITLE = "What sorting costs"


def part(analysis: Analysis) -> Part | None:
    """Return a row a case: the median of its launches' medians."""
    frame = analysis.run.frame
    rows = frame[(frame["kind"] == "sorting") & (frame["metric"] == "latency")]
    if rows.empty:
        return None
    medians = rows.groupby(["options", "seq_len"])["value"].median()
    table = TableView(
        "Time by order",
        ["how", "numbers", "time"],
        [
            [Cell(how), Cell(f"{length:,}"), Cell(numbers.seconds(value))]
            for (how, length), value in medians.items()
        ],
    )
    slowest = numbers.seconds(float(medians.max()))
    section = Section("", lead="Random numbers between 0 and 1.", tables=[table])
    summary = Paragraph(TITLE, [f"Sorting took {slowest} at most."])
    return Part("sorting", TITLE, [section], [summary])


CHAPTER = ReportChapter(
    kinds=("sorting",), order=90, part=part, method="A case sorts as many numbers as it says."
)
