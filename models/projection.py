"""The projections that make a backend's inputs from hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class QKVProjection(nn.Module):
    """Project hidden states to queries, keys and values, split into heads.

    Weights are drawn as by Glorot and Bengio 2010, biases start at zero, as in
    ``torch.nn.MultiheadAttention``. Arguments are checked by the layer that owns the projection.

    Args:
        d_model: width of the hidden states.
        num_heads: H.
        num_kv_heads: H_kv.
        head_dim: D.
        bias: whether the three projections have a bias.
    """

    def __init__(
        self, *, d_model: int, num_heads: int, num_kv_heads: int, head_dim: int, bias: bool
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(d_model, num_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(d_model, num_kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(d_model, num_kv_heads * head_dim, bias=bias)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            draw_weights(projection)

    def forward(self, x: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make q, k and v.

        Args:
            x: ``[B, N, d_model]``, makes the queries.
            key: ``[B, M, d_model]``, makes keys and values.

        Returns:
            ``[B, H, N, D]``, ``[B, H_kv, M, D]`` and ``[B, H_kv, M, D]``: strided views, not
            copies.
        """
        return self.queries(x), self.keys(key), self.values(key)

    def queries(self, x: Tensor) -> Tensor:
        """Make q ``[B, H, N, D]`` of ``[B, N, d_model]``."""
        return self._split(self.q_proj(x))

    def keys(self, x: Tensor, share: Tensor | None = None) -> Tensor:
        """Make k ``[B, H_kv, M, D]`` of ``[B, M, d_model]``.

        Args:
            x: hidden states, or sums of them along the sequence.
            share: of the bias in each sum ``[B or 1, M, 1]``; ``None`` = once each.
        """
        return self._split(_linear(self.k_proj, x, share))

    def values(self, x: Tensor, share: Tensor | None = None) -> Tensor:
        """Make v ``[B, H_kv, M, D]``, as `keys` does."""
        return self._split(_linear(self.v_proj, x, share))

    def _split(self, x: Tensor) -> Tensor:
        """``[B, N, heads·D]`` to ``[B, heads, N, D]``."""
        batch, seq_len, _ = x.shape
        return x.view(batch, seq_len, -1, self.head_dim).transpose(1, 2)


def _linear(projection: nn.Linear, x: Tensor, share: Tensor | None) -> Tensor:
    if share is None:
        out: Tensor = projection(x)
        return out
    projected = nn.functional.linear(x, projection.weight)
    if projection.bias is not None:
        projected = projected + share.to(projected.dtype) * projection.bias.to(projected.dtype)
    return projected


def draw_weights(projection: nn.Linear) -> None:
    """Draw a projection's weight uniformly after Glorot, and set its bias to zero."""
    nn.init.xavier_uniform_(projection.weight)
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)


def check_hidden(name: str, x: Any, d_model: int) -> None:
    """Check that `x` is a floating-point tensor ``[B, N, d_model]``.

    Raises:
        TypeError: if it is no tensor or holds no floating-point numbers.
        ValueError: if it has another shape.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if not torch.is_floating_point(x):
        raise TypeError(f"{name}: expected a floating-point tensor, got {x.dtype}")
    if x.dim() != 3 or x.shape[2] != d_model or not x.numel():
        raise ValueError(
            f"{name}: expected [B, N, {d_model}] with B and N at least 1, got {tuple(x.shape)}"
        )
