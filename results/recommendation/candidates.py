"""The rows that a recommendation reads: those it ranks, checked, and the evidence that ships."""

from __future__ import annotations

import functools
import math

import pandas as pd

from results.records.frames import rows_by
from results.records.load import load
from results.records.reference_runs import REFERENCE
from results.records.tidy import COLUMNS
from results.schema import IDENTITY

_HELD = ("device", "mode", "is_causal", "dtype", "batch", "num_heads", "head_dim", "threads",
         "allocator", "compile")  # fmt: skip


def speed_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of kind speed and level attention, without floors and cross-attention.

    Raises:
        TypeError: if `frame` is no frame.
        ValueError: if a column is missing.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"frame: expected the frame of results.load(…), got {type(frame).__name__}"
        )
    if missing := [c for c in COLUMNS if c not in frame.columns]:
        raise ValueError(
            f"frame: expected the columns of results.load(…).frame; missing: {', '.join(missing)}"
        )
    return frame[
        (frame["kind"] == "speed")
        & (frame["level"] == "attention")
        & (frame["key_len"] == frame["seq_len"])
        & (frame["backend"] != IDENTITY)
    ]


def check_values(rows: pd.DataFrame) -> None:
    """Refuse numbers that no record has: a frame need not come from `load`.

    Raises:
        ValueError: naming the metric, backend and length, and what is accepted.
    """
    measured = rows[rows["metric"] != ""]
    value = pd.to_numeric(measured["value"], errors="coerce")
    bad = ~((value >= 0) & (value < math.inf)) | ((measured["metric"] == "latency") & (value <= 0))
    if bad.any():
        row = measured[bad].iloc[0]
        least = "above 0" if row["metric"] == "latency" else "from 0"
        raise ValueError(
            f"frame: {row['metric']} of {row['backend']} at {row['seq_len']} tokens: expected a "
            f"finite number {least}, got {row['value']!r}"
        )


def held(rows: pd.DataFrame) -> tuple[str, ...]:
    """Say what the rows are of, a line a setting: where nothing was found for a question."""
    lines = []
    for at, part in rows_by(rows, _HELD):
        count, shortest, longest = (
            part["backend"].nunique(), part["seq_len"].min(), part["seq_len"].max(),
        )  # fmt: skip
        lengths = f"{shortest:,} to " if shortest != longest else ""
        lines.append(
            f"{at['mode']} on {at['device']}, {'causal' if at['is_causal'] else 'bidirectional'}, "
            f"{at['dtype']}, batch {at['batch']}, {at['num_heads']} × {at['head_dim']}, "
            f"{at['threads']} thread{'s'[: at['threads'] != 1]}, {at['allocator']} allocator"
            f"{', compiled' if at['compile'] else ''}: {count} backend{'s'[: count != 1]}, "
            f"{lengths}{longest:,} tokens"
        )
    return tuple(lines)


# -- evidence that ships --------------------------------------------------------------------------

SHIPPED = ("epyc-2-cores/error", "epyc-2-cores/quality", "epyc-2-cores/text")
"""The reference records of quality: it is a backend's, whatever the machine."""


@functools.cache
def shipped_evidence() -> pd.DataFrame:
    """Return the tidy rows of kinds task and error that ship with attnbench.

    Raises:
        NoRunError: if they are not there: the installation is not whole.
    """
    return load(*(REFERENCE / name for name in SHIPPED)).of("task", "error")
