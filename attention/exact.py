"""What the exact backends share: eq. 1 of Vaswani et al. 2017 (arXiv 1706.03762) as reference.

``softmax(QKᵀ·scale)V`` over all pairs. How a backend computes it is its own affair.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attention.base import Attention
from attention.decoding.caches import KeyValueCache
from attention.decoding.chunk import Chunk
from attention.decoding.state import StateShape, alike
from attention.functional import exact_attention_rows
from attention.problem import Cost, Mode, Problem, softmax_ops


class ExactAttention(Attention):
    """A backend that computes eq. 1 exactly; the arguments are those of `Attention`."""

    family = "dense"
    exact = True
    approximates = "softmax"

    @property
    def recomputes(self) -> bool:
        """Whether the backward pass computes the scores anew, as fused kernels do."""
        return True

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
        key_padding_mask: Tensor | None = None, rows: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Compute eq. 1, row by row."""
        return exact_attention_rows(
            q,
            k,
            v,
            is_causal=is_causal,
            key_padding_mask=key_padding_mask,
            rows=rows,
            scale=self.scale,
            sink=getattr(self, "sink", None),
        )

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the pairs that are seen."""
        heads = problem.batch * problem.num_heads
        pattern = heads * softmax_ops(problem.pairs, problem.head_dim, mode, problem.v_dim)
        again = heads * 2 * problem.pairs * problem.head_dim
        return Cost(
            pattern_ops=pattern,
            executed_ops=pattern + (again if mode == "training" and self.recomputes else 0),
            exponentials=heads * problem.pairs,
            bytes=problem.io_bytes(mode),
        )

    def make_state(self, shape: StateShape) -> KeyValueCache:
        """Keep every key and value."""
        return KeyValueCache(self.shown(), shape)

    def advance(self, chunk: Chunk, state: KeyValueCache) -> Tensor:
        """Attend to the cache; a chunk of tokens for all sequences that are equally long."""
        before = list(alike(state, chunk)) if chunk.size > 1 else []
        state.append(chunk)
        if not before:
            mask = None
            if not state.is_even:
                at = torch.arange(state.longest, device=chunk.q.device)
                mask = at < state.lengths[:, None]
            return self.attend(chunk.q, *state.held(), is_causal=False, key_padding_mask=mask)
        if len(before) == 1 and chunk.is_even:
            return self.attend(chunk.q, *state.held(), is_causal=True, key_padding_mask=None)
        out = chunk.q.new_zeros(*chunk.q.shape[:3], chunk.v.shape[3])
        for rows, length, count in before:
            k, v = (x[rows, :, : length + count] for x in (state.k, state.v))
            out[rows, :, :count] = self.attend(
                chunk.q[rows, :, :count], k, v, is_causal=True, key_padding_mask=None
            )
        return out
