"""The first screen's figure: one quantity against length, all methods of a mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.chapters.speed.rows import Chapter
from results.figures import plot_data
from results.figures.axes import finish, length_axis, ratio_ticks, ticks_of
from results.figures.ends import guides, name_ends, shade
from results.figures.panels import SeriesKey, failed_cases, lines, mark_failures
from results.figures.theme import INK, Look
from results.page.blocks import Drawing
from results.schema import IDENTITY
from results.summary.methods import Comparison, Method, faster_from
from results.summary.quality import Qualities
from results.summary.quality_figure import quality_drawing
from results.text import numbers
from results.text.modes import WORDS

DASHES = (4, 2)
"""Of the methods that change the function; exact ones are drawn solid."""

SIZE = (7.6, 3.4)
"""Of the figure, in inches."""

MOST = 12
"""Series of the figure, the exact ones and then the fastest first."""

Band = tuple[float, float, str]
"""From which length to which it is shaded, and why."""

CAPTION = (
    "Solid: exact; dashed: computes something else; whiskers: 95 % intervals; dotted: as N and N²"
)


def drawings(chapter: Chapter, comparison: Comparison, known: Qualities) -> dict[str, Drawing]:
    """Return the figure's tabs of a mode: time, memory, speed-up, quality, as far as known."""
    mode, call = comparison.mode, WORDS[comparison.mode]
    band = _band(comparison, known.poor)
    draw = partial(_metric, chapter, comparison, band)
    shaded = f"; shaded: {band[2]}" if band else ""
    views: Mapping[str, tuple[str, str, Callable[[], Figure | None]]] = {
        "time": (call.call, f"{CAPTION}{shaded}.", partial(draw, "latency")),
        "memory": (call.memory_title, f"{CAPTION}.", partial(draw, call.memory)),
        "speed-up": (
            f"Speed-up over {comparison.baseline}",
            f"Above the line a method is faster than {comparison.baseline}{shaded}.",
            partial(_speedup, chapter, comparison, band),
        ),
    }  # fmt: skip
    name = f"view-{mode.replace('_', '-')}"
    found = {
        what: Drawing(f"{name}-{what}", title, caption, draw)
        for what, (title, caption, draw) in views.items()
        if _has(chapter, comparison, what)
    }
    quality = quality_drawing(f"{name}-quality", chapter, comparison, known.found)
    return {**found, "quality": quality} if quality else found


def _has(chapter: Chapter, comparison: Comparison, what: str) -> bool:
    if what == "speed-up":
        return any(m.speedup is not None for m in comparison.methods)
    metric = "latency" if what == "time" else WORDS[comparison.mode].memory
    return len(_rows(chapter, comparison, metric)) > 0


def _shown(comparison: Comparison) -> tuple[Method, ...]:
    return comparison.methods[:MOST]


def _looks(chapter: Chapter, comparison: Comparison) -> dict[SeriesKey, Look]:
    """Return how the methods look: the colours of the other figures, dashed unless exact."""
    return {
        m.key: replace(chapter.looks[m.key], dashes="" if m.is_exact else DASHES)
        for m in _shown(comparison)
    }


def _rows(chapter: Chapter, comparison: Comparison, metric: str) -> pd.DataFrame:
    points = chapter.points
    own = points[(points["mode"] == comparison.mode) & (points["metric"] == metric)]
    own = own[own["backend"] != IDENTITY]
    own = own[own["value"] > 0]
    return _of(own, comparison)


def _of(rows: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    shown = {m.key for m in _shown(comparison)}
    keys = zip(rows["backend"], rows["options"], strict=True)
    return rows[[key in shown for key in keys]]


def _metric(
    chapter: Chapter, comparison: Comparison, band: Band | None, metric: str
) -> Figure | None:
    good = _rows(chapter, comparison, metric)
    if good.empty:
        return None
    figure, ax = _panel()
    looks = _looks(chapter, comparison)
    lines(ax, good, looks)
    words = WORDS[comparison.mode]
    what = words.call if metric == "latency" else words.memory_title
    finish(ax, "", f"{what[:1].lower()}{what[1:]}", good, ticks_of(metric), comparison.mode)
    every = chapter.points
    every = every[(every["mode"] == comparison.mode) & (every["metric"] == metric)]
    every = _of(every, comparison)
    places = pd.concat([good["seq_len"], failed_cases(every)["seq_len"]])
    length_axis(ax, places, comparison.mode)
    guides(ax, good)
    mark_failures(ax, every, looks)
    if metric == "latency" and band:
        shade(ax, *band)
    name_ends(ax)
    return figure


def _speedup(chapter: Chapter, comparison: Comparison, band: Band | None) -> Figure | None:
    data = chapter.speedups
    data = data[(data["baseline"] == comparison.baseline) & (data["mode"] == comparison.mode)]
    part = _of(data, comparison)
    if part.empty:
        return None
    figure, ax = _panel()
    lines(ax, part, _looks(chapter, comparison))
    ax.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    rule = plot_data.Rule(f"as fast as {comparison.baseline}", y=1.0)
    plot_data.shown(ax).rules.append(rule)
    finish(ax, "", f"speed-up over {comparison.baseline}", part, ratio_ticks, comparison.mode)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.8), max(high, 1.25))
    if band:
        shade(ax, *band)
    name_ends(ax)
    return figure


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.add_subplot(1, 1, 1)


def _band(comparison: Comparison, poor: Collection[SeriesKey]) -> Band | None:
    """Return where the first of the others overtakes the baseline; of those that are not poor."""
    found = [
        (at, m)
        for m in comparison.methods
        if not m.is_exact and m.key not in poor and math.isfinite(at := faster_from(m, comparison))
    ]
    at, method = min(found, key=lambda one: one[0], default=(0.0, None))
    if method is None or at <= comparison.lengths[0]:
        return None
    row = method.crossover
    assert row is not None
    low, high = row["ci_low"], row["ci_high"]
    if not math.isfinite(low):
        low = high = at
    if not math.isfinite(high):
        high = comparison.lengths[-1]
    place = numbers.from_tokens(row)
    return low, high, f"from about {place} tokens {method.label} is faster"
