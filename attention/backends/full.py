"""Full: materialised softmax attention, the quadratic baseline.

Vaswani et al. 2017, arXiv 1706.03762, eq. 1: ``softmax(QKᵀ/sqrt(D))V`` with the N×M matrix of
weights in memory. Time ``O(N·M·D)``, memory ``O(N·M)``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.base import EVERYWHERE
from attention.exact import ExactAttention
from attention.functional import expand_kv_heads, in_float32
from attention.kernels.sinks import WithSink, as_key, keys_beside
from attention.problem import Cost, Mode, Problem, Supports, softmax_ops
from attention.registry import register


@register("full")
class FullAttention(WithSink, ExactAttention):
    """Exact softmax attention that writes its weights to memory.

    Half precision is computed in float32 and rounded once, as torch's own plain kernel
    (``SDPBackend.MATH``) does: scores rounded to bfloat16 would be off by as much as 1 from 256
    on, and those of float16 overflow. So the N×M matrices take four bytes a number there too.

    Args:
        num_heads: H.
        head_dim: D.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.
        sink: a learnt logit of each head, the parameter `sink` ``[H]``, takes part in the softmax
            and has no value, as in gpt-oss; a tensor gives the logits to begin with.
    """

    summary = "materialised softmax, the quadratic baseline"
    paper = "Vaswani et al. 2017, arXiv 1706.03762"
    supports = Supports(
        causal=True, cross=True, key_padding=True, dropout=True, state=True, log_sum_exp=True,
        value_dim=True, dtypes=EVERYWHERE,
    )  # fmt: skip
    time_exponent = memory_exponent = 2.0

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        scale: float | None = None,
        dropout_p: float = 0.0,
        sink: bool | Tensor = False,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale, dropout_p=dropout_p)
        self.take_sink(sink, num_heads)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Compute scores, weights and their product, each as a tensor of its own."""
        self.kernel = "materialised"
        dtype = q.dtype
        q, k, v = in_float32(q, k, v)
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        hidden, empty = self._hidden(q, k, is_causal, key_padding_mask)
        q = q * self.scale
        if self.sink is not None:
            q, k, v = as_key(q, k, v, self.sink)
            hidden = None if hidden is None else pad(hidden, (0, v.shape[2] - hidden.shape[3]))
        scores = torch.matmul(q, k.transpose(-2, -1))  # [B, H, N, M]
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        if self.active_dropout_p:
            weights = torch.dropout(weights, self.active_dropout_p, train=True)
        out = torch.matmul(weights, v).to(dtype)
        return out if empty is None else out.masked_fill(empty, 0.0)

    def attend_with_lse(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend, and compute the scores once more for their log-sum-exp: before any dropout."""
        out = self.attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask)
        wide = torch.promote_types(q.dtype, torch.float32)
        keys = expand_kv_heads(k, self.num_heads).to(wide)
        scores = torch.matmul(q.to(wide) * self.scale, keys.transpose(-2, -1))
        hidden, empty = self._hidden(q, k, is_causal, key_padding_mask)
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        lse = torch.logsumexp(scores, dim=-1)
        return out, lse if empty is None else lse.masked_fill(empty[..., 0], float("-inf"))

    @staticmethod
    def _hidden(
        q: Tensor, k: Tensor, is_causal: bool, key_padding_mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return what is hidden ``[B|1, 1, N|1, M]`` and the queries that see nothing.

        A query that sees nothing is left unmasked, so that no NaN arises, and zeroed later.
        """
        n, m = q.shape[2], k.shape[2]
        hidden = None
        if is_causal:
            ones = torch.ones(n, m, dtype=torch.bool, device=q.device)
            hidden = ones.triu_(m - n + 1)[None, None]
        if key_padding_mask is not None:
            padding = ~key_padding_mask[:, None, None, :]
            hidden = padding if hidden is None else hidden | padding
        if hidden is None or (key_padding_mask is None and n <= m):
            return hidden, None
        empty = hidden.all(dim=-1, keepdim=True)
        return hidden & ~empty, empty

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count all N·M pairs as executed, causal or not: the matrix is computed whole."""
        everything = problem.batch * problem.num_heads * problem.seq_len * problem.key_len
        dim = problem.head_dim
        if self.sink is not None:  # keys and a channel more
            beside = keys_beside(problem.key_len)
            everything = everything // problem.key_len * (problem.key_len + beside)
            dim += 1
        executed = softmax_ops(everything, dim, mode, problem.v_dim)
        return replace(super().cost(problem, mode), executed_ops=executed)
