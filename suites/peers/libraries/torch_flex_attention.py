"""torch's FlexAttention, compiled, over the band that our `longformer` sees.

Dong et al. 2024, arXiv 2412.05496; ``torch.nn.attention.flex_attention``. The mask of blocks is
made once, before anything is timed. On a CPU it has a forward pass only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from attention.backends.longformer import LongformerAttention
from attention.base import Attention
from attention.kernels.flex import has_compiler
from results.schema import Case
from suites.peers.base import Built, Peer
from suites.peers.registry import register


@register("torch-flex-attention")
class TorchFlexAttention(Peer):
    """FlexAttention with the sliding window as its mask."""

    summary = "compiled FlexAttention over the same band"
    project = "PyTorch; Dong et al. 2024, arXiv 2412.05496"
    distribution = "torch"
    install = "pip install torch"
    counterpart = "longformer"
    options = {"window": 256}
    same_function = True
    causal = True
    is_compiled = True

    def load(self) -> None:
        """Do nothing: torch is here."""

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse a backward pass on a CPU, a dilated window, and a CPU without a compiler."""
        assert isinstance(ours, LongformerAttention)
        reasons = []
        if case.mode == "training" and case.device == "cpu":
            reasons.append("mode: FlexAttention has no backward pass on a CPU")
        if any(d != 1 for d in ours.dilation):
            reasons.append(f"dilation: the band is not dilated here; got {ours.dilation}")
        if case.device == "cpu" and not has_compiler():
            reasons.append(
                f"{self.name} compiles with a C++ compiler, and there is none; expected g++, or "
                "its name in CXX"
            )
        return reasons

    def build(self, ours: Attention, case: Case) -> Built:
        """Make the mask of blocks and compile."""
        assert isinstance(ours, LongformerAttention)
        window = ours.window

        def band(_batch: Tensor, _head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            if case.is_causal:
                return (row >= column) & (row - column <= window)
            return (row - column).abs() <= window

        length = case.seq_len
        mask = create_block_mask(band, None, None, length, length, device=case.device)
        return Built(_Call(mask, ours.scale), kernel="flex_attention")


class _Call(nn.Module):
    def __init__(self, mask: BlockMask, scale: float) -> None:
        super().__init__()
        self.mask, self.scale = mask, scale
        self.compiled = torch.compile(flex_attention)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        """Attend over the band, which holds the causality already: ``[B, H, N, D]``."""
        out = self.compiled(q, k, v, block_mask=self.mask, scale=self.scale)
        assert isinstance(out, Tensor)
        return out
