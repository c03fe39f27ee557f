"""FlashAttention's own package, over everything and over a band; CUDA and half precision only.

Dao 2023, arXiv 2307.08691; ``flash_attn_func`` takes ``[B, N, H, D]``, so q, k, v and the output
are handed over as views.
"""

from __future__ import annotations

from torch import Tensor, nn

from attention.backends.longformer import LongformerAttention
from attention.base import Attention
from results.schema import Case
from suites.peers.base import Built, Peer
from suites.peers.registry import register

DTYPES = ("float16", "bfloat16")


class _FlashAttn(Peer):
    project = "flash-attn; Dao 2023, arXiv 2307.08691"
    distribution = "flash-attn"
    install = "pip install flash-attn --no-build-isolation"
    same_function = True
    devices = ("cuda",)
    causal = True

    def load(self) -> None:
        """Import the function."""
        from flash_attn import flash_attn_func  # noqa: F401

    def shape_reasons(self, ours: Attention, case: Case) -> list[str]:
        """Refuse dtypes and head widths that it has no kernel for, and dilated windows."""
        reasons = []
        if case.dtype not in DTYPES:
            reasons.append(f"dtype: {self.name} takes {', '.join(DTYPES)}; got {case.dtype}")
        if case.head_dim > 256 or case.head_dim % 8:
            reasons.append(f"head_dim: expected a multiple of 8 up to 256, got {case.head_dim}")
        if isinstance(ours, LongformerAttention) and any(d != 1 for d in ours.dilation):
            reasons.append(f"dilation: it has none; got {ours.dilation}, accepted is 1")
        return reasons


@register("flash-attn")
class FlashAttn(_FlashAttn):
    """Exact attention."""

    summary = "flash_attn_func, exact"
    counterpart = "sdpa"

    def build(self, ours: Attention, case: Case) -> Built:
        """Wrap the function."""
        return Built(_Call(ours.scale, (-1, -1)), kernel="flash_attn_func")


@register("flash-attn-window")
class FlashAttnWindow(_FlashAttn):
    """Exact attention over a sliding window."""

    summary = "flash_attn_func over the same band"
    counterpart = "longformer"
    options = {"window": 256}

    def build(self, ours: Attention, case: Case) -> Built:
        """Wrap the function with our window."""
        assert isinstance(ours, LongformerAttention)
        right = 0 if case.is_causal else ours.window
        return Built(_Call(ours.scale, (ours.window, right)), kernel="flash_attn_func")


class _Call(nn.Module):
    def __init__(self, scale: float, window: tuple[int, int]) -> None:
        super().__init__()
        self.scale, self.window = scale, window

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        """Attend: ``[B, H, N, D]``."""
        from flash_attn import flash_attn_func

        out = flash_attn_func(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            softmax_scale=self.scale, causal=is_causal, window_size=self.window,
        )  # fmt: skip
        assert isinstance(out, Tensor)
        return out.transpose(1, 2)
