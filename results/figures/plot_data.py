"""What a figure shows, as data: recorded beside the drawing of it.

Whoever draws a line or a mark calls `line`, `failed` or `rule` for it too, and what sets an axis'
ticks calls `kind`. From that come the page's interactive twin of the figure (`plot_json.panels`)
and its text alternative (`plot_words.in_words`): titles, labels, scales and ticks are read from
the axes themselves, so that the two cannot differ from what is drawn.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.figures.theme import Look
from results.text.written import WRITERS


class Point(NamedTuple):
    """A point of a series.

    Attributes:
        x, y: its place.
        low, high: the interval of y, in a line `across` of x; NaN = none.
        note: what else is said of it.
        tag: what is written beside it.
        ringed: whether it stands out.
        hollow: whether it is a time whose warm-up was cut short.
    """

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    tag: str = ""
    ringed: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class Line:
    """A series of one panel.

    Attributes:
        backend: what is isolated when it is chosen; the same in every figure.
        name: as the legend writes it.
        look: its colour, marker and dashes.
        points: in the order of x.
        joined: whether a line joins them.
        across: whether the interval is one of x, not of y.
    """

    backend: str
    name: str
    look: Look
    points: Sequence[Point]
    joined: bool = True
    across: bool = False


@dataclass(frozen=True)
class Failed:
    """A case that gave no value, marked at its x."""

    backend: str
    name: str
    look: Look
    x: float
    words: str


@dataclass(frozen=True)
class Rule:
    """A line across the panel, at a value of y or of x."""

    words: str
    y: float = math.nan
    x: float = math.nan


@dataclass(frozen=True)
class Path:
    """A line that is no series: through (x, y), in steps or straight; None = the ink's colour.

    One with `words` is a guide, drawn faintly; they stand at its point `place`.
    """

    points: Sequence[tuple[float, float]]
    look: Look | None = None
    in_steps: bool = False
    words: str = ""
    place: tuple[float, float] | None = None


@dataclass(frozen=True)
class Band:
    """A part of the panel that is shaded, between two values of x."""

    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Bar:
    """A part of a bar that lies across the panel: from where to where, in which row."""

    backend: str
    name: str
    part: str
    row: int
    start: float
    end: float
    light: str
    words: str


@dataclass
class Shown:
    """What one panel shows.

    Attributes:
        lines, failed, rules, paths, bands, bars: of these classes.
        kinds: ``x`` and ``y`` to one of `written.WRITERS`.
        notes: a series' name to what the legend says behind it.
        is_named_at_ends: whether the names stand at the lines' ends, and there is no legend.
    """

    lines: list[Line] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    is_named_at_ends: bool = False


_SHOWN: weakref.WeakKeyDictionary[Axes, Shown] = weakref.WeakKeyDictionary()


def shown(ax: Axes) -> Shown:
    """Return the record of a panel, to be added to."""
    return _SHOWN.setdefault(ax, Shown())


def recorded(figure: Figure) -> list[tuple[Axes, Shown]]:
    """Return the panels of a figure that have a record, with it."""
    return [(ax, _SHOWN[ax]) for ax in figure.axes if ax in _SHOWN]


def kind(axis: Any, name: str) -> None:
    """Say what an axis is of, one of `written.WRITERS`."""
    if name not in WRITERS:
        raise ValueError(f"name: expected one of {', '.join(WRITERS)}, got {name!r}")
    shown(axis.axes).kinds[axis.axis_name] = name


def line(
    ax: Axes,
    key: tuple[str, str],
    look: Look,
    points: Iterable[Point],
    *,
    joined: bool = True,
    across: bool = False,
) -> None:
    """Record a series: `key` is its backend and its name."""
    kept = tuple(p for p in points if math.isfinite(p.x) and math.isfinite(p.y))
    if kept:
        shown(ax).lines.append(Line(*key, look, kept, joined=joined, across=across))
