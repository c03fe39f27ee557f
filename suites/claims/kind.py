"""Kind ``claim``: the experiment of a claim, once, under one seed.

The values that it found are metrics of the record's one arm, without a unit; what its figure
shows stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from attention.base import UnsupportedError
from results.schema import Case
from suites.arms.timing import Measured
from suites.claims.experiments import Lab, find
from suites.measure.conditions import Watch


def check_claim(case: Case) -> None:
    """Check that a case names a claim that has an experiment.

    Raises:
        ValueError: if it does not.
        UnsupportedError: if there is no such device here.
    """
    find(case.task)
    if case.device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("device: torch sees no CUDA device here")


def run(case: Case, *, budget_s: float, stage: Callable[[str], None]) -> Measured:
    """Run the experiment of a claim.

    Args:
        case: `task` is the claim's id.
        budget_s: sampling time of what is timed, a call.
        stage: told what is being done, for the reason of a failure.

    Raises:
        UnsupportedError: if this machine cannot test the claim.
        ValueError: if a value is no number: nothing was found.
    """
    check_claim(case)
    stage(f"testing {case.task}")
    watch = Watch(case.device)
    lab = Lab(case.seed, case.device, case.threads, budget_s)
    found = find(case.task)(lab)
    for name, value in found.values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}")
    arm = {
        "kernel": "",
        "gate": None,
        "cost": None,
        "metrics": {n: {"unit": "1", "value": float(v)} for n, v in found.values.items()},
        "claim": {
            "axes": list(found.axes),
            "lines": {
                name: [[float(x), float(y)] for x, y in points]
                for name, points in found.lines.items()
            },
        },
    }
    return Measured([arm], watch.conditions())
