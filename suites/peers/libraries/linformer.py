"""The layer of the package linformer, with its four projections.

Wang et al. 2020, arXiv 2006.04768; ``LinformerSelfAttention``: one E and one F for all heads, our
sharing ``headwise``. E and F are copied into ours.
"""

from __future__ import annotations

import torch

from attention.backends.linformer import LinformerAttention
from attention.base import Attention
from results.schema import Case
from suites.peers.base import AsBuilt, Built, Peer, Projections
from suites.peers.registry import register


@register("linformer")
class LinformerPackage(Peer):
    """Projects the sequence of keys and values by products of weights, then attends densely."""

    summary = "LinformerSelfAttention"
    project = "linformer; Wang et al. 2020, arXiv 2006.04768"
    distribution = "linformer"
    install = "pip install linformer"
    counterpart = "linformer"
    options = {"rank": 256}
    num_projections = 4
    same_function = True

    def load(self) -> None:
        """Import the class."""
        from linformer.linformer import LinformerSelfAttention  # noqa: F401

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse other ways to share E and F, and another scale."""
        assert isinstance(ours, LinformerAttention)
        reasons = []
        if ours.sharing != "headwise" or ours.method != "learned":
            reasons.append(
                "sharing, method: it has 'headwise' and 'learned'; got "
                f"{ours.sharing!r} and {ours.method!r}"
            )
        if abs(ours.scale * case.head_dim**0.5 - 1) > 1e-6:
            reasons.append(f"scale: it has 1/sqrt(head_dim) built in; got {ours.scale}")
        return reasons

    def build(self, ours: Attention, case: Case) -> Built:
        """Build the layer, and give ours its E and F."""
        from linformer.linformer import LinformerSelfAttention

        assert isinstance(ours, LinformerAttention)
        assert ours.key_projection is not None
        assert ours.value_projection is not None
        width = case.num_heads * case.head_dim
        theirs = LinformerSelfAttention(width, ours.seq_len, k=ours.rank, heads=case.num_heads)
        with torch.no_grad():
            ours.key_projection.weight.copy_(theirs.proj_k.T)
            ours.value_projection.weight.copy_(theirs.proj_v.T)
        projections = Projections(theirs.to_q, theirs.to_k, theirs.to_v, theirs.to_out)
        return Built(AsBuilt(theirs), projections, "LinformerSelfAttention")


@register("linformer-layer")
class LinformerLayer(LinformerPackage):
    """The same layer, beside ours that projects the sequence before the features."""

    summary = "LinformerSelfAttention as a whole, ours in the shorter order of its products"
    whole_layer = True
