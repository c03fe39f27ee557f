"""The first screen for a terminal: its sentence, where it was measured, its table."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from results.analysis.analysis import Analysis
from results.analysis.warm_up import MARK, NOTE
from results.figures.panels import cut
from results.page.blocks import Cell, TableView
from results.summary.screen import View, first_screen

DROPPED = ("scaling", "memory", "time", "type")
"""What the heads of columns begin with that a narrow terminal does without, in this order."""

LAST, LEAST = "quality", 37
"""The column that takes what is left of the width, and what the others leave it if they can."""


def terminal_text(analysis: Analysis, width: int) -> str:
    """Return what a sweep ends with: a sentence and a table a mode; "" where nothing was timed.

    Args:
        analysis: of the run.
        width: of the terminal, in columns.
    """
    screen = first_screen(analysis, [])
    if not screen.views:
        return ""
    parts = [textwrap.fill(f"{screen.title}.", width), *(_view(v, width) for v in screen.views)]
    if any(MARK in part for part in parts):
        parts.append(textwrap.fill(NOTE, width))
    return "\n" + "\n\n".join(parts) + "\n"


def _view(view: View, width: int) -> str:
    lines = [view.table.title, *_lines(view.table, width)]
    return "\n".join([*lines, *(textwrap.wrap(view.not_run, width) if view.not_run else [])])


def _lines(table: TableView, width: int) -> list[str]:
    """Return a table in aligned columns that keeps to the width, as far as it can."""
    by_head = {head: [row[place] for row in table.rows] for place, head in enumerate(table.head)}
    quality = [cell.text for cell in by_head.pop(LAST)]
    columns = [
        [_SHORT.sub("faster from", head), *(_written(head, cell) for cell in cells)]
        for head, cells in by_head.items()
    ]
    columns.insert(1, ["type", *(row[0].small for row in table.rows)])
    for name in DROPPED:
        if _width(columns) + LEAST <= width:
            break
        columns = [column for column in columns if not column[0].startswith(name)]
    sizes = [max(map(len, column)) for column in columns]
    left = max(SHORTEST, width - _width(columns))
    lines = []
    for row, last in zip(zip(*columns, strict=True), [LAST, *quality], strict=True):
        cells = [
            text.ljust(size) if column[0] in TEXTS else text.rjust(size)
            for text, size, column in zip(row, sizes, columns, strict=True)
        ]
        lines.append("  ".join([*cells, cut(last, left)]).rstrip())
    return lines


_SHORT = re.compile(r"^faster than \w+ from$")

TEXTS = ("method", "type")
"""Columns that hold text, not numbers."""

SHORTEST = 16
"""Letters of the last column in a terminal that is narrower than the others."""


def _written(head: str, cell: Cell) -> str:
    """Write a cell; of a speed-up its interval too."""
    has_interval = head == "speed-up" and cell.small[:1].isdigit()
    return f"{cell.text} ({cell.small})" if has_interval else cell.text


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in columns)
