"""Ratios between backends: speed-up, where one overtakes another, how far each one goes.

Two numbers stand in a ratio only within one setting (`case_columns.SETTING`) and mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from results.analysis.series import SERIES, points
from results.analysis.warm_up import converged, of_lengths
from results.records.case_columns import SERIES_COLUMNS, SETTING
from results.records.frames import as_rows
from results.records.load import Run
from results.schema import IDENTITY
from results.statistics.crossover import crossover_of
from results.statistics.intervals import ONE_LAUNCH, Estimate
from results.statistics.launches import ratio_of
from results.statistics.questions import BASELINES
from results.text import numbers

CROSSOVER_COLUMNS = (
    *SERIES_COLUMNS, "metric", "baseline", "seq_len", "ci_low", "ci_high", "converged", "reason",
)  # fmt: skip

_Row = Mapping[Any, Any]
"""Of `points`."""

Curve = Mapping[int, _Row]
"""Length to what one series measured there."""

WarmUps = Mapping[int, bool | None]
"""Length to whether the warm-ups of what is compared there converged; None = not known."""


def crossover(own: Curve, other: Curve, *, name: str = "baseline") -> Estimate:
    """Return the length from which on one is faster than another, see `crossover.crossover_of`.

    "From which on" means at every longer measured length too.

    Args:
        own: of what may be the faster.
        other: of the baseline.
        name: what the reason calls the baseline.

    Returns:
        The length in tokens; NaN with the range tried as reason where it is not reached. Where
        it is faster at every length, the shortest one, with a reason that says so. A bound that
        lies beyond the lengths tried is the shortest length or NaN.
    """
    lengths = sorted(own.keys() & other.keys())
    if not lengths:
        return _none(f"no length was measured for both this and {name}")
    ours, theirs = ([curve[n]["cell"] for n in lengths] for curve in (own, other))
    at_longest = _verdict(theirs[-1].log_value - ours[-1].log_value)
    if len(lengths) == 1:
        return _none(f"one length tried: {lengths[0]} ({at_longest} than {name} there)")
    found = crossover_of(lengths, ours, theirs)
    tried = f"{lengths[0]} to {lengths[-1]}"
    if math.isnan(found.at):
        return _none(f"not reached, tried {tried}: {at_longest} than {name} at the longest")
    reasons = [f"faster at every length tried ({tried})"] if found.is_always else []
    if not found.has_interval:
        reasons.append(ONE_LAUNCH)
    elif math.isnan(found.high):
        reasons.append("open above: not measurably faster at the longest length")
    return Estimate(found.at, found.low, found.high, "; ".join(reasons))


def _none(reason: str) -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, reason)


def _verdict(log_speedup: float) -> str:
    factor = math.exp(abs(log_speedup))
    return f"{factor:.2f} × {'faster' if log_speedup > 0 else 'slower'}"


# -- over a run ----------------------------------------------------------------------------------


Pair = tuple[dict[str, Any], str, Curve, Curve, WarmUps]
"""A series, a baseline, the curves of both (empty = unmeasured), and their warm-ups."""

_Rows = list[_Row]


def against(table: pd.DataFrame) -> list[Pair]:
    """Return every series of `points` beside the baselines of its setting and mode."""
    by_series: dict[tuple[Any, ...], _Rows] = {}
    by_baseline: dict[tuple[Any, ...], _Rows] = {}
    for row in as_rows(table[table["metric"] == "latency"]):
        by_series.setdefault(tuple(row[c] for c in SERIES), []).append(row)
        if row["backend"] in BASELINES:
            by_baseline.setdefault(_place(row, row["backend"]), []).append(row)
    pairs: list[Pair] = []
    for key, rows in by_series.items():
        series = dict(zip(SERIES, key, strict=True))
        best = _fastest(rows)
        for baseline in BASELINES:
            if series["backend"] in (baseline, IDENTITY):
                continue
            other = _fastest(by_baseline.get(_place(series, baseline), []))
            warm = {
                n: converged([best[n]["converged"], other[n]["converged"]])
                for n in best.keys() & other.keys()
            }
            pairs.append((series, baseline, best, other, warm))
    return pairs


def _place(row: _Row, baseline: str) -> tuple[Any, ...]:
    return (*(row[c] for c in SETTING), row["mode"], baseline)


def _fastest(rows: Iterable[_Row]) -> dict[int, _Row]:
    """Return length to the row that was measured; where series share a length, the fastest."""
    best: dict[int, _Row] = {}
    for row in rows:
        known = best.get(row["seq_len"])
        if not math.isnan(row["value"]) and (known is None or row["value"] < known["value"]):
            best[row["seq_len"]] = row
    return best


def crossovers(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return where each series overtakes `full` and `sdpa`: setting, series, crossover columns.

    Args:
        pairs: `against` of a run's `points`.
    """
    rows = []
    for series, baseline, own, other, warm in pairs:
        warmed_up, remark = of_lengths(warm)
        if not own:
            found = _none("nothing was measured")
        elif not other:
            found = _none(f"{baseline} was not measured in this setting")
        else:
            found = crossover(own, other, name=baseline)
        rows.append(
            {**series, "metric": "latency", "baseline": baseline, "seq_len": found.value,
             "ci_low": found.low, "ci_high": found.high, "converged": warmed_up,
             "reason": "; ".join(r for r in (found.reason, remark) if r)}
        )  # fmt: skip
    columns = dict.fromkeys([*SERIES, *CROSSOVER_COLUMNS])
    return pd.DataFrame.from_records(rows, columns=list(columns))


