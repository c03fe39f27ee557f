"""Our backend between copies of a peer's projections, so that both layers hold equal weights."""

from __future__ import annotations

import copy
from typing import Literal

from torch import Tensor, nn

from attention.base import Attention
from attention.checks import check_choice
from models.layers.projection import saved_ops, sequence_first
from suites.peers.base import Projections


class ProjectedAttention(nn.Module):
    """Project to heads, attend with a backend, merge the heads, project back where the peer does.

    Around `models.IdentityAttention` it is the projections alone.

    Args:
        projections: the peer's; copied.
        attention: our backend.
        projection_order: ``features_first``, or ``auto``: the one of fewer operations.
    """

    def __init__(
        self,
        projections: Projections,
        attention: Attention,
        projection_order: Literal["auto", "features_first"] = "features_first",
    ) -> None:
        super().__init__()
        self.projection_order = check_choice(
            "projection_order", projection_order, ("auto", "features_first")
        )
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
        if not is_causal and self.is_sequence_first(x.shape[1]):
            k, v = sequence_first(self.attention, x, None, self.key, self.value)
            parts = (self._split(part) for part in (self.query(x), k, v))
            merged = self.attention.attend_projected(*parts)
        else:
            parts = (self._split(part(x)) for part in (self.query, self.key, self.value))
            merged = self.attention(*parts, is_causal=is_causal)
        merged = merged.transpose(1, 2).flatten(2)
        out: Tensor = merged if self.output is None else self.output(merged)
        return out

    def is_sequence_first(self, key_len: int) -> bool:
        """Whether a call on M keys projects the sequence before the features."""
        shape = (self.key.in_features, self.key.out_features, key_len)
        return self.projection_order != "features_first" and (
            saved_ops(self.attention, *shape) > 0
        )

    def _split(self, x: Tensor) -> Tensor:
        """``[B, N, H·D]`` to ``[B, H, N, D]``."""
        split: Tensor = x.unflatten(2, (self.attention.num_heads, -1))
        return split.transpose(1, 2)
