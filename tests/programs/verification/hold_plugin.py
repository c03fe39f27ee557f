"""A backend whose peak memory is known: it fills so many MiB, and returns the values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from attention.base import Attention
from attention.problem import Cost, Problem, Supports
from attention.registry import register

sys.path.insert(0, str(Path(__file__).parents[1]))

from verification.hold import filled


@register("hold")
class Hold(Attention):
    """Fills memory, and frees it.

    Args:
        mebibytes: of each tensor.
        count: tensors at once.
        **shape: num_heads and head_dim.
    """

    summary = "fills a known amount of memory"
    family = "dense"
    exact = False
    supports = Supports()
    time_exponent = 0.0
    memory_exponent = 0.0

    def __init__(
        self, *, num_heads: int, head_dim: int, mebibytes: int = 1, count: int = 1
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)
        self.mebibytes, self.count = mebibytes, count

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **asks: Any) -> Tensor:
        """Fill, free, and return v."""
        held = [filled(self.mebibytes, q.device.type) for _ in range(self.count)]
        del held
        return v

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, rows: Tensor | None = None, **asks: Any
    ) -> Tensor:
        """Return v."""
        return v if rows is None else v[:, :, rows]

    def cost(self, problem: Problem, mode: str) -> Cost:
        """Count no operation."""
        return Cost(0, 0, 0, problem.io_bytes("forward"))
