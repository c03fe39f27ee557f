"""The figures: time, memory, speed-up, error against cost, fraction of the limit, parts of a call.

Each function takes a `Chapter` (one setting, its points and what was computed from them) and
returns a figure, or None where there is nothing to show. Modes are panels: beside each other in
the wide layout, below each other in the narrow one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from results import format
from results.chapters import Chapter
from results.modes import MEMORY_METRICS, WORDS
from results.panels import (
    Layout,
    error_ticks,
    failed_cases,
    finish,
    legend,
    length_axis,
    lines,
    make_panels,
    mark_failures,
    pad,
    ratio_ticks,
    size_ticks,
    time_ticks,
)
from results.profile_plots import profile_figure
from results.schema import IDENTITY
from results.theme import Theme

NARROW = 1.5
"""Times closer than this factor get a wider axis: ticks of a narrow one cover each other."""
ERROR_FLOOR = 1e-8
"""Errors below are drawn here: they are rounding."""


def time_figure(chapter: Chapter, theme: Theme, layout: Layout = "wide") -> Figure | None:
    """Latency against length, log-log, with the fitted exponents in the legend."""
    titles = {mode: words.call.lower() for mode, words in WORDS.items()}
    return _scaling_figure(chapter, theme, layout, ("latency",), titles, time_ticks)


def memory_figure(chapter: Chapter, theme: Theme, layout: Layout = "wide") -> Figure | None:
    """Peak memory above the inputs, or the state, against length, log-log, with exponents."""
    titles = {mode: _lowered(words.memory_title) for mode, words in WORDS.items()}
    return _scaling_figure(chapter, theme, layout, MEMORY_METRICS, titles, size_ticks)


def speedup_figure(chapter: Chapter, theme: Theme, layout: Layout = "wide") -> Figure | None:
    """Speed-up over `full` and over `sdpa` against length."""
    data = chapter.speedups
    pairs = [
        (baseline, mode)
        for baseline in dict.fromkeys(data["baseline"])
        for mode in chapter.modes
        if len(data[(data["baseline"] == baseline) & (data["mode"] == mode)])
    ]
    made = make_panels(len(pairs), layout, columns=len({m for _, m in pairs}))
    if made is None:
        return None
    figure, axes = made
    for ax, (baseline, mode) in zip(axes, pairs, strict=True):
        part = data[(data["baseline"] == baseline) & (data["mode"] == mode)]
        lines(ax, part, chapter.looks, theme)
        ax.axhline(1.0, color=theme.ink, linewidth=1.0, linestyle=(0, (4, 3)))
        what = f"speed-up over {baseline}"
        finish(ax, f"{mode}, over {baseline}", what, part, ratio_ticks, mode)
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, 0.8), max(high, 1.25))
        legend(ax, part, chapter.looks, theme, layout, {})
    return figure


def error_figure(chapter: Chapter, theme: Theme, layout: Layout = "wide") -> Figure | None:
    """Relative error against exact softmax over latency, at the longest length with an error."""
    shown = {m: _at_longest_error(chapter, m) for m in chapter.modes}
    shown = {m: part for m, part in shown.items() if len(part)}
    made = make_panels(len(shown), layout)
    if made is None:
        return None
    figure, axes = made
    for ax, (mode, part) in zip(axes, shown.items(), strict=True):
        for row in part.to_dict("records"):
            look = chapter.looks[row["backend"], row["options"]]
            ax.plot(
                row["latency"], max(row["error"], ERROR_FLOOR), marker=look.marker,
                color=look.color(theme), markersize=9, linestyle="none",
                markeredgecolor=theme.ink, markeredgewidth=0.5,
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        narrow = part["latency"].max() < NARROW * part["latency"].min()
        pad(ax.set_xlim, part["latency"], 3.0 if narrow else 1.35)
        pad(ax.set_ylim, part["error"].clip(lower=ERROR_FLOOR), 4.0)
        time_ticks(ax.xaxis)
        error_ticks(ax.yaxis)
        ax.set_title(f"{mode}, at {format.tokens(part['seq_len'].iloc[0])} tokens")
        ax.set_xlabel("time per call")
        ax.set_ylabel("relative error to exact softmax")
        legend(ax, part, chapter.looks, theme, layout, {}, with_lines=False)
    return figure


def fraction_figure(chapter: Chapter, theme: Theme, layout: Layout = "wide") -> Figure | None:
    """The share of the machine's limit that each backend reached, against length."""
    data = chapter.limits
    data = data[data["fraction_of_limit"].notna() & (data["backend"] != IDENTITY)].copy()
    data["value"] = 100 * data["fraction_of_limit"]
    data["ci_low"] = data["ci_high"] = math.nan
    modes = [m for m in chapter.modes if len(data[data["mode"] == m])]
    made = make_panels(len(modes), layout)
    if made is None:
        return None
    figure, axes = made
    top = max(100.0, float(data["value"].max()) * 1.05)
    for ax, mode in zip(axes, modes, strict=True):
        part = data[data["mode"] == mode]
        lines(ax, part, chapter.looks, theme)
        length_axis(ax, part["seq_len"], mode)
        ax.set_ylim(0, top)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
        ax.set_title(mode)
        ax.set_ylabel("share of the machine's limit")
        legend(ax, part, chapter.looks, theme, layout, {})
    return figure


FIGURES: Mapping[str, Callable[[Chapter, Theme, Layout], Figure | None]] = {
    "time": time_figure,
    "memory": memory_figure,
    "speedup": speedup_figure,
    "error": error_figure,
    "limit": fraction_figure,
    "profile": profile_figure,
}


def _scaling_figure(
    chapter: Chapter,
    theme: Theme,
    layout: Layout,
    metrics: Collection[str],
    titles: Mapping[str, str],
    ticks: Callable[[Any], None],
) -> Figure | None:
    """Draw one of `metrics`, whichever a mode has, in a panel a mode."""
    data = chapter.points[chapter.points["metric"].isin(metrics)]
    modes = [m for m in chapter.modes if (data[data["mode"] == m]["value"] > 0).any()]
    made = make_panels(len(modes), layout)
    if made is None:
        return None
    figure, axes = made
    for ax, mode in zip(axes, modes, strict=True):
        part = data[data["mode"] == mode]
        good = part[part["value"] > 0]
        lines(ax, good, chapter.looks, theme)
        finish(ax, mode, titles[mode], good, ticks, mode)
        length_axis(ax, pd.concat([good["seq_len"], failed_cases(part)["seq_len"]]), mode)
        mark_failures(ax, part, chapter.looks, theme)
        legend(ax, good, chapter.looks, theme, layout, chapter.slopes(mode, metrics))
    return figure


def _lowered(title: str) -> str:
    return title[:1].lower() + title[1:]


def _at_longest_error(chapter: Chapter, mode: str) -> pd.DataFrame:
    """Return latency and error per series at the longest length where most have an error."""
    rows = chapter.points[(chapter.points["mode"] == mode) & chapter.points["value"].notna()]
    keys = ["backend", "options", "seq_len"]
    errors = rows[rows["metric"] == "relative_error"][[*keys, "value"]]
    times = rows[rows["metric"] == "latency"][[*keys, "value"]]
    both = times.rename(columns={"value": "latency"}).merge(
        errors.rename(columns={"value": "error"}), on=keys
    )
    if both.empty:
        return both
    counts = both.groupby("seq_len").size()
    return both[both["seq_len"] == counts[counts == counts.max()].index.max()]
