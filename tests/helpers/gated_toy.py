"""A causal method with a decay and a beta of each token: the plainest backend with both.

``S_t = e^{g_t} S_{t-1} + β_t k_t v_tᵀ``, ``o_t = S_tᵀ q_t·scale``. Time and memory ``O(N)``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from attention.base import Attention, CallInput, Cost, Mode, Problem, Supports
from attention.decoding.chunk import Chunk
from attention.decoding.state import DecodeState, StateShape
from attention.functional import expand_kv_heads
from attention.gates import DecayGate, SigmoidGate, draw_beta, draw_decay


class Sums(DecodeState):
    """The state S ``[B, H, D, D_v]``."""

    sequence_axes: ClassVar = {"lengths": 0, "sums": 0}

    def __init__(self, made_by: str, shape: StateShape) -> None:
        super().__init__(made_by, shape)
        self.sums = shape.zeros(shape.batch_size, shape.num_heads, shape.head_dim, shape.v_dim)


class GatedToy(Attention):
    """Causal linear attention with gates."""

    name = "gated_toy"
    summary = "a toy with gates"
    family = "recurrent"
    exact = False
    approximates = "itself"
    supports = Supports(causal=True, bidirectional=False, state=True, value_dim=True)
    refusals: ClassVar = {"bidirectional": "a state is read from left to right"}
    time_exponent = 1.0
    memory_exponent = 2.0  # more than it has: that check takes a walk over 4,096 tokens
    decode_time_exponent = decode_memory_exponent = 0.0
    call_inputs: ClassVar = {
        "decay": CallInput(
            "per_head", "log-decay [B, H, N], at most 0", required=True, or_per_channel=True,
            maximum=0.0, layer=DecayGate, draw=draw_decay,
        ),
        "beta": CallInput(
            "per_head", "gate [B, H, N], 0 to 2", minimum=0.0, maximum=2.0,
            layer=SigmoidGate, draw=draw_beta,
        ),
    }  # fmt: skip

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
        key_padding_mask: Tensor | None, decay: Tensor, beta: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Walk over the tokens; padding has zeros in k, v, decay and beta already."""
        self.kernel = "walk"
        state = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])
        state = state.to(torch.promote_types(q.dtype, torch.float32))
        return _walk(q, k, v, decay, beta, state, self.scale)[0]

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
        key_padding_mask: Tensor | None = None, rows: Tensor | None = None, decay: Tensor,
        beta: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Form all weights: ``q_i (k_j e^{c_i - c_j}) β_j``."""
        decay = decay if decay.dim() == 4 else decay[..., None]
        decay = decay.to(q.dtype)
        if key_padding_mask is not None:
            decay = decay.where(key_padding_mask[:, None, :, None], 0.0)
            k = k.where(key_padding_mask[:, None, :, None], 0.0)
        sums = decay.cumsum(dim=2)
        k, v = expand_kv_heads(k, q.shape[1]), expand_kv_heads(v, q.shape[1])
        between = sums[:, :, :, None] - sums[:, :, None]  # [B, H, N, N, D or 1]
        n = q.shape[2]
        past = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
        weights = between.where(past[..., None], -torch.inf).exp()
        if weights.shape[-1] == 1:
            scores = (q @ k.transpose(-2, -1)) * weights[..., 0] * self.scale
        else:
            scores = torch.einsum("bhid,bhjd,bhijd->bhij", q, k, weights) * self.scale
        if beta is not None:
            scores = scores * beta[:, :, None].to(q.dtype)
        out = scores @ v
        return out if rows is None else out[:, :, rows]

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the product of each query with the state."""
        tokens = problem.batch * problem.num_heads * problem.seq_len
        ops = 2 * tokens * problem.head_dim * problem.v_dim * (1 if mode == "forward" else 3)
        return Cost(ops, ops, tokens, problem.io_bytes(mode))

    def make_state(self, shape: StateShape) -> Sums:
        """Make the sums before any token."""
        return Sums(self.shown(), shape)

    def advance(
        self, chunk: Chunk, state: Any, *, decay: Tensor, beta: Tensor | None = None
    ) -> Tensor:
        """Go on from the sums; padding, which comes last, changes nothing."""
        out, state.sums[:] = _walk(
            chunk.q, chunk.k, chunk.v, decay, beta, state.sums.clone(), self.scale
        )
        state.count(chunk.size, None if chunk.is_even else chunk.counts)
        return out


def _walk(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor | None, state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    given = q.dtype
    decay = decay if decay.dim() == 4 else decay[..., None]
    q, k, v, decay = (x.to(state.dtype) for x in (q, k, v, decay))
    k, v = expand_kv_heads(k, q.shape[1]), expand_kv_heads(v, q.shape[1])
    if beta is not None:
        v = v * beta[..., None].to(v.dtype)
    outs = []
    for t in range(q.shape[2]):
        state = state * decay[:, :, t].exp()[..., None] + k[:, :, t, :, None] * v[:, :, t, None]
        outs.append((q[:, :, t, None] @ state) * scale)
    return torch.cat(outs, dim=2).to(given), state
