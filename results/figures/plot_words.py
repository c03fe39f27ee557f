"""A figure in words, from what it records: its text alternative, and each point's lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.analysis import warm_up
from results.figures.plot_data import Line, Point, Shown, recorded
from results.text import numbers
from results.text.written import WRITERS

MOST_TOLD = 8
"""Series of a panel that its text alternative tells of."""


def has_names(texts: Sequence[str]) -> bool:
    """Whether the ticks of an axis are names, not numbers."""
    return any(text[:1].isalpha() for text in texts)


class Words:
    """Writes the points of a panel for people."""

    def __init__(self, ax: Axes, shown: Shown) -> None:
        self.labels = {"x": ax.get_xlabel(), "y": ax.get_ylabel()}
        self.write = {"x": _writer(ax.xaxis, shown), "y": _writer(ax.yaxis, shown)}

    def of(self, point: Point, line: Line) -> str:
        """Return the lines that stand beside a point: its value, where it is, what else."""
        measured, place = ("x", "y") if line.across else ("y", "x")
        values = {"x": point.x, "y": point.y}
        told = [
            self._labelled(measured, values[measured], self._between(point, measured)),
            self._labelled(place, values[place], ""),
            point.note,
            warm_up.WORDS if point.hollow else "",
        ]
        return "\n".join(text for text in told if text)

    def _labelled(self, name: str, value: float, between: str) -> str:
        label, text = self.labels[name], self.write[name](value) + between
        return f"{label}: {text}" if label else text

    def _between(self, point: Point, name: str) -> str:
        if not (math.isfinite(point.low) and math.isfinite(point.high)) or point.low == point.high:
            return ""
        return f" {numbers.interval(point.low, point.high, self.write[name])}"


def _writer(axis: Any, shown: Shown) -> numbers.Write:
    """Return what writes a value on an axis: of its kind, or the name that is nearest."""
    if (named := shown.kinds.get(axis.axis_name)) is not None:
        return WRITERS[named]
    ticks = list(axis.get_major_locator()())
    texts = axis.get_major_formatter().format_ticks(ticks)
    if not has_names(texts):
        return WRITERS["number"]

    def name(value: float, /, *, to: numbers.To = "nearest") -> str:
        nearest = min(range(len(ticks)), key=lambda i: abs(ticks[i] - value))
        return str(texts[nearest]).replace("\n", ", ")

    return name


def in_words(figure: Figure) -> str:
    """Return what a figure shows, for those who do not see it: each series from end to end."""
    return " ".join(
        panel_in_words(ax, shown)
        for ax, shown in recorded(figure)
        if shown.lines or shown.failed or shown.bars
    )


def panel_in_words(ax: Axes, shown: Shown) -> str:
    """Return what a panel shows: its title and axes, and each series from end to end."""
    words = Words(ax, shown)
    told = [_line_in_words(line, words) for line in shown.lines[:MOST_TOLD]]
    if len(shown.lines) > MOST_TOLD:
        told.append(f"and {len(shown.lines) - MOST_TOLD} more")
    lost = [f"{f.name} {f.words} at {words.write['x'](f.x)}" for f in shown.failed[:MOST_TOLD]]
    bars = [f"{b.name}: {b.words}" for b in shown.bars]
    title = ax.get_title(loc="left") or ax.get_title()
    what = " over ".join(
        text.replace("\n", " ") for name in ("y", "x") if (text := words.labels[name])
    )
    head = ", ".join(part for part in (title, what) if part)
    return f"{head}: {'; '.join([*told, *lost, *bars])}."


def _line_in_words(line: Line, words: Words) -> str:
    first, last = line.points[0], line.points[-1]

    def at(point: Point) -> str:
        short = f" ({warm_up.WORDS})" if point.hollow else ""
        return f"{words.write['y'](point.y)} at {words.write['x'](point.x)}{short}"

    name = f"{line.name} " if line.name else ""
    return f"{name}{at(first)}" + (f" to {at(last)}" if len(line.points) > 1 else "")
