"""What a panel of lines has instead of a legend: names at their ends, guides, a shaded band."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes

from results.figures import plot_data
from results.figures.panels import cut
from results.figures.theme import INK

APART = 0.062
"""Of the panel's height: names at one end stand at least so far from one another."""

LONGEST_NAME = 26

_GUIDES = ((1, "N"), (2, "N²"))

_CLEAR = 0.05
"""Of the panel's height: a guide's words stand at least so far from any line, if they can."""

_PLACES = (1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.5, 0.4)
"""Where they may stand, as shares of the guide's way."""

_BELOW = 0.7
"""Of the least value at the shortest length: where the guides begin."""


def guides(ax: Axes, part: pd.DataFrame) -> None:
    """Draw how N and N² grow, from the lower left on; axes logarithmic, limits set before.

    Args:
        ax: the panel.
        part: rows with `seq_len` and `value`.
    """
    first, last = float(part["seq_len"].min()), float(part["seq_len"].max())
    if last <= first:
        return
    low, high = ax.get_ylim()
    start = max(low, _BELOW * float(part[part["seq_len"] == first]["value"].min()))
    for power, words in _GUIDES:
        end = min(last, first * (high / start) ** (1 / power))
        points = ((first, start), (end, start * (end / first) ** power))
        ax.plot(*zip(*points, strict=True), color=INK, linewidth=0.9, linestyle=":", alpha=0.55)
        place = _clear_place(ax, points, math.log(high / low))
        ax.annotate(
            words, place, textcoords="offset points", xytext=(-3, -2), ha="right", va="top",
            fontsize=8.5, alpha=0.75,
        )  # fmt: skip
        plot_data.shown(ax).paths.append(plot_data.Path(points, words=words, place=place))
    ax.set_ylim(low, high)


def _clear_place(
    ax: Axes, points: Sequence[tuple[float, float]], height: float
) -> tuple[float, float]:
    """Return where on a guide its words stand clear of the lines: as near its end as can be.

    Args:
        ax: the panel, its lines recorded.
        points: both ends of the guide.
        height: of the panel, as a logarithm.
    """
    (x0, y0), (x1, y1) = points
    at = [(x0 * (x1 / x0) ** t, y0 * (y1 / y0) ** t) for t in _PLACES]
    clear = [min(_distances(ax, *place), default=math.inf) / height for place in at]
    found = next((i for i, distance in enumerate(clear) if distance >= _CLEAR), None)
    return at[clear.index(max(clear)) if found is None else found]


def _distances(ax: Axes, x: float, y: float) -> Iterator[float]:
    """Walk the distances in height, as logarithms, from a place to the lines that pass it."""
    for line in plot_data.shown(ax).lines:
        for a, b in pairwise(line.points):
            if a.x <= x <= b.x:
                share = math.log(x / a.x) / math.log(b.x / a.x)
                yield abs(math.log(y / a.y) - share * math.log(b.y / a.y))


def shade(ax: Axes, low: float, high: float, words: str) -> None:
    """Shade the lengths between `low` and `high`; where both are one, draw a line there."""
    ax.axvspan(low, high, color=INK, alpha=0.08, linewidth=0)
    if high <= low:
        ax.axvline(low, color=INK, alpha=0.3, linewidth=1.0)
    plot_data.shown(ax).bands.append(plot_data.Band(low, high, words))


def name_ends(ax: Axes) -> None:
    """Write the name of each recorded line at its end; limits set before."""
    shown = plot_data.shown(ax)
    shown.is_named_at_ends = True
    low, high = (math.log(v) for v in ax.get_ylim())
    by_end: dict[float, list[plot_data.Line]] = {}
    for line in shown.lines:
        by_end.setdefault(line.points[-1].x, []).append(line)
    for x, lines in by_end.items():
        lines.sort(key=lambda line: line.points[-1].y)
        heights = [(math.log(line.points[-1].y) - low) / (high - low) for line in lines]
        for line, height in zip(lines, spread_out(heights), strict=True):
            ax.annotate(
                cut(line.name, LONGEST_NAME), (x, math.exp(low + height * (high - low))),
                textcoords="offset points", xytext=(8, 0), va="center", fontsize=9,
                color=line.look.light, fontweight="bold", annotation_clip=False,
            )  # fmt: skip


def spread_out(heights: Sequence[float]) -> list[float]:
    """Return increasing heights moved as little as needed to stand `APART` from one another.

    Neighbours that are too close become a group around its own mean.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1]) - _top(groups[-2]) < APART:
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group) + APART * index for group in groups for index in range(len(group))]


def _bottom(group: Sequence[float]) -> float:
    return sum(group) / len(group) - APART * (len(group) - 1) / 2


def _top(group: Sequence[float]) -> float:
    return _bottom(group) + APART * (len(group) - 1)
