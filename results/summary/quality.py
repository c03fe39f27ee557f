"""What is known of each method's quality: a cell a method, and the command that measures it."""

from __future__ import annotations

import math

from results.analysis.analysis import Analysis
from results.page.blocks import Cell
from results.summary.methods import Comparison, Method
from results.summary.table import Quality
from results.text.numbers import small_number


def qualities(analysis: Analysis, comparison: Comparison) -> tuple[Quality, str]:
    """Return what writes the quality of a method, and a note on it; "" for none."""

    def write(method: Method) -> Cell:
        if method.is_exact:
            return Cell("exact")
        if math.isfinite(method.error):
            return Cell(f"error {small_number(method.error)}", "random inputs")
        return Cell("not measured")

    return write, ""
