"""The machine's limit: peaks measured in the same run, and how near a case came to them.

A peak is the best of its probe and of what any case reached: a probe may be disturbed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from results.metrics import of_role
from results.records.case_columns import PEAK_COLUMNS
from results.records.frames import as_rows
from results.records.load import Run

RATES = of_role("peak")
PEAKS = (*RATES, "torch_matmul_rate")


REACHED = {"matmul_rate": "executed_ops", "exp_rate": "exponentials"}
"""Peaks that a case may reach, and what it declares of them. Bytes are not among them: those of a
small case come from caches."""

HIGHEST = 1.5
"""Of its probe: a case that claims a higher peak declares too much, and counts for none."""


@dataclass(frozen=True)
class Limit:
    """The least time a case could take here.

    Attributes:
        seconds: the limit; NaN if unknown.
        bound: which roof decides: ``products``, ``exponentials`` or ``bytes``.
        reason: why it is unknown.
    """

    seconds: float
    bound: str = ""
    reason: str = ""


class Roofs:
    """Peaks by what they belong to: machine, device, dtype, threads, precision and so on."""

    def __init__(self, run: Run) -> None:
        frame = run.of("roof")
        frame = frame[frame["status"] == "ok"]
        self._best: dict[tuple[object, ...], dict[str, float]] = {}
        for key, part in frame.groupby([*PEAK_COLUMNS, "metric"], sort=False):
            values = part["value"]
            # A peak is the best that was seen; an empty call is what it usually costs.
            chosen = values.max() if key[-1] in PEAKS else values.median()
            self._best.setdefault(tuple(key[:-1]), {})[str(key[-1])] = float(chosen)
        if self._best:
            self._raise(run.of("speed"))

    def _raise(self, frame: pd.DataFrame) -> None:
        """Raise the peaks to what calls reached."""
        times = frame[(frame["metric"] == "latency") & (frame["value"] > 0)]
        for key, part in times.groupby(list(PEAK_COLUMNS), sort=False):
            peaks = self._best.get(tuple(key), {})
            for name, declared in REACHED.items():
                rates = part[declared].astype(float) / part["value"]
                within = rates[rates <= HIGHEST * peaks.get(name, 0.0)]
                peaks |= {name: max(peaks[name], float(within.max()))} if len(within) else {}

    def peaks(self, case: Mapping[str, object]) -> dict[str, float]:
        """Return the peaks for a row that has the columns of a setting; empty if unmeasured."""
        return self._best.get(tuple(case[k] for k in PEAK_COLUMNS), {})

    def empty_latency(self, case: Mapping[str, object]) -> float:
        """Return the latency of an empty case in seconds, NaN if unmeasured."""
        return self.peaks(case).get("empty_latency", math.nan)

    def limit(self, case: Mapping[str, object], products: str = "matmul_rate") -> Limit:
        """Return the limit of a row of `series.points` or the tidy frame.

        Args:
            case: the row.
            products: which peak of matrix products counts.

        On a CPU products and exponentials use the same units and add up; on a GPU they overlap
        and the largest counts. Operations are those of the method's pattern.
        """
        peaks = self.peaks(case)
        rates = (products, *RATES[1:])
        missing = [r for r in rates if not peaks.get(r, 0) > 0]
        if missing:
            return Limit(math.nan, reason=f"no peak measured for {', '.join(missing)}")
        costs = [_number(case[c]) for c in ("pattern_ops", "exponentials", "bytes")]
        if not all(math.isfinite(c) for c in costs):
            return Limit(math.nan, reason="no cost declared")
        multiplied, exponentials, moved = (c / peaks[r] for c, r in zip(costs, rates, strict=True))
        parts = {"products": multiplied, "exponentials": exponentials, "bytes": moved}
        if case["device"] == "cpu":
            seconds = max(multiplied + exponentials, moved)
            parts = parts if moved < seconds else {"bytes": moved}
        else:
            seconds = max(parts.values())
        if not seconds > 0:
            return Limit(math.nan, reason="the declared cost is zero")
        return Limit(seconds, max(parts, key=lambda k: parts[k]))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def with_limits(points: pd.DataFrame, roofs: Roofs) -> pd.DataFrame:
    """Return the latency rows of `points` with limit and efficiencies.

    Adds `limit` (s), `bound`, `fraction_of_limit` (limit / latency), `fraction_of_torch` (the same
    at the peak of torch's own products), `tile_efficiency`
    (operations of the pattern / operations executed), `kernel_efficiency` (their quotient) and
    `achieved_rate` (operations executed per second); NaN where unknown.
    """
    table = points[points["metric"] == "latency"].copy()
    limits = [roofs.limit(row) for row in as_rows(table)]
    table["limit"] = [x.seconds for x in limits]
    table["bound"] = [x.bound for x in limits]
    table["limit_reason"] = [x.reason for x in limits]
    table["fraction_of_limit"] = table["limit"] / table["value"]
    by_torch = [roofs.limit(row, "torch_matmul_rate") for row in as_rows(table)]
    table["fraction_of_torch"] = [x.seconds for x in by_torch] / table["value"]
    executed = table["executed_ops"].where(table["executed_ops"] > 0)
    table["tile_efficiency"] = table["pattern_ops"] / executed
    table["kernel_efficiency"] = table["fraction_of_limit"] / table["tile_efficiency"]
    table["achieved_rate"] = executed / table["value"]
    return table
