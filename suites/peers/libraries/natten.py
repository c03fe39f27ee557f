"""Neighbourhood attention of NATTEN in one dimension; CUDA only.

Hassani et al. 2023, arXiv 2204.07143; ``natten.functional.na1d`` takes ``[B, N, H, D]``. Near the
ends its window moves inwards, so that every query sees as many keys; ours is cut off there.
"""

from __future__ import annotations

from torch import Tensor, nn

from attention.backends.longformer import LongformerAttention
from attention.base import Attention
from results.schema import Case
from suites.peers.base import Built, Peer
from suites.peers.registry import register


@register("natten")
class Natten(Peer):
    """A window of 2 W + 1 keys."""

    summary = "na1d, fused neighbourhood attention"
    project = "NATTEN; Hassani et al. 2023, arXiv 2204.07143"
    distribution = "natten"
    install = "pip install natten"
    counterpart = "longformer"
    options = {"window": 256}
    same_function = False
    difference = "at the ends of the sequence its window moves inwards, ours is cut off"
    devices = ("cuda",)

    def load(self) -> None:
        """Import the function."""
        from natten.functional import na1d  # noqa: F401

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse sequences shorter than the window, and dilated windows."""
        assert isinstance(ours, LongformerAttention)
        reasons = []
        if case.seq_len < 2 * ours.window + 1:
            reasons.append(
                f"seq_len: expected at least the {2 * ours.window + 1} keys of a window, got "
                f"{case.seq_len}"
            )
        if any(d != 1 for d in ours.dilation):
            reasons.append(f"dilation: it is 1 here; got {ours.dilation}")
        return reasons

    def build(self, ours: Attention, case: Case) -> Built:
        """Wrap the function with our window."""
        assert isinstance(ours, LongformerAttention)
        return Built(_Call(2 * ours.window + 1, ours.scale), kernel="na1d")


class _Call(nn.Module):
    def __init__(self, kernel_size: int, scale: float) -> None:
        super().__init__()
        self.kernel_size, self.scale = kernel_size, scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        """Attend: ``[B, H, N, D]``."""
        from natten.functional import na1d

        q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        out = na1d(q, k, v, kernel_size=self.kernel_size, scale=self.scale)
        assert isinstance(out, Tensor)
        return out.transpose(1, 2)
