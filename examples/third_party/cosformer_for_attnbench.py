"""cosFormer: linear attention whose weights fall with the distance.

Qin et al. 2022, arXiv 2202.08791, eq. 10: ``w_ij = relu(q_i)·relu(k_j)·cos(π/2·(i - j)/M)``, each
row divided by its sum. The cosine of a difference is a sum of products, so keys are summed up
before any query comes. Time ``O(N·D²)``, memory ``O(N·D)``.
"""

import math

import torch
from torch import Tensor

from attention.base import Attention
from attention.checks import check_int
from attention.functional import expand_kv_heads
from attention.problem import Cost, Mode, Problem, Supports
from attention.registry import register


@register("cosformer")
class CosformerAttention(Attention):
    """Bidirectional linear attention with a cosine of the distance.

    Args:
        num_heads: H.
        head_dim: D.
        seq_len: M, the longest sequence: the distance at which weights would reach zero.
    """

    summary = "linear attention, weights that fall with the distance"
    paper = "Qin et al. 2022, arXiv 2202.08791"
    family = "kernel"
    exact = False
    supports = Supports(causal=False, cross=False, key_padding=True, dropout=False)
    refusals = {
        "causal": "one sum over all keys serves every query",
        "cross": "its weights are of distances within one sequence",
    }
    time_exponent = memory_exponent = 1.0

    def __init__(self, *, num_heads: int, head_dim: int, seq_len: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)
        self.seq_len = check_int("seq_len", seq_len, minimum=1)

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: a sequence longer than M, where the cosine would turn negative."""
        reasons = super().unsupported_reasons(problem)
        if problem.seq_len > self.seq_len:
            reasons.append(
                f"seq_len: built for at most {self.seq_len} tokens, got {problem.seq_len}"
            )
        return reasons

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Sum up the keys, then let every query read the sum."""
        self.kernel = "two_products"
        dtype, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)  # sums need the range
        q, k, v = self._features(q.to(wide)), self._features(k.to(wide)), v.to(wide)
        if key_padding_mask is not None:
            k = k * key_padding_mask[:, None, :, None]
        ones = v.new_ones(*v.shape[:-1], 1)  # a column that collects the sums of rows
        state = k.transpose(-2, -1) @ torch.cat([v, ones], dim=-1)  # [B, H_kv, 2D, D + 1]
        out = q @ expand_kv_heads(state, self.num_heads)  # [B, H, N, D + 1]
        return _divided(out[..., :-1], out[..., -1:]).to(dtype)

    def _features(self, x: Tensor) -> Tensor:
        """Map to ``[relu(x)·cos(angle), relu(x)·sin(angle)]``: ``[B, H, N, 2D]``."""
        angle = torch.arange(x.shape[2], device=x.device, dtype=x.dtype)[:, None]
        angle = angle * (math.pi / 2 / self.seq_len)
        x = x.relu()
        return torch.cat([x * angle.cos(), x * angle.sin()], dim=-1)

    def reference(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Form the weights ``[B, H, N, M]`` and divide each row by its sum."""
        at = torch.arange(q.shape[2], device=q.device)
        mine = at if rows is None else rows
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        weights = q[:, :, mine].relu() @ k.relu().transpose(-2, -1)  # [B, H, N, M]
        distance = (mine[:, None] - at).to(q.dtype)
        weights = weights * torch.cos(math.pi / 2 * distance / self.seq_len)
        if key_padding_mask is not None:
            weights = weights.masked_fill(~key_padding_mask[:, None, None, :], 0.0)
        return _divided(weights @ v, weights.sum(dim=-1, keepdim=True))

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count two products of 2·D by D + 1; the backward pass has two for each of them."""
        keys = problem.batch * problem.num_kv_heads * problem.key_len * 2 * self.head_dim
        queries = problem.batch * problem.num_heads * problem.seq_len * 2 * self.head_dim
        ops = 2 * (keys + queries) * (self.head_dim + 1) * (1 if mode == "forward" else 3)
        return Cost(
            pattern_ops=ops, executed_ops=ops, exponentials=0, bytes=problem.io_bytes(mode)
        )


def _divided(sums: Tensor, total: Tensor) -> Tensor:
    """Divide by the sums of rows; a row without a weight gives zeros."""
    return torch.where(total > 0, sums / total.clamp_min(torch.finfo(sums.dtype).tiny), 0.0)
