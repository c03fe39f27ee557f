"""Short inputs: which method costs more there than exact attention, and where its size says why.

A method whose work does not depend on N pays for its rank, its features or its window even where
the input is shorter than they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.records.frames import as_rows
from results.schema import IDENTITY

SHORT = 512
"""Inputs up to this many tokens are short."""

FACTOR, SLACK = 1.5, 50e-6
"""A method may take so many times as long as `sdpa`, and so many seconds more."""

BASELINE = "sdpa"
EXEMPT = ("full", BASELINE, IDENTITY)


def short_inputs(points: pd.DataFrame) -> pd.DataFrame:
    """Return the latency rows of one setting at short lengths, beside those of `sdpa`.

    Args:
        points: `series.points` of one setting.

    Returns:
        The rows of every backend but `EXEMPT`, with `baseline` and `allowed` in s (NaN where
        `sdpa` was not measured), `over` (true where the time exceeds what is allowed) and `why`
        (the backend's fixed sizes that are larger than the input).
    """
    rows = points[(points["metric"] == "latency") & (points["seq_len"] <= SHORT)]
    rows = rows[rows["mode"] != "decode"]  # a step's context is no input
    rows = rows[rows["value"].notna()]
    exact = rows[rows["backend"] == BASELINE]
    best = exact.groupby(["mode", "seq_len"])["value"].min().to_dict()
    found: list[dict[str, Any]] = []
    for row in as_rows(rows[~rows["backend"].isin(EXEMPT)]):
        baseline = best.get((row["mode"], row["seq_len"]), math.nan)
        allowed = FACTOR * baseline + SLACK
        found.append(
            {**row, "baseline": baseline, "allowed": allowed, "over": row["value"] > allowed,
             "why": too_large(row)}
        )  # fmt: skip
    columns = [*points.columns, "baseline", "allowed", "over", "why"]
    return pd.DataFrame.from_records(found, columns=columns)


def too_large(row: Mapping[Any, Any]) -> str:
    """Return the fixed sizes of a row's backend that its input does not exceed, in words."""
    sizes = [f"{name} of {size:g}" for name, size in row["fixed_size"] if size > row["seq_len"]]
    return f"its {' and '.join(sizes)} is larger than the input" if sizes else ""
