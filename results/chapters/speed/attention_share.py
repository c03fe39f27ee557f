"""What an attention is worth in a whole: its share of the time, and what another one brings.

The share is taken launch by launch, from arms that were sampled in alternation. An LSTM has none:
it stands in the place of the projections too, which the floor keeps.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from results.chapters.speed.short_inputs import BASELINE
from results.records.frames import as_rows
from results.schema import IDENTITY, LSTM
from results.statistics.intervals import Estimate, estimate, ratio
from results.text.modes import WORDS

_ADDED = (
    "memory", "tokens_per_s", "attention_share", "share_low", "share_high", "speedup",
    "speedup_low", "speedup_high",
)  # fmt: skip


def worth(points: pd.DataFrame, mode: str) -> pd.DataFrame:
    """Return the latency rows of a mode beside the floor's and those with `sdpa`.

    Args:
        points: `series.points` of one setting.
        mode: of the rows.

    Returns:
        The rows that were measured where an identity arm was, with `memory` in B, `tokens_per_s`
        (of the input; in mode decode the new tokens), `attention_share` (1 - the floor's time /
        the row's) with `share_low` and `share_high`, and `speedup` over the whole with `sdpa`,
        with `speedup_low` and `speedup_high`; NaN where unknown. Empty at level attention.
    """
    own = points[(points["mode"] == mode) & points["value"].notna()]
    times = own[own["metric"] == "latency"]
    exact = {
        row["seq_len"]: row["launches"]
        for row in as_rows(times[(times["backend"] == BASELINE) & (times["options"] == "")])
    }
    peaks = own[own["metric"] == WORDS[mode].memory]
    memory = {
        (row["backend"], row["options"], row["seq_len"]): row["value"] for row in as_rows(peaks)
    }
    found: list[dict[str, Any]] = []
    for row in as_rows(times[times["backend"] != IDENTITY]):
        length = row["seq_len"]
        if not math.isfinite(sum(row["floors"])):
            continue
        tokens = row["batch"] * (1 if mode == "decode" else length)
        speedup = (math.nan, math.nan, math.nan)
        if length in exact and (row["backend"], row["options"]) != (BASELINE, ""):
            got = ratio(exact[length], row["launches"])
            speedup = (got.value, got.low, got.high)
        values = (
            memory.get((row["backend"], row["options"], length), math.nan),
            tokens / row["value"],
            *_share(row)[:3],
            *speedup,
        )
        found.append({**row, **dict(zip(_ADDED, values, strict=True))})
    return pd.DataFrame.from_records(found, columns=[*points.columns, *_ADDED])


def _share(row: Mapping[Hashable, Any]) -> Estimate:
    """Return what is left of a row's time without the floor's, over its launches."""
    if row["backend"] == LSTM:
        return Estimate(math.nan, math.nan, math.nan)
    # What is left over, not the share, scatters by a factor.
    rest = estimate(row["floors"] / row["launches"])
    return Estimate(1 - rest.value, 1 - rest.high, 1 - rest.low)
