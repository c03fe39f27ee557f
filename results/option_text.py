"""Options as the command line writes them."""

from __future__ import annotations

import math
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
