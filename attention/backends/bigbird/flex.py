"""Rows of blocks by FlexAttention, and torch's fused kernel for the rows that see all."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.backends.bigbird.grid import BlockGrid, real_spans
from attention.backends.bigbird.pattern import BlockPattern
from attention.functional import gather_tokens, opaque
from attention.kernels.flex import check_gradient, flex_ops
from attention.kernels.flex_blocks import (
    BLOCK_STEP,
    BlockShape,
    block_attention,
    block_tiles,
    full_rows,
)
from attention.kernels.flex_tiles import SparseTiles


@opaque
def attend_by_flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: BlockPattern,
    *,
    is_causal: bool,
    key_padding_mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Attend with FlexAttention; each sequence is first moved to position 0.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, N, D]``.
        v: ``[B, H_kv, N, D]``.
        pattern: the blocks that each row sees.
        is_causal: the past alone.
        key_padding_mask: bool ``[B, N]``, True = takes part; or ``None``.
        scale: factor on the scores.

    Raises:
        UnsupportedError: on a CPU, if a gradient is wanted.
    """
    check_gradient(q, k, v)
    batch, _, seq_len, _ = q.shape
    if key_padding_mask is None:
        lengths = [seq_len] * batch
        return torch.cat(_parts(q, k, v, pattern, is_causal, lengths, None, scale)[0], dim=2)
    spans = real_spans(key_padding_mask)
    starts = torch.tensor([start for start, _ in spans], device=q.device)
    at = (torch.arange(seq_len, device=q.device) + starts[:, None]).clamp(
        max=seq_len - 1
    )  # [B, N]
    lengths = [stop - start for start, stop in spans]
    ends = torch.tensor(lengths, device=q.device)[:, None]
    hidden = ~key_padding_mask.gather(1, at) & (torch.arange(seq_len, device=q.device) < ends)
    q, k, v = (gather_tokens(x, at) for x in (q, k, v))
    holes = hidden if bool(hidden.any()) else None
    rows = _parts(q, k, v, pattern, is_causal, lengths, holes, scale)
    pad = torch.nn.functional.pad
    outs = [
        pad(torch.cat(parts, dim=2), (0, 0, start, seq_len - stop))
        for parts, (start, stop) in zip(rows, spans, strict=True)
    ]
    return torch.cat(outs)


def _parts(
    q: Tensor, k: Tensor, v: Tensor, pattern: BlockPattern, is_causal: bool, lengths: list[int],
    hidden: Tensor | None, scale: float,
) -> list[list[Tensor]]:  # fmt: skip
    """Return the rows of the output in order, in parts; one list a sequence.

    Where all sequences are whole, one list serves the batch.
    """
    shape = BlockShape(q.shape[2], pattern.block_size, pattern.num_global_tokens, is_causal)
    whole = min(lengths) == shape.seq_len and hidden is None
    sparse = None
    if shape.rows:
        tiles = _tiles(
            pattern, shape, lengths[:1] if whole else lengths, hidden is not None, q.device
        )
        sparse = block_attention(q, k, v, shape, tiles, lengths, scale=scale, hidden=hidden)
    rows = []
    for row, length in enumerate(lengths[:1] if whole else lengths):
        some = slice(None) if whole else slice(row, row + 1)
        mask = None if hidden is None else hidden[some, :length]
        mask = mask if mask is not None and bool(mask.any()) else None
        x, keys, values = (one[some, :, :length] for one in (q, k, v))
        full = [
            full_rows(x, keys, values, edges, is_causal=is_causal, scale=scale, hidden=mask)
            for edges in pattern.grid(length, is_causal).full_rows()
            if length
        ]
        if sparse is not None and length > shape.first:
            full.insert(1, sparse[some, :, : shape.sparse_end(length) - shape.first])
        # No real token: empty, but in the graph.
        rows.append(full or [x + keys.sum() + values.sum()])
    return rows


def _tiles(
    pattern: BlockPattern, shape: BlockShape, lengths: list[int], holes: bool, device: torch.device
) -> SparseTiles:
    """Return FlexAttention's tiles of sequences of these lengths; cached."""

    def make() -> SparseTiles:
        grids = [pattern.grid(length, shape.is_causal) for length in lengths]
        random = [pattern.random_blocks(grid, device) for grid in grids]
        return block_tiles(shape, lengths, random, holes=holes, device=device)

    return pattern.cached("flex", (shape, tuple(lengths), holes, device), make)


def flex_block_ops(pattern: BlockPattern, grid: BlockGrid, dim: int, training: bool) -> int:
    """Count the operations of FlexAttention's tiles and of the full rows, for one head."""
    full = sum(
        (stop - start) * (stop if grid.is_causal else grid.length)
        for start, stop in grid.full_rows()
    )
    executed = full * 2 * dim * (7 if training else 2)
    shape = BlockShape(grid.length, grid.block_size, grid.global_tokens, grid.is_causal)
    if not shape.rows or grid.block_size % BLOCK_STEP:
        return executed
    random = pattern.draw(grid, heads=1)
    tiles = block_tiles(shape, [grid.length], [random], holes=False, device=random.device)
    return executed + flex_ops(tiles.covered_pairs, dim, training)
