"""Tables declared by their columns: the head of each, and what writes a row's cell in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd

from results.page.blocks import LONG, Cell, TableView
from results.records.frames import as_rows, rows_by
from results.text import numbers

Row = Mapping[Any, Any]
"""Of a frame."""

T = TypeVar("T")

Writer = Callable[[T], "Cell | str"]

Columns = Mapping[str, Writer[T]] | Sequence[tuple[str, Writer[T]]]
"""Head to writer; pairs, where a head may stand there twice (a length, a machine's name)."""


def table(
    title: str,
    rows: Iterable[T],
    columns: Columns[T],
    *,
    text_columns: int = 1,
    notes: Iterable[str] = (),
    optional: Collection[str] = (),
    is_long: bool | None = None,
) -> TableView:
    """Return a table with a row a row.

    Args:
        title: its heading.
        rows: what the writers take.
        columns: its columns, from the left.
        text_columns: see `TableView`.
        notes: sentences below it.
        optional: heads of columns that are left out where no row says anything in them.
        is_long: whether it is folded away on a page; None = if it has more than `LONG` rows.
    """
    pairs = list(columns.items() if isinstance(columns, Mapping) else columns)
    cells = [[_cell(write(row)) for _, write in pairs] for row in rows]
    shown = [
        place
        for place, (head, _) in enumerate(pairs)
        if head not in optional or any(row[place].text not in ("", numbers.NONE) for row in cells)
    ]
    return TableView(
        title,
        [pairs[place][0] for place in shown],
        [[row[place] for place in shown] for row in cells],
        text_columns,
        list(notes),
        len(cells) > LONG if is_long is None else is_long,
    )


def _cell(written: Cell | str) -> Cell:
    return written if isinstance(written, Cell) else Cell(written)


def of(column: str, write: Callable[[Any], str] = str) -> Writer[Row]:
    """Return what writes a column of a frame's row."""
    return lambda row: write(row[column])


Spread = tuple[Row, Mapping[Any, Row]]
"""What a table's row is of, and the rows of a frame that its columns stand for, by their value."""


def spread(frame: pd.DataFrame, keys: Sequence[str], over: str) -> list[Spread]:
    """Return a row for each of `keys`, its values of `over` beside each other."""
    return [
        (series, {row[over]: row for row in as_rows(part)})
        for series, part in rows_by(frame, keys)
    ]


def across(
    values: Iterable[Any], head: Callable[[Any], str], write: Writer[Row]
) -> list[tuple[str, Writer[Spread]]]:
    """Return a column a value of what is spread out: a length, a number of ranks."""

    def at(value: Any) -> Writer[Spread]:
        return lambda row: write(row[1][value]) if value in row[1] else numbers.NONE

    return [(head(value), at(value)) for value in values]
