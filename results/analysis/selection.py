"""Cases chosen by what they are of: ``backend=sdpa``, ``seq-len=512,1024``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.records.frames import as_rows
from results.schema import parse_length
from results.text.labels import label, name_of

CHOICES = (
    "backend", "mode", "level", "seq_len", "key_len", "batch", "num_heads", "num_kv_heads",
    "head_dim", "device", "dtype", "causal", "threads", "allocator", "matmul_precision",
    "compile", "model", "checkpointing", "packed", "padded",
)  # fmt: skip
"""What cases are chosen by, in the words of the sweep's options."""

_COLUMNS = {"causal": "is_causal"}

_LENGTHS = ("seq_len", "key_len")

_SWITCHES = ("causal", "compile", "checkpointing", "padded")

Flags = NDArray[np.bool_]

Selection = Mapping[str, tuple[str, ...]]
"""A name of `CHOICES` to the values that are accepted, as text."""


def parse(texts: Sequence[str]) -> Selection:
    """Read ``NAME=VALUE,…`` in the words of the sweep's options.

    One name given twice accepts the values of both; a case must be accepted by every name. A
    backend or model with options is one value: ``backend=longformer:window=64,dilation=2``.

    Raises:
        ValueError: if a text has another form or names nothing that a case has.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        written, equals, rest = text.partition("=")
        name = written.strip().replace("-", "_")
        if not equals or name not in CHOICES:
            accepted = ", ".join(c.replace("_", "-") for c in CHOICES)
            raise ValueError(f"expected NAME=VALUE,… with NAME of {accepted}, got {text!r}")
        values = (rest,) if ":" in rest else tuple(part.strip() for part in rest.split(","))
        if not all(values):
            raise ValueError(f"expected NAME=VALUE,…, got {text!r}")
        if name in _LENGTHS:
            values = tuple(str(parse_length(value)) for value in values)
        found[name] = (*found.get(name, ()), *values)
    return found


def chosen(frame: pd.DataFrame, selection: Selection) -> Flags:
    """Return which rows of a tidy frame are of the cases that are chosen.

    Raises:
        ValueError: if a value is that of no row, with the values that there are; or if no row is
            of all that is asked.
    """
    kept = np.ones(len(frame), dtype=bool)
    for name, accepted in selection.items():
        names = [_names(name, row) for row in as_rows(frame)]
        for value in accepted:
            if not any(value in own for own in names):
                there = ", ".join(dict.fromkeys(own[-1] for own in names))
                raise ValueError(
                    f"no case in both runs has {name.replace('_', '-')}={value}; there are {there}"
                )
        kept &= np.array([any(v in accepted for v in own) for own in names], dtype=bool)
    if not kept.any():
        raise ValueError("no case in both runs is of all that is asked")
    return kept


def _names(choice: str, row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return what a row's value is called; the whole name last."""
    if choice == "backend":
        return row["backend"], label(row["backend"], row["options"])
    value = row[_COLUMNS.get(choice, choice)]
    if choice == "model":
        return name_of(value), value
    if choice in _SWITCHES:
        return ("on" if value else "off",)
    return (str(value),)
