"""The figures: time, memory, speed-up, error against cost, fraction of the limit, parts of a call.

For a notebook there are `scaling`, `speedup` and `errors`: they take a run, and return
matplotlib's axes. What the report draws comes from the others: each takes a `Chapter` (one
setting, its points and what was computed from them) and returns a figure, or None where there is
nothing to show. Modes are panels beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from results.analysis.analysis import Analysis
from results.analysis.warm_up import is_cut_short
from results.chapters.speed.profile_figure import profile_figure
from results.chapters.speed.rows import Chapter, chapters
from results.figures import plot_data
from results.figures.panels import (
    error_ticks,
    failed_cases,
    finish,
    hollow_marks,
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
from results.figures.theme import INK, LIGHT, styled
from results.records.frames import as_rows
from results.records.load import Run
from results.schema import IDENTITY
from results.text import numbers
from results.text.labels import label
from results.text.modes import MEMORY_METRICS, WORDS

NARROW = 1.5
"""Times closer than this factor get a wider axis: ticks of a narrow one cover each other."""
ERROR_FLOOR = 1e-8
"""Errors below are drawn here: they are rounding."""


def time_figure(chapter: Chapter) -> Figure | None:
    """Latency against length, log-log, with the fitted exponents in the legend."""
    titles = {mode: words.call.lower() for mode, words in WORDS.items()}
    return _scaling_figure(chapter, ("latency",), titles, time_ticks)


def memory_figure(chapter: Chapter) -> Figure | None:
    """Peak memory above the inputs, or the state, against length, log-log, with exponents."""
    titles = {mode: _lowered(words.memory_title) for mode, words in WORDS.items()}
    return _scaling_figure(chapter, MEMORY_METRICS, titles, size_ticks)


def speedup_figure(chapter: Chapter) -> Figure | None:
    """Speed-up over `full` and over `sdpa` against length."""
    data = chapter.speedups
    pairs = [
        (baseline, mode)
        for baseline in dict.fromkeys(data["baseline"])
        for mode in chapter.modes
        if len(data[(data["baseline"] == baseline) & (data["mode"] == mode)])
    ]
    made = make_panels(len(pairs), columns=len({m for _, m in pairs}))
    if made is None:
        return None
    figure, axes = made
    for ax, (baseline, mode) in zip(axes, pairs, strict=True):
        _speedup_panel(ax, chapter, baseline, mode)
    return figure


def _speedup_panel(ax: Axes, chapter: Chapter, baseline: str, mode: str) -> None:
    data = chapter.speedups
    part = data[(data["baseline"] == baseline) & (data["mode"] == mode)]
    lines(ax, part, chapter.looks)
    ax.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    plot_data.shown(ax).rules.append(plot_data.Rule(f"as fast as {baseline}", y=1.0))
    finish(ax, f"{mode}, over {baseline}", f"speed-up over {baseline}", part, ratio_ticks, mode)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.8), max(high, 1.25))
    legend(ax, part, chapter.looks, {})


def error_figure(chapter: Chapter) -> Figure | None:
    """Relative error against exact softmax over latency, at the longest length with an error."""
    shown = {m: _at_longest_error(chapter, m) for m in chapter.modes}
    shown = {m: part for m, part in shown.items() if len(part)}
    made = make_panels(len(shown))
    if made is None:
        return None
    figure, axes = made
    for ax, (mode, part) in zip(axes, shown.items(), strict=True):
        _error_panel(ax, chapter, part, mode)
    return figure


def _error_panel(ax: Axes, chapter: Chapter, part: pd.DataFrame, mode: str) -> None:
    for row in as_rows(part):
        look = chapter.looks[row["backend"], row["options"]]
        key = row["backend"], label(row["backend"], row["options"])
        hollow = is_cut_short(row)
        point = plot_data.Point(row["latency"], max(row["error"], ERROR_FLOOR), hollow=hollow)
        plot_data.line(ax, key, look, [point], joined=False)
        if hollow:
            hollow_marks(ax, point.x, point.y, look, 9)
            continue
        ax.plot(
            point.x, point.y, marker=look.marker, color=look.light, markersize=9,
            linestyle="none", markeredgecolor=INK, markeredgewidth=0.5,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    narrow = part["latency"].max() < NARROW * part["latency"].min()
    pad(ax.set_xlim, part["latency"], 3.0 if narrow else 1.35)
    pad(ax.set_ylim, part["error"].clip(lower=ERROR_FLOOR), 4.0)
    time_ticks(ax.xaxis)
    error_ticks(ax.yaxis)
    ax.set_title(f"{mode}, at {numbers.tokens(part['seq_len'].iloc[0])} tokens")
    ax.set_xlabel("time per call")
    ax.set_ylabel("relative error to exact softmax")
    legend(ax, part, chapter.looks, {}, with_lines=False)


def fraction_figure(chapter: Chapter) -> Figure | None:
    """The share of the machine's limit that each backend reached, against length."""
    data = chapter.limits
    data = data[data["fraction_of_limit"].notna() & (data["backend"] != IDENTITY)].copy()
    data["value"] = 100 * data["fraction_of_limit"]
    data["ci_low"] = data["ci_high"] = math.nan
    modes = [m for m in chapter.modes if len(data[data["mode"] == m])]
    made = make_panels(len(modes))
    if made is None:
        return None
    figure, axes = made
    top = max(100.0, float(data["value"].max()) * 1.05)
    for ax, mode in zip(axes, modes, strict=True):
        part = data[data["mode"] == mode]
        lines(ax, part, chapter.looks)
        length_axis(ax, part["seq_len"], mode)
        ax.set_ylim(0, top)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
        plot_data.kind(ax.yaxis, "percent")
        ax.set_title(mode)
        ax.set_ylabel("share of the machine's limit")
        legend(ax, part, chapter.looks, {})
    return figure


