"""What an attention is worth in a whole: its share of the time, and what another one brings.

The share is taken launch by launch, from arms that were sampled in alternation: what the floor
leaves of a launch's time is a series of the model of launches. An LSTM has no share: it stands in
the place of the projections too, which the floor keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from results.chapters.speed.short_inputs import BASELINE
from results.records.frames import as_rows
from results.schema import IDENTITY, LSTM
from results.statistics.launches import Launches, fit_series, ratio_of, time_of
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
        row["seq_len"]: row["cell"]
        for row in as_rows(times[(times["backend"] == BASELINE) & (times["options"] == "")])
    }
    peaks = own[own["metric"] == WORDS[mode].memory]
    memory = {
        (row["backend"], row["options"], row["seq_len"]): row["value"] for row in as_rows(peaks)
    }
    rows = [
        row for row in as_rows(times[times["backend"] != IDENTITY])
        if math.isfinite(sum(row["floors"]))
    ]  # fmt: skip
    found: list[dict[str, Any]] = []
    for row, share in zip(rows, _shares(rows), strict=True):
        length = row["seq_len"]
        tokens = row["batch"] * (1 if mode == "decode" else length)
        speedup = (math.nan, math.nan, math.nan)
        if length in exact and (row["backend"], row["options"]) != (BASELINE, ""):
            speedup = ratio_of(exact[length], row["cell"])[:3]
        values = (
            memory.get((row["backend"], row["options"], length), math.nan),
            tokens / row["value"],
            *share,
            *speedup,
        )
        found.append({**row, **dict(zip(_ADDED, values, strict=True))})
    return pd.DataFrame.from_records(found, columns=[*points.columns, *_ADDED])


def _shares(rows: Sequence[Mapping[Any, Any]]) -> list[tuple[float, float, float]]:
    """Return what is left of each row's time without the floor's, and its interval."""
    series: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        if row["backend"] != LSTM:
            series.setdefault((row["backend"], row["options"]), []).append(place)
    # What is left over, not the share, scatters by a factor.
    fitted = fit_series(
        [[Launches.of(rows[i]["floors"] / rows[i]["launches"]) for i in places]
         for places in series.values()]
    )  # fmt: skip
    shares = [(math.nan, math.nan, math.nan)] * len(rows)
    for places, cells in zip(series.values(), fitted, strict=True):
        for place, cell in zip(places, cells, strict=True):
            rest = time_of(cell)
            shares[place] = 1 - rest.value, 1 - rest.high, 1 - rest.low
    return shares
