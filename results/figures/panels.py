"""Parts of figures: panels, lines, axes, marks of failed cases, legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETDOWNBASE, CARETUPBASE

from results.analysis.warm_up import is_cut_short
from results.figures import plot_data
from results.figures.theme import INK, Look
from results.records.frames import as_rows
from results.text import numbers
from results.text.labels import label, rank

T = TypeVar("T")

SeriesKey = tuple[str, str]
"""Backend and options."""

LONGEST_LABEL = 44

WIDTH = 10.4
"""Of a figure, in inches: the page scales all alike."""

WHISKER = 2.0
"""A whisker ends at this factor from its value; one that goes on has an arrow there."""


def make_panels(count: int, columns: int = 0) -> tuple[Figure, list[Axes]] | None:
    """Return a figure with `count` panels, or None for none."""
    if not count:
        return None
    columns = min(columns or count, 2)
    rows = math.ceil(count / columns)
    width = WIDTH if columns == 2 else 7.0
    figure = Figure(figsize=(width, 4.5 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def each_panel(
    items: Sequence[T], draw: Callable[[Axes, T], None], columns: int = 0
) -> Figure | None:
    """Return a figure with a panel for each of `items`, drawn by `draw`; None for none."""
    made = make_panels(len(items), columns)
    if made is None:
        return None
    figure, axes = made
    for ax, item in zip(axes, items, strict=True):
        draw(ax, item)
    return figure


def lines(
    ax: Axes,
    part: pd.DataFrame,
    looks: Mapping[SeriesKey, Look],
    *,
    behind: str = "",
) -> None:
    """Draw one line a series with a whisker at every point; columns seq_len, value, ci_*.

    Where there are columns `note` and `ringed`, what a point is said of beside its value, and
    whether it has a ring around it; with `converged`, times whose warm-up was cut short are
    hollow. `behind` stands behind the names of the series.
    """
    ordered = part.sort_values("seq_len", kind="stable")
    series = {key: ordered[[k == key for k in keys(ordered)]] for key in dict.fromkeys(keys(part))}
    drawn = {key: _line(ax, line, looks[key]) for key, line in series.items()}
    for key, line in series.items():
        plot_data.line(ax, (key[0], f"{label(*key)}{behind}"), looks[key], _points(line))
        _whiskers(ax, line, looks[key])
        short = [is_cut_short(row) for row in as_rows(line)]
        if any(short):
            drawn[key].set_markevery([i for i, cut in enumerate(short) if not cut])
            own = line[np.asarray(short)]
            hollow_marks(ax, own["seq_len"], own["value"], looks[key])
        if "ringed" in line:
            rings = line[line["ringed"].astype(bool)]
            ax.plot(
                rings["seq_len"], rings["value"], marker="o", markersize=12, linestyle="none",
                markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4,
            )  # fmt: skip


def _line(ax: Axes, rows: pd.DataFrame, look: Look) -> Line2D:
    rows = rows[rows["value"].notna()]
    (line,) = ax.plot(
        rows["seq_len"].to_numpy(np.float64), rows["value"].to_numpy(np.float64),
        color=look.light, marker=look.marker, markeredgecolor="none", markeredgewidth=0.5,
    )  # fmt: skip
    line.set_dashes(look.dashes)  # type: ignore[arg-type]  # "" is a line without any
    return line


def _whiskers(ax: Axes, line: pd.DataFrame, look: Look) -> None:
    """Draw the interval of every point that has one, with an arrow where it goes on."""
    known = line[np.isfinite(line["ci_low"]) & np.isfinite(line["ci_high"])]
    known = known[(known["value"] > 0) & (known["ci_high"] > known["ci_low"])]
    x, value = known["seq_len"].to_numpy(np.float64), known["value"].to_numpy(np.float64)
    low, high = known["ci_low"].to_numpy(np.float64), known["ci_high"].to_numpy(np.float64)
    ends = np.maximum(low, value / WHISKER), np.minimum(high, value * WHISKER)
    ax.vlines(x, *ends, color=look.light, linewidth=1.2, alpha=0.75)
    for end, goes_on, marker in (
        (ends[0], low < ends[0], CARETDOWNBASE), (ends[1], high > ends[1], CARETUPBASE),
    ):  # fmt: skip
        if not goes_on.any():
            continue
        ax.plot(
            x[goes_on], end[goes_on], linestyle="none", marker=marker, markersize=5,
            color=look.light, markeredgecolor="none",
        )  # fmt: skip


def hollow_marks(ax: Axes, x: Any, y: Any, look: Look, size: float = 6.5) -> None:
    """Draw the marks of times whose warm-up was cut short."""
    ax.plot(
        x, y, marker=look.marker, markersize=size, linestyle="none", markerfacecolor="none",
        markeredgecolor=look.light, markeredgewidth=1.6,
    )  # fmt: skip


def _points(line: pd.DataFrame) -> Iterator[plot_data.Point]:
    for row in as_rows(line):
        yield plot_data.Point(
            row["seq_len"], row["value"], row["ci_low"], row["ci_high"],
            note=row.get("note", ""), ringed=row.get("ringed", False), hollow=is_cut_short(row),
        )  # fmt: skip


def keys(part: pd.DataFrame) -> list[SeriesKey]:
    """Return backend and options of every row."""
    return list(zip(part["backend"], part["options"], strict=True))


def failed_cases(part: pd.DataFrame) -> pd.DataFrame:
    """Return the failed cases of the series that succeeded somewhere."""
    alive = set(keys(part[part["value"] > 0]))
    inside = np.array([k in alive for k in keys(part)], dtype=bool)
    return part[inside & part["value"].isna().to_numpy() & (part["status"] != "ok").to_numpy()]


def mark_failures(ax: Axes, part: pd.DataFrame, looks: Mapping[SeriesKey, Look]) -> None:
    """Mark failed cases above the data: a cross at the length, the word at the first."""
    failed = failed_cases(part)
    rows = sorted(dict.fromkeys(keys(failed)), key=lambda k: (rank(k[0]), k[1]))
    if not rows:
        return
    # Room above the data for one line of text a series.
    low, high = ax.get_ylim()
    share = 0.03 + 0.065 * len(rows)
    ax.set_ylim(low, high * (high / low) ** (share / (1 - share)))
    left, right = (math.log(x) for x in ax.get_xlim())
    for index, key in enumerate(rows):
        own = failed[[k == key for k in keys(failed)]].sort_values("seq_len")
        color, height = looks[key].light, 0.97 - 0.065 * index
        ax.plot(
            own["seq_len"], np.full(len(own), height), linestyle="none", marker="x",
            markersize=7, markeredgewidth=2, color=color, transform=ax.get_xaxis_transform(),
            clip_on=False,
        )  # fmt: skip
        for row in as_rows(own):
            words = numbers.STATUS_WORDS.get(str(row["status"]), str(row["status"]))
            why = f"{words}: {row['reason']}" if row["reason"] else words
            case = plot_data.Failed(key[0], label(*key), looks[key], float(row["seq_len"]), why)
            plot_data.shown(ax).failed.append(case)
        first = own.iloc[0]
        word = numbers.STATUS_WORDS.get(str(first["status"]), str(first["status"]))
        beyond = (math.log(first["seq_len"]) - left) / (right - left) > 0.5
        ax.annotate(
            f"{cut(label(*key), 18)}: {word}", (first["seq_len"], height), color=color,
            xycoords=ax.get_xaxis_transform(), textcoords="offset points", va="center",
            xytext=(-8 if beyond else 8, 0), ha="right" if beyond else "left", fontsize=8.5,
            fontweight="bold",
        )  # fmt: skip


def legend(
    ax: Axes,
    part: pd.DataFrame,
    looks: Mapping[SeriesKey, Look],
    notes: Mapping[SeriesKey, str],
    *,
    with_lines: bool = True,
) -> None:
    """Put the legend below the panel: `notes` stand behind the names."""
    handles, texts = [], []
    for key in sorted(dict.fromkeys(keys(part)), key=lambda k: (rank(k[0]), k[1])):
        look = looks[key]
        handles.append(
            Line2D(
                [],
                [],
                color=look.light,
                marker=look.marker,
                linestyle=linestyle(look) if with_lines else "none",
            )
        )
        texts.append(f"{cut(label(*key), LONGEST_LABEL)}{notes.get(key, '')}")
        plot_data.shown(ax).notes[label(*key)] = notes.get(key, "").strip()
    long = max(len(t) for t in texts) > 30
    dashed = any(looks[k].dashes for k in keys(part))
    ax.legend(
        handles,
        # A leading zero-width space: matplotlib leaves out names that begin with an underscore.
        [f"\u200b{t}" if t.startswith("_") else t for t in texts],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=1 if long else 2,
        columnspacing=1.0,
        handlelength=3.6 if dashed else 1.9,
        handletextpad=0.5,
        labelspacing=0.35,
    )


def linestyle(look: Look) -> Any:
    """Return the dashes of a series as matplotlib takes them."""
    return (0, look.dashes) if look.dashes else "-"


def ink_line(style: Any) -> Line2D:
    """Return the handle of a line that is no series, for a legend."""
    return Line2D([], [], color=INK, linewidth=1.1, linestyle=style)


def cut(text: str, longest: int) -> str:
    """Return a text of at most so many characters, the last an ellipsis where some are lost."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def panel_row(
    count: int, *, height: float = 3.6, columns: int = 3
) -> tuple[Figure, list[Axes]] | None:
    """Return a figure with `count` smaller panels that share one legend, or None for none.

    Args:
        count: of panels.
        height: of a panel, in inches.
        columns: at most so many beside each other.
    """
    if not count:
        return None
    across = 2 if count == 4 else min(count, columns)
    down = math.ceil(count / across)
    figure = Figure(figsize=(WIDTH, height * down + 0.7), layout="constrained")
    return figure, [figure.add_subplot(down, across, i + 1) for i in range(count)]


def shared_legend(
    figure: Figure,
    series: Sequence[SeriesKey],
    looks: Mapping[SeriesKey, Look],
    *,
    with_lines: bool = True,
    others: Sequence[tuple[Line2D, str]] = (),
    names: Mapping[SeriesKey, str] | None = None,
) -> None:
    """Put one legend below all panels: the series, the known backends first, then `others`.

    A series that `names` has is called so.
    """
    handles, texts = [], []
    for key in sorted(dict.fromkeys(series), key=lambda k: (rank(k[0]), k[1])):
        look = looks[key]
        style: Any = linestyle(look) if with_lines else "none"
        handles.append(Line2D([], [], color=look.light, marker=look.marker, linestyle=style))
        texts.append(cut((names or {}).get(key) or label(*key), LONGEST_LABEL))
    handles += [handle for handle, _ in others]
    texts += [text for _, text in others]
    longest = max(map(len, texts), default=0)
    figure.legend(
        handles,
        [f"\u200b{t}" if t.startswith("_") else t for t in texts],
        loc="outside lower center",
        ncols=max(1, min(len(texts), 120 // (longest + 8))),
        columnspacing=1.2,
        handlelength=2.4,
        handletextpad=0.5,
        labelspacing=0.4,
    )
