"""Times whose warm-up was cut short: one judgement, and one mark wherever such a time is shown.

A warm-up that ended before calls stopped getting faster leaves first calls among the samples: the
time may be too long, and what is slower than another by it may be faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from results.text import numbers

MARK = "†"

WORDS = "warm-up cut short"

NOTE = f"{MARK} Warm-up cut short before calls stopped getting faster: the time may be too long."
"""What a table or a paragraph says that has the mark."""

HOLLOW = (
    "Hollow marks: warm-up cut short before calls stopped getting faster; the time may be too "
    "long."
)
"""What a figure says that has such a time."""


def converged(told: Iterable[object]) -> bool | None:
    """Return whether all warm-ups converged: False where one did not, None where unknown.

    Args:
        told: values of a column `converged`.
    """
    known = [bool(t) for t in told if isinstance(t, bool | np.bool_)]
    return all(known) if known else None


def is_cut_short(row: Mapping[Any, Any]) -> bool:
    """Whether the time of a row is one whose warm-up was cut short; by its column `converged`."""
    return converged([row.get("converged")]) is False


def marked(text: str, row: Mapping[Any, Any]) -> str:
    """Return a time as written, with `MARK` where the row's warm-up was cut short."""
    return f"{text} {MARK}" if is_cut_short(row) and text != numbers.NONE else text


_TOLD = "warm-ups were cut short"


def is_sentence(text: str) -> bool:
    """Whether a text is one that `sentence` returns."""
    return _TOLD in text


def sentence(cut: int, known: int) -> str:
    """Say how many of the warm-ups of a run were cut short."""
    return (
        f"{cut:,} of {known:,} {_TOLD} before their calls stopped getting faster: "
        f"a time that rests on one is marked {MARK} (hollow in figures) and may be too long; a "
        "longer --case-timeout prevents that."
    )


def of_lengths(told: Mapping[int, object]) -> tuple[bool | None, str]:
    """Return what a result over several lengths rests on: `converged`, and a remark, "" for none.

    Args:
        told: length to its `converged`.
    """
    short = sorted(n for n, one in told.items() if converged([one]) is False)
    if not short:
        return converged(told.values()), ""
    where = numbers.few([numbers.tokens(n) for n in short])
    return False, f"{WORDS} at {where} of {len(told)} lengths"
