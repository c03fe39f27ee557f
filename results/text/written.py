"""How a number of each kind is written: one word a kind, for tables, axes and metrics alike."""

from __future__ import annotations

from collections.abc import Mapping

from results.metrics import metric
from results.text import numbers


def ratio(value: float, /, *, to: numbers.To = "nearest") -> str:
    """Write a ratio: 1.25 ×."""
    return f"{numbers.ratio_digits(value, to=to)} ×"


def percent(value: float, /, *, to: numbers.To = "nearest") -> str:
    """Write what is in percent already: 63 %."""
    return f"{numbers.digits(value, to=to)} %"


def error(value: float, /, *, to: numbers.To = "nearest") -> str:
    """Write an error with two digits: 0.31, 2.1e-07."""
    return f"{value:.2g}"


def operations(value: float, /, *, to: numbers.To = "nearest") -> str:
    """Write floating-point operations: 180 GFLOP."""
    return f"{numbers.rate(value)}FLOP"


WRITERS: Mapping[str, numbers.Write] = {
    "tokens": numbers.tokens,
    "seconds": numbers.seconds,
    "bytes": numbers.size,
    "ratio": ratio,
    "share": numbers.percent,
    "percent": percent,
    "error": error,
    "operations": operations,
    "number": numbers.digits,
}
"""Kind of a number to what writes it; the page's script has their like."""


def writer(name: str, unit: str = "") -> numbers.Write:
    """Return what writes the values of a metric; of one without a kind, plain digits."""
    return WRITERS.get(metric(name, unit).written, numbers.digits)
