"""Kind ``claim``: the experiment of a claim, once, under one seed.

The values that it found are metrics of the record's one arm, without a unit; what its figure
shows stands beside them.
"""

from __future__ import annotations

import math

from results.schema import Case
from suites.claims.experiments import Lab, find
from suites.kind import Inspection, Kind, Measured, Request, arm
from suites.measure.conditions import Watch
from suites.measure.machine import check_device


def inspect(case: Case, _request: Request) -> Inspection:
    """Check that a case names a claim that has an experiment, and that its device is here."""
    find(case.task)
    check_device(case.device)
    return Inspection()


def run(case: Case, request: Request) -> Measured:
    """Run the experiment of a claim; the case's `task` is its id.

    Raises:
        UnsupportedError: if this machine cannot test the claim.
        ValueError: if a value is no number: nothing was found.
    """
    inspect(case, request)
    request.stage(f"testing {case.task}")
    watch = Watch(case.device)
    lab = Lab(case.seed, case.device, case.threads, request.budget_s)
    result = find(case.task)(lab)
    for name, value in result.values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}")
    lines = {
        name: [[float(x), float(y)] for x, y in points] for name, points in result.lines.items()
    }
    tested = arm(
        {name: {"unit": "1", "value": float(value)} for name, value in result.values.items()},
        claim={"axes": list(result.axes), "lines": lines},
    )
    return Measured([tested], watch.conditions())


KIND = Kind("claim", inspect, run)