FIGURES: Mapping[str, Callable[[Chapter], Figure | None]] = {
    "time": time_figure,
    "memory": memory_figure,
    "speedup": speedup_figure,
    "error": error_figure,
    "limit": fraction_figure,
    "profile": profile_figure,
}


def _scaling_figure(
    chapter: Chapter,
    metrics: Collection[str],
    titles: Mapping[str, str],
    ticks: Callable[[Any], None],
) -> Figure | None:
    """Draw one of `metrics`, whichever a mode has, in a panel a mode."""
    data = chapter.points[chapter.points["metric"].isin(metrics)]
    modes = [m for m in chapter.modes if (data[data["mode"] == m]["value"] > 0).any()]
    made = make_panels(len(modes))
    if made is None:
        return None
    figure, axes = made
    for ax, mode in zip(axes, modes, strict=True):
        _scaling_panel(ax, chapter, metrics, mode, titles[mode], ticks)
    return figure


def _scaling_panel(
    ax: Axes,
    chapter: Chapter,
    metrics: Collection[str],
    mode: str,
    title: str,
    ticks: Callable[[Any], None],
) -> None:
    data = chapter.points[chapter.points["metric"].isin(metrics)]
    part = data[data["mode"] == mode]
    good = part[part["value"] > 0]
    lines(ax, good, chapter.looks)
    finish(ax, mode, title, good, ticks, mode)
    length_axis(ax, pd.concat([good["seq_len"], failed_cases(part)["seq_len"]]), mode)
    mark_failures(ax, part, chapter.looks)
    legend(ax, good, chapter.looks, chapter.slopes(mode, metrics))


# -- for notebooks -------------------------------------------------------------------------------


