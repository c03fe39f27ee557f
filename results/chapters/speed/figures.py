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

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from results.analysis.analysis import Analysis
from results.chapters.speed.panels import (
    at_longest_error,
    error_panel,
    scaling_panel,
    speedup_panel,
)
from results.chapters.speed.profile_figure import profile_figure
from results.chapters.speed.rows import Chapter, chapters
from results.figures import plot_data
from results.figures.axes import length_axis
from results.figures.panels import each_panel, legend, lines
from results.figures.theme import LIGHT, styled
from results.metrics import MEMORY
from results.records.load import Run
from results.schema import IDENTITY


def time_figure(chapter: Chapter) -> Figure | None:
    """Latency against length, log-log, with the fitted exponents in the legend."""
    return _scaling_figure(chapter, ("latency",))


def memory_figure(chapter: Chapter) -> Figure | None:
    """Peak memory above the inputs, or the state, against length, log-log, with exponents."""
    return _scaling_figure(chapter, MEMORY)


def speedup_figure(chapter: Chapter) -> Figure | None:
    """Speed-up over `full` and over `sdpa` against length."""
    data = chapter.speedups
    pairs = [
        (baseline, mode)
        for baseline in dict.fromkeys(data["baseline"])
        for mode in chapter.modes
        if len(data[(data["baseline"] == baseline) & (data["mode"] == mode)])
    ]
    return each_panel(
        pairs, lambda ax, pair: speedup_panel(ax, chapter, *pair), len({m for _, m in pairs})
    )


def error_figure(chapter: Chapter) -> Figure | None:
    """Relative error against exact softmax over latency, at the longest length with an error."""
    at_longest = [(at_longest_error(chapter, mode), mode) for mode in chapter.modes]
    shown = [(part, mode) for part, mode in at_longest if len(part)]
    return each_panel(shown, lambda ax, pair: error_panel(ax, chapter, *pair))


def fraction_figure(chapter: Chapter) -> Figure | None:
    """The share of the machine's limit that each backend reached, against length."""
    data = chapter.limits
    data = data[data["fraction_of_limit"].notna() & (data["backend"] != IDENTITY)].copy()
    data["value"] = 100 * data["fraction_of_limit"].clip(upper=1.0)
    data["ci_low"] = data["ci_high"] = math.nan

    def panel(ax: Axes, mode: str) -> None:
        part = data[data["mode"] == mode]
        lines(ax, part, chapter.looks)
        length_axis(ax, part["seq_len"], mode)
        ax.set_ylim(0, 100)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
        plot_data.kind(ax.yaxis, "percent")
        ax.set_title(mode)
        ax.set_ylabel("% of peak")
        legend(ax, part, chapter.looks, {})

    return each_panel([m for m in chapter.modes if (data["mode"] == m).any()], panel)


FIGURES: Mapping[str, Callable[[Chapter], Figure | None]] = {
    "time": time_figure,
    "memory": memory_figure,
    "speedup": speedup_figure,
    "error": error_figure,
    "limit": fraction_figure,
    "profile": profile_figure,
}


def _scaling_figure(chapter: Chapter, metrics: Collection[str]) -> Figure | None:
    """Draw one of `metrics`, whichever a mode has, in a panel a mode."""
    data = chapter.points[chapter.points["metric"].isin(metrics)]
    modes = [m for m in chapter.modes if (data[data["mode"] == m]["value"] > 0).any()]
    return each_panel(modes, lambda ax, mode: scaling_panel(ax, chapter, metrics, mode))


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
    ways = {"latency": ("latency",), "peak_memory": MEMORY}
    if metric not in ways:
        raise ValueError(f"metric: expected one of {', '.join(ways)}, got {metric!r}")
    metrics = ways[metric]
    chapter = _chapter(run, mode, setting)
    every = chapter.points[chapter.points["mode"] == mode]
    rows = every[every["metric"].isin(metrics)]
    if not (rows["value"] > 0).any():
        raise ValueError(f"metric: nothing was measured of {metric} in mode {mode}")
    with _style():
        ax = _axes(ax)
        scaling_panel(ax, chapter, metrics, mode)
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
        speedup_panel(ax, chapter, over, mode)
    return ax


def errors(run: Run, *, mode: str = "forward", setting: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the error against exact softmax over latency, at the longest length with an error.

    Arguments and errors as of `scaling`.
    """
    chapter = _chapter(run, mode, setting)
    part = at_longest_error(chapter, mode)
    if part.empty:
        raise ValueError(f"mode: no error was measured in mode {mode}")
    with _style():
        ax = _axes(ax)
        error_panel(ax, chapter, part, mode)
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
