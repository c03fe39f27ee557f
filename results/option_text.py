"""Options and lengths as the command line writes them."""

from __future__ import annotations

import math
import re
from typing import Any


def format_option(value: Any) -> str:
    """Write an option's value as the command line reads it; lists are joined by ``+``."""
    if isinstance(value, list | tuple):
        return "+".join(format_option(v) for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)


def parse_option(text: str) -> Any:
    """Read an option's value as `format_option` writes it: by its literal form, else text."""
    literal = _literal(text)
    if isinstance(literal, str) and "+" in text:  # 1e+5 is a number, 1+2 a list
        return [_literal(part) for part in text.split("+")]
    return literal


def _literal(text: str) -> int | float | bool | str | None:
    words: dict[str, bool | None] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return text


LONGEST = 2**53
"""The longest length that a record may have."""

_LENGTH = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?)([kKmM]?)", re.ASCII)

_TOKENS = {"": 1, "k": 2**10, "m": 2**20}


def parse_length(text: str) -> int:
    """Read a length in tokens, as ``16384``, ``16k`` (k = 1,024) or ``1m`` (m = 1,048,576).

    Raises:
        ValueError: if the text is no such length, or no whole number of tokens from 1.
    """
    match = _LENGTH.fullmatch(text.strip())
    tokens = float(match[1]) * _TOKENS[match[2].lower()] if match else math.nan
    if match and match[1].isdecimal():
        tokens = int(match[1]) * _TOKENS[match[2].lower()]
    if not (1 <= tokens <= LONGEST and tokens == int(tokens)):
        raise ValueError(f"expected tokens as 16384, 16k or 1m, got {text[:60]!r}")
    return int(tokens)
