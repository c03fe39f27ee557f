"""What a figure shows, as data: recorded beside the drawing of it.

Whoever draws a line or a mark calls `line`, `failed` or `rule` for it too, and what sets an axis'
ticks calls `kind`. From that come the page's interactive twin of the figure (`panels`) and its
text alternative (`in_words`): titles, labels, scales and ticks are read from the axes themselves,
so that the two cannot differ from what is drawn.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.analysis import warm_up
from results.figures.theme import Look, css_variables
from results.text import numbers

MOST_TOLD = 8
"""Series of a panel that its text alternative tells of."""

DIGITS = 5
"""Significant digits of a position on the page."""


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
    """A line that is no series: through (x, y), in steps or straight; None = the ink's colour."""

    points: Sequence[tuple[float, float]]
    look: Look | None = None
    in_steps: bool = False


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
        lines, failed, rules, paths, bars: of these classes.
        kinds: ``x`` and ``y`` to one of `KINDS`.
        notes: a series' name to what the legend says behind it.
    """

    lines: list[Line] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


_SHOWN: weakref.WeakKeyDictionary[Axes, Shown] = weakref.WeakKeyDictionary()


def _ratio(value: float, /, *, to: numbers.To = "nearest") -> str:
    return f"{numbers.ratio_digits(value, to=to)} ×"


def _percent(value: float, /, *, to: numbers.To = "nearest") -> str:
    return f"{numbers.digits(value, to=to)} %"


def _error(value: float, /, *, to: numbers.To = "nearest") -> str:
    return f"{value:.2g}"


def _operations(value: float, /, *, to: numbers.To = "nearest") -> str:
    return f"{numbers.rate(value)}op"


KINDS: Mapping[str, numbers.Write] = {
    "tokens": numbers.tokens,
    "seconds": numbers.seconds,
    "bytes": numbers.size,
    "ratio": _ratio,
    "share": numbers.percent,
    "percent": _percent,
    "error": _error,
    "operations": _operations,
    "number": numbers.digits,
}
"""Kinds of an axis, to how a value on it is written; the page's script has their like."""


def shown(ax: Axes) -> Shown:
    """Return the record of a panel, to be added to."""
    return _SHOWN.setdefault(ax, Shown())


def kind(axis: Any, name: str) -> None:
    """Say what an axis is of, one of `KINDS`."""
    if name not in KINDS:
        raise ValueError(f"name: expected one of {', '.join(KINDS)}, got {name!r}")
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


# -- for the page --------------------------------------------------------------------------------


def panels(figure: Figure) -> list[dict[str, Any]]:
    """Return the panels of a figure as the page's script reads them; those with a series."""
    found = [(ax, _SHOWN[ax]) for ax in figure.axes if ax in _SHOWN]
    return [_panel(ax, of_panel) for ax, of_panel in found if of_panel.lines or of_panel.bars]


def remark(figure: Figure) -> str:
    """Return what must be said of a figure beside its caption; "" for nothing."""
    lines = (line for ax in figure.axes if ax in _SHOWN for line in _SHOWN[ax].lines)
    return warm_up.HOLLOW if any(p.hollow for line in lines for p in line.points) else ""


def _panel(ax: Axes, found: Shown) -> dict[str, Any]:
    words = _Words(ax, found)
    return {
        "title": ax.get_title(loc="left") or ax.get_title(),
        "words": _panel_in_words(ax, found),
        "x": _axis(ax.xaxis, found),
        "y": _axis(ax.yaxis, found),
        "series": [
            {
                "backend": line.backend,
                "name": line.name,
                "note": found.notes.get(line.name, ""),
                "joined": line.joined,
                "across": line.across,
                **_look(line.look),
                "points": [
                    [
                        *map(_rounded, (p.x, p.y, p.low, p.high)),
                        words.of(p, line),
                        p.tag,
                        int(p.ringed),
                        int(p.hollow),
                    ]
                    for p in line.points
                ],
            }
            for line in found.lines
        ],
        "failed": [
            {"backend": f.backend, "name": f.name, "x": f.x, "words": f.words, **_look(f.look)}
            for f in found.failed
        ],
        "rules": [
            {"words": r.words, **({"y": r.y} if math.isfinite(r.y) else {"x": r.x})}
            for r in found.rules
        ],
        "paths": [
            {
                "points": [list(map(_rounded, point)) for point in p.points],
                "color": _color(p.look.light) if p.look else "var(--ink)",
                "steps": p.in_steps,
            }
            for p in found.paths
        ],
        "legend": ax.get_legend() is not None,
        "bars": [
            {
                "backend": b.backend,
                "name": b.name,
                "part": b.part,
                "row": b.row,
                "start": _rounded(b.start),
                "end": _rounded(b.end),
                "words": b.words,
                "color": _color(b.light),
            }
            for b in found.bars
        ],
    }


