"""Our backend between copies of a peer's projections, so that both layers hold equal weights."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from attention.base import Attention
from suites.peers.base import Projections


class ProjectedAttention(nn.Module):
    """Project to heads, attend with a backend, merge the heads, project back where the peer does.

    Around `models.IdentityAttention` it is the projections alone.

    Args:
        projections: the peer's; copied.
        attention: our backend.
    """

    def __init__(self, projections: Projections, attention: Attention) -> None:
        super().__init__()
        self.query = copy.deepcopy(projections.query)
        self.key = copy.deepcopy(projections.key)
        self.value = copy.deepcopy(projections.value)
        self.output = copy.deepcopy(projections.output)
        self.attention = attention

    def forward(self, x: Tensor, *, is_causal: bool) -> Tensor:
        """Attend within the sequence.

        Args:
            x: ``[B, N, d_model]``.
            is_causal: whether a token sees its past only.

        Returns:
            ``[B, N, H·D]``, or ``[B, N, d_model]`` after the output projection.
        """
        q, k, v = (
            part(x).unflatten(2, (self.attention.num_heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )  # [B, H, N, D] each
        merged = self.attention(q, k, v, is_causal=is_causal).transpose(1, 2).flatten(2)
        out: Tensor = merged if self.output is None else self.output(merged)
        return out
