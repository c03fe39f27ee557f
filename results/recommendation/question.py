"""What is asked of the records: a length, a mode, limits; and whether a number meets a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from results.recommendation.interpolation import Reading
from results.schema import ALLOCATORS, DEVICES, DTYPES, MATMUL_PRECISIONS, SPEED_MODES
from results.text import numbers
from results.text.amounts import parse_size, write_size
from results.text.clean import clean

LIMITS = ("max_error", "min_recall", "max_memory")

LONGEST = 2**53
"""The longest length that a record may have."""


@dataclass(frozen=True)
class Question:
    """A question, checked; fields as of `recommendation.recommend`.

    Attributes:
        seq_len: tokens.
        mode: one of `SPEED_MODES`.
        device: one of `DEVICES`.
        is_causal: true in mode decode.
        max_error: None = no limit, as of the other two.
        min_recall: likewise.
        max_memory: bytes.
        error_inputs: of kind error; None = kind speed's own first.
        recall_task: None = the one most candidates were asked.
        setting: columns of `case_columns.SETTING` to the values chosen.
    """

    seq_len: int
    mode: str
    device: str
    is_causal: bool
    max_error: float | None
    min_recall: float | None
    max_memory: int | None
    error_inputs: str | None
    recall_task: str | None
    setting: Mapping[str, Any]

    def limit(self, name: str) -> float | None:
        """Return one of `LIMITS`."""
        value: float | None = getattr(self, name)
        return value


def checked(
    *,
    seq_len: Any,
    mode: Any,
    device: Any,
    is_causal: Any,
    max_error: Any,
    min_recall: Any,
    max_memory: Any,
    error_inputs: Any,
    recall_task: Any,
    setting: Mapping[str, Any],
) -> Question:
    """Return the question; arguments as of `recommendation.recommend`.

    Raises:
        TypeError: if one is of the wrong type; the message names it and what is accepted.
        ValueError: if one is out of range, likewise.
    """
    if isinstance(max_memory, str):
        try:
            max_memory = parse_size(max_memory)
        except ValueError as error:
            raise ValueError(f"max_memory: {error}") from None
    choose = {name: value for name, value in setting.items() if value is not None}
    for name, value in choose.items():
        choose[name] = SETTINGS[name](name, value)
    mode = _choice(SPEED_MODES)("mode", mode)
    causal = _bool("is_causal", is_causal)
    return Question(
        seq_len=_count("seq_len", seq_len),
        mode=mode,
        device=_choice(DEVICES)("device", device),
        is_causal=causal or mode == "decode",
        max_error=_number("max_error", max_error),
        min_recall=_number("min_recall", min_recall, most=1.0),
        max_memory=None if max_memory is None else _count("max_memory", max_memory),
        error_inputs=_text("error_inputs", error_inputs),
        recall_task=_text("recall_task", recall_task),
        setting=choose,
    )


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    if not 1 <= int(value) <= LONGEST:
        raise ValueError(f"{name}: expected 1 to 2⁵³, got {value}")
    return int(value)


def _number(name: str, value: Any, *, most: float = math.inf) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not (0 < float(value) <= most and math.isfinite(value)):
        top = f" up to {most:g}" if most < math.inf else ""
        raise ValueError(f"{name}: expected a finite number above 0{top}, got {value}")
    return float(value)


def _bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected true or false, got {value!r}")
    return value


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: expected text or None, got {value!r}")
    if value == "":
        raise ValueError(f"{name}: expected a name such as NAME:key=value, got an empty text")
    return value


def _choice(choices: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        return value

    return check


SETTINGS: Mapping[str, Callable[[str, Any], Any]] = {
    "dtype": _choice(DTYPES), "batch": _count, "num_heads": _count, "num_kv_heads": _count,
    "head_dim": _count, "threads": _count, "allocator": _choice(ALLOCATORS),
    "matmul_precision": _choice(MATMUL_PRECISIONS), "compile": _bool,
}  # fmt: skip
"""What of a setting can be chosen, to its check."""


# -- limits --------------------------------------------------------------------------------------

QUANTITIES: Mapping[str, str] = {
    "latency": "latency", "max_error": "error", "min_recall": "recall", "max_memory": "memory",
}  # fmt: skip
"""What each limit is a limit of; `latency` has none, but must be known."""


def write(name: str, value: float, *, to: numbers.To = "nearest") -> str:
    """Write a value of the quantity that a limit bounds."""
    if name == "max_memory":
        return numbers.size(value, to=to)
    return numbers.percent(value, to=to) if name == "min_recall" else error_digits(value, to=to)


def write_limit(name: str, limit: float) -> str:
    """Write a limit as it was given; memory beside what the values are written in."""
    if name == "max_error":
        return f"{limit:g}"
    if name == "min_recall":
        return f"{100 * limit:g} %"
    given, shown = write_size(int(limit)), numbers.size(limit)
    return f"{given} ({shown})" if len(given) <= _SHORT else shown


_SHORT = 8
"""Letters of an amount that a user may have written."""


def error_digits(value: float, *, to: numbers.To = "nearest") -> str:
    """Write an error: two digits, those of rounding with an exponent."""
    if 0 < value < 1e-3:
        places = 1 - math.floor(math.log10(value))
        return f"{numbers.rounded(value, places, to):.1e}".replace("e-0", "e-")
    return numbers.digits(value, 2, to=to)


def shortfall(name: str, reading: Reading, limit: float | None) -> str:
    """Return why a reading does not meet a limit, "" if it does or there is none.

    The worse end of the interval decides, the value where there is no interval.
    """
    if limit is None:
        return ""
    what = QUANTITIES[name]
    on = f" on {clean(reading.on)}" if reading.on else ""
    if not reading.known:
        return f"{what}{on}: {reading.note or 'never measured'}"
    floor = name == "min_recall"
    value, at_most = write(name, reading.value), write_limit(name, limit)
    if floor and reading.lacking:
        return f"{what} {value}{on} is of {reading.lacking}"
    decisive = reading.least if floor else reading.greatest
    if (decisive >= limit) if floor else (decisive <= limit):
        return ""
    side, end = ("below", "lower") if floor else ("above", "upper")
    missed = (reading.value < limit) if floor else (reading.value > limit)
    if missed:
        return f"{what} {value}{on} is {side} {at_most}"
    return (
        f"{what} {value}{on} meets {at_most}, the {end} end of its interval, "
        f"{write(name, decisive, to='down' if floor else 'up')}, does not"
    )
