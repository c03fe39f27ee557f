"""Scores as text: with their seeds, in lists, and what compressors reach."""

from __future__ import annotations

import math
from collections.abc import Sequence

from results.chapters.quality.rows import Trial
from results.metrics import METRICS
from results.page.cells import name
from results.page.columns import Row
from results.statistics.seeds import of_seeds
from results.text import numbers

MOST_NAMED = 12
"""Backends in a sentence."""


def score(value: float, metric: str, *, to: numbers.To = "nearest") -> str:
    """Write a score: 99.7 % or 2.104."""
    if not math.isfinite(value):
        return numbers.NONE
    if METRICS[metric].written != "share":
        return f"{numbers.rounded(value, 3, to):.3f}"
    text = f"{numbers.rounded(100 * value, 1, to):.1f} %"
    return "> 99.9 %" if text == "100.0 %" and value < 1 else text


def between_seeds(row: Row, metric: str) -> str:
    """Write the smallest and largest of the seeds, "" where they are written alike."""
    low, high = (score(row[c], metric) for c in ("score_low", "score_high"))
    return f"{low.removesuffix(' %')}–{high}" if low != high else ""


def named(rows: Sequence[Row], metric: str) -> str:
    """List backends with their scores, how far their seeds lie apart, and how many have none."""
    names = []
    for row in rows[:MOST_NAMED]:
        apart = between_seeds(row, metric)
        small = ", ".join(s for s in (apart, seeds_of(row)) if s)
        names.append(f"{name(row)} {score(row['score'], metric)}{f' ({small})' if small else ''}")
    more = len(rows) - len(names)
    return numbers.listing([*names, *([f"{more} more"] if more > 0 else [])])


def seeds_of(row: Row) -> str:
    """Say how many seeds a row's score is of where some have none, else ""."""
    return of_seeds(row["num_seeds"], row["num_tried"])


def compressors(trial: Trial) -> dict[str, float]:
    """Return the bits per byte of zlib and xz on the test split, those that are told."""
    return {
        word: float(trial.facts[word])
        for word in ("zlib", "xz")
        if is_number(trial.facts.get(word)) and trial.facts[word] > 0
    }


def is_number(value: object) -> bool:
    """Whether a fact of a record is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
