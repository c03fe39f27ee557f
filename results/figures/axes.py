"""Axes of figures: their scales, ends, ticks and labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, NullLocator

from results.figures import plot_data
from results.metrics import METRICS
from results.text import numbers
from results.text.modes import WORDS
from results.text.written import WRITERS

_NEAR_ONE = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


def finish(
    ax: Axes,
    title: str,
    what: str,
    part: pd.DataFrame,
    ticks: Callable[[Any], None],
    mode: str,
) -> None:
    """Give a panel of lines its title, its logarithmic axes and their ticks."""
    ax.set_yscale("log")
    # From the values: an interval may be a hundred times as wide, its whisker ends before this.
    pad(ax.set_ylim, part["value"], 2.2 if part["ci_low"].notna().any() else 1.5)
    ticks(ax.yaxis)
    length_axis(ax, part["seq_len"], mode)
    ax.set_title(title)
    ax.set_ylabel(what)


def pad(setter: Callable[..., Any], values: pd.Series, factor: float) -> None:
    """Set the limits of a logarithmic axis: `factor` beyond the values on both sides."""
    setter(float(values.min()) / factor, float(values.max()) * factor)


def length_axis(ax: Axes, lengths: pd.Series, mode: str) -> None:
    """Make the x axis one of a mode's lengths: base 2, ticks at measured lengths."""
    shown = sorted(set(lengths))
    ax.set_xscale("log", base=2)
    pad(ax.set_xlim, pd.Series(shown), 1.18)
    # Ticks closer than this would write over each other.
    kept: list[int] = []
    gap = max(1.3, (shown[-1] / shown[0]) ** (1 / 8))
    for n in sorted(shown, key=lambda n: (not _round_length(n), -n)):
        if all(max(n, k) / min(n, k) >= gap for k in kept):
            kept.append(n)
    ax.xaxis.set_major_locator(FixedLocator(sorted(kept)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.tick_length(x)))
    plot_data.kind(ax.xaxis, "tokens")
    ax.set_xlabel(WORDS[mode].length)


def _round_length(n: int) -> bool:
    return n & (n - 1) == 0


def time_ticks(axis: Any) -> None:
    """Write the ticks of an axis in seconds as 10 ms, 1 s."""
    _ticks(axis, "seconds", lambda y: trimmed(numbers.seconds(y)))
    _at_least_two(axis)


def size_ticks(axis: Any) -> None:
    """Write the ticks of an axis in bytes as 16 MiB, 4 GiB, at powers of two."""
    low, high = axis.get_view_interval()
    powers = LogLocator(base=16 if high / low > 300 else 4, numticks=12)
    _ticks(axis, "bytes", lambda y: trimmed(numbers.size(y)), powers)


def ratio_ticks(axis: Any) -> None:
    """Write the ticks of an axis of ratios as 0.5 ×, 2 ×; of a narrow one as 0.8 ×, 1.25 ×."""
    low, high = axis.get_view_interval()
    near_one = FixedLocator([t for t in _NEAR_ONE if low <= t <= high])
    apart = LogLocator(base=10, subs=(1, 2, 5), numticks=12)
    _ticks(axis, "ratio", lambda y: f"{y:g} ×", near_one if high < 6 * low else apart)


def error_ticks(axis: Any) -> None:
    """Write the ticks of an axis of relative errors."""
    _ticks(axis, "error", lambda y: f"{y:g}")
    _at_least_two(axis)


def operation_ticks(axis: Any) -> None:
    """Write the ticks of an axis of operations as 10 Mop, 1 Gop."""
    _ticks(axis, "operations", lambda y: trimmed(WRITERS["operations"](y)))


def ticks_of(metric: str) -> Callable[[Any], None]:
    """Return what writes the ticks of an axis as the values of a metric are written."""
    return _TICKS[METRICS[metric].written]


_TICKS: Mapping[str, Callable[[Any], None]] = {
    "seconds": time_ticks, "bytes": size_ticks, "error": error_ticks,
    "operations": operation_ticks,
}  # fmt: skip


def _ticks(axis: Any, kind: str, write: Callable[[float], str], at: Locator | None = None) -> None:
    """Set the ticks of a logarithmic axis, at powers of ten unless it is said where."""
    axis.set_major_locator(at or LogLocator(base=10, numticks=9))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    plot_data.kind(axis, kind)


def _at_least_two(axis: Any) -> None:
    """Give a narrow range more ticks: one label alone does not show a scale."""
    low, high = axis.get_view_interval()
    if sum(low <= t <= high for t in axis.get_major_locator()()) < 2:
        steps = (1, 3) if high / low > 6 else (1, 1.5, 2, 3, 5, 7)
        axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))


def trimmed(text: str) -> str:
    """Return an amount with its unit as a tick writes it: 20.0 ms → 20 ms."""
    number, _, unit = text.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def log_cost(ax: Axes, values: Sequence[float], metric: str) -> None:
    """Make the x axis one of a cost: logarithmic, with few ticks that do not touch."""
    ax.set_xscale("log")
    low, high = min(values), max(values)
    factor = 1.6 if high < 4 * low else 1.25 * (high / low) ** 0.06
    ax.set_xlim(low / factor, high * factor)
    ticks_of(metric)(ax.xaxis)
    low, high = ax.get_xlim()
    inside = [t for t in ax.xaxis.get_major_locator()() if low <= t <= high]
    if len(inside) > 5:
        inside = inside[:: math.ceil(len(inside) / 4)]
    if len(inside) < 2:  # between two ticks of the scale: its ends and middle say where
        inside = [_round(low * (high / low) ** share) for share in (0.15, 0.5, 0.85)]
    ax.xaxis.set_major_locator(FixedLocator(inside))


def _round(value: float) -> float:
    return float(f"{value:.2g}")
