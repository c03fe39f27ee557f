"""torch's own fused attention, called directly: what our `sdpa` adds to it must be nothing.

``torch.nn.functional.scaled_dot_product_attention``; PyTorch 2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from attention.base import Attention
from results.schema import Case
from suites.peers.base import Built, Peer
from suites.peers.registry import register


@register("torch-sdpa")
class TorchSdpa(Peer):
    """One call of torch's function, the kernel chosen by torch."""

    summary = "F.scaled_dot_product_attention, called directly"
    project = "PyTorch"
    distribution = "torch"
    install = "pip install torch"
    counterpart = "sdpa"
    same_function = True
    causal = True

    def load(self) -> None:
        """Do nothing: torch is here."""

    def build(self, ours: Attention, case: Case) -> Built:
        """Wrap the function."""
        return Built(_Call(ours.scale), kernel="scaled_dot_product_attention")


class _Call(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        """Attend: ``[B, H, N, D]``."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=self.scale)