def scaling(
    run: Run,
    metric: str = "latency",
    *,
    mode: str = "forward",
    setting: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric against length, log-log, a line a backend with its interval and exponent.

    Args:
        run: what `results.load` returned.
        metric: ``latency``, or ``peak_memory`` (in mode decode that of the state).
        mode: ``forward``, ``training`` or ``decode``.
        setting: which of the run's settings, the one with most measurements first.
        ax: where to draw; ``None`` = axes of their own.

    Raises:
        ValueError: if an argument is not one of these, or nothing was measured of it.
    """
    ways: dict[str, tuple[Collection[str], Callable[[Any], None]]] = {
        "latency": (("latency",), time_ticks), "peak_memory": (MEMORY_METRICS, size_ticks),
    }  # fmt: skip
    if metric not in ways:
        raise ValueError(f"metric: expected one of {', '.join(ways)}, got {metric!r}")
    metrics, ticks = ways[metric]
    chapter = _chapter(run, mode, setting)
    every = chapter.points[chapter.points["mode"] == mode]
    rows = every[every["metric"].isin(metrics)]
    if not (rows["value"] > 0).any():
        raise ValueError(f"metric: nothing was measured of {metric} in mode {mode}")
    words = WORDS[mode]
    title = _lowered(words.call if metric == "latency" else words.memory_title)
    with _style():
        ax = _axes(ax)
        _scaling_panel(ax, chapter, metrics, mode, title, ticks)
    return ax


def speedup(
    run: Run,
    over: str = "sdpa",
    *,
    mode: str = "forward",
    setting: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many times as fast as exact attention each backend is, against length.

    Args:
        run: as of `scaling`, and so the others.
        over: ``sdpa`` or ``full``.
        mode: of the calls.
        setting: of the run.
        ax: where to draw.

    Raises:
        ValueError: if an argument is not one of these, or `over` was not measured.
    """
    chapter = _chapter(run, mode, setting)
    known = list(dict.fromkeys(chapter.speedups["baseline"]))
    if over not in known:
        raise ValueError(f"over: expected one of {', '.join(known) or 'none'}, got {over!r}")
    with _style():
        ax = _axes(ax)
        _speedup_panel(ax, chapter, over, mode)
    return ax


def errors(run: Run, *, mode: str = "forward", setting: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the error against exact softmax over latency, at the longest length with an error.

    Arguments and errors as of `scaling`.
    """
    chapter = _chapter(run, mode, setting)
    part = _at_longest_error(chapter, mode)
    if part.empty:
        raise ValueError(f"mode: no error was measured in mode {mode}")
    with _style():
        ax = _axes(ax)
        _error_panel(ax, chapter, part, mode)
    return ax


def _chapter(run: Run, mode: str, setting: int) -> Chapter:
    found = chapters(Analysis(run))
    if not 0 <= setting < len(found):
        named = "; ".join(f"{i} = {chapter.title}" for i, chapter in enumerate(found))
        raise ValueError(f"setting: expected one of {named or 'none'}, got {setting}")
    chapter = found[setting]
    if mode not in chapter.modes:
        raise ValueError(f"mode: expected one of {', '.join(chapter.modes)}, got {mode!r}")
    return chapter


@contextmanager
def _style() -> Iterator[None]:
    with styled(LIGHT):
        yield
        is_interactive = mpl.is_interactive()
    # A notebook's backend says so when the first figure is made; a style's end would take it back,
    # and no later figure would be shown.
    mpl.interactive(is_interactive)


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        import matplotlib.pyplot as plt  # a notebook's, which shows what is open

        ax = plt.subplots(figsize=(7.0, 4.5), layout="constrained")[1]
    return ax


def _lowered(title: str) -> str:
    return title[:1].lower() + title[1:]


def _at_longest_error(chapter: Chapter, mode: str) -> pd.DataFrame:
    """Return latency and error per series at the longest length where most have an error."""
    rows = chapter.points[(chapter.points["mode"] == mode) & chapter.points["value"].notna()]
    keys = ["backend", "options", "seq_len"]
    errors = rows[rows["metric"] == "relative_error"][[*keys, "value"]]
    times = rows[rows["metric"] == "latency"][[*keys, "value", "converged"]]
    both = times.rename(columns={"value": "latency"}).merge(
        errors.rename(columns={"value": "error"}), on=keys
    )
    if both.empty:
        return both
    counts = both.groupby("seq_len").size()
    return both[both["seq_len"] == counts[counts == counts.max()].index.max()]
