"""How a series grows with its length: as declared, and by how much faster it last did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from results.schema import Case

LEAST_RATIO = 1.25
"""Lengths nearer than this to each other say nothing about growth: processes differ by more."""

MOST_EXCESS = 2.0
"""No series is expected to exceed its declared growth by more than the square of the length."""

TOLD_FACTOR = 1.1
"""A prediction that was scaled up by so much says so."""


@dataclass(frozen=True)
class Seen:
    """One launch that was run: latency and peak of all arms together, as far as it came."""

    case: Case
    launch: int
    status: str
    reason: str
    wall_s: float
    latency_s: float | None
    peak_bytes: int | None

    @classmethod
    def from_record(cls, case: Case, record: Mapping[str, Any]) -> Seen:
        """Read what a record says of its case."""
        latencies = [_middle(arm, "latency") for arm in record["arms"]]
        peaks = [
            _middle(arm, "peak_memory") or _middle(arm, "state_bytes") for arm in record["arms"]
        ]
        return cls(
            case=case,
            launch=int(record["launch"]["index"]),
            status=record["status"],
            reason=record["reason"] or "",
            wall_s=float(record["launch"].get("wall_s") or 0.0),
            latency_s=sum(x for x in latencies if x is not None) or None,
            peak_bytes=int(max((x for x in peaks if x is not None), default=0)) or None,
        )


def _middle(arm: Mapping[str, Any], metric: str) -> float | None:
    """Return the median of a metric's samples, or its value; ``None`` if it was not measured."""
    measured = arm["metrics"].get(metric)
    if measured is None:
        return None
    return float(median(measured["samples"]) if "samples" in measured else measured["value"])


@dataclass
class Excess:
    """By how much faster than declared a series last grew, as exponents of the length; from 0."""

    latency: float = 0.0
    peak_memory: float = 0.0


def exponent_of(factor: float, ratio: float) -> float:
    """Return the exponent by which a factor beyond the declared one grew, within the limits.

    Args:
        factor: what a case took, over what its declared growth foretold.
        ratio: of its length to that which it was foretold from, above 1.
    """
    return min(max(0.0, math.log(factor, ratio)), MOST_EXCESS)


def scaled(
    value: float, declared: float, base: Seen, case: Case, excess: float
) -> tuple[float, str]:
    """Scale what `base` took to the length of `case`, and say from what.

    Args:
        value: what it took.
        declared: the factor by which it grows as declared.
        base: a launch of a shorter length, or of the same.
        case: what is foretold.
        excess: by which exponent the series last grew faster than declared.
    """
    shorter = base.case.seq_len
    more = (case.seq_len / shorter) ** excess
    source = f"from length {shorter}"
    if more >= TOLD_FACTOR:
        source += f", × {more:.3g} as it grew faster than declared so far"
    return value * declared * more, source
