"""What is said of how memory grows with length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from results.text import numbers

_FORMS = {0.0: "constant", 1.0: "a + c·N", 2.0: "a + c·N²"}
LEAST = 1e-3
"""A smaller miss is written as this one."""


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
    declared: dict[float, dict[str, float]] = {}
    otherwise = []
    for name, row in rows:
        if row["growth"] == "declared":
            declared.setdefault(row["expected"], {})[name] = row["miss"]
        elif row["growth"] == "otherwise":
            otherwise.append(
                f"{name} as {form(row['other'])}, largest deviation {miss(row['other_miss'])} "
                f"(declared {form(row['expected'])} deviates by {_at_least(row['miss'])})"
            )
    told = []
    for expected, misses in sorted(declared.items()):
        how = f"grows as declared, {form(expected)}" if expected else "is constant, as declared"
        within = miss(max(misses.values()))
        told.append(f"Memory {how} within {within}: {numbers.listing(list(misses))}.")
    if otherwise:
        told.append(f"Memory does not grow as declared: {numbers.listing(otherwise)}.")
    return told


def _at_least(value: float) -> str:
    return f"{numbers.digits(value * 100, 2, to='down')} %"
