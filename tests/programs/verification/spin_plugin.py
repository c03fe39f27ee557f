"""A backend whose latency is known: it spins for as long as it is told and returns the values.

How long each call really spun is written to a file of the process in the folder `log`: whole
numbers of 8 bytes, in nanoseconds, the n-th call's at place n modulo `PLACES`.
"""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from attention.base import Attention
from attention.problem import Cost, Problem, Supports
from attention.registry import register

sys.path.insert(0, str(Path(__file__).parents[1]))

from verification.spin import spin

PLACES = 8192


@register("spin")
class Spin(Attention):
    """Spins.

    Args:
        microseconds: how long.
        log: folder for what was spun; its files' names sort in the order of the processes.
        **shape: num_heads and head_dim.
    """

    summary = "spins for a known time"
    family = "dense"
    exact = False
    supports = Supports()
    time_exponent = 0.0
    memory_exponent = 0.0

    def __init__(self, *, num_heads: int, head_dim: int, log: str, microseconds: int = 0) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)
        self.microseconds, self.log = microseconds, log
        self._calls, self._spun = 0, memoryview(b"")

    def _open(self) -> None:
        file = Path(self.log) / f"{self.microseconds}-{time.time_ns()}"
        file.write_bytes(bytes(8 * PLACES))
        with file.open("r+b") as stream:
            self._spun = memoryview(mmap.mmap(stream.fileno(), 0)).cast("q")

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **asks: Any) -> Tensor:
        """Spin, then return v."""
        if not self._calls:
            self._open()
        self._spun[self._calls % PLACES] = spin(1000 * self.microseconds)
        self._calls += 1
        return v

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, rows: Tensor | None = None, **asks: Any
    ) -> Tensor:
        """Return v."""
        return v if rows is None else v[:, :, rows]

    def cost(self, problem: Problem, mode: str) -> Cost:
        """Count no operation."""
        return Cost(0, 0, 0, problem.io_bytes("forward"))
