"""Nyström attention of the package nystrom-attention, with its four projections.

Xiong et al. 2021, arXiv 2102.03902; ``NystromAttention``, as many landmarks as our Linformer has
projected keys. Both attend through so many summaries of the keys; they are different methods.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attention.backends.linformer import LinformerAttention
from attention.base import Attention
from results.schema import Case
from suites.peers.base import AsBuilt, Built, Peer, Projections
from suites.peers.registry import register


@register("nystrom-attention")
class NystromAttentionPeer(Peer):
    """Landmarks by means of segments, and an iterative pseudo-inverse."""

    summary = "NystromAttention"
    project = "nystrom-attention; Xiong et al. 2021, arXiv 2102.03902"
    distribution = "nystrom-attention"
    install = "pip install nystrom-attention"
    counterpart = "linformer"
    options = {"rank": 256}
    num_projections = 4
    same_function = False
    difference = "another method, with as many landmarks as ours has projected keys"

    def load(self) -> None:
        """Import the class."""
        from nystrom_attention import NystromAttention  # noqa: F401

    def build(self, ours: Attention, case: Case) -> Built:
        """Build the layer; its one product for q, k and v counts as three projections."""
        from nystrom_attention import NystromAttention

        assert isinstance(ours, LinformerAttention)
        width = case.num_heads * case.head_dim
        theirs = NystromAttention(
            dim=width, dim_head=case.head_dim, heads=case.num_heads, num_landmarks=ours.rank
        )
        query, key, value = (_linear(part) for part in theirs.to_qkv.weight.chunk(3))
        return Built(
            AsBuilt(theirs), Projections(query, key, value, theirs.to_out[0]), "NystromAttention"
        )


def _linear(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made
