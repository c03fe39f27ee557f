"""Kind ``sentinel``: the same work in every version, so that what changes in it is the machine.

Softmax attention in plain torch, of nothing that this project computes: a faster backend leaves
it alone. It is launched again and again through a sweep (`suites.plan.order`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from attention.base import UnsupportedError
from results.schema import Case
from suites.arms.timing import Measured, timed


class Sentinel:
    """Softmax attention on ``[batch, heads, N, head_dim]``: a `suites.measure.clock.Timed`.

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


def run(case: Case, *, budget_s: float, stage: Callable[[str], None]) -> Measured:
    """Measure the sentinel.

    Args:
        case: gives shape, device, dtype and seed; its threads are already set.
        budget_s: sampling time.
        stage: told what is being done, for the reason of a failure.

    Returns:
        The latency of its one arm, and the conditions.

    Raises:
        UnsupportedError: if there is no such device here.
    """
    if case.device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("device: torch sees no CUDA device here")
    stage("building")
    sentinel = Sentinel(case)
    stage("timing")
    with torch.inference_mode():
        (timing,), conditions = timed([sentinel], case, budget_s=budget_s)
    metrics = {"latency": timing.metric()}
    return Measured([{"kernel": "", "gate": None, "cost": None, "metrics": metrics}], conditions)
