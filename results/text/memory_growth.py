"""What is said of how memory grows with length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from results.text import numbers

_FORMS = {0.0: "constant", 1.0: "a + c·N", 2.0: "a + c·N²"}
LEAST = 1e-3
"""A smaller miss is written as this one."""

_WORDS = {1.0: "linear", 2.0: "quadratic"}


def form(exponent: float) -> str:
    """Write the curve of an exponent: ``a + c·N²``."""
    return _FORMS.get(exponent, f"a + c·N^{exponent:g}")


def miss(value: float) -> str:
    """Write by how much a curve misses, at most: 0.063 → 6.3 %."""
    if not math.isfinite(value):
        return numbers.NONE
    if value <= LEAST:
        return f"{LEAST * 100:g} %"
    return f"{numbers.digits(value * 100, 2, to='up')} %"


def sentences(rows: Iterable[tuple[str, Mapping[Any, Any]]]) -> list[str]:
    """Say of each series how its memory grows, those of one verdict in a sentence.

    What could not be told stands in the table of memory alone.

    Args:
        rows: name to the fields of `results.analysis.memory_growth.MemoryGrowth`.
    """
    declared: dict[float, list[str]] = {}
    otherwise = []
    for name, row in rows:
        if row["growth"] == "declared":
            declared.setdefault(row["expected"], []).append(
                f"{name} {miss(row['miss'])} ({_WORDS[row['other']]} growth would deviate by "
                f"{_at_least(row['other_miss'])}{_exponent(row)})"
            )
        elif row["growth"] == "otherwise":
            otherwise.append(
                f"{name} as {form(row['other'])}, largest deviation {miss(row['other_miss'])} "
                f"(declared {form(row['expected'])} deviates by {_at_least(row['miss'])}"
                f"{_exponent(row)})"
            )
    told = []
    for expected, texts in sorted(declared.items()):
        how = f"grows as declared, {form(expected)}" if expected else "is constant, as declared"
        told.append(f"Memory {how}; largest deviation: {numbers.listing(texts)}.")
    if otherwise:
        told.append(f"Memory does not grow as declared: {numbers.listing(otherwise)}.")
    return told


def _at_least(value: float) -> str:
    return f"{numbers.digits(value * 100, 2, to='down')} %"


def _exponent(row: Mapping[Any, Any]) -> str:
    """Return the exponent with its interval, where it has one and memory may grow."""
    if not math.isfinite(row["ci_low"]) or row["expected"] == 0:
        return ""
    between = numbers.interval(row["ci_low"], row["ci_high"], numbers.exponent)
    return f"; exponent {numbers.exponent(row['exponent'])} {between}"
