"""The figures of two runs: their ratio, and both side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from results.figures import plot_data
from results.figures.axes import finish, pad, ratio_ticks, time_ticks
from results.figures.panels import cut, each_panel, keys, legend, lines, panel_row, shared_legend
from results.figures.theme import INK, Look
from results.metrics import METRICS
from results.text.labels import label

MOST_BESIDE = 12
"""Series whose times are drawn a panel each."""

MOST_RATIOS = 24

LONGEST_TITLE = 34
"""Characters over one of three panels."""

RATIO_CAPTION = (
    "Ratio of the means over processes; bands are 95 % intervals, where they are narrower than "
    "fourfold. Above the dotted line the new run takes more. Rings mark changes that hold over "
    "the whole table."
)

BESIDE_CAPTION = (
    "One panel per backend, all with the same axes; bands are 95 % intervals over processes, "
    "where they are narrower than fourfold."
)

Looks = Mapping[tuple[str, str], Look]
Names = tuple[str, str]
"""Of the two runs, base first."""


def ratio_figure(part: pd.DataFrame, drawn: Looks, names: Names, what: str) -> Figure | None:
    """Draw new over base against length, a panel a mode and a line a series.

    Args:
        part: cases of one setting (`sections.case_table`).
        drawn: how each series looks.
        names: of the runs.
        what: is compared.
    """
    part = _first_series(part[part["value"] > 0], MOST_RATIOS)

    def panel(ax: Axes, mode: str) -> None:
        cases = part[part["mode"] == mode]
        lines(ax, cases, drawn)
        ax.axhline(1.0, color=INK, linewidth=1.2, linestyle=(0, (1, 2)))
        plot_data.shown(ax).rules.append(plot_data.Rule("no change", y=1.0))
        finish(ax, mode, f"{what}, {names[1]} / {names[0]}", cases, ratio_ticks, mode)
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, 0.8), max(high, 1.25))
        ratio_ticks(ax.yaxis)
        legend(ax, cases, drawn, {})

    return each_panel(list(dict.fromkeys(part["mode"])), panel)


def beside_figure(part: pd.DataFrame, drawn: Looks, names: Names) -> Figure | None:
    """Draw the times of both runs against length, a panel a series.

    Args:
        part: cases of one setting and mode (`sections.case_table`).
        drawn: how each series looks.
        names: of the runs.
    """
    part = part[part["base"].notna() | part["new"].notna()]
    part = _first_series(part, MOST_BESIDE)
    series = list(dict.fromkeys(keys(part)))
    made = panel_row(len(series), height=2.9)
    if made is None:
        return None
    figure, axes = made
    mode = str(part["mode"].iloc[0])
    every = pd.concat([part["base"], part["new"]]).dropna()
    before = Look(INK, "o", (4, 1.5))
    for ax, key in zip(axes, series, strict=True):
        cases = part[[k == key for k in keys(part)]]
        for name, side, look in ((names[0], "base", before), (names[1], "new", drawn[key])):
            values = cases.rename(
                columns={side: "shown", f"{side}_low": "low", f"{side}_high": "high"}
            )
            columns = ["seq_len", "shown", "low", "high", f"{side}_cut_short"]
            told = values[columns].dropna(subset=["shown"])
            told.columns = ["seq_len", "value", "ci_low", "ci_high", "cut_short"]
            if told.empty:
                continue
            line = told.assign(
                backend=key[0], options=key[1], converged=told["cut_short"] == 0
            )  # fmt: skip
            lines(ax, line, {key: look}, behind=f", {name}")
        told = cases.assign(value=cases["new"].fillna(cases["base"]))
        finish(
            ax, cut(label(*key), LONGEST_TITLE), METRICS["latency"].axis, told, time_ticks, mode
        )
        pad(ax.set_ylim, every, 1.5)
        time_ticks(ax.yaxis)
    shared_legend(
        figure, [], drawn,
        others=[
            (Line2D([], [], color=INK, marker="o", linestyle=(0, (4, 1.5))), names[0]),
            (Line2D([], [], color=INK, marker="", linestyle="-"),
             f"{names[1]}, in the backend's colour"),
        ],
    )  # fmt: skip
    return figure


def _first_series(part: pd.DataFrame, most: int) -> pd.DataFrame:
    first = set(list(dict.fromkeys(keys(part)))[:most])
    return part[np.array([k in first for k in keys(part)], dtype=bool)]
