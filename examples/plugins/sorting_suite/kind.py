"""How a case of suite sorting is measured. A child imports this."""

from __future__ import annotations

import torch

from results.schema import Case
from suites.arms.steps import timed
from suites.kind import Inspection, Kind, Measured, Request, arm


class Sort:
    """Sorting N numbers: a `suites.measure` arm."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(case.seed)
        self._numbers = torch.rand(case.seq_len, generator=generator)
        self._is_descending = case.arms[0].options["order"] == "descending"
        self.output: torch.Tensor | None = None

    def prepare(self) -> None:
        """Drop what the last call returned."""
        self.output = None

    def call(self) -> None:
        """Sort."""
        self.output = self._numbers.sort(descending=self._is_descending).values

    def settle(self) -> None:
        """Nothing further is kept."""


def inspect(_case: Case, _request: Request) -> Inspection:
    """Say how the time grows."""
    return Inspection(time_exponent=1.0, memory_exponent=1.0)


def run(case: Case, request: Request) -> Measured:
    """Measure a case."""
    request.stage("timing")
    (timing,), conditions = timed([Sort(case)], case, budget_s=request.budget_s)
    return Measured([arm({"latency": timing.metric()})], conditions)


KIND = Kind("sorting", inspect, run)
