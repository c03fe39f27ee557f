"""The figure of the sentinel: the machine's speed through the run."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from results.chapters.trust.drift import DRAWN, Drift
from results.chapters.trust.rows import RunTrust, Trust
from results.figures import plot_data
from results.figures.panels import WIDTH, cut
from results.figures.theme import INK, Look, looks

TITLE = "The machine's speed through the run"

PANELS = 6
"""Of more runs those that drifted most are drawn."""

PANEL_HEIGHT = 2.5
"""Inches."""

CAPTION = (
    "Time of the control benchmark, always the same work, relative to its median over the run. "
    "Marks: repetitions, each in a process of its own; line: their running median (of three, the "
    "repetitions themselves). A steady machine gives a level line."
)


def drift_figure(trust: Trust) -> Figure | None:
    """Draw a panel a run and a line a sentinel; None where no sentinel has `DRAWN` repetitions."""
    runs = [run for run in trust.runs if _drawn(run)]
    most = sorted(range(len(runs)), key=lambda i: _largest(runs[i]), reverse=True)[:PANELS]
    runs = [runs[i] for i in sorted(most)]
    if not runs:
        return None
    columns = min(2, len(runs))
    rows = math.ceil(len(runs) / columns)
    figure = Figure(figsize=(WIDTH, (PANEL_HEIGHT + 0.6) * rows), layout="constrained")
    for index, run in enumerate(runs):
        ax = figure.add_subplot(rows, columns, index + 1)
        _panel(ax, _drawn(run))
        if len(trust.runs) > 1:
            ax.set_title(cut(run.name, 40))
    return figure


def _drawn(run: RunTrust) -> list[Drift]:
    return [drift for drift in run.drifts if len(drift.seconds) >= DRAWN]


def _largest(run: RunTrust) -> float:
    return max((d.drift for d in run.drifts if math.isfinite(d.drift)), default=0.0)


def _panel(ax: Axes, drawn: list[Drift]) -> None:
    by_clock = all(drift.has_clock for drift in drawn)
    styles = looks((drift.name, "") for drift in drawn)
    ax.axhline(0.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    for drift in drawn:
        look: Look = styles[drift.name, ""]
        middle = float(np.median(drift.seconds))
        x = drift.minutes if by_clock else np.arange(1, len(drift.seconds) + 1)
        color = look.light
        dots = 100 * (drift.seconds / middle - 1)
        ax.plot(
            x, dots, linestyle="none", marker=look.marker, markersize=5, color=color, alpha=0.55
        )
        told = [plot_data.Point(float(at), float(y)) for at, y in zip(x, dots, strict=True)]
        plot_data.line(ax, (drift.name, drift.name), look, told, joined=False)
        smooth = list(zip(map(float, x), 100 * (drift.smooth / middle - 1), strict=True))
        plot_data.shown(ax).paths.append(plot_data.Path(smooth, look))
        ax.plot(
            x, 100 * (drift.smooth / middle - 1), color=color, marker=look.marker, markevery=[-1],
            label=drift.name,
        )  # fmt: skip
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -2.0), max(high, 2.0))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:+g} %" if y else "0 %"))
    plot_data.kind(ax.yaxis, "percent")
    ax.set_ylabel("time, relative to median")
    ax.set_xlabel("minutes since the first" if by_clock else "repetition")
    if not by_clock:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=1 if len(drawn) < 2 else 2)