def crossover_table(run: Run) -> pd.DataFrame:
    """Return the crossovers with the columns `CROSSOVER_COLUMNS`, lengths in whole tokens.

    Where the run holds several machines, environments or versions, these follow as columns.
    """
    table = crossovers(against(points(run)))
    places = ["machine", "environment", *(["version"] if table["version"].any() else [])]
    several = len(table[places].drop_duplicates()) > 1
    table = table[[*CROSSOVER_COLUMNS, *(places if several else ())]].copy()
    # "From so many tokens on" holds from the next whole one; an interval's ends go outward.
    for column in ("seq_len", "ci_low", "ci_high"):
        to: numbers.To = "down" if column == "ci_low" else "up"
        whole = [numbers.rounded(v, 0, to) if math.isfinite(v) else v for v in table[column]]
        table[column] = pd.array(whole, dtype="Float64").astype("Int64")
    return table


def speedups(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return baseline latency / latency per series, length and baseline, with its interval.

    Args:
        pairs: as of `crossovers`.
    """
    rows = []
    for series, baseline, own, other, warm in pairs:
        for n in sorted(own.keys() & other.keys()):
            got = ratio_of(other[n]["cell"], own[n]["cell"])
            rows.append(
                {**series, "baseline": baseline, "seq_len": n, "value": got.value,
                 "ci_low": got.low, "ci_high": got.high, "converged": warm[n]}
            )  # fmt: skip
    columns = [*SERIES, "baseline", "seq_len", "value", "ci_low", "ci_high", "converged"]
    return pd.DataFrame.from_records(rows, columns=columns)


def feasible(table: pd.DataFrame) -> pd.DataFrame:
    """Return how far each series goes: `SERIES`, `seq_len`, `next_len`, `status`, `reason`.

    `seq_len` is the longest length that was measured (NA if none). Where a longer one was tried,
    `next_len` is the shortest such, with its status and reason; else `next_len` is NA.
    """
    by_series: dict[tuple[Any, ...], _Rows] = {}
    for row in as_rows(table[table["metric"] == "latency"]):
        by_series.setdefault(tuple(row[c] for c in SERIES), []).append(row)
    rows = []
    for key, tried in by_series.items():
        longest = max((r["seq_len"] for r in tried if not math.isnan(r["value"])), default=None)
        beyond = [row for row in tried if row["seq_len"] > (longest or -1)]
        first = min(beyond, key=lambda row: row["seq_len"], default={})
        rows.append(
            {
                **dict(zip(SERIES, key, strict=True)),
                "seq_len": longest,
                "next_len": first.get("seq_len"),
                "status": first.get("status", ""),
                "reason": first.get("reason", ""),
            }
        )
    columns = [*SERIES, "seq_len", "next_len", "status", "reason"]
    frame = pd.DataFrame.from_records(rows, columns=columns)
    return frame.astype({"seq_len": "Int64", "next_len": "Int64"})
