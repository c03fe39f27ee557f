"""The errors' figures: error against cost, a panel a distribution, and error against length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.analysis.warm_up import is_cut_short
from results.chapters.error.rows import USELESS, ErrorChapter, budget_text, default_rows, line_name
from results.figures import plot_data
from results.figures.axes import error_ticks, length_axis, log_cost
from results.figures.panels import (
    SeriesKey,
    cut,
    hollow_marks,
    ink_line,
    linestyle,
    panel_row,
    shared_legend,
)
from results.figures.theme import INK
from results.metrics import METRICS, Metric
from results.records.frames import as_rows
from results.text import numbers
from results.text.labels import label

MOST_PANELS, MOST_SERIES, LONGEST_TITLE = 9, 24, 34
LEAST_ERROR = 1e-7

COST_METRICS: Mapping[str, str] = {"latency": "latency", "operations": "executed_ops"}
"""Column of a cost to its metric."""

_EXACT = (0, (5, 2))
_ZEROS = (0, (1, 2))


def caption(metric: str, cost: str, chapter: ErrorChapter) -> str:
    """Return what stands under `against_cost`."""
    names = {
        row["backend"]: row["budget_name"].replace("_", " ")
        for row in as_rows(chapter.rows)
        if row["budget_name"]
    }
    budgets = ", ".join(f"{name} of {backend}" for backend, name in list(names.items())[:8])
    zeros = " The dotted line is an output of zeros." if metric == "relative_error" else ""
    exact = (
        " The dashed line is the fastest exact attention: right of it an approximation is of no "
        "use."
        if cost == "latency"
        else " The dashed line is what exact attention takes."
    )
    marks = f" Numbers at the marks: {budgets}; d is the default." if budgets else ""
    return (
        f"{METRICS[metric].meaning}, at {numbers.tokens(chapter.seq_len)} tokens, against "
        f"{_cost(cost).axis}; low and left is better.{marks}{exact}{zeros}"
    )


def _cost(column: str) -> Metric:
    return METRICS[COST_METRICS[column]]


def against_cost(chapter: ErrorChapter, metric: str, cost: str) -> Figure | None:
    """Draw a panel a distribution and a line a family over its budgets, at one length."""
    shown = {}
    for inputs in chapter.inputs:
        rows = chapter.at(inputs)
        approximate = rows[~rows["is_exact"].astype(bool) & (rows[metric] > 0) & (rows[cost] > 0)]
        if len(approximate):
            shown[inputs] = approximate, rows
    shown = dict(list(shown.items())[:MOST_PANELS])
    made = panel_row(len(shown))
    if made is None:
        return None
    figure, axes = made
    series = _first([key for approximate, _ in shown.values() for key in _keys(approximate)])
    has_exact = False
    for ax, (inputs, (approximate, rows)) in zip(axes, shown.items(), strict=True):
        exact = rows[rows["is_exact"].astype(bool) & (rows[cost] > 0)][cost]
        drawn = approximate[[k in series for k in _keys(approximate)]]
        _lines(ax, drawn, metric, cost, chapter)
        costs = [*drawn[cost], *([float(exact.min())] if len(exact) else [])]
        if len(exact):
            has_exact = True
            ax.axvline(float(exact.min()), color=INK, linewidth=1.1, linestyle=_EXACT)
            rule = plot_data.Rule("exact attention", x=float(exact.min()))
            plot_data.shown(ax).rules.append(rule)
        _error_axis(ax, drawn[metric], metric)
        log_cost(ax, costs, COST_METRICS[cost])
        ax.set_title(cut(inputs, LONGEST_TITLE))
        ax.set_xlabel(_cost(cost).axis)
        ax.set_ylabel(METRICS[metric].axis)
    others = [(ink_line(_EXACT), "exact attention")] if has_exact else []
    if metric == "relative_error":
        others.append((ink_line(_ZEROS), "output of zeros"))
    shared_legend(figure, series, chapter.looks, others=others)
    return figure


def _keys(rows: pd.DataFrame) -> list[SeriesKey]:
    return list(zip(rows["backend"], rows["rest"], strict=True))


def _first(keys: list[SeriesKey]) -> list[SeriesKey]:
    return list(dict.fromkeys(keys))[:MOST_SERIES]


def _lines(ax: Axes, rows: pd.DataFrame, metric: str, cost: str, chapter: ErrorChapter) -> None:
    for key, line in rows.groupby(["backend", "rest"], sort=False):
        look = chapter.looks[key]
        color = look.light
        at = line.sort_values([cost, "budget"], kind="stable")
        y = at[metric].clip(lower=LEAST_ERROR)
        points = [
            plot_data.Point(
                row[cost], max(row[metric], LEAST_ERROR), note=budget_text(row), tag=_tag(row),
                hollow=cost == "latency" and is_cut_short(row),
            )
            for row in as_rows(at)
        ]  # fmt: skip
        plot_data.line(ax, (key[0], label(*key)), look, points)
        ax.plot(at[cost], y, color=color, marker=look.marker, markersize=5.5,
                markevery=[i for i, point in enumerate(points) if not point.hollow],
                linestyle=linestyle(look))  # fmt: skip
        short = [point for point in points if point.hollow]
        if short:
            hollow_marks(ax, [p.x for p in short], [p.y for p in short], look, 5.5)
        for index, (x, height, tag) in enumerate(
            zip(at[cost], y, (point.tag for point in points), strict=True)
        ):
            ax.annotate(
                tag, (x, height), color=color, fontsize=7.5, textcoords="offset points",
                # Above and below in turn: neighbours on a flat line would cover each other.
                xytext=(0, 5 if index % 2 == 0 else -5), ha="center",
                va="bottom" if index % 2 == 0 else "top",
            )  # fmt: skip


def _tag(row: Mapping[Any, Any]) -> str:
    """Return what is written beside a mark: its budget, d for the default."""
    return str(row["budget_text"])[:6] or ("d" if row["budget_name"] else "")


def _error_axis(ax: Axes, values: pd.Series, metric: str) -> None:
    ax.set_yscale("log")
    least, most = max(float(values.min()), LEAST_ERROR), max(float(values.max()), LEAST_ERROR)
    if metric == "relative_error":
        most = max(most, USELESS)
        ax.axhline(USELESS, color=INK, linewidth=1.0, linestyle=_ZEROS)
        plot_data.shown(ax).rules.append(plot_data.Rule("output of zeros", y=USELESS))
    room = max(1.5, (most / least) ** 0.12)
    ax.set_ylim(least / room, most * room)
    error_ticks(ax.yaxis)


LENGTH_CAPTION = (
    "Relative L2 distance of the output from exact softmax attention against length. The legend "
    "names each method's setting: its default, or the middle one of those measured at most "
    "lengths."
)


def against_length(chapter: ErrorChapter) -> Figure | None:
    """Draw the error at the default budget against length; None for one length."""
    rows = default_rows(chapter.rows)
    rows = rows[~rows["is_exact"].astype(bool) & (rows["relative_error"] > 0)]
    shown = [
        (inputs, of_inputs)
        for inputs in chapter.inputs
        if (of_inputs := rows[rows["inputs"] == inputs])["seq_len"].nunique() > 1
    ][:MOST_PANELS]
    made = panel_row(len(shown))
    if made is None:
        return None
    figure, axes = made
    series = _first([key for _, of_inputs in shown for key in _keys(of_inputs)])
    for ax, (inputs, of_inputs) in zip(axes, shown, strict=True):
        for key, line in of_inputs[[k in series for k in _keys(of_inputs)]].groupby(
            ["backend", "rest"], sort=False
        ):
            look = chapter.looks[key]
            at = line.sort_values("seq_len", kind="stable")
            color = look.light
            points = [
                plot_data.Point(
                    row["seq_len"], max(row["relative_error"], LEAST_ERROR),
                    row["error_low"], row["error_high"], budget_text(row),
                )
                for row in as_rows(at)
            ]  # fmt: skip
            plot_data.line(ax, (key[0], label(*key)), look, points)
            ax.plot(at["seq_len"], at["relative_error"].clip(lower=LEAST_ERROR), color=color,
                    marker=look.marker, linestyle=linestyle(look))  # fmt: skip
            if math.isfinite(float(at["error_low"].min())):
                ax.fill_between(at["seq_len"], at["error_low"].clip(lower=LEAST_ERROR),
                                at["error_high"].clip(lower=LEAST_ERROR), color=color, alpha=0.14,
                                linewidth=0)  # fmt: skip
        _error_axis(ax, of_inputs["relative_error"], "relative_error")
        length_axis(ax, of_inputs["seq_len"], "forward")
        ax.set_title(cut(inputs, LONGEST_TITLE))
        ax.set_ylabel(METRICS["relative_error"].axis)
    others = [(ink_line(_ZEROS), "output of zeros")]
    names = {
        (row["backend"], row["rest"]): f"{line_name(row)}, {budget_text(row)}"
        for _, of_inputs in shown
        for row in as_rows(of_inputs)
        if row["budget_name"]
    }
    shared_legend(figure, series, chapter.looks, others=others, names=names)
    return figure
