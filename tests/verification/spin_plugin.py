"""A backend whose latency is known: it spins for as long as it is told and returns the values."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attention.base import Attention, Cost, Problem, Supports
from attention.registry import register
from verification.spin import spin


@register("spin")
class Spin(Attention):
    """Spins.

    Args:
        microseconds: how long.
        **shape: num_heads and head_dim.
    """

    summary = "spins for a known time"
    family = "dense"
    exact = False
    supports = Supports()
    time_exponent = 0.0
    memory_exponent = 0.0

    def __init__(self, *, num_heads: int, head_dim: int, microseconds: int = 0) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)
        self.microseconds = microseconds

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **asks: Any) -> Tensor:
        """Spin, then return v."""
        spin(1000 * self.microseconds)
        return v

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, rows: Tensor | None = None, **asks: Any
    ) -> Tensor:
        """Return v."""
        return v if rows is None else v[:, :, rows]

    def cost(self, problem: Problem, mode: str) -> Cost:
        """Count no operation."""
        return Cost(0, 0, 0, problem.io_bytes("forward"))
