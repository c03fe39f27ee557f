"""Causal linear attention of flash-linear-attention, in Triton; CUDA only.

Yang et al. 2024, arXiv 2312.06635; ``fla.ops.linear_attn.chunk_linear_attn`` takes
``[B, N, H, D]``. It has no random features: here it gets ``elu(x) + 1``, as wide as a head
(Katharopoulos et al. 2020), so it sums fewer features than our Performer.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from attention.base import Attention
from results.schema import Case
from suites.peers.base import Built, Peer
from suites.peers.registry import register


@register("flash-linear-attention")
class FlashLinearAttention(Peer):
    """Chunks with a running state, normalised."""

    summary = "chunk_linear_attn with the features elu + 1"
    project = "flash-linear-attention; Yang et al. 2024, arXiv 2312.06635"
    distribution = "flash-linear-attention"
    install = "pip install flash-linear-attention"
    counterpart = "performer"
    options = {"num_features": 256}
    same_function = False
    difference = "features elu + 1, as many as a head is wide, in place of random ones"
    devices = ("cuda",)
    causal = True
    rows = (True,)

    def load(self) -> None:
        """Import the function."""
        from fla.ops.linear_attn import chunk_linear_attn  # noqa: F401

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse what is not causal, and sequences shorter than there are heads."""
        reasons = []
        if not case.is_causal:
            reasons.append(f"is_causal: {self.name} is causal only")
        if case.seq_len < case.num_heads:  # it takes the axes for exchanged
            reasons.append(f"seq_len: expected at least {case.num_heads}, got {case.seq_len}")
        return reasons

    def build(self, ours: Attention, case: Case) -> Built:
        """Wrap the function."""
        return Built(_Call(), kernel="chunk_linear_attn")


class _Call(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        """Attend to the past: ``[B, H, N, D]``."""
        from fla.ops.linear_attn import chunk_linear_attn

        q, k = F.elu(q) + 1.0, F.elu(k) + 1.0
        q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        out, _ = chunk_linear_attn(q=q, k=k, v=v, normalize=True)
        assert isinstance(out, Tensor)
        return out.transpose(1, 2)
