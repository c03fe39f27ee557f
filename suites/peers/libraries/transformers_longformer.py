"""Longformer's self-attention of the package transformers, with its three projections.

Beltagy et al. 2020, arXiv 2004.05150; ``LongformerSelfAttention``, randomly initialised, without
global tokens and without dropout. Its window counts both sides: 512 is our 256.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attention.backends.longformer import LongformerAttention
from attention.base import Attention
from results.schema import Case
from suites.peers.base import Built, Peer, Projections
from suites.peers.registry import register


@register("transformers-longformer")
class TransformersLongformer(Peer):
    """Sliding chunks: the scores of overlapping chunks, copied into a band."""

    summary = "LongformerSelfAttention, sliding chunks"
    project = "Hugging Face transformers"
    distribution = "transformers"
    install = "pip install transformers"
    counterpart = "longformer"
    options = {"window": 256}
    num_projections = 3
    same_function = True

    def load(self) -> None:
        """Import the class and its configuration."""
        from transformers import LongformerConfig  # noqa: F401
        from transformers.models.longformer.modeling_longformer import (  # noqa: F401
            LongformerSelfAttention,
        )

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse lengths that its chunks do not divide, other scales and dilations."""
        assert isinstance(ours, LongformerAttention)
        reasons = []
        chunk = 2 * ours.window
        if not chunk or case.seq_len % chunk:
            reasons.append(
                f"seq_len: expected a multiple of twice the window of {ours.window}, at least "
                f"one; got {case.seq_len}"
            )
        if any(d != 1 for d in ours.dilation):
            reasons.append(f"dilation: it has none here; got {ours.dilation}, accepted is 1")
        if abs(ours.scale * case.head_dim**0.5 - 1) > 1e-6:
            reasons.append(f"scale: it has 1/sqrt(head_dim) built in; got {ours.scale}")
        return reasons

    def build(self, ours: Attention, case: Case) -> Built:
        """Build the module with random weights."""
        from transformers import LongformerConfig
        from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

        assert isinstance(ours, LongformerAttention)
        config = LongformerConfig(
            hidden_size=case.num_heads * case.head_dim,
            num_attention_heads=case.num_heads,
            num_hidden_layers=1,
            attention_window=[2 * ours.window],
            attention_probs_dropout_prob=0.0,
        )
        theirs = LongformerSelfAttention(config, layer_id=0)
        # Projections of global tokens, of which there are none: they would only hold memory.
        del theirs.query_global, theirs.key_global, theirs.value_global
        return Built(
            _Call(theirs, case.batch, case.seq_len),
            Projections(theirs.query, theirs.key, theirs.value),
            "LongformerSelfAttention",
        )


class _Call(nn.Module):
    mask: Tensor
    hidden: Tensor

    def __init__(self, theirs: nn.Module, batch: int, seq_len: int) -> None:
        super().__init__()
        self.theirs = theirs
        self.register_buffer("mask", torch.zeros(batch, seq_len))
        self.register_buffer("hidden", torch.zeros(batch, seq_len, dtype=torch.bool))

    def forward(self, x: Tensor, *, is_causal: bool) -> Tensor:
        """Attend within the sequence: ``[B, N, d_model]``."""
        out = self.theirs(
            x,
            attention_mask=self.mask,
            is_index_masked=self.hidden,
            is_index_global_attn=self.hidden,
            is_global_attn=False,
        )[0]
        assert isinstance(out, Tensor)
        return out
