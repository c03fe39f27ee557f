"""Rows of blocks by FlexAttention, and torch's fused kernel for the rows that see all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.backends.bigbird.flex_tiles import (
    BLOCK_STEP,
    block_mask,
    block_tiles,
    extra_columns,
    global_keys,
    sparse_end,
)
from attention.backends.bigbird.grid import BlockGrid, real_spans
from attention.backends.bigbird.pattern import BlockPattern
from attention.functional import gather_tokens, opaque
from attention.kernels.flex import attend, check_gradient, flex_ops
from attention.kernels.flex_tiles import SparseTiles
from attention.kernels.fused import sdpa_rows


@opaque
def attend_by_flex(
    q: Tensor, k: Tensor, v: Tensor, pattern: BlockPattern,
    *, is_causal: bool, key_padding_mask: Tensor | None, scale: float,
) -> Tensor:  # fmt: skip
    """Attend with FlexAttention; each sequence is first moved to position 0.

    Arguments as in `BigBirdAttention.attend`.

    Raises:
        UnsupportedError: on a CPU, if a gradient is wanted.
    """
    check_gradient(q, k, v)
    batch, _, seq_len, _ = q.shape
    if key_padding_mask is None:
        grids = [pattern.grid(seq_len, is_causal)] * batch
        return torch.cat(_parts(q, k, v, pattern, grids, None, scale)[0], dim=2)
    spans = real_spans(key_padding_mask)
    grids = [pattern.grid(stop - start, is_causal) for start, stop in spans]
    starts = torch.tensor([start for start, _ in spans], device=q.device)
    position = torch.arange(seq_len, device=q.device)
    at = (position + starts[:, None]).clamp(max=seq_len - 1)  # [B, N]
    ends = torch.tensor([grid.length for grid in grids], device=q.device)[:, None]
    hidden = ~key_padding_mask.gather(1, at) & (position < ends)
    q, k, v = (gather_tokens(x, at) for x in (q, k, v))
    rows = _parts(q, k, v, pattern, grids, hidden if bool(hidden.any()) else None, scale)
    outs = [
        pad(torch.cat(parts, dim=2), (0, 0, start, seq_len - stop))
        for parts, (start, stop) in zip(rows, spans, strict=True)
    ]
    return torch.cat(outs)


def _parts(
    q: Tensor, k: Tensor, v: Tensor, pattern: BlockPattern, grids: list[BlockGrid],
    hidden: Tensor | None, scale: float,
) -> list[list[Tensor]]:  # fmt: skip
    """Return the rows of the output in order, in parts; one list a sequence.

    Where all sequences are whole, one list serves the batch.
    """
    grid = pattern.grid(q.shape[2], grids[0].is_causal)
    whole = hidden is None and all(one == grid for one in grids)
    listed = grids[:1] if whole else grids
    sparse = None
    if grid.blocks > 1:
        tiles = _tiles(pattern, grid, listed, hidden is not None, q.device)
        sparse = block_attention(q, k, v, grid, grids, tiles, scale=scale, hidden=hidden)
    rows = []
    for row, one in enumerate(listed):
        some = slice(None) if whole else slice(row, row + 1)
        mask = None if hidden is None else hidden[some, : one.length]
        mask = mask if mask is not None and bool(mask.any()) else None
        x, keys, values = (each[some, :, : one.length] for each in (q, k, v))
        parts = [
            full_rows(x, keys, values, edges, is_causal=one.is_causal, scale=scale, hidden=mask)
            for edges in one.full_rows()
            if one.length
        ]
        if sparse is not None and one.length > grid.first:
            parts.insert(1, sparse[some, :, : sparse_end(one) - grid.first])
        # No real token: empty, but in the graph.
        rows.append(parts or [x + keys.sum() + values.sum()])
    return rows


def block_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: BlockGrid, grids: Sequence[BlockGrid],
    tiles: SparseTiles, *, scale: float, hidden: Tensor | None,
) -> Tensor:  # fmt: skip
    """Attend from block 1 on, compiled: ``[B, H, N - first, D]``.

    Unspecified from `sparse_end` on; `tiles` are made by `block_tiles` of the same grids.
    """
    extra = extra_columns(grid)
    at, present = global_keys(grid, grids, q.device)  # [B, X], [B, X]
    if hidden is not None:
        present = present & ~hidden.gather(1, at)
    keys, values = (
        extra.join(x[:, :, grid.first :], gather_tokens(x, at)) for x in (k, v)
    )  # [B, H_kv, key_len, D]
    seen = torch.ones(q.shape[0], 1, grid.length, dtype=torch.bool, device=q.device)
    seen = seen if hidden is None else ~hidden[:, None]
    seen = extra.join_mask(seen[..., grid.first :], present)[:, 0]  # [B, key_len]
    mask_mod = block_mask(grid.is_causal, extra.base, seen)
    queries = q[:, :, grid.first :]
    return attend(queries, keys, values, tiles, mask_mod, scale=scale, kind=("blocks", grid))


def full_rows(
    q: Tensor, k: Tensor, v: Tensor, edges: tuple[int, int],
    *, is_causal: bool, scale: float, hidden: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attend from the queries between `edges` to all keys, when causal to their past.

    By torch's fused kernel: ``[B, H, stop - start, D]``, zeros where a query sees no key.
    """
    start, stop = edges
    reach = stop if is_causal else k.shape[2]
    unseen = None if hidden is None else hidden[:, None, None, :reach]
    if is_causal:
        at = torch.arange(start, stop, device=q.device)[:, None]
        future = (torch.arange(reach, device=q.device) > at)[None, None]  # [1, 1, rows, reach]
        unseen = future if unseen is None else unseen | future
    rows, keys, values = q[:, :, start:stop], k[:, :, :reach], v[:, :, :reach]
    return sdpa_rows(rows, keys, values, hidden=unseen, scale=scale)


def _tiles(
    pattern: BlockPattern, grid: BlockGrid, grids: list[BlockGrid], holes: bool,
    device: torch.device,
) -> SparseTiles:  # fmt: skip
    """Return FlexAttention's tiles of sequences of these grids; cached."""

    def make() -> SparseTiles:
        random = [pattern.random_blocks(one, device) for one in grids]
        return block_tiles(grid, grids, random, holes=holes, device=device)

    return pattern.cached("flex", (grid, tuple(grids), holes, device), make)


def flex_block_ops(pattern: BlockPattern, grid: BlockGrid, dim: int, training: bool) -> int:
    """Count the operations of FlexAttention's tiles and of the full rows, for one head."""
    full = sum(
        (stop - start) * (stop if grid.is_causal else grid.length)
        for start, stop in grid.full_rows()
    )
    executed = full * 2 * dim * (7 if training else 2)
    if grid.blocks < 2 or grid.block_size % BLOCK_STEP:
        return executed
    random = pattern.draw(grid, heads=1)
    tiles = block_tiles(grid, [grid], [random], holes=False, device=random.device)
    return executed + flex_ops(tiles.covered_pairs, dim, training)
