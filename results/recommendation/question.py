"""What is asked of the records: a length, a mode, limits; and whether a number meets a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, get_args

from results.recommendation.interpolation import Reading
from results.recommendation.quality import USELESS, Evidence, Use, error_digits
from results.schema import (
    ALLOCATORS,
    DEVICES,
    DTYPES,
    LONGEST,
    MATMUL_PRECISIONS,
    SPEED_MODES,
    parse_length,
)
from results.text import numbers
from results.text.amounts import parse_size, write_size

LIMITS = ("max_error", "min_recall", "max_memory")


@dataclass(frozen=True)
class Question:
    """A question, checked; fields as of `recommendation.recommend`.

    Attributes:
        seq_len: tokens.
        mode: one of `SPEED_MODES`.
        use: what it is wanted for; None = any.
        device: one of `DEVICES`.
        is_causal: true in mode decode.
        max_error: None = no limit, as of the other two.
        min_recall: likewise.
        max_memory: bytes.
        error_inputs: on which an error counts; None = those of a trained model first.
        recall_task: None = any recall.
        setting: columns of `case_columns.SETTING` to the values chosen.
    """

    seq_len: int
    mode: str
    use: Use | None
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

    @property
    def bounds_quality(self) -> bool:
        """Whether a limit says which quality will do: then no other judgement is made."""
        return self.max_error is not None or self.min_recall is not None


def checked(
    *,
    seq_len: Any,
    mode: Any,
    use: Any,
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
    if use is not None:
        use = _choice(get_args(Use))("use", use)
    if mode is None:
        mode = "decode" if use == "decode" else "forward"
    mode = _choice(SPEED_MODES)("mode", mode)
    if isinstance(seq_len, str):
        try:
            seq_len = parse_length(seq_len)
        except ValueError as error:
            raise ValueError(f"seq_len: {error}") from None
    if use == "decode" and mode != "decode":
        raise ValueError(f"use: decode goes with mode decode, got mode {mode}")
    causal = _bool("is_causal", is_causal)
    return Question(
        seq_len=_count("seq_len", seq_len),
        mode=mode,
        use=use,
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


def too_much_memory(memory: Reading, limit: float | None) -> str:
    """Return why a memory does not meet a limit, "" if it does or there is none.

    The upper end of the interval decides, the value where there is no interval.
    """
    if limit is None:
        return ""
    if not memory.known:
        return f"memory: {memory.note or 'never measured'}"
    if memory.greatest <= limit:
        return ""
    value, most = write("max_memory", memory.value), write_limit("max_memory", limit)
    if memory.value > limit:
        return f"memory {value} is above {most}"
    end = write("max_memory", memory.greatest, to="up")
    return f"memory {value} meets {most}, the upper end of its interval, {end}, does not"


def too_far(error: Evidence | None, limit: float | None) -> str:
    """Return why an error does not meet a limit, "" if it does or there is none.

    One that says nothing meets a limit above 1 alone: who gives it, asks for it.
    """
    if limit is None:
        return ""
    if error is None:
        return "error: not measured"
    if not error.counts and limit <= USELESS:
        return error.text
    return "" if error.greatest <= limit else f"{error.text} is above {limit:g}"


def too_forgetful(recall: Evidence | None, limit: float | None) -> str:
    """Return why a recall does not meet a limit, "" if it does or there is none.

    The lower end of the interval decides, the value where there is no interval.
    """
    if limit is None:
        return ""
    if recall is None:
        return "recall: not measured"
    least = write_limit("min_recall", limit)
    if recall.lacking or recall.value < limit:
        return f"{recall.text} is below {least}" if recall.value < limit else recall.text
    if recall.least >= limit:
        return ""
    end = write("min_recall", recall.least, to="down")
    return f"{recall.text} meets {least}, the lower end of its interval, {end}, does not"
