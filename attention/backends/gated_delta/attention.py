"""The gated delta rule: DeltaNet, Gated DeltaNet and Kimi delta attention.

``S_t = (I - β_t k_t k_tᵀ) e^{g_t} S_{t-1} + β_t k_t v_tᵀ``, ``o_t = S_tᵀ q_t·scale``: g is 0
(DeltaNet, Yang et al. 2024, arXiv 2406.06484), of each token (Gated DeltaNet, Yang et al. 2024,
arXiv 2412.06464, eq. 10), or of each token and channel of the key (Kimi delta attention, 2025,
arXiv 2510.26692). A chunk of C tokens is one triangular system (the WY form, section 3.3 of
2412.06464). Time ``O(N·D·(C + D))``, memory ``O(N·D)``; S has a fixed size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from attention.base import Attention
from attention.checks import check_bool
from attention.decoding.caches import MatrixState
from attention.decoding.chunk import Chunk
from attention.decoding.state import StateShape
from attention.functional import expand_kv_heads
from attention.gates import DecayGate, SigmoidGate, draw_beta, draw_decay
from attention.kernels.onednn import mark
from attention.kernels.recurrent.blocks import Rule
from attention.kernels.recurrent.heads import attend_heads, continue_heads, executed_ops
from attention.problem import CallInput, Cost, Mode, Problem, Supports
from attention.registry import register


@register("gated_delta")
class GatedDeltaAttention(Attention):
    """A state in which a value replaces what its key held.

    Args:
        num_heads: H.
        head_dim: D.
        normalize: divide q and k by their lengths; without it the state grows without bound where
            ``β|k|²`` is above 2.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
    """

    summary = "delta rule with decay"
    paper = "Yang et al. 2024, arXiv 2412.06464"
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
        ),
        "beta": CallInput(
            "per_head", "how much of the old value is replaced [B, H, N], 0 to 2; left out = 1",
            minimum=0.0, maximum=2.0, layer=SigmoidGate, draw=draw_beta,
        ),
    }  # fmt: skip

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        normalize: bool = True,
        scale: float | None = None,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale)
        self.normalize = check_bool("normalize", normalize)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
        key_padding_mask: Tensor | None, decay: Tensor | None = None, beta: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Walk over blocks of chunks; padding has zeros in k, v, decay and beta already."""
        self.kernel = "chunked_wy" + mark(q)
        return attend_heads(self._rule(), (q, k, v, decay, beta))

    def make_state(self, shape: StateShape) -> MatrixState:
        """Keep S."""
        return MatrixState(self.shown(), shape)

    def advance(
        self, chunk: Chunk, state: MatrixState, *, decay: Tensor | None = None,
        beta: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Read S, and write to it."""
        self.kernel = "chunked_wy" + mark(chunk.q) if chunk.size > 1 else "one_token"
        tokens = (chunk.q, chunk.k, chunk.v, decay, beta)
        out = continue_heads(self._rule(), tokens, state.s)
        state.advance(chunk)
        return out

    def _rule(self) -> Rule:
        return Rule(self.scale, is_delta=True, normalize=self.normalize)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
        key_padding_mask: Tensor | None = None, rows: Tensor | None = None,
        decay: Tensor | None = None, beta: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Walk over the tokens, as the formula does."""
        if self.normalize:  # the published code adds 1e-6 to the square
            q, k = (x / (x.square().sum(dim=-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
        k, v = expand_kv_heads(k, q.shape[1]), expand_kv_heads(v, q.shape[1])
        factors = None if decay is None else decay.to(q.dtype).exp()
        if factors is not None and factors.dim() == 3:
            factors = factors[..., None]
        state, outs = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), []
        wanted = set(range(q.shape[2]) if rows is None else rows.tolist())
        for t in range(q.shape[2]):
            new = state if factors is None else state * factors[:, :, t, :, None]
            error = v[:, :, t] - (k[:, :, t, None] @ new)[:, :, 0]
            if beta is not None:
                error = error * beta[:, :, t, None].to(q.dtype)
            new = new + k[:, :, t, :, None] * error[:, :, None]
            if key_padding_mask is None:
                state = new
            else:
                state = torch.where(key_padding_mask[:, t, None, None, None], new, state)
            outs.append((q[:, :, t, None] @ state)[:, :, 0] * self.scale if t in wanted else None)
        picked = range(q.shape[2]) if rows is None else rows.tolist()
        return torch.stack([x for t in picked if (x := outs[t]) is not None], dim=2)

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count ``Sᵀk``, ``k vᵀ`` and ``Sᵀq`` of each token; executed: the chunks' squares too."""
        heads, n = problem.batch * problem.num_heads, problem.seq_len
        d, d_v, training = problem.head_dim, problem.v_dim, mode == "training"
        return Cost(
            pattern_ops=heads * n * 6 * d * d_v * (3 if training else 1),
            executed_ops=heads * executed_ops(n, d, d_v, is_delta=True, training=training),
            exponentials=heads * n,
            bytes=problem.io_bytes(mode),
        )
