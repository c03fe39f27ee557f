"""Lengths of the documents of a packed row, as the command line writes them. No torch."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from suites.parsing import parse_backend

FORM = "expected lengths as 512,300,212, uniform:low=64,high=512 or lognormal:mean=512,sigma=1"

_DRAWN: Mapping[str, Mapping[str, float]] = {
    "uniform": {"low": 64, "high": 512},
    "lognormal": {"mean": 512, "sigma": 1.0},
}


def parse_documents(text: str) -> str:
    """Read the documents of a row; return them as a case writes them: ``512+300+212``.

    Raises:
        ValueError: if the text has another form, or a value is out of range.
    """
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() for part in parts):
        if min(map(int, parts)) < 1:
            raise ValueError(f"{FORM}; each at least 1, got {text!r}")
        return "+".join(str(int(part)) for part in parts)
    name, values = _drawn(text)
    return f"{name}:" + ",".join(f"{key}={value:g}" for key, value in values.items())


def documents_of(text: str, total: int, seed: int) -> list[int]:
    """Return the lengths of the documents of a row of `total` tokens; the last one is cut to fit.

    Raises:
        ValueError: if the text has another form, or lengths that are given have another sum.
    """
    if text.replace("+", "").isdecimal():
        given = [int(part) for part in text.split("+")]
        if sum(given) != total:
            raise ValueError(f"packed: {text} is {sum(given)} tokens, the row has {total}")
        return given
    name, values = _drawn(text)
    draw, lengths = random.Random(seed), list[int]()
    while (left := total - sum(lengths)) > 0:
        if name == "uniform":
            length = draw.randint(int(values["low"]), int(values["high"]))
        else:  # the mean of the lengths is `mean`, not that of their logarithms
            middle = math.log(values["mean"]) - values["sigma"] ** 2 / 2
            length = round(draw.lognormvariate(middle, values["sigma"]))
        lengths.append(min(left, max(1, length)))
    return lengths


def total_of(text: str) -> int | None:
    """Return the tokens of a row whose documents are given; ``None`` = they are drawn."""
    given = text.replace("+", "").isdecimal()
    return sum(map(int, text.split("+"))) if given else None


def _drawn(text: str) -> tuple[str, dict[str, float]]:
    """Read the name of a distribution and its values."""
    arm = parse_backend(text)
    if arm.name not in _DRAWN:
        raise ValueError(f"{FORM}, got {text!r}")
    values: dict[str, Any] = {**_DRAWN[arm.name], **arm.options}
    if unknown := [key for key in values if key not in _DRAWN[arm.name]]:
        raise ValueError(f"{FORM}; {arm.name} has no {unknown[0]}")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**40:
            raise ValueError(f"{FORM}; {key} above 0, got {value!r}")
    if arm.name == "uniform" and not 1 <= values["low"] <= values["high"]:
        raise ValueError(f"{FORM}; low from 1 to high, got {text!r}")
    return arm.name, values
