"""Windowed attention of the package local-attention.

``LocalAttention``, without rotary embeddings. A block of queries sees its own block and one on
either side, whole: a superset of the band of the same width.
"""

from __future__ import annotations

from attention.backends.longformer import LongformerAttention
from attention.base import Attention
from results.schema import Case
from suites.peers.base import AsBuilt, Built, Peer
from suites.peers.registry import register


@register("local-attention")
class LocalAttentionPeer(Peer):
    """Blocks of the window's width, each with its neighbours."""

    summary = "LocalAttention, a block and one on either side"
    project = "local-attention; Roy et al. 2020, arXiv 2003.05997"
    distribution = "local-attention"
    install = "pip install local-attention"
    counterpart = "longformer"
    options = {"window": 256}
    same_function = False
    difference = "a query sees whole blocks: its own and one on either side, a superset of ours"
    causal = True

    def load(self) -> None:
        """Import the class."""
        from local_attention import LocalAttention  # noqa: F401

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse lengths that are no whole windows, and dilated windows."""
        assert isinstance(ours, LongformerAttention)
        reasons = []
        if not ours.window or case.seq_len % ours.window:
            reasons.append(
                f"seq_len: expected a multiple of the window of {ours.window}, at least one; "
                f"got {case.seq_len}"
            )
        if any(d != 1 for d in ours.dilation):
            reasons.append(f"dilation: it has none; got {ours.dilation}, accepted is 1")
        return reasons

    def build(self, ours: Attention, case: Case) -> Built:
        """Build the module, which has no weights."""
        from local_attention import LocalAttention

        assert isinstance(ours, LongformerAttention)
        theirs = LocalAttention(
            ours.window,
            causal=case.is_causal,
            look_backward=1,
            look_forward=0 if case.is_causal else 1,
            use_rotary_pos_emb=False,
            scale=ours.scale,
        )
        return Built(AsBuilt(theirs), kernel="LocalAttention")
