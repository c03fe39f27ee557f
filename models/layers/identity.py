"""No attention at all: what a layer or a block costs without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from attention.base import Attention
from attention.decoding.chunk import Chunk
from attention.decoding.state import DecodeState, StateShape
from attention.problem import Cost, Mode, Problem, Supports


class IdentityAttention(Attention):
    """Return the values unmixed: ``out[:, h, i] = v[:, h·H_kv/H, i]``.

    In a layer or a block in place of a backend it leaves everything but the attention: the floor
    that the other arms of a measurement are compared with. Not registered: it is no attention, and
    no list of backends should offer it. Masks are accepted and have nothing to act on, because no
    token sees another one.

    Args:
        num_heads: H.
        head_dim: D.
    """

    name = "identity"
    summary = "returns the values: the floor of a layer or block"
    family = "dense"
    exact = False
    supports = Supports(causal=True, cross=False, key_padding=True, state=True)
    refusals: ClassVar[Mapping[str, str]] = {
        "cross": "each query takes the value at its own position"
    }
    time_exponent = memory_exponent = 1.0
    decode_time_exponent = decode_memory_exponent = 0.0
    whole_in_transforms = True

    def __init__(self, *, num_heads: int, head_dim: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Return `v` itself, or its heads repeated where there are fewer than H.

        The gradients of `q` and `k` are zeros, not absent: the projections behind them run their
        backward pass as they do around any backend.
        """
        self.kernel = "identity"
        return _expand_heads(_PassValues.apply(q, k, v), self.num_heads)  # type: ignore[no-untyped-call]

    def make_state(self, shape: StateShape) -> DecodeState:
        """Keep nothing: no token sees another one."""
        return DecodeState(self.shown(), shape)

    def advance(self, chunk: Chunk, state: DecodeState) -> Tensor:
        """Return the values of the chunk, and count it."""
        self.kernel = "identity"
        state.advance(chunk)
        return _expand_heads(chunk.v, self.num_heads)

    def reference(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return the values at `rows`."""
        heads = v.repeat_interleave(self.num_heads // v.shape[1], dim=1)
        return heads if rows is None else heads[:, :, rows]

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count nothing: no product, no exponential, no byte that must move."""
        return Cost(pattern_ops=0, executed_ops=0, exponentials=0, bytes=0)


class _PassValues(torch.autograd.Function):
    """The identity on v, which hands zeros back to q and k."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k)
        return v.view_as(v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = ctx.saved_tensors
        return torch.zeros_like(q), torch.zeros_like(k), grad


def _expand_heads(v: Tensor, num_heads: int) -> Tensor:
    groups = num_heads // v.shape[1]
    if groups == 1:
        return v
    return v.unsqueeze(2).expand(-1, -1, groups, -1, -1).flatten(1, 2)  # [B, H, M, D]
