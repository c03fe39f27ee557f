"""Numbers as people read them: tokens, times, sizes, ratios with their intervals."""

from __future__ import annotations

import math

from results.checks import clean
from results.schema import format_option

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))

STATUS_WORDS = {
    "out_of_memory": "out of memory",
    "not_run": "not run",
    "unsupported": "unsupported",
    "timeout": "timeout",
    "crashed": "crashed",
    "failed": "failed",
    "ok": "ok",
}

NONE = "–"

WIDEST = 100
"""A ratio's interval wider than this factor is not spelled out."""


def digits(value: float, significant: int = 3) -> str:
    """Write `value` with so many significant digits, without an exponent: 1234.5 → 1,230."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    places = significant - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    return f"{rounded:,.{max(0, places)}f}"


def seconds(value: float) -> str:
    """Write a time: 0.0123 → 12.3 ms."""
    return _scaled(value, _TIMES)


def size(value: float) -> str:
    """Write bytes: 3145728 → 3.00 MiB."""
    return _scaled(value, _SIZES)


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    if not math.isfinite(value):
        return NONE
    # Rounding to three digits may reach the next unit: 999.7 ms is 1.00 s.
    factor, unit = next(((f, u) for f, u in units if abs(value) >= 0.9995 * f), units[-1])
    return f"{digits(value / factor)} {unit}"


def tick_length(tokens: float) -> str:
    """Write a length for an axis: 512, 1k, 1.5k, 64k, 1M (k = 1024)."""
    n = round(tokens)
    if n >= 2**20 and n % 2**20 == 0:
        return f"{n // 2**20}M"
    if n >= 1024 and n % 512 == 0:
        return f"{n / 1024:g}k"
    return f"{n:,}"


def tokens(value: float, *, rounded: bool = False) -> str:
    """Write a length in text: 16,384; `rounded` to two digits where it was interpolated."""
    if not math.isfinite(value):
        return NONE
    return digits(value, 2) if rounded and value >= 10 else f"{round(value):,}"


def exponent(value: float) -> str:
    """Write an exponent to two digits; what rounds to nothing has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"


def interval(low: float, high: float, write: object = None, *, unit: str = "") -> str:
    """Write an interval in brackets, or nothing where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    put = write if callable(write) else digits
    return f"({put(low)}–{put(high)}{unit})"


def times(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Write a ratio: 4.6 × (4.2–5.0); an interval that says nothing is called so."""
    between = interval(low, high, ratio_digits)
    if between and not high <= WIDEST * low:
        between = f"(interval wider than {WIDEST}-fold)"
    return f"{ratio_digits(value)} ×{f' {between}' if between else ''}"


def ratio_digits(value: float) -> str:
    """Write a ratio with two significant digits, three close to 1."""
    return digits(value, 3 if 0.95 < value < 10 else 2)


def percent(value: float) -> str:
    """Write a share: 0.634 → 63 %."""
    if not math.isfinite(value):
        return NONE
    return f"{digits(value * 100, 2 if value < 0.995 else 3)} %"


def rate(value: float) -> str:
    """Write a rate of operations or bytes a second with its SI prefix: 1.8e11 → 180 G."""
    if not math.isfinite(value):
        return NONE
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{digits(value / factor)} {prefix}"
    return f"{digits(value)} "


def listing(items: list[str]) -> str:
    """Join with commas and a last "and"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def clean_option(value: object) -> str:
    """Write an option of a stranger's record, short and on one line."""
    return clean(format_option(value))[:60]
