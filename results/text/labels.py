"""Names with options as a case spells them: ``NAME:key=value,key=value``."""

from __future__ import annotations

import math
from collections.abc import Mapping

from results.schema import IDENTITY
from results.text import numbers

_VIEWS = {"steps": "equal steps", "time": "equal time", "operations": "equal FLOPs"}


def name_of(text: str) -> str:
    """Return what stands before the options."""
    return text.partition(":")[0]


def options_of(text: str) -> dict[str, str]:
    """Return the options of ``NAME:key=value,…``, and of ``key=value,…`` alone.

    What has another form is left out: records are a stranger's.
    """
    head, colon, rest = text.partition(":")
    pairs = (part.partition("=") for part in (rest if colon else head).split(","))
    return {key: value for key, equals, value in pairs if equals}


def number_of(text: str) -> float:
    """Return an option's value as a number, NaN for none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and "_" not in text else math.nan


def written(options: Mapping[str, str]) -> str:
    """Write options as people read them: ``lr 0.002, pretrain 0.5``."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in options.items())


def view_name(training: str) -> str:
    """Return what is equal in a training, in words: ``equal steps``."""
    view = name_of(training)
    return _VIEWS.get(view, view)


def training_name(text: str) -> str:
    """Return what a training may spend, in words: ``equal steps (400), lr 0.002``."""
    amount, rest = _budget(text)
    told = f" ({amount.removesuffix(' steps')})" if amount else ""
    return ", ".join(part for part in (f"{view_name(text)}{told}", rest) if part)


def budget_name(text: str) -> str:
    """Return the same without what is equal: ``400 steps, lr 0.002``."""
    return ", ".join(part for part in _budget(text) if part)


def _budget(text: str) -> tuple[str, str]:
    """Return the amount with its unit, "" for none, and the other options."""
    options = options_of(text)
    amount = number_of(options.pop("amount", ""))
    if not math.isfinite(amount):
        return "", written(options)
    by_view = {
        "time": numbers.seconds(amount),
        "operations": f"{amount:,.10g} steps of exact attention",
    }
    return by_view.get(name_of(text), f"{amount:,.10g} steps"), written(options)


BACKENDS = ("full", "sdpa", "xformers", "longformer", "bigbird", "linformer", "performer")
"""The order of the known backends in tables and figures; others follow by name."""


def label(backend: str, options: str) -> str:
    """Return a series' name as the command line writes it."""
    return f"{backend}:{options}" if options else backend


def rank(backend: str) -> tuple[int, str]:
    """Return the sort key of a backend: the known ones first, in their order."""
    known = BACKENDS.index(backend) if backend in BACKENDS else len(BACKENDS)
    return known + (backend == IDENTITY), backend