def _axis(axis: Any, found: Shown) -> dict[str, Any]:
    low, high = (float(bound) for bound in axis.get_view_interval())
    ends = sorted((low, high))
    ticks = [float(t) for t in axis.get_major_locator()() if ends[0] <= t <= ends[1]]
    write = axis.get_major_formatter()
    texts = write.format_ticks(ticks)
    return {
        "label": axis.get_label_text(),
        "scale": "log" if axis.get_scale() == "log" else "linear",
        "kind": found.kinds.get(axis.axis_name, "names" if _has_names(texts) else "number"),
        "ends": [_rounded(low), _rounded(high)],
        "ticks": [[_rounded(t), text] for t, text in zip(ticks, texts, strict=True)],
    }


def _has_names(texts: Sequence[str]) -> bool:
    """Whether the ticks of an axis are names, not numbers."""
    return any(text[:1].isalpha() for text in texts)


def _look(look: Look) -> dict[str, Any]:
    dashes = " ".join(f"{d:g}" for d in look.dashes) if look.dashes else ""
    return {"color": _color(look.light), "marker": look.marker, "dashes": dashes}


def _color(light: str) -> str:
    """Return a colour as the page has it, which follows light and dark."""
    known = css_variables().get(light)
    return f"var({known[0]})" if known else light


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


class _Words:
    """Writes the points of a panel for people."""

    def __init__(self, ax: Axes, found: Shown) -> None:
        self.labels = {"x": ax.get_xlabel(), "y": ax.get_ylabel()}
        self.write = {"x": _writer(ax.xaxis, found), "y": _writer(ax.yaxis, found)}

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


def _writer(axis: Any, found: Shown) -> numbers.Write:
    """Return what writes a value on an axis: of its kind, or the name that is nearest."""
    if (named := found.kinds.get(axis.axis_name)) is not None:
        return KINDS[named]
    ticks = list(axis.get_major_locator()())
    texts = axis.get_major_formatter().format_ticks(ticks)
    if not _has_names(texts):
        return KINDS["number"]

    def name(value: float, /, *, to: numbers.To = "nearest") -> str:
        nearest = min(range(len(ticks)), key=lambda i: abs(ticks[i] - value))
        return str(texts[nearest]).replace("\n", ", ")

    return name


# -- in words ------------------------------------------------------------------------------------


def in_words(figure: Figure) -> str:
    """Return what a figure shows, for those who do not see it: each series from end to end."""
    return " ".join(
        _panel_in_words(ax, _SHOWN[ax])
        for ax in figure.axes
        if ax in _SHOWN and (_SHOWN[ax].lines or _SHOWN[ax].failed or _SHOWN[ax].bars)
    )


def _panel_in_words(ax: Axes, found: Shown) -> str:
    words = _Words(ax, found)
    told = [_line_in_words(line, words) for line in found.lines[:MOST_TOLD]]
    if len(found.lines) > MOST_TOLD:
        told.append(f"and {len(found.lines) - MOST_TOLD} more")
    lost = [f"{f.name} {f.words} at {words.write['x'](f.x)}" for f in found.failed[:MOST_TOLD]]
    bars = [f"{b.name}: {b.words}" for b in found.bars]
    title = ax.get_title(loc="left") or ax.get_title()
    what = " over ".join(
        text.replace("\n", " ") for name in ("y", "x") if (text := words.labels[name])
    )
    head = ", ".join(part for part in (title, what) if part)
    return f"{head}: {'; '.join([*told, *lost, *bars])}."


def _line_in_words(line: Line, words: _Words) -> str:
    first, last = line.points[0], line.points[-1]

    def at(point: Point) -> str:
        short = f" ({warm_up.WORDS})" if point.hollow else ""
        return f"{words.write['y'](point.y)} at {words.write['x'](point.x)}{short}"

    name = f"{line.name} " if line.name else ""
    return f"{name}{at(first)}" + (f" to {at(last)}" if len(line.points) > 1 else "")
