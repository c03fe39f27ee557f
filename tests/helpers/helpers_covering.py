"""Parameters whose every pair of values meets in a test, in place of the whole product."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations, product
from typing import Any

import pytest


def covering(*given: tuple[str, Collection[Any]]) -> pytest.MarkDecorator:
    """Return the mark of a test whose cases bring every pair of two axes' values together.

    A fault that needs three values at once may be missed, one that needs two is not.

    Args:
        given: the argument and its values. One of several arguments, ``"name, options"``, has
            tuples of their values.
    """
    axes = [(name, list(values)) for name, values in given]
    rows = [*product(*(range(len(values)) for _, values in axes))]
    missing = {pair for row in rows for pair in _pairs(row)}
    cases = []
    while missing:
        row = max(rows, key=lambda row: len(missing.intersection(_pairs(row))))
        missing.difference_update(_pairs(row))
        chosen = [values[at] for (_, values), at in zip(axes, row, strict=True)]
        flat = [
            value
            for (name, _), part in zip(axes, chosen, strict=True)
            for value in (part if "," in name else [part])
        ]
        cases.append(pytest.param(*flat, id="-".join(map(str, flat))))
    return pytest.mark.parametrize(", ".join(name for name, _ in axes), cases)


def _pairs(row: Sequence[int]) -> list[tuple[tuple[int, int], ...]]:
    """Return the pairs of (axis, value) that a row brings together."""
    return [*combinations(enumerate(row), 2)]
