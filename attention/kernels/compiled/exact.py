"""Exact softmax attention by the compiled kernel: arXiv 1706.03762, eq. 1."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import partial

import torch
from torch import Tensor

from attention.checks import UnsupportedError
from attention.derivatives import in_transform
from attention.functional import exact_attention_rows, has_values
from attention.kernels.compiled.attention import INSTEAD, compiled_attention
from attention.kernels.compiled.table import ROWS, table_of
from attention.kernels.tiles import Hidden, Tiles
from attention.problem import Mode, Problem

CAUSAL_ROWS = 32
"""Queries of a tile that ends at its last query's key: of fewer, less is computed in vain."""
LEAST_QUERIES = 16
"""Queries of a call that the kernel serves: it computes so many side by side."""


class ExactPlan:
    """Tiles of queries that see every key, or those up to their own: a plan of tiles.

    Args:
        groups: G, batch times heads.
        seq_len: N.
        key_len: M.
        is_causal: query i sees the keys up to ``M - N + i``.
        hidden: bool ``[G, M]``, True = this key is not seen; or ``None``.
    """

    block_size, block_offset = 1, 0
    extra_ranges = ()

    def __init__(
        self, groups: int, seq_len: int, key_len: int, is_causal: bool,
        hidden: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.groups, self.seq_len, self.key_len = groups, seq_len, key_len
        self.is_causal, self.hidden = is_causal, hidden
        self.may_be_empty = hidden is not None or (is_causal and seq_len > key_len)
        self.rows = CAUSAL_ROWS if is_causal else ROWS

    @property
    def key(self) -> Hashable:
        """The shape, where nothing is hidden."""
        if self.hidden is not None:
            return None
        return self.groups, self.seq_len, self.key_len, self.is_causal

    def _reach(self, start: int) -> tuple[int, int]:
        """Return the queries of the tile that starts at `start`, and the keys that they see."""
        rows = min(self.rows, self.seq_len - start)
        if not self.is_causal:
            return rows, self.key_len
        return rows, max(0, start + rows + self.key_len - self.seq_len)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk (rows, columns)."""
        return (self._reach(start) for start in range(0, self.seq_len, self.rows))

    def batches(self, cells: int, *, disjoint: bool) -> Iterator[Tiles]:
        """Walk the queries, the same tile of all groups at a time."""
        for start in range(0, self.seq_len, self.rows):
            rows, width = self._reach(start)
            hidden: tuple[Hidden, ...] = ()
            if self.is_causal and width:
                lo = max(0, width - rows)
                later = torch.ones(rows, width - lo, dtype=torch.bool).triu_(width - lo - rows + 1)
                hidden = (Hidden(lo, width, later),)
            if self.hidden is not None and width:
                hidden = (*hidden, Hidden(0, width, self.hidden[:, None, :width]))
            yield Tiles(0, self.groups, start, rows, 0, width, hidden=hidden)


def compiled_ops(problem: Problem, mode: Mode) -> int:
    """Count the matrix-product operations of a call: those of whole tiles."""
    plan = ExactPlan(1, problem.seq_len, problem.key_len, problem.is_causal)
    pairs = sum(rows * columns for rows, columns in plan.sizes())
    widths = problem.head_dim + problem.v_dim  # of scores and of output
    if mode == "training":  # scores anew, dQ and dK; dP and dV
        widths += 3 * problem.head_dim + 2 * problem.v_dim
    return problem.batch * problem.num_heads * 2 * pairs * widths


def exact_attention(
    q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None,
    scale: float, sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Compute ``softmax(scale·QKᵀ)V``; causal is bottom-right.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D_v]``.
        is_causal: query i sees the keys up to ``M - N + i``.
        key_padding_mask: bool ``[B, M]``, True = takes part; or ``None``.
        scale: factor on the scores.
        sink: logits ``[H]`` that take part in each row's softmax; or ``None``.

    Returns:
        ``[B, H, N, D_v]``; zeros where a query sees no key.

    Raises:
        UnsupportedError: of nested tensors, and under transforms of ``torch.func``.
    """
    if q.is_nested:
        raise UnsupportedError("kernel: compiled takes padded tensors, no nested ones" + INSTEAD)
    if in_transform():
        raise UnsupportedError("kernel: compiled has no transforms of torch.func" + INSTEAD)
    batch, heads, seq_len, _ = q.shape
    hidden = None
    if key_padding_mask is not None:
        hidden = (~key_padding_mask).repeat_interleave(heads, dim=0)  # [G, M]
    plan = ExactPlan(batch * heads, seq_len, k.shape[2], is_causal, hidden)
    rows = partial(
        exact_attention_rows, is_causal=is_causal, key_padding_mask=key_padding_mask, scale=scale
    )

    def plain(q: Tensor, k: Tensor, v: Tensor, _k: None, _v: None, sink: Tensor | None) -> Tensor:
        return rows(q, k, v, sink=sink)

    if not has_values(q):  # a dry run: shapes are all there is
        return plain(q, k, v, None, None, sink)
    return compiled_attention(
        q, k, v, table_of(plan), plain=plain, scale=scale, may_be_empty=plan.may_be_empty,
        sink=sink,
    )  # fmt: skip
