"""Gated linear attention: RetNet, lightning attention, Mamba-2 (SSD) and GLA, and none of them.

``S_t = e^{g_t} S_{t-1} + k_t v_tᵀ``, ``o_t = S_tᵀ q_t·scale``: g is 0 (linear attention without
features, Katharopoulos et al. 2020, arXiv 2006.16236), fixed for each head (RetNet, Sun et al.
2023, arXiv 2307.08621, section 2.2; lightning attention, Qin et al. 2024, arXiv 2401.04658), of
each token (Mamba-2, Dao and Gu 2024, arXiv 2405.21060), or of each token and channel of the key
(GLA, Yang et al. 2024, arXiv 2312.06635, eq. 3). No features, no denominator. Time
``O(N·D·(C + D))``, memory ``O(N·D)``, by chunks of C tokens; S has a fixed size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from attention.base import Attention
from attention.checks import check_choice
from attention.decoding.caches import MatrixState
from attention.decoding.chunk import Chunk
from attention.decoding.state import StateShape
from attention.functional import expand_kv_heads
from attention.gates import DecayGate, draw_decay
from attention.kernels.onednn import mark
from attention.kernels.recurrent.blocks import Rule
from attention.kernels.recurrent.heads import (
    attend_heads,
    continue_heads,
    executed_ops,
    fixed_decay,
)
from attention.problem import CallInput, Cost, Mode, Problem, Supports
from attention.registry import register

FixedDecay = Literal["retnet", "lightning"]
FIXED_DECAYS: tuple[str, ...] = get_args(FixedDecay)


def decays_of(kind: str, num_heads: int) -> list[float]:
    """Return the fixed log-decay of each head, h = 0 … H - 1.

    ``log(1 - 2^(-5 - h))`` of RetNet; ``-2^(-8(h + 1)/H)`` of lightning attention, in its first
    layer (ALiBi's slopes).
    """
    if kind == "retnet":
        return [math.log1p(-(2.0 ** (-5 - h))) for h in range(num_heads)]
    return [-(2.0 ** (-8.0 * (h + 1) / num_heads)) for h in range(num_heads)]


@register("gated_linear")
class GatedLinearAttention(Attention):
    """Linear attention with decay.

    Args:
        num_heads: H.
        head_dim: D.
        decay: ``retnet`` or ``lightning``: fixed for each head; ``None``: given at the call, or 0.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
    """

    summary = "linear attention with decay"
    paper = "Yang et al. 2024, arXiv 2312.06635"
    family = "recurrent"
    exact = False
    approximates = "itself"
    supports = Supports(causal=True, bidirectional=False, state=True, value_dim=True)
    refusals: ClassVar[Mapping[str, str]] = {
        "bidirectional": "a state is read from left to right",
        "cross": "each token is written and read",
    }
    time_exponent = memory_exponent = 1.0
    decode_time_exponent = decode_memory_exponent = 0.0
    whole_in_transforms = True
    call_inputs: ClassVar[Mapping[str, CallInput]] = {
        "decay": CallInput(
            "per_head", "log-decay [B, H, N] or [B, H, N, D], at most 0; left out = 0",
            or_per_channel=True, maximum=0.0, layer=DecayGate, draw=draw_decay,
        )
    }  # fmt: skip

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        decay: FixedDecay | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale)
        self.decay = None if decay is None else check_choice("decay", decay, FIXED_DECAYS)

    def taken_inputs(self) -> Mapping[str, CallInput]:
        """Take no decay at the call where it is fixed."""
        return self.call_inputs if self.decay is None else {}

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
        key_padding_mask: Tensor | None, decay: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Walk over blocks of chunks."""
        self.kernel = "chunked" + mark(q)
        decay = self._decay(q, key_padding_mask, decay)
        return attend_heads(Rule(self.scale), (q, k, v, decay, None))

    def make_state(self, shape: StateShape) -> MatrixState:
        """Keep S."""
        return MatrixState(self.shown(), shape)

    def advance(self, chunk: Chunk, state: MatrixState, *, decay: Tensor | None = None) -> Tensor:
        """Read S, and add to it."""
        self.kernel = "chunked" + mark(chunk.q) if chunk.size > 1 else "one_token"
        decay = self._decay(chunk.q, chunk.mask, decay)
        tokens = (chunk.q, chunk.k, chunk.v, decay, None)
        out = continue_heads(Rule(self.scale), tokens, state.s)
        state.advance(chunk)
        return out

    def _decay(self, q: Tensor, mask: Tensor | None, given: Tensor | None) -> Tensor | None:
        if self.decay is None:
            return given
        return fixed_decay(decays_of(self.decay, self.num_heads), q, mask)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
        key_padding_mask: Tensor | None = None, rows: Tensor | None = None,
        decay: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Walk over the tokens, as the formula does."""
        if self.decay is not None:
            slopes = q.new_tensor(decays_of(self.decay, self.num_heads))
            decay = slopes[None, :, None].expand(q.shape[:3])
        k, v = expand_kv_heads(k, q.shape[1]), expand_kv_heads(v, q.shape[1])
        factors = None if decay is None else decay.to(q.dtype).exp()
        if factors is not None and factors.dim() == 3:
            factors = factors[..., None]
        state, outs = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), []
        wanted = set(range(q.shape[2]) if rows is None else rows.tolist())
        for t in range(q.shape[2]):
            new = state if factors is None else state * factors[:, :, t, :, None]
            new = new + k[:, :, t, :, None] * v[:, :, t, None, :]
            if key_padding_mask is None:
                state = new
            else:
                state = torch.where(key_padding_mask[:, t, None, None, None], new, state)
            outs.append((q[:, :, t, None] @ state)[:, :, 0] * self.scale if t in wanted else None)
        picked = range(q.shape[2]) if rows is None else rows.tolist()
        return torch.stack([x for t in picked if (x := outs[t]) is not None], dim=2)

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count ``k vᵀ`` and ``Sᵀq`` of each token; executed: the chunks' squares too."""
        heads, n = problem.batch * problem.num_heads, problem.seq_len
        d, d_v, training = problem.head_dim, problem.v_dim, mode == "training"
        return Cost(
            pattern_ops=heads * n * 4 * d * d_v * (3 if training else 1),
            executed_ops=heads * executed_ops(n, d, d_v, is_delta=False, training=training),
            exponentials=heads * n,
            bytes=problem.io_bytes(mode),
        )
