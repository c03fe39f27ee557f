"""The first screen's one table: a row a method that ran, and what did not run in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from results.analysis.warm_up import MARK, NOTE, marked
from results.page.blocks import Cell, TableView
from results.page.cells import time_cell
from results.page.columns import Columns, table
from results.recommendation.quality import BETTER
from results.summary.methods import Comparison, Method
from results.summary.quality import Qualities
from results.text import numbers
from results.text.modes import WORDS

NARROW = 1.1
"""An interval of a ratio narrower than this factor supports three digits, another one two."""

_SCALING = (
    "Scaling: how the time grows over the lengths measured; unresolved: the interval of the "
    "exponent is too wide, or not known. Quality: the best evidence there is, of this run or of "
    "the results that ship with attnbench; models and texts are small, so a method may come out "
    "ahead of exact attention."
)

READING = f"Ranges are 95 % confidence intervals. Of quality, {BETTER}."
"""What a reader of the table must know before it."""


def method_table(comparison: Comparison, known: Qualities) -> TableView:
    """Return the table of a mode: the methods that gave a time, exact ones first.

    Args:
        comparison: of the mode.
        known: of the methods' quality.
    """
    at = numbers.tokens(comparison.length)
    of = comparison.baseline
    against: Columns[Method] = [
        (f"faster than {of} from", lambda m: _from(m, comparison)),
        ("speed-up", lambda m: _speedup(m, comparison)),
    ]
    columns: Columns[Method] = [
        ("method", lambda m: Cell(m.label, m.type)),
        *(against if of else ()),
        ("quality", known.cell),
        (f"time at {at}", _time),
        ("memory", _memory),
        ("scaling", lambda m: m.growth),
    ]
    mode = comparison.mode
    lead = f"{WORDS[mode].heading}, {WORDS[mode].place.lower()} {at} tokens"
    made = table(lead, comparison.methods, columns, is_long=False)
    is_marked = any(MARK in cell.text for row in made.rows for cell in row)
    notes = (NOTE if is_marked else "", _SCALING, known.note)
    return replace(made, notes=[note for note in notes if note])


def _from(method: Method, comparison: Comparison) -> Cell:
    """Write from which length on a method is faster, and between which lengths that lies."""
    row = method.crossover
    if row is None:
        return Cell(numbers.NONE)
    if not math.isfinite(row["seq_len"]):
        return Cell(
            "one length"
            if len(comparison.lengths) == 1
            else f"not up to {numbers.tokens(comparison.lengths[-1])}"
        )
    if row["seq_len"] <= comparison.lengths[0]:
        return Cell(f"{numbers.tokens(row['seq_len'])}", "the shortest tried")
    at = marked(numbers.from_tokens(row), row)
    if "open above" in row["reason"]:
        return Cell(at, f"from {numbers.about_tokens(row['ci_low'], to='down')}, no upper end")
    between = numbers.interval(row["ci_low"], row["ci_high"], numbers.about_tokens)
    return Cell(at, between.strip("()"))


def _time(method: Method) -> Cell:
    if method.time is None:
        return Cell(method.ended, is_status=True)
    return time_cell(method.time)


def _speedup(method: Method, comparison: Comparison) -> Cell:
    if method.key == (comparison.baseline, ""):
        return Cell("1 ×", "the baseline")
    row = method.speedup
    if row is None:
        return Cell(numbers.NONE)
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    significant = 3 if high < NARROW * low else 2

    def write(ratio: float, /, *, to: numbers.To = "nearest") -> str:
        return numbers.digits(ratio, significant, to=to)

    between = numbers.interval(low, high, write).strip("()") or "no interval"
    if high > numbers.WIDEST * low:
        between = f"wider than {numbers.WIDEST}-fold"
    return Cell(marked(f"{write(value)} ×", row), between)


def _memory(method: Method) -> Cell:
    if method.memory is None:
        return Cell(numbers.NONE)
    value, low, high = (method.memory[c] for c in ("value", "ci_low", "ci_high"))
    return Cell(numbers.size(value, significant=numbers.supported(value, low, high)))


def not_run(absent: Mapping[str, tuple[str, ...]]) -> str:
    """Say in one line what gave no time, and why; "" for nothing."""
    if not absent:
        return ""
    parts = [f"{numbers.few(list(names))} ({why})" for why, names in absent.items()]
    return f"Did not run here: {numbers.few(parts)}."
