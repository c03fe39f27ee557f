"""The peers' figure: every ratio with its interval, on one logarithmic axis."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from results.analysis.warm_up import is_cut_short
from results.chapters.peers.rows import PeerChapter
from results.figures import plot_data
from results.figures.axes import ratio_ticks
from results.figures.panels import WIDTH, hollow_marks
from results.figures.theme import INK, looks
from results.records.frames import as_rows
from results.schema import MODES
from results.text import numbers

MARKERS = {"default": "o", "retained": "D"}
"""By allocator."""

ROW_HEIGHT = 0.42
"""Inches."""

LONGEST_LABEL = 46

WIDEST = 20.0
"""An interval wider than this factor is left to the table: its whisker would set the scale."""

_VALUES = ("ratio", "ratio_low", "ratio_high")
_ALONE = ("attention_ratio", "attention_low", "attention_high")


def peer_figure(chapter: PeerChapter) -> Figure | None:
    """Draw a panel a mode and a row a pair; right of the dotted line the peer takes longer."""
    dots = _dots(chapter.rows)
    if dots.empty:
        return None
    modes = [m for m in MODES if (dots["mode"] == m).any()]
    labels = list(dict.fromkeys(dots["label"]))
    height = ROW_HEIGHT * len(labels) + 0.8
    figure = Figure(figsize=(WIDTH, height + 0.5), layout="constrained")
    axes: list[Axes] = []
    for index, mode in enumerate(modes):
        shared: dict[str, Any] = {"sharex": axes[0], "sharey": axes[0]} if axes else {}
        ax = figure.add_subplot(1, len(modes), index + 1, **shared)
        axes.append(ax)
        _panel(ax, dots[dots["mode"] == mode], labels)
        ax.set_title(mode)
        ax.set_xlabel("time of the peer / time of ours")
        if index:
            ax.tick_params(labelleft=False)
    _scale(axes[0], dots, labels)
    _legend(figure, dots)
    return figure


def _dots(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a dot per case and, where projections were subtracted, one more."""
    usual = rows["seq_len"].mode()
    found = []
    for row in as_rows(rows):
        for columns, what in ((_VALUES, row["level"]), (_ALONE, "attention alone")):
            value, low, high = (row[c] for c in columns)
            if not (math.isfinite(value) and value > 0):
                continue
            causal = " causal" if row["is_causal"] else ""
            around = "" if row["level"] == "attention" else what
            length = "" if row["seq_len"] == usual.iloc[0] else f"{row['seq_len']:,} tokens"
            below = ", ".join(part for part in (around, length) if part)
            name = f"{row['backend']} | {row['peer']}{causal}"[:LONGEST_LABEL]
            found.append(
                {
                    "mode": row["mode"], "label": f"{name}\n{below}" if below else name,
                    "value": value,
                    "low": low, "high": high, "allocator": row["allocator"],
                    "backend": row["backend"], "converged": row["converged"],
                }
            )  # fmt: skip
    return pd.DataFrame.from_records(
        found,
        columns=["mode", "label", "value", "low", "high", "allocator", "backend", "converged"],
    )


def _panel(ax: Axes, dots: pd.DataFrame, labels: list[str]) -> None:
    ax.axvline(1.0, color=INK, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
    plot_data.shown(ax).rules.append(plot_data.Rule("as fast as ours", x=1.0))
    plot_data.kind(ax.xaxis, "ratio")
    colors = looks((backend, "") for backend in dots["backend"])
    offsets = {name: 0.26 * place for place, name in zip((-0.5, 0.5), MARKERS, strict=True)}
    alone = dots["allocator"].nunique() == 1
    for dot in as_rows(dots):
        color = colors[dot["backend"], ""].light
        y = labels.index(dot["label"]) + (0.0 if alone else offsets.get(dot["allocator"], 0.0))
        told = plot_data.Point(
            dot["value"], y, dot["low"], dot["high"], f"{dot['allocator']} allocator",
            hollow=is_cut_short(dot),
        )  # fmt: skip
        look = replace(
            colors[dot["backend"], ""], marker=MARKERS.get(dot["allocator"], "s"), dashes=""
        )
        plot_data.line(
            ax, (dot["backend"], dot["backend"]), look, [told], joined=False, across=True
        )
        if dot["low"] > 0 and dot["high"] <= WIDEST * dot["low"]:
            ax.plot([dot["low"], dot["high"]], [y, y], color=color, linewidth=2.0, zorder=2)
        if told.hollow:
            hollow_marks(ax, dot["value"], y, look)
            continue
        ax.plot(
            dot["value"], y, marker=MARKERS.get(dot["allocator"], "s"), color=color,
            markersize=6.5, linestyle="none", markeredgecolor=INK, markeredgewidth=0.5,
            zorder=3,
        )  # fmt: skip


def _scale(ax: Axes, dots: pd.DataFrame, labels: list[str]) -> None:
    """Set the axes, which all panels share: 1 is always inside."""
    ax.set_xscale("log")
    whiskers = dots["high"] <= WIDEST * dots["low"]
    low = min(1.0, dots["value"].min(), dots["low"][whiskers].min())
    high = max(1.0, dots["value"].max(), dots["high"][whiskers].max())
    ax.set_xlim(low / 1.3, high * 1.3)
    ratio_ticks(ax.xaxis)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)


def _legend(figure: Figure, dots: pd.DataFrame) -> None:
    used = [name for name in MARKERS if (dots["allocator"] == name).any()]
    handles = [Line2D([], [], color=INK, marker=MARKERS[name], linestyle="none") for name in used]
    texts = [f"{name} allocator" for name in used]
    figure.legend(handles, texts, loc="outside lower center", ncols=2)


CAPTION = (
    "Time of the other library over ours, measured in alternation in one process: mean over "
    f"processes with its 95 % interval, where that is narrower than {numbers.digits(WIDEST, 2)}"
    "-fold. Right of the dotted line the other library is slower. Layer: with projections, of the "
    "same weights; attention alone: without their time, measured in the same process."
)
