"""Rows of blocks with a window, random blocks and global keys, as tiles for FlexAttention.

A tile is a block, so the window and the random blocks are tiles seen whole; ``mask_mod`` decides
in the own block of a causal row and in the global keys, which stand as copies behind the sequence
(`attention.kernels.flex_tiles.ExtraColumns`). Queries and keys both start at block 1: what comes
before are global tokens and block 0, whose rows see everything and are computed elsewhere, as
those of the last block.

Below, `grid` is of the longest sequence of a batch, `grids` are of each; all start at position 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attention.backends.bigbird.grid import BlockGrid
from attention.kernels.flex_tiles import ExtraColumns, MaskMod, SparseTiles

BLOCK_STEP = 32
"""Block sizes are multiples of it: the smallest tile that torch has a backward kernel for."""


def extra_columns(grid: BlockGrid) -> ExtraColumns:
    """Return where the global keys stand: extra tokens, block 0, bidirectional also the last."""
    count = grid.first + (0 if grid.is_causal else grid.block_size)
    return ExtraColumns(grid.block_size, max(0, grid.blocks - 1), count)


def sparse_end(grid: BlockGrid) -> int:
    """Return one past the last query that sees part of a sequence only."""
    if grid.is_causal:
        return max(grid.length, grid.first)
    return grid.global_tokens + max(1, grid.blocks - 1) * grid.block_size


def global_keys(
    grid: BlockGrid, grids: Sequence[BlockGrid], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return positions of the extra keys ``[B, X]``, and which of them there are."""
    ends = torch.tensor([one.length for one in grids], device=device)[:, None]
    at = torch.arange(grid.first, device=device).expand(len(grids), -1)
    if not grid.is_causal:
        last = torch.tensor([sparse_end(one) for one in grids], device=device)[:, None]
        at = torch.cat([at, last + torch.arange(grid.block_size, device=device)], dim=1)
    return at.clamp(max=grid.length - 1), at < ends


def block_mask(is_causal: bool, base: int, seen: Tensor) -> MaskMod:
    """Return what is seen inside a partial tile.

    Args:
        is_causal: a query sees its past.
        base: first extra key.
        seen: bool ``[B, M]``, which keys take part.
    """

    def only_seen(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return seen[b, kv]

    def past_and_seen(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return ((kv >= base) | (kv <= q)) & seen[b, kv]

    return past_and_seen if is_causal else only_seen


def block_tiles(
    grid: BlockGrid, grids: Sequence[BlockGrid], random: Sequence[Tensor], *, holes: bool,
    device: torch.device,
) -> SparseTiles:  # fmt: skip
    """List the tiles of the rows from block 1 on.

    Args:
        grid: of the longest sequence, of two blocks at least.
        grids: of each sequence; one for all, where they are equal.
        random: for each the random blocks ``[H, blocks, r]``, -1 = none.
        holes: whether single keys may be hidden: no tile is then seen whole.
        device: of the lists.
    """
    parts = [_rows(grid, one, r.to(device)) for one, r in zip(grids, random, strict=True)]
    partial, full = (torch.stack(part) for part in zip(*parts, strict=True))  # [B, H, rows, K]
    if holes:
        partial, full = torch.cat([partial, full], dim=3), torch.full_like(full[..., :1], -1)
    return SparseTiles.of(
        partial,
        full,
        tile=grid.block_size,
        seq_len=grid.length - grid.first,
        key_len=extra_columns(grid).key_len,
    )


def _rows(grid: BlockGrid, one: BlockGrid, random: Tensor) -> tuple[Tensor, Tensor]:
    """Return the partial and the full tiles of one sequence ``[H, rows, K]``; tile = block - 1."""
    device, heads, columns = random.device, random.shape[0], extra_columns(grid)
    last = one.blocks if one.is_causal else one.blocks - 1  # one past the last sparse row
    block = torch.arange(1, columns.rows + 1, device=device)[:, None]  # [rows, 1]
    live = block < last
    near = block + torch.tensor([-1, 0] if one.is_causal else [-1, 0, 1], device=device)
    # Block 0 is no tile: what has none is 0 here, and -1 once blocks become tiles at the end.
    window = torch.where(live & (near >= 1) & (near < last), near, 0)  # [rows, 2 or 3]
    chosen = torch.full((heads, columns.rows, random.shape[2]), -1, device=device)
    count = min(columns.rows, max(0, random.shape[1] - 1))
    chosen[:, :count] = random[:, 1 : count + 1]
    chosen = torch.where(live, chosen, -1).clamp(min=0)
    own_block = window[:, 1:] if one.is_causal else window[:, :0]
    others = window[:, :1] if one.is_causal else window
    extra = torch.where(live, columns.columns(device) + 1, 0)  # [rows, tiles of a copy]
    partial = torch.cat([own_block, extra], dim=1).expand(heads, -1, -1)
    full = torch.cat([others.expand(heads, -1, -1), chosen], dim=2)
    return partial - 1, full - 1
