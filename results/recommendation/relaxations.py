"""Where nothing qualifies: which limits would have to give, and how far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

from results.recommendation.quality import USELESS, unfit
from results.recommendation.question import LIMITS
from results.recommendation.ranking import Candidate, Ranking
from results.text.amounts import write_size
from results.text.clean import clean

_ASKED_FOR = 1.1 * USELESS
"""The least limit on an error that one meets which says nothing."""


MOST_GIVEN = 3
"""So many of them are said."""


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
        if candidate.reasons.keys() - set(LIMITS):
            continue
        ends = {name: decisive(candidate, name) for name in candidate.reasons}
        limits = {n: relaxed(n, end) for n, end in ends.items() if not math.isnan(end)}
        unknown = tuple(name for name, end in ends.items() if math.isnan(end))
        dropped = {*unknown, *(name for name, limit in limits.items() if limit is None)}
        max_error = None if "max_error" in dropped else ranking.question.max_error
        if not unfit(candidate.quality, max_error):
            found.append(Relaxation(candidate, limits, unknown))
    return sorted(
        found, key=lambda f: (len(f.unmeasured), len(f.limits), f.candidate.latency.value)
    )


def decisive(candidate: Candidate, name: str) -> float:
    """Return the end of an interval that a limit is held against; NaN = never measured.

    Of a recall some of whose seeds have no value it is 0: no limit above meets it.
    """
    if name == "max_memory":
        return candidate.memory.greatest
    if name == "max_error":
        error = candidate.quality.find("relative_error")
        if error is None:
            return math.nan
        return error.greatest if error.counts else max(error.greatest, _ASKED_FOR)
    recall = candidate.quality.find("accuracy")
    if recall is None:
        return math.nan
    return 0.0 if recall.lacking else recall.least


def relaxed(name: str, end: float) -> float | None:
    """Return the nearest limit, of two digits, that the end of an interval meets; None = none."""
    floor = name == "min_recall"
    exact = Decimal(repr(float(end)))
    if not exact.is_finite() or exact <= 0:
        return None
    step = Decimal(1).scaleb(exact.adjusted() - 1)
    rounded = exact.quantize(step, ROUND_FLOOR if floor else ROUND_CEILING)
    return math.ceil(rounded) if name == "max_memory" else float(rounded)


def option(name: str) -> str:
    """Write a limit's name as the command line does: ``--max-memory``."""
    return f"--{name.replace('_', '-')}"


def as_option(name: str, value: float) -> str:
    """Write a limit as the command line takes it: ``--max-memory 4.1GB``."""
    shown = write_size(int(value)) if name == "max_memory" else f"{value:g}"
    return f"{option(name)} {shown}"


def would_give(ranking: Ranking) -> list[str]:
    """Say what would have to give, a line each."""
    ways = relaxations(ranking)
    if not ways:
        return []
    lines = ["What would have to give:"]
    for one in ways[:MOST_GIVEN]:
        lines += [f"  {clean(one.candidate.label)} qualifies {_steps(one)}"]
    if len(ways) > MOST_GIVEN:
        lines += [f"  … and {len(ways) - MOST_GIVEN} more in --json"]
    return lines


def _steps(one: Relaxation) -> str:
    """Say what would do: the options to change, then those to leave out."""
    changed = [as_option(name, value) for name, value in one.limits.items() if value is not None]
    dropped = [option(name) for name, value in one.limits.items() if value is None]
    dropped += [f"{option(name)} (not measured)" for name in one.unmeasured]
    steps = [f"with {' '.join(changed)}"] if changed else []
    steps += [f"without {' and '.join(dropped)}"] if dropped else []
    return " and ".join(steps)
