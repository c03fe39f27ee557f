"""The figure of a call's parts: where the time of each backend goes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from results.chapters.speed.rows import Chapter
from results.figures import plot_data
from results.figures.panels import LONGEST_LABEL, make_panels
from results.figures.theme import INK, PARTS
from results.schema import PROFILE_PARTS
from results.text import numbers
from results.text.labels import label

FARTHEST = 4.0
"""A bar beyond this many times the middle one would leave nothing of the others."""

_BAR_HEIGHT, _BEYOND_BARS = 0.34, 1.5
"""Of a figure: inches a bar, and what comes on top."""


def profile_figure(chapter: Chapter) -> Figure | None:
    """The parts of each backend's call as a bar, at the longest length that most have."""
    shown = {m: _at_longest(chapter.profiles.parts, m) for m in chapter.modes}
    shown = {m: part for m, part in shown.items() if len(part)}
    made = make_panels(len(shown))
    if made is None:
        return None
    figure, axes = made
    bars = max(len(_calls(part)) for part in shown.values())
    figure.set_figheight(_BEYOND_BARS + _BAR_HEIGHT * bars + 0.4)
    for ax, (mode, part) in zip(axes, shown.items(), strict=True):
        _bars(ax, part)
        ax.set_title(f"{mode}, at {numbers.tokens(part['seq_len'].iloc[0])} tokens")
    taken = [p for p in PROFILE_PARTS if any((_of(part, p) > 0).any() for part in shown.values())]
    figure.legend(
        handles=[Patch(facecolor=PARTS[p][0], edgecolor=INK, linewidth=0.3, label=p)
                 for p in taken],
        loc="outside lower center", ncols=len(taken),
        columnspacing=1.2, handlelength=1.2, handletextpad=0.5,
    )  # fmt: skip
    return figure


def _bars(ax: Axes, part: pd.DataFrame) -> None:
    """Draw a bar a backend, in ms, the first on top; one that is too long is pressed together.

    The axis reaches farther than the bars, and farther still where one says how long it is.
    """
    calls = _calls(part)
    end = min(calls.max(), FARTHEST * calls.median())
    scale = (end / calls).clip(upper=1.0)
    left = pd.Series(0.0, index=calls.index)
    for name in PROFILE_PARTS:
        width = 1e3 * _of(part, name).reindex(calls.index) * scale
        some = (width > 0).to_numpy()
        ax.barh(
            np.flatnonzero(some), width[some], left=left[some], height=0.7,
            color=PARTS[name][0], edgecolor=INK, linewidth=0.3,
        )  # fmt: skip
        _record(ax, part, name, left, width)
        left = left + width
    for index, (key, seconds) in enumerate(calls.items()):
        pressed = ", not to scale" if scale[key] < 1 else ""
        ax.annotate(
            f"{numbers.seconds(seconds)}{pressed}", (left[key], index), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8.5,
        )  # fmt: skip
    ax.set_xlim(0, float(left.max()) * (1.5 if (scale < 1).any() else 1.2))
    ax.set_yticks(range(len(calls)), [_shortened(label(*key)) for key in calls.index])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(calls) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_axisbelow(True)
    ax.set_xlabel("time per call (ms)")


def _record(ax: Axes, part: pd.DataFrame, name: str, left: pd.Series, width: pd.Series) -> None:
    """Record a part of every bar."""
    seconds = _of(part, name)
    for row, key in enumerate(left.index):
        if width[key] > 0:
            words = f"{name} {numbers.seconds(seconds[key])}"
            bar = plot_data.Bar(
                key[0], label(*key), name, row, float(left[key]),
                float(left[key] + width[key]), PARTS[name][0], words,
            )  # fmt: skip
            plot_data.shown(ax).bars.append(bar)


def _at_longest(parts: pd.DataFrame, mode: str) -> pd.DataFrame:
    """Return the rows of a mode at the longest length at which most series have a profile."""
    rows = parts[parts["mode"] == mode]
    if rows.empty:
        return rows
    counts = rows.groupby("seq_len").size()
    return rows[rows["seq_len"] == counts[counts == counts.max()].index.max()]


def _calls(part: pd.DataFrame) -> pd.Series:
    """Return the seconds of each call, by backend and options, in the order of the rows."""
    return part.groupby(["backend", "options"], sort=False)["call"].first()


def _of(part: pd.DataFrame, name: str) -> pd.Series:
    """Return the seconds of a part, by backend and options."""
    return part[part["part"] == name].set_index(["backend", "options"])["seconds"]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
