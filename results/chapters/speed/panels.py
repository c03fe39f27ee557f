"""Panels of the figures of speed: a metric, a speed-up or an error, in one mode of a setting."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
from matplotlib.axes import Axes

from results.analysis.warm_up import is_cut_short
from results.chapters.speed.rows import Chapter
from results.figures import plot_data
from results.figures.axes import finish, length_axis, pad, ratio_ticks, ticks_of
from results.figures.panels import failed_cases, hollow_marks, legend, lines, mark_failures
from results.figures.theme import INK
from results.metrics import METRICS
from results.records.frames import as_rows
from results.text import numbers
from results.text.labels import label
from results.text.modes import WORDS

NARROW = 1.5
"""Times closer than this factor get a wider axis: ticks of a narrow one cover each other."""
ERROR_FLOOR = 1e-8
"""Errors below are drawn here: they are rounding."""


def scaling_panel(ax: Axes, chapter: Chapter, metrics: Collection[str], mode: str) -> None:
    """Draw a mode's metric against length, log-log: the one of `metrics` that it has."""
    data = chapter.points[chapter.points["metric"].isin(metrics)]
    part = data[data["mode"] == mode]
    good = part[part["value"] > 0]
    metric = str(good["metric"].iloc[0])
    title = WORDS[mode].call if metric == "latency" else WORDS[mode].memory_title
    lines(ax, good, chapter.looks)
    what = f"{title[:1].lower()}{title[1:]}"
    finish(ax, mode, what, good, ticks_of(metric), mode)
    length_axis(ax, pd.concat([good["seq_len"], failed_cases(part)["seq_len"]]), mode)
    mark_failures(ax, part, chapter.looks)
    legend(ax, good, chapter.looks, chapter.slopes(mode, metrics))


def speedup_panel(ax: Axes, chapter: Chapter, baseline: str, mode: str) -> None:
    """Draw the speed-up over a baseline against length."""
    data = chapter.speedups
    part = data[(data["baseline"] == baseline) & (data["mode"] == mode)]
    lines(ax, part, chapter.looks)
    ax.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    plot_data.shown(ax).rules.append(plot_data.Rule(f"as fast as {baseline}", y=1.0))
    finish(ax, f"{mode}, over {baseline}", f"speed-up over {baseline}", part, ratio_ticks, mode)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.8), max(high, 1.25))
    legend(ax, part, chapter.looks, {})


def error_panel(ax: Axes, chapter: Chapter, part: pd.DataFrame, mode: str) -> None:
    """Draw relative errors over latency, both logarithmic."""
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
    ticks_of("latency")(ax.xaxis)
    ticks_of("relative_error")(ax.yaxis)
    ax.set_title(f"{mode}, at {numbers.tokens(part['seq_len'].iloc[0])} tokens")
    ax.set_xlabel(METRICS["latency"].axis)
    ax.set_ylabel("relative error to exact softmax")
    legend(ax, part, chapter.looks, {}, with_lines=False)


def at_longest_error(chapter: Chapter, mode: str) -> pd.DataFrame:
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
