"""A frame as CSV text, safe to open in a spreadsheet."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from results.text.labels import number_of


def csv_text(frame: pd.DataFrame, delimiter: str = ",", decimal: str = ".") -> str:
    """Return a frame as CSV. A text that a spreadsheet would take for a formula gets a quote.

    Args:
        frame: the table.
        delimiter: between cells.
        decimal: the mark in numbers; of texts nothing is changed.
    """
    mixed = frame.select_dtypes(include=["object", "string"]).columns
    cells = {column: [_cell(value, decimal) for value in frame[column]] for column in mixed}
    safe = frame.assign(**{c: pd.Series(v, frame.index, dtype=object) for c, v in cells.items()})
    text: str = safe.to_csv(index=False, lineterminator="\n", sep=delimiter, decimal=decimal)
    return text


def _cell(value: Any, decimal: str) -> Any:
    """Return a cell of a column that holds texts: they are no formulas, numbers stay numbers."""
    if isinstance(value, str):
        guarded = value.startswith(FORMULA) and not _is_number(value)
        # A lone carriage return ends a line for some readers, and pandas does not quote it.
        text = f"'{value}" if guarded else value
        return text.replace("\r\n", "\n").replace("\r", "\n")
    if isinstance(value, float) and math.isfinite(value):
        # Of a mixed column pandas writes a number as Python does, whatever the decimal mark.
        return str(value).replace(".", decimal)
    return value


def _is_number(text: str) -> bool:
    """Return whether a text is a plain number, as `-1.5`: that is no formula."""
    return math.isfinite(number_of(text)) and text == text.strip()


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet may take a text for a formula by, at its start."""
