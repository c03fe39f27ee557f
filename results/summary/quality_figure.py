"""The first screen's figure of quality: each method's best evidence, beside exact attention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import partial

from matplotlib.figure import Figure

from results.chapters.speed.rows import Chapter
from results.figures import plot_data
from results.figures.panels import SeriesKey
from results.figures.theme import INK
from results.page.blocks import Drawing
from results.recommendation.quality import Evidence, Quality
from results.summary.methods import Comparison, Method
from results.text import numbers

WIDTH, ROW, EDGE = 7.6, 0.34, 1.1
"""Of the figure, in inches: its width, a method's row, and what is around the rows."""

_AXES: Mapping[str, tuple[str, str]] = {
    "bits_per_byte": ("text, bits per byte", "fewer is better"),
    "accuracy": ("recall, share of right answers", "more is better"),
    "relative_error": ("relative error on a trained model's inputs", "less is better"),
}


def quality_drawing(
    name: str, chapter: Chapter, comparison: Comparison, found: Mapping[SeriesKey, Quality]
) -> Drawing | None:
    """Return the figure of a mode; None where less than two methods have evidence of one kind.

    Args:
        name: of the figure.
        chapter: whose looks the methods have.
        comparison: of the mode.
        found: what is known, by method; exact methods are not in it.
    """
    best = {key: one.best for key, one in found.items()}
    kinds = Counter(_kind(one) for one in best.values() if one is not None)
    if not kinds or max(kinds.values()) < 2:
        return None
    metric, on = max(sorted(kinds, key=lambda k: list(_AXES).index(k[0])), key=kinds.__getitem__)
    of = {k: one for k, one in best.items() if one is not None and _kind(one) == (metric, on)}
    shown = [m for m in comparison.methods if m.key in of]
    absent = [m.label for m in comparison.methods if m.key in found and m.key not in of]
    settings = "; ".join(
        dict.fromkeys(f"{m.label}: {of[m.key].setting}" for m in shown if of[m.key].setting)
    )
    what, better = _AXES[metric]
    has_interval = metric != "relative_error" and any(math.isfinite(e.low) for e in of.values())
    caption = (
        f"{what[:1].upper()}{what[1:]}: {better}. The line is exact attention. "
        f"{'Whiskers: 95 % intervals over seeds. ' if has_interval else ''}"
        f"Measured with {settings}; small models and texts, so a method may come out ahead."
        f"{f' Of another kind or not known: {numbers.few(absent)}.' if absent else ''}"
    )
    draw = partial(_draw, chapter, shown, of, f"{what} ({better})")
    return Drawing(name, "Quality", caption, draw)


def _kind(one: Evidence) -> tuple[str, str]:
    """Return what is equal of values that one axis can show: the metric and the task."""
    return one.metric, one.on


def _draw(
    chapter: Chapter, methods: list[Method], of: Mapping[SeriesKey, Evidence], label: str
) -> Figure:
    figure = Figure(figsize=(WIDTH, EDGE + ROW * len(methods)), layout="constrained")
    ax = figure.add_subplot(1, 1, 1)
    for place, method in enumerate(methods):
        one, look = of[method.key], chapter.looks[method.key]
        written = numbers.digits(one.value, 3)
        if math.isfinite(one.low) and math.isfinite(one.high):
            ax.plot((one.low, one.high), (place, place), color=look.light, linewidth=1.4)
        ax.plot(one.value, place, look.marker, color=look.light, markersize=8)
        ax.annotate(
            written, (one.value, place), textcoords="offset points",
            xytext=(9, 0), va="center", fontsize=9,
        )  # fmt: skip
        point = plot_data.Point(one.value, place, one.low, one.high, tag=written)
        plot_data.shown(ax).lines.append(
            plot_data.Line(method.backend, method.label, look, [point], joined=False, across=True)
        )
    exact = next((e.exact for e in of.values() if math.isfinite(e.exact)), math.nan)
    if math.isfinite(exact):
        ax.axvline(exact, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        plot_data.shown(ax).rules.append(plot_data.Rule("exact attention", x=exact))
    values = [v for e in of.values() for v in (e.value, e.low, e.high) if math.isfinite(v)]
    most = max([*values, *([exact] if math.isfinite(exact) else [])])
    ax.set_xlim(0, 1.08 * most)
    ax.set_ylim(len(methods) - 0.4, -0.8)
    ax.set_yticks(range(len(methods)), [m.label for m in methods])
    ax.set_xlabel(label)
    return figure
