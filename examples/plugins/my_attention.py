"""Linear attention: a feature map in place of the softmax, multiplied from the right.

Katharopoulos et al. 2020, arXiv 2006.16236, section 3.2: ``out_i = φ(q_i)·S / φ(q_i)·z`` with
``S = Σ_j φ(k_j)ᵀ v_j``, ``z = Σ_j φ(k_j)`` and ``φ(x) = elu(x) + 1``. Time ``O(N·D²)``, memory
``O(N·D)``: the keys are summed up before any query comes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from attention.base import Attention, Cost, Mode, Problem, Supports
from attention.functional import expand_kv_heads
from attention.registry import register


@register("elu_linear")
class EluLinearAttention(Attention):
    """Bidirectional linear attention with the feature map elu + 1.

    Args:
        num_heads: H.
        head_dim: D.
    """

    summary = "linear attention with the feature map elu + 1"
    paper = "Katharopoulos et al. 2020, arXiv 2006.16236"
    family = "kernel"
    exact = False
    supports = Supports(causal=False, cross=True, key_padding=True, dropout=False)
    refusals = {"causal": "one sum over all keys serves every query"}
    time_exponent = memory_exponent = 1.0

    def __init__(self, *, num_heads: int, head_dim: int) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Sum up the keys, then let every query read the sum."""
        self.kernel = "two_products"
        dtype, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)  # sums need the range
        q, k, v = feature_map(q.to(wide)), feature_map(k.to(wide)), v.to(wide)
        if key_padding_mask is not None:
            k = k * key_padding_mask[:, None, :, None]
        ones = v.new_ones(*v.shape[:-1], 1)  # a column that collects z beside S
        state = k.transpose(-2, -1) @ torch.cat([v, ones], dim=-1)  # [B, H_kv, D, D + 1]
        out = q @ expand_kv_heads(state, self.num_heads)  # [B, H, N, D + 1]
        # Without a key both sums are zero, and so is the output.
        return (out[..., :-1] / out[..., -1:].clamp_min(torch.finfo(wide).tiny)).to(dtype)

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
        """Form the weights ``[B, H, N, M]`` and normalise each row."""
        q = q if rows is None else q[:, :, rows]
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        weights = feature_map(q) @ feature_map(k).transpose(-2, -1)  # [B, H, N, M]
        if key_padding_mask is not None:
            weights = weights.masked_fill(~key_padding_mask[:, None, None, :], 0.0)
        total = weights.sum(dim=-1, keepdim=True)
        return (weights / total.masked_fill(total == 0, 1.0)) @ v

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count two products of D by D + 1; the backward pass has two for each of them."""
        keys = problem.batch * problem.num_kv_heads * problem.key_len * self.head_dim
        queries = problem.batch * problem.num_heads * problem.seq_len * self.head_dim
        ops = 2 * (keys + queries) * (self.head_dim + 1) * (1 if mode == "forward" else 3)
        return Cost(
            pattern_ops=ops,
            executed_ops=ops,
            exponentials=keys + queries,
            bytes=problem.io_bytes(mode),
        )


def feature_map(x: Tensor) -> Tensor:
    """Map to positive features: ``elu(x) + 1``."""
    return F.elu(x) + 1.0
