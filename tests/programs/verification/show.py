"""Figures and tables of what was measured, for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

from verification import Measured

KEPT = {True: "yes", False: "NO", None: "not tried"}


def shown(value: float | None, unit: str) -> str:
    """Write a figure: shares in percent, seconds in the unit that fits."""
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "1":
        return f"{100 * value:.3g} %"
    if unit == "s":
        for size, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value / 1e-9:.3g} ns"
    return f"{value:.4g} {unit}"


def promised(got: Measured) -> str:
    """Write the limit and its side."""
    return "–" if got.limit is None else f"{got.side} {shown(got.limit, got.unit)}"


def table(results: Sequence[Measured]) -> str:
    """Write the results as lines of text."""
    head = ("promise", "kept", "tried", "failed", "measured", "bound", "promised", "took")
    rows = [head]
    for got in results:
        rows.append(
            (
                got.name,
                KEPT[got.passed],
                str(got.tried),
                str(got.failed),
                shown(got.rate, got.unit),
                shown(got.bound, got.unit),
                promised(got),
                f"{got.seconds:.0f} s",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    lines += [f"{got.name}: {got.reason}" for got in results if got.reason]
    return "\n".join(line.rstrip() for line in lines)
