"""Where nothing qualifies: which limits would have to give, and how far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

from results.recommendation.interpolation import Reading
from results.recommendation.ranking import Candidate, Ranking
from results.text.amounts import write_size


class Relaxation(NamedTuple):
    """What a candidate would need to qualify.

    Attributes:
        candidate: one that was measured at the length.
        limits: the limits that it did not meet, to the nearest one of two digits that it meets;
            None = it meets none.
        unmeasured: the limits on what was never measured of it.
    """

    candidate: Candidate
    limits: Mapping[str, float | None]
    unmeasured: tuple[str, ...]


def relaxations(ranking: Ranking) -> list[Relaxation]:
    """Return what would have to give, what needs no further measurement and the fewest first."""
    found = []
    for candidate in ranking.rejected:
        if "latency" in candidate.reasons:
            continue
        readings = {name: getattr(candidate, name.partition("_")[2]) for name in candidate.reasons}
        limits = {name: relaxed(name, r) for name, r in readings.items() if r.known}
        unknown = tuple(name for name, r in readings.items() if not r.known)
        found.append(Relaxation(candidate, limits, unknown))
    return sorted(
        found, key=lambda f: (len(f.unmeasured), len(f.limits), f.candidate.latency.value)
    )


def relaxed(name: str, reading: Reading) -> float | None:
    """Return the nearest limit, of two digits, that a known reading meets; None = none does."""
    floor = name == "min_recall"
    if floor and reading.lacking:
        return None
    decisive = Decimal(repr(float(reading.least if floor else reading.greatest)))
    if not decisive.is_finite() or decisive <= 0:
        return None
    step = Decimal(1).scaleb(decisive.adjusted() - 1)
    rounded = decisive.quantize(step, ROUND_FLOOR if floor else ROUND_CEILING)
    return math.ceil(rounded) if name == "max_memory" else float(rounded)


def option(name: str) -> str:
    """Write a limit's name as the command line does: ``--max-memory``."""
    return f"--{name.replace('_', '-')}"


def as_option(name: str, value: float) -> str:
    """Write a limit as the command line takes it: ``--max-memory 4.1GB``."""
    shown = write_size(int(value)) if name == "max_memory" else f"{value:g}"
    return f"{option(name)} {shown}"
