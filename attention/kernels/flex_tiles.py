"""Lists of tiles for FlexAttention, made from a pattern's arithmetic, never from a dense mask.

A list is ``[rows, K]`` numbers, K the tiles that a row reads, never rows × columns. Longformer and
BigBird make them, for a band and for blocks.

Torch asks for lists that are as wide as there are tiles. What lies behind a row's count is never
read, so here the rows of a list overlap in memory: the shape that torch wants, in ``O(rows·K)``
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


RUN = 64
"""Rows of tiles that share one copy of the extra keys."""


@dataclass(frozen=True)
class TileLists:
    """Which tiles each row reads.

    Attributes:
        counts: how many, int32 ``[B or 1, H or 1, rows]``.
        indices: which, int32 ``[B or 1, H or 1, rows, columns]``; entries behind a count belong
            to other rows.
    """

    counts: Tensor
    indices: Tensor


@dataclass(frozen=True)
class SparseTiles:
    """A pattern of tiles: by rows of queries for the forward pass, by columns for the backward.

    Attributes:
        tile: tokens in a tile, of queries as of keys.
        seq_len: queries.
        key_len: keys, copies of extra keys included.
        partial: tiles in which ``mask_mod`` decides.
        partial_by_key: the same, by columns.
        full: tiles that are seen whole; ``None`` = none.
        full_by_key: the same, by columns.
    """

    tile: int
    seq_len: int
    key_len: int
    partial: TileLists
    partial_by_key: TileLists
    full: TileLists | None
    full_by_key: TileLists | None

    @classmethod
    def of(
        cls, partial: Tensor, full: Tensor, *, tile: int, seq_len: int, key_len: int
    ) -> SparseTiles:
        """Make the lists from the tiles that each row reads.

        Args:
            partial: indices of tiles ``[B or 1, H or 1, rows, K]``, -1 = none, none twice a row.
            full: as `partial`; no tile stands in both.
            tile: tokens in a tile.
            seq_len: queries.
            key_len: keys.
        """
        columns = -(-key_len // tile)
        some = bool((full >= 0).any())
        with torch.inference_mode(False):  # lists are cached, and a backward pass keeps them
            return cls(
                tile=tile,
                seq_len=seq_len,
                key_len=key_len,
                partial=by_row(partial, columns),
                partial_by_key=by_column(partial, columns),
                full=by_row(full, columns) if some else None,
                full_by_key=by_column(full, columns) if some else None,
            )

    @property
    def layout(self) -> tuple[tuple[int, ...], ...]:
        """Distances in memory, which compiled code has as constants."""
        lists = (self.partial, self.partial_by_key, self.full, self.full_by_key)
        return tuple(() if one is None else one.indices.stride() for one in lists)

    @property
    def covered_pairs(self) -> int:
        """Query-key pairs that the tiles hold, summed over the batch rows and heads listed."""
        tiles = int(self.partial.counts.sum())
        tiles += 0 if self.full is None else int(self.full.counts.sum())
        return tiles * self.tile**2

    def block_mask(self, mask_mod: MaskMod) -> Any:
        """Return torch's ``BlockMask`` of these lists."""
        from torch.nn.attention.flex_attention import BlockMask

        full, full_by_key = self.full, self.full_by_key
        return BlockMask(
            seq_lengths=(self.seq_len, self.key_len),
            kv_num_blocks=self.partial.counts,
            kv_indices=self.partial.indices,
            full_kv_num_blocks=None if full is None else full.counts,
            full_kv_indices=None if full is None else full.indices,
            q_num_blocks=self.partial_by_key.counts,
            q_indices=self.partial_by_key.indices,
            full_q_num_blocks=None if full_by_key is None else full_by_key.counts,
            full_q_indices=None if full_by_key is None else full_by_key.indices,
            BLOCK_SIZE=(self.tile, self.tile),
            mask_mod=mask_mod,
        )


def by_row(tiles: Tensor, columns: int) -> TileLists:
    """List the tiles of each row, rising; `tiles` is ``[B, H, rows, K]``, -1 = none."""
    ordered = tiles.masked_fill(tiles < 0, columns).sort(dim=3).values  # what is none goes last
    counts = (tiles >= 0).sum(dim=3, dtype=torch.int32)  # [B, H, rows]
    most = max(1, int(counts.max()))
    return TileLists(counts, _overlapping(ordered[..., :most].clamp(max=columns - 1), columns))


