"""What an attention is worth in a whole: its share of the time, and what another one brings."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from results.modes import WORDS
from results.schema import IDENTITY
from results.short import BASELINE
from results.statistics import ratio

_ADDED = ("memory", "tokens_per_s", "attention_share", "speedup", "speedup_low", "speedup_high")


def worth(points: pd.DataFrame, mode: str) -> pd.DataFrame:
    """Return the latency rows of a mode beside the floor's and those with `sdpa`.

    Args:
        points: `series.points` of one setting.
        mode: of the rows.

    Returns:
        The rows that were measured where an identity arm was, with `memory` in B, `tokens_per_s`
        (in mode decode the new tokens), `attention_share` (1 - the floor's time / the row's; 0
        where the floor is not faster) and `speedup` over the whole with `sdpa`, with
        `speedup_low` and `speedup_high`; NaN where unknown. Empty at level attention.
    """
    own = points[(points["mode"] == mode) & points["value"].notna()]
    times = own[own["metric"] == "latency"]
    floors = times[times["backend"] == IDENTITY].set_index("seq_len")["value"].to_dict()
    exact = {
        row["seq_len"]: row["launches"]
        for row in times[(times["backend"] == BASELINE) & (times["options"] == "")].to_dict(
            "records"
        )
    }
    peaks = own[own["metric"] == WORDS[mode].memory]
    memory = {
        (row["backend"], row["options"], row["seq_len"]): row["value"]
        for row in peaks.to_dict("records")
    }
    found: list[dict[str, Any]] = []
    for row in times[times["backend"] != IDENTITY].to_dict("records"):
        length = row["seq_len"]
        if length not in floors:
            continue
        tokens = row["batch"] * (1 if mode == "decode" else length)
        speedup = (math.nan, math.nan, math.nan)
        if length in exact and (row["backend"], row["options"]) != (BASELINE, ""):
            got = ratio(exact[length], row["launches"])
            speedup = (got.value, got.low, got.high)
        values = (
            memory.get((row["backend"], row["options"], length), math.nan),
            tokens / row["value"],
            max(0.0, 1 - floors[length] / row["value"]),
            *speedup,
        )
        found.append({**row, **dict(zip(_ADDED, values, strict=True))})
    return pd.DataFrame.from_records(found, columns=[*points.columns, *_ADDED])
