"""How the times of a run were sampled: why it ended, how far samples and launches scatter.

Nothing is dropped here: an outlier is counted, and stays in the median.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from results.analysis.series import timed_rows, with_cross_len
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.schema import STOPS
from results.statistics.spread import Span, span
from results.text.labels import label, rank
from results.text.settings import differing

TARGET = 0.02
"""Half-width of the median's 95 % interval, as a share of it, at which sampling may stop."""

MILD, SEVERE = 1.5, 3.0
"""Tukey's fences: interquartile ranges beyond the quartiles."""

FEWEST = 8
"""Samples behind fences: the quartiles of fewer say nothing."""

FENCES = ("low_severe", "low_mild", "high_mild", "high_severe")


@dataclass(frozen=True)
class Sampling:
    """How one run's latencies were sampled.

    Attributes:
        stopped: arms of launches by why their sampling ended: a key of `STOPS`, or "" where the
            record does not say.
        warm_ups: arms of launches whose warm-up is known to have converged, or not to.
        not_converged: those of them that did not.
        half_width: of the 95 % interval of a launch's median, over it; 6 samples at least.
        within: interquartile range of a launch's samples over their median; `FEWEST` at least.
        between: largest over smallest median of a case's launches, less 1; two launches at least.
        outliers: a row a backend and its options: `name`, `launches` (arms of launches), `looked`
            (those with `FEWEST` samples), `samples` (of those) and the counts `FENCES`.
    """

    stopped: Mapping[str, int]
    warm_ups: int
    not_converged: int
    half_width: Span
    within: Span
    between: Span
    outliers: pd.DataFrame

    @property
    def arms(self) -> int:
        """Arms of launches that have a time."""
        return sum(self.stopped.values())


def latencies(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the latency rows of `TIMED` that succeeded, with `cross_len`, `series` and `name`.

    `series` is backend and options; `name` is the case in words, with what of the setting differs.
    """
    rows = timed_rows(frame)
    rows = with_cross_len(rows[(rows["status"] == "ok") & (rows["metric"] == "latency")])
    varying = [c for c in SETTING if rows[c].nunique() > 1]
    series = [label(*key) for key in zip(rows["backend"], rows["options"], strict=True)]
    rows = rows.assign(series=series)
    alone = rows[rows["arm"] == 0]
    first = dict(zip(alone["case_id"], alone["series"], strict=True))
    names = []
    for row in as_rows(rows):
        arm, beside = row["series"], first.get(row["case_id"], row["series"])
        parts = (arm if arm == beside else f"{arm} beside {beside}", row["mode"],
                 f"{row['seq_len']:,} tokens", differing(row, varying))  # fmt: skip
        names.append(", ".join(part for part in parts if part))
    return rows.assign(name=names)


def sampling(frame: pd.DataFrame) -> Sampling:
    """Return how the latencies in the tidy rows of one run were sampled."""
    rows = latencies(frame)
    launches = [f"{n}, process {i}" for n, i in zip(rows["name"], rows["launch"], strict=True)]
    words = rows["stopped"].value_counts()
    known = rows["converged"].map(lambda told: told is not None)
    looked = [len(s) >= FEWEST for s in rows["samples"]]
    within = [_quartile_range(s) if ok else math.nan
              for s, ok in zip(rows["samples"], looked, strict=True)]  # fmt: skip
    return Sampling(
        stopped={w: int(words.get(w, 0)) for w in (*STOPS, "")},
        warm_ups=int(known.sum()),
        not_converged=int((rows["converged"].map(lambda told: told is False)).sum()),
        half_width=span([half_width(s) for s in rows["samples"]], launches),
        within=span(within, launches),
        between=_between(rows),
        outliers=_outliers(rows.assign(looked=looked)),
    )


def half_width(samples: ArrayLike) -> float:
    """Return the half-width of the 95 % interval of the median, by order statistics, over it.

    NaN for fewer than 6 samples: not even the smallest and the largest enclose it surely enough.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    count = len(ordered)
    k = _rank_below(count)
    if not k:
        return math.nan
    return float(ordered[count - k] - ordered[k - 1]) / 2 / float(np.median(ordered))


@functools.cache
def _rank_below(count: int) -> int:
    """Return the largest k for which P(fewer than k of `count` lie below the median) ≤ 2.5 %."""
    if count > 1000:
        return math.floor(count / 2 - 0.98 * math.sqrt(count))
    k, tail, term = 0, 0.0, 0.5**count
    while (tail := tail + term) <= 0.025:
        k += 1
        term *= (count - k + 1) / k
    return k


def outliers(samples: ArrayLike) -> dict[str, int]:
    """Return how many samples lie beyond Tukey's fences, by `FENCES`.

    Mild is between 1.5 and 3 interquartile ranges beyond a quartile, severe is farther.
    """
    values = np.asarray(samples, dtype=np.float64)
    low, high = np.quantile(values, [0.25, 0.75])
    below, above = low - values, values - high
    mild, severe = MILD * (high - low), SEVERE * (high - low)
    return {
        "low_severe": int((below > severe).sum()),
        "low_mild": int(((below > mild) & (below <= severe)).sum()),
        "high_mild": int(((above > mild) & (above <= severe)).sum()),
        "high_severe": int((above > severe).sum()),
    }


def _quartile_range(samples: ArrayLike) -> float:
    low, middle, high = np.quantile(np.asarray(samples, dtype=np.float64), [0.25, 0.5, 0.75])
    return float(high - low) / float(middle)


def _between(rows: pd.DataFrame) -> Span:
    """Return the spread between the launches of the cases that have several."""
    spreads, names = [], []
    for _, part in rows.groupby(["case_id", "arm"], sort=False):
        if len(part) > 1:
            spreads.append(float(part["value"].max()) / float(part["value"].min()) - 1)
            names.append(str(part["name"].iloc[0]))
    return span(spreads, names)


def _outliers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row a series, the known backends first."""
    found = []
    for name, part in rows.groupby("series", sort=False):
        seen = part[part["looked"]]["samples"]
        counts = [outliers(s) for s in seen]
        found.append(
            {
                "name": name, "rank": rank(str(part["backend"].iloc[0])), "launches": len(part),
                "looked": len(seen), "samples": sum(map(len, seen)),
                **{f: sum(c[f] for c in counts) for f in FENCES},
            }
        )  # fmt: skip
    columns = ["name", "rank", "launches", "looked", "samples", *FENCES]
    table = pd.DataFrame.from_records(found, columns=columns)
    return table.sort_values(["rank", "name"], kind="stable").drop(columns="rank")
