"""How a series grows with its length: as declared, and by how much faster it last did."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        source += f", times {more:.3g}: it grew faster than declared before"
    return value * declared * more, source