def by_column(tiles: Tensor, columns: int) -> TileLists:
    """List the rows that read each tile, rising: what `by_row` says, transposed."""
    batch, heads, rows, _ = tiles.shape
    flat = tiles.reshape(batch * heads, rows, -1)
    group, row, _ = torch.nonzero(flat >= 0, as_tuple=True)  # rows rise within a group
    key = group * columns + flat[flat >= 0]  # [listed tiles]: group and column as one number
    order = torch.argsort(key, stable=True)
    key, row = key[order], row[order]
    counts = torch.bincount(key, minlength=batch * heads * columns)  # [B·H·columns]
    # Place of a row in its column's list: its rank among all, less those of columns before.
    place = torch.arange(len(key), device=key.device) - (counts.cumsum(0) - counts)[key]
    most = max(1, int(counts.max()))
    table = torch.zeros(len(counts), most, dtype=torch.int64, device=key.device)
    table[key, place] = row  # [B·H·columns, most]
    shape = (batch, heads, columns)
    return TileLists(
        counts.to(torch.int32).view(shape), _overlapping(table.view(*shape, -1), rows)
    )


def _overlapping(table: Tensor, width: int) -> Tensor:
    """Show ``[B, H, rows, K]`` as ``[B, H, rows, width]`` int32 whose rows overlap in memory.

    The distance between rows is a power of two (or `width`), so that few layouts are compiled.
    """
    batch, heads, rows, most = table.shape
    step = min(1 << (most - 1).bit_length(), width)
    store = table.new_zeros(batch * heads * rows * step + width - step, dtype=torch.int32)
    spread = store[: batch * heads * rows * step].view(batch, heads, rows, step)
    spread[..., : min(most, step)] = table[..., :step]
    strides = (heads * rows * step, rows * step, step, 1)
    return store.as_strided((batch, heads, rows, width), strides)


@dataclass(frozen=True)
class ExtraColumns:
    """Where copies of the extra keys stand: behind the sequence's keys, one for `RUN` rows each.

    One copy for all would be one column that every row reads: a list as long as the sequence, and
    in the backward pass one program that walks it alone.

    Attributes:
        tile: tokens in a tile.
        rows: rows of tiles.
        count: extra keys.
    """

    tile: int
    rows: int
    count: int

    @property
    def base(self) -> int:
        """First extra key: the sequence's keys are padded up to it."""
        return self.rows * self.tile

    @property
    def tiles(self) -> int:
        """Tiles of one copy."""
        return -(-self.count // self.tile)

    @property
    def width(self) -> int:
        """Keys of one copy, its padding included."""
        return self.tiles * self.tile

    @property
    def copies(self) -> int:
        """Number of copies."""
        return -(-self.rows // RUN)

    @property
    def key_len(self) -> int:
        """Keys in all."""
        return self.base + self.copies * self.width

    def columns(self, device: torch.device) -> Tensor:
        """Return the tiles that each row reads ``[rows, tiles]``."""
        copy = torch.arange(self.rows, device=device) // RUN
        step = torch.arange(self.tiles, device=device)
        return self.rows + copy[:, None] * self.tiles + step

    def join(self, x: Tensor, extra: Tensor) -> Tensor:
        """Append the copies to keys or values: ``[B, h, n, D]``, ``[B, h, X, D]``."""
        pad = torch.nn.functional.pad
        x = pad(x, (0, 0, 0, self.base - x.shape[2]))  # [B, h, rows·tile, D]
        extra = pad(extra, (0, 0, 0, self.width - self.count))  # [B, h, tiles·tile, D]
        return torch.cat([x, extra.repeat(1, 1, self.copies, 1)], dim=2)

    def join_mask(self, seen: Tensor, extra: Tensor) -> Tensor:
        """Append to which keys take part, bool ``[B, g, n]``, which extra ones do, ``[B, X]``."""
        pad = torch.nn.functional.pad
        seen = pad(seen, (0, self.base - seen.shape[2]), value=False)
        extra = pad(extra, (0, self.width - self.count), value=False).repeat(1, self.copies)
        return torch.cat([seen, extra[:, None].expand(-1, seen.shape[1], -1)], dim=2)
