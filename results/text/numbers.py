"""Numbers as people read them: tokens, times, sizes, ratios with their intervals.

A value is rounded to the nearest; a bound away from the value, so that what is said of it holds:
the lower end of an interval down, the upper end up, and "from N tokens on" up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from results.schema import format_option
from results.text import numbers
from results.text.clean import clean

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


To = Literal["nearest", "down", "up"]
"""Where to a number is rounded."""

_SAME = 1e-9
"""Of a number: closer than this to a rounded one, it is that one; the rest is arithmetic's."""


class Write(Protocol):
    """Writes a number; `to` says where to it is rounded."""

    def __call__(self, value: float, /, *, to: To = "nearest") -> str:
        """Return the number as text."""


def rounded(value: float, places: int, to: To = "nearest") -> float:
    """Return a finite number rounded to so many decimal places."""
    near = round(value, places)
    if to == "nearest" or abs(near - value) <= _SAME * abs(value):
        return near
    if (near > value) == (to == "up"):
        return near
    step = 10.0**-places
    return round(near + step if to == "up" else near - step, places)


def digits(value: float, significant: int = 3, *, to: To = "nearest") -> str:
    """Write `value` with so many significant digits, without an exponent: 1234.5 → 1,230."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    places = significant - 1 - math.floor(math.log10(abs(value)))
    return f"{rounded(value, places, to):,.{max(0, places)}f}"


def supported(value: float, low: float, high: float) -> int:
    """Return how many digits of a value its interval supports: 3 to ±1 %, 2 to ±100 %, else 1.

    Without an interval three.
    """
    if not (math.isfinite(low) and math.isfinite(high)) or value <= 0:
        return 3
    half = max(high / value, value / low if low > 0 else math.inf) - 1
    return 3 if half <= 0.01 else 2 if half <= 1 else 1


def seconds(value: float, *, to: To = "nearest", significant: int = 3) -> str:
    """Write a time: 0.0123 → 12.3 ms."""
    return _scaled(value, _TIMES, to, significant)


def size(value: float, *, to: To = "nearest", significant: int = 3) -> str:
    """Write bytes: 3145728 → 3.00 MiB."""
    return _scaled(value, _SIZES, to, significant)


def _scaled(
    value: float, units: tuple[tuple[float, str], ...], to: To, significant: int = 3
) -> str:
    if not math.isfinite(value):
        return NONE
    # Rounding to three digits may reach the next unit: 999.7 ms is 1.00 s.
    least = 1 - 0.5 * 10.0**-significant
    factor, unit = next(((f, u) for f, u in units if abs(value) >= least * f), units[-1])
    return f"{digits(value / factor, significant, to=to)} {unit}"


def tick_length(tokens: float) -> str:
    """Write a length for an axis: 512, 1k, 1.5k, 64k, 1M (k = 1024)."""
    n = round(tokens)
    if n >= 2**20 and n % 2**20 == 0:
        return f"{n // 2**20}M"
    if n >= 1024 and n % 512 == 0:
        return f"{n / 1024:g}k"
    return f"{n:,}"


def tokens(value: float, *, to: To = "nearest") -> str:
    """Write a length in text: 16,384."""
    return f"{rounded(value, 0, to):,.0f}" if math.isfinite(value) else NONE


def about_tokens(value: float, *, to: To = "nearest", significant: int = 3) -> str:
    """Write a length that was interpolated, with three digits: 3,650."""
    return digits(value, significant, to=to) if value >= 100 else tokens(value, to=to)


def from_tokens(row: Mapping[Any, Any]) -> str:
    """Write from which length on something holds: `seq_len` of a row, rounded up.

    It has three digits where its interval is within 10 %, else two: 653 (540–757) → 660.
    """
    at, low, high = (row[c] for c in ("seq_len", "ci_low", "ci_high"))
    is_wide = low < 0.9 * at or high > 1.1 * at
    return about_tokens(at, to="up", significant=2 if is_wide else 3)


def exponent(value: float, *, to: To = "nearest") -> str:
    """Write an exponent to two digits; what rounds to nothing has no sign."""
    return f"{rounded(value, 2, to) + 0.0:.2f}" if math.isfinite(value) else NONE


def interval(low: float, high: float, write: Write = digits, *, unit: str = "") -> str:
    """Write an interval in brackets, its ends rounded outward, or nothing where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    if low == high:
        return f"({write(low)}–{write(high)}{unit})"
    return f"({write(low, to='down')}–{write(high, to='up')}{unit})"


def times(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Write a ratio: 4.6 × (4.2–5.0); an interval that says nothing is called so."""
    between = interval(low, high, ratio_digits)
    if between and not high <= WIDEST * low:
        between = f"(interval wider than {WIDEST}-fold)"
    return f"{ratio_digits(value)} ×{f' {between}' if between else ''}"


def ratio_digits(value: float, *, to: To = "nearest") -> str:
    """Write a ratio with two significant digits, three close to 1."""
    return digits(value, 3 if 0.95 < value < 10 else 2, to=to)


def percent(value: float, *, to: To = "nearest") -> str:
    """Write a share: 0.634 → 63 %."""
    if not math.isfinite(value):
        return NONE
    return f"{digits(value * 100, 2 if value < 0.995 else 3, to=to)} %"


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


def few(items: list[str], most: int = 3) -> str:
    """Join the first items, and say how many more there are."""
    more = len(items) - most
    return listing([*items[:most], f"{more:,} more"]) if more > 0 else listing(items)


def clean_option(value: object) -> str:
    """Write an option of a stranger's record, short and on one line."""
    return clean(format_option(value))[:60]


def status_word(status: str) -> str:
    """Write a status for people."""
    return numbers.STATUS_WORDS.get(status, status)


def small_number(value: float) -> str:
    """Write an error: 0.31, 2.1e-07."""
    if not math.isfinite(value):
        return numbers.NONE
    return f"{value:.1e}" if 0 < value < 1e-3 else numbers.digits(value, 2)
