"""The tasks' figures: score against cost, accuracy against distance, learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from results.analysis.warm_up import is_cut_short
from results.chapters.quality.rows import COSTS, QualityChapter, Trial
from results.chapters.quality.scores import compressors
from results.figures import plot_data
from results.figures.axes import log_cost
from results.figures.panels import (
    SeriesKey,
    cut,
    ink_line,
    keys,
    linestyle,
    panel_row,
    shared_legend,
)
from results.figures.theme import INK, Look
from results.metrics import METRICS
from results.records.frames import as_rows
from results.text import numbers
from results.text.labels import label, rank

MOST_SERIES, MOST_TRIALS, LONGEST_TITLE = 24, 6, 34
"""Of a figure, and characters over a panel of a trial."""

MOST_GROUPS = 12
"""Groups of a line: what has more is pooled, neighbours together."""

CURVE_POINTS = 120

COST_CAPTION = (
    "Mean over seeds; bars: range over seeds. Stepped line: Pareto frontier of the means, its "
    "methods ringed. Latency and peak memory: the trained model's forward pass on one sequence; "
    "KV cache or state: what it keeps of that sequence for decoding."
)
GROUP_CAPTION = (
    "Accuracy by {group}: mean over seeds; bands: range over seeds. Dotted line: chance."
)
CURVE_CAPTION = "Training loss: mean over seeds; bands: range over seeds."

_DOTTED = (0, (1, 2))
_LINES: Mapping[str, Any] = {"zlib": (0, (5, 2)), "xz": (0, (1, 1.5))}


def cost_figure(chapter: QualityChapter, trial: Trial) -> Figure | None:
    """Draw the score against each cost that a backend has; None where there is none."""
    rows = _first(trial.rows[trial.rows["score"].notna()])
    costs = [c for c in COSTS if (rows[c] > 0).sum() >= 1]
    made = panel_row(len(costs))
    if made is None:
        return None
    figure, axes = made
    beside = compressors(trial) if trial.lower else {}
    for ax, cost in zip(axes, costs, strict=True):
        shown = rows[rows[cost] > 0]
        what = METRICS[cost].words
        _frontier(ax, trial, cost, shown)
        best = set(trial.frontier(cost))
        for place, row in enumerate(as_rows(shown)):
            series = (row["backend"], row["options"])
            _mark(ax, row, cost, chapter.looks[series], place, is_best=series in best)
        log_cost(ax, list(shown[cost]), cost)
        _score_axis(ax, trial, rows, beside)
        ax.set_title(f"against {what}")
        ax.set_xlabel(what if cost == "state_bytes" else f"{what}, forward pass")
    handles = [(ink_line("-"), "frontier"), *_extra(trial, beside)]
    shared_legend(figure, keys(rows), chapter.looks, with_lines=False, others=handles)
    return figure


def _mark(
    ax: Axes, row: Mapping[Any, Any], cost: str, look: Look, place: int, *, is_best: bool
) -> None:
    """Draw a score over a cost, with a bar from its smallest to its largest seed."""
    x, color = row[cost], look.light
    short = cost == "latency" and is_cut_short(row)
    point = plot_data.Point(
        x, row["score"], row["score_low"], row["score_high"],
        "on the frontier" if is_best else "", ringed=is_best, hollow=short,
    )  # fmt: skip
    key = row["backend"], label(row["backend"], row["options"])
    plot_data.line(ax, key, look, [point], joined=False)
    ax.plot([x] * 2, [point.low, point.high], color=color, linewidth=1.6, zorder=2)
    ax.plot(
        x, point.y, marker=look.marker, color=color, markerfacecolor="none" if short else color,
        linestyle="none", markersize=(10 if is_best else 8.5) - _smaller(place),
        markeredgecolor=INK if is_best else color, markeredgewidth=1.2 if is_best else 0.5,
        zorder=3,
    )  # fmt: skip


def _smaller(place: int) -> float:
    """Return how much smaller a mark is the later it is drawn: one below it shows around it."""
    return min(2.0, 1.0 * place)


def _frontier(ax: Axes, trial: Trial, cost: str, shown: pd.DataFrame) -> None:
    """Draw what is reached for at most so much cost, as a stepped line."""
    by_key = shown.set_index(["backend", "options"])
    best = [key for key in trial.frontier(cost) if key in by_key.index]
    x = [float(by_key.loc[key, cost]) for key in best]
    y = [float(by_key.loc[key, "score"]) for key in best]
    if x:  # to the right nothing better was measured
        x, y = [*x, 1e3 * max(shown[cost])], [*y, y[-1]]
        steps = plot_data.Path(list(zip(x, y, strict=True)), in_steps=True)
        plot_data.shown(ax).paths.append(steps)
        ax.plot(x, y, drawstyle="steps-post", color=INK, linewidth=1.1, alpha=0.55, zorder=1)


def _score_axis(ax: Axes, trial: Trial, rows: pd.DataFrame, beside: Mapping[str, float]) -> None:
    if not trial.lower:
        _accuracy_axis(ax, trial.chance)
        return
    shown = [*rows["score_low"], *rows["score_high"], *beside.values()]
    room = 0.08 * (max(shown) - min(shown)) or 0.1 * max(shown) or 0.1
    ax.set_ylim(min(shown) - room, max(shown) + room)
    ax.set_ylabel(METRICS[trial.metric].axis)
    for word, bits in beside.items():
        ax.axhline(bits, color=INK, linewidth=1.0, linestyle=_LINES[word])
        plot_data.shown(ax).rules.append(plot_data.Rule(word, y=bits))


def _accuracy_axis(ax: Axes, chance: float) -> None:
    ax.set_ylim(-0.03, 1.05)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g} %"))
    plot_data.kind(ax.yaxis, "share")
    ax.set_ylabel(METRICS["accuracy"].axis)
    if math.isfinite(chance):
        ax.axhline(chance, color=INK, linewidth=1.0, linestyle=_DOTTED)
        plot_data.shown(ax).rules.append(plot_data.Rule("chance", y=chance))


def _extra(trial: Trial, beside: Mapping[str, float]) -> list[tuple[Line2D, str]]:
    if trial.lower:
        return [(ink_line(_LINES[w]), f"{w} {bits:.2f}") for w, bits in beside.items()]
    return [(ink_line(_DOTTED), "chance")] if math.isfinite(trial.chance) else []


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    """Return at most `MOST_SERIES` rows, the known backends first."""
    series = sorted(set(keys(rows)), key=lambda k: (rank(k[0]), k[1]))
    if len(series) <= MOST_SERIES:
        return rows
    first = set(series[:MOST_SERIES])
    return rows[[k in first for k in keys(rows)]]


# -- by distance or depth ------------------------------------------------------------------------


def grouped(groups: pd.DataFrame) -> pd.DataFrame:
    """Return a row a backend and group: mean, smallest and largest share over seeds.

    More than `MOST_GROUPS` groups are pooled, neighbours together, each pool as many groups; a
    pool stands at the mean of its groups' values, weighted by their answers.
    """
    values = sorted(set(groups["value"]))
    pools = np.array_split(np.asarray(values), min(MOST_GROUPS, len(values))) if values else []
    pool_of = {float(v): i for i, pool in enumerate(pools) for v in pool}
    table = groups.assign(
        pool=groups["value"].map(pool_of), weighted=groups["value"] * groups["count"]
    )
    by_pool = ["backend", "options", "pool"]
    summed = (
        table.groupby([*by_pool, "seed"])[["correct", "count", "weighted"]].sum().reset_index()
    )
    summed["share"] = summed["correct"] / summed["count"]
    at = table.groupby("pool")[["count", "weighted"]].sum()
    shares = summed.groupby(by_pool)["share"].agg(["mean", "min", "max"]).reset_index()
    shares["value"] = shares["pool"].map(at["weighted"] / at["count"])
    return shares.sort_values(by_pool, kind="stable")


def group_figure(chapter: QualityChapter) -> Figure | None:
    """Draw accuracy against distance or depth, a panel a trial and a line a backend.

    A task that asks at one distance alone has no such figure.
    """
    trials = [t for t in chapter.trials if t.group and t.groups["value"].nunique() > 1]
    trials = trials[:MOST_TRIALS]
    made = panel_row(len(trials))
    if made is None:
        return None
    figure, axes = made
    shown: dict[SeriesKey, None] = {}
    for ax, trial in zip(axes, trials, strict=True):
        table = grouped(_first(trial.groups))
        order = sorted(dict.fromkeys(keys(table)), key=lambda k: (rank(k[0]), k[1]))
        for place, key in enumerate(order):
            line = table[[k == key for k in keys(table)]]
            look = chapter.looks[key]
            shown.setdefault(key)
            points = line[["value", "mean", "min", "max"]].itertuples(index=False, name=None)
            plot_data.line(
                ax, (key[0], label(*key)), look, (plot_data.Point(*row) for row in points)
            )
            ax.plot(
                line["value"], line["mean"], color=look.light, marker=look.marker,
                linestyle=linestyle(look),
                markersize=7.5 - _smaller(place), linewidth=2.6 - 0.4 * _smaller(place),
            )  # fmt: skip
            ax.fill_between(line["value"], line["min"], line["max"], alpha=0.14, linewidth=0,
                            color=look.light)  # fmt: skip
        _group_axis(ax, trial.group, sorted(set(table["value"])))
        _accuracy_axis(ax, trial.chance)
        ax.set_title(cut(trial.name, LONGEST_TITLE) if len(chapter.trials) > 1 else "")
    others = [(ink_line(_DOTTED), "chance")] if math.isfinite(trials[0].chance) else []
    shared_legend(figure, list(shown), chapter.looks, others=others)
    return figure


def _group_axis(ax: Axes, group: str, values: Sequence[float]) -> None:
    """Scale an axis of distances logarithmically where they span a factor; depths never."""
    ax.set_xlabel("distance (tokens)" if group == "distance" else group)
    if group == "distance" and values[0] > 0 and values[-1] >= 8 * values[0]:
        ax.set_xscale("log", base=2)
        ticks = [2.0**k for k in range(64) if values[0] / 1.5 <= 2.0**k <= values[-1] * 1.5]
        ax.xaxis.set_major_locator(FixedLocator(ticks[:: math.ceil(len(ticks) / 6)]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.tick_length(x)))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6))


# -- learning curves -----------------------------------------------------------------------------


def curve_figure(chapter: QualityChapter, trial: Trial) -> Figure | None:
    """Draw the loss against steps and against time; None without curves."""
    drawn = _first(trial.curves)
    axes_of = [
        (column, what)
        for column, what in (("step", "training step"), ("time", "training time (s)"))
        if drawn[column].nunique() > 1
    ]
    made = panel_row(len(axes_of))
    if made is None:
        return None
    figure, axes = made
    shown = []
    for ax, (column, what) in zip(axes, axes_of, strict=True):
        for key, own in drawn.groupby(["backend", "options"], sort=False):
            shape = band(own, column)
            if shape is None:
                continue
            x, low, middle, high = shape
            look = chapter.looks[key]
            shown.append(key)
            points = (plot_data.Point(*row) for row in zip(x, middle, low, high, strict=True))
            plot_data.line(ax, (key[0], label(*key)), look, points)
            ax.plot(x, middle, color=look.light, marker=look.marker, markevery=[-1],
                    linestyle=linestyle(look))  # fmt: skip
            ax.fill_between(x, low, high, color=look.light, alpha=0.14, linewidth=0)
        ax.set_xlabel(what)
        ax.set_ylabel("training loss (nats)")
        ax.set_title(f"against {column}s" if column == "step" else "against time")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    if not shown:
        return None
    shared_legend(figure, shown, chapter.looks)
    return figure


def band(curves: pd.DataFrame, column: str) -> tuple[Any, Any, Any, Any] | None:
    """Return x and the smallest, mean and largest loss of the seeds, over what all reached."""
    several = (rows for _, rows in curves.groupby("seed") if len(rows) > 1)
    seeds = [rows.sort_values(column, kind="stable") for rows in several]
    if not seeds:
        return None
    start = max(float(s[column].iloc[0]) for s in seeds)
    end = min(float(s[column].iloc[-1]) for s in seeds)
    if not end > start:
        return None
    x = np.linspace(start, end, CURVE_POINTS)
    losses = np.stack([np.interp(x, s[column], s["loss"]) for s in seeds])
    return x, losses.min(axis=0), losses.mean(axis=0), losses.max(axis=0)
