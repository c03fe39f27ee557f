"""What a machine of a cluster launches beyond its groups: what answers the questions there.

A number of one machine stands in no ratio with one of another, so each answers the questions of
what it measured itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from results.schema import Case
from suites.engine.agenda import Agenda, planner_of
from suites.suite import Plan


def agenda_of(
    plan: Plan, cases: Sequence[Case], records: Sequence[Mapping[str, Any]]
) -> Agenda | None:
    """Return what a machine is to launch beyond its groups; ``None`` = nothing.

    Args:
        plan: of the sweep.
        cases: all of the sweep.
        records: of the machine, of this run.
    """
    launches: dict[str, set[int]] = defaultdict(set)
    for record in records:
        launches[record["case"]["id"]].add(record["launch"]["index"])
    # A case that another machine began is not whole here: its other launches may be there.
    whole = [case for case in cases if launches[case.id] >= set(range(plan.launches))]
    planner = planner_of(plan, whole) if whole else None
    return None if planner is None else Agenda((), planner, records)
