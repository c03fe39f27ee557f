"""Kind ``sentinel``: the same work in every version, so that what changes in it is the machine.

Softmax attention in plain torch, of nothing that this project computes: a faster backend leaves
it alone. It is launched again and again through a sweep (`suites.plan.order`).
"""

from __future__ import annotations

import math

import torch

from results.schema import Case
from suites.arms.steps import timed
from suites.kind import Inspection, Kind, Measured, Request, arm
from suites.measure.machine import check_device


class Sentinel:
    """Softmax attention on ``[batch, heads, N, head_dim]``: a `suites.measure.timers.Timed`.

    All that a call writes to is there before: what an allocation costs differs between processes
    (`suites.measure.heap_layout`), and would hide what the machine does.
    """

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(case.seed)
        dtype: torch.dtype = getattr(torch, case.dtype)
        batch, length = case.batch * case.num_heads, case.seq_len
        self._q, self._k, self._v = (
            torch.randn(batch, length, case.head_dim, generator=generator).to(case.device, dtype)
            for _ in range(3)
        )
        self._q *= 1 / math.sqrt(case.head_dim)
        self._scores = torch.zeros(batch, length, length, dtype=dtype, device=case.device)
        self._weights = torch.zeros_like(self._scores)
        self.output = torch.zeros_like(self._v)

    def prepare(self) -> None:
        """Nothing is left to drop."""

    def call(self) -> None:
        """Multiply, normalise, multiply."""
        torch.bmm(self._q, self._k.transpose(1, 2), out=self._scores)
        torch.softmax(self._scores, dim=-1, out=self._weights)
        torch.bmm(self._weights, self._v, out=self.output)

    def settle(self) -> None:
        """Nothing further is kept."""


def inspect(case: Case, _request: Request) -> Inspection:
    """Check that the case's device is here."""
    check_device(case.device)
    return Inspection()


def run(case: Case, request: Request) -> Measured:
    """Measure the latency of the sentinel's one arm.

    Raises:
        UnsupportedError: if there is no such device here.
    """
    check_device(case.device)
    request.stage("building")
    sentinel = Sentinel(case)
    request.stage("timing")
    with torch.inference_mode():
        (timing,), conditions = timed([sentinel], case, budget_s=request.budget_s)
    return Measured([arm({"latency": timing.metric()})], conditions)


KIND = Kind("sentinel", inspect, run)
