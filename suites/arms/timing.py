"""How every kind times its arms: by one clock, with what the machine did meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results.schema import Case
from suites.measure.clock import Timing, sample_in_turn
from suites.measure.conditions import Watch
from suites.measure.timers import Timed, timer_for


def timed(
    arms: Sequence[Timed], case: Case, *, budget_s: float
) -> tuple[list[Timing], dict[str, Any]]:
    """Time the arms of a case in alternation.

    Args:
        arms: what is compared.
        case: gives the device and the seed.
        budget_s: sampling time per arm.

    Returns:
        The timings; the record's ``conditions``.
    """
    timer = timer_for(case.device)
    watch = Watch(case.device)
    timings = sample_in_turn(arms, timer, budget_s=budget_s, seed=case.seed)
    return timings, watch.conditions()
