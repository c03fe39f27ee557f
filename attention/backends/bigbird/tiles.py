"""Rows of blocks as tiles: which a sequence is cut into, and attention over them."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from attention.backends.bigbird.grid import BlockGrid
from attention.backends.bigbird.pattern import BlockPattern
from attention.kernels.fold import by_groups
from attention.kernels.tiled import tiled_attention
from attention.kernels.tiles import Hidden, Tiles, tiles_of_groups, tiles_of_run

FULL_ROWS = 64
"""Queries that see all keys, at a time."""


class BlockPlan:
    """Tiles of one row of blocks each, and of the rows that see all; an `attention` plan of tiles.

    Of a small grid they are squares of all queries and keys.

    Args:
        grid: the blocks.
        random: random blocks ``[G, blocks, r]``, -1 = none.
        device: of the masks.
        hidden: bool ``[G, L]``, True = a hole in the sequence; or ``None``.
        unseen: of a small grid: bool ``[H, L, L]``, True = this pair is not seen, of group g that
            of head g mod H; for counting none is needed.
        key: what tells the random blocks from others; ``None`` = nothing short does.
    """

    def __init__(
        self,
        grid: BlockGrid,
        random: Tensor,
        *,
        device: torch.device,
        hidden: Tensor | None = None,
        unseen: Tensor | None = None,
        key: Hashable = None,
    ) -> None:
        self.key = None if key is None or hidden is not None else (key, grid, random.shape)
        self.grid, self.random, self.hidden, self.device = grid, random, hidden, device
        self.unseen = unseen
        self.groups = random.shape[0]
        self.block_size, self.block_offset = grid.block_size, grid.offset
        seen_by_all = tuple(grid.full_rows()) if grid.sparse_rows() else ()
        self.extra = sum(stop - start for start, stop in seen_by_all)
        self.extra_ranges = () if grid.is_small else seen_by_all
        self.may_be_empty = hidden is not None
        # A row has as many random blocks in every head: the count depends on the row alone.
        self.counts = (random[0] >= 0).sum(dim=1).tolist() if self.groups else []
        self._triangles: dict[int, Tensor] = {}

    def _shape(self, block: int) -> tuple[int, int, int, int]:
        """Return (rows, queries before the window ends, window, random blocks) of a row."""
        start, stop = self.grid.start(block), self.grid.start(block + 1)
        lo, hi = (self.grid.start(edge) for edge in self.grid.window(block))
        return stop - start, start - lo, hi - lo, self.counts[block]

    def _cells(self, block: int) -> int:
        rows, _, window, count = self._shape(block)
        return rows * (window + count * self.block_size + self.extra)

    def _full_rows(self) -> Iterator[tuple[int, int, int]]:
        """Walk (start, stop, keys) of the rows that see all (their past, when causal)."""
        for start, stop in self.grid.full_rows():
            yield start, stop, stop if self.grid.is_causal else self.grid.length

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk (rows, columns)."""
        if self.grid.is_small:
            return iter([(self.grid.length, self.grid.length)])
        return self._rows()

    def _rows(self) -> Iterator[tuple[int, int]]:
        """Walk (rows, columns), row of blocks by row of blocks."""
        for block in self.grid.sparse_rows():
            rows = self._shape(block)[0]
            yield rows, self._cells(block) // max(1, rows)
        for start, stop, reach in self._full_rows():
            yield stop - start, reach

    def pattern_pairs(self) -> int:
        """Count the pairs of the pattern, for one group."""
        pairs = sum(rows * columns for rows, columns in self._rows())
        if self.grid.is_causal:  # the own block counts up to the query
            sizes = [self._shape(block)[0] for block in self.grid.sparse_rows()]
            sizes += [stop - start for start, stop, _ in self._full_rows()]
            pairs -= sum(rows * (rows - 1) // 2 for rows in sizes)
        return pairs

    def batches(self, cells: int, *, disjoint: bool) -> Iterator[Tiles]:
        """Walk runs of equal rows along the sequence, other rows over the groups."""
        if self.grid.is_small:
            yield from self._squares(cells)
            return
        cells //= 2  # the gathered keys and values take as much again
        for first, count in self._runs():
            rows, _, window, _ = self._shape(first)
            spacing = -(-window // self.block_size) if disjoint else 1
            run = tiles_of_run(count, self.groups, cells, self._cells(first), spacing)
            if run is None:
                for block in range(first, first + count):
                    for group, number in tiles_of_groups(self.groups, cells, self._cells(block)):
                        yield self._row(block, group, number, 1, 1)
                continue
            for at, number, apart in run:
                for group in range(self.groups):
                    yield self._row(first + at, group, 1, number, apart)
        for start, stop, reach in self._full_rows():
            # Fewer rows would read all keys again and again; these scores are as large as q is.
            rows = max(FULL_ROWS, cells // (2 * max(1, reach)))
            for at in range(start, stop, rows):
                size = min(rows, stop - at)
                for group, number in tiles_of_groups(self.groups, cells, size * reach):
                    yield self._full(group, number, at, size, reach)

    def _squares(self, cells: int) -> Iterator[Tiles]:
        """Walk all queries and keys over the groups."""
        assert self.unseen is not None
        length = self.grid.length
        for group, count in tiles_of_groups(self.groups, cells, length * length):
            some = slice(group, group + count)
            head = torch.arange(group, group + count, device=self.device) % len(self.unseen)
            hidden: tuple[Hidden, ...] = (Hidden(0, length, self.unseen[head]),)
            if self.hidden is not None:
                hidden = (*hidden, Hidden(0, length, self.hidden[some, None]))
            yield Tiles(group, count, 0, length, 0, length, extra=False, hidden=hidden)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Walk (first, count) of neighbouring rows of equal shape."""
        for _, blocks in itertools.groupby(self.grid.sparse_rows(), key=self._shape):
            members = list(blocks)
            yield members[0], len(members)

    def _row(self, block: int, group: int, groups: int, count: int, apart: int) -> Tiles:
        """Return the tiles of a row of blocks and of `count - 1` more, `apart` rows apart."""
        rows, shift, window, picked = self._shape(block)
        start = self.grid.start(block)
        blocks = None
        if picked:
            last = block + (count - 1) * apart
            blocks = self.random[group : group + groups, block : last + 1 : apart, :picked]
            blocks = blocks.flatten(0, 1)
        tiles = Tiles(
            group, groups, start, rows, start - shift, window, count,
            apart * self.block_size, blocks=blocks,
        )  # fmt: skip
        hidden: tuple[Hidden, ...] = ()
        if self.grid.is_causal:
            hidden = (Hidden(shift, shift + rows, self._future(rows), is_shared=True),)
        if self.hidden is not None:
            hidden = (*hidden, self._holes(self.hidden, tiles))
        return replace(tiles, hidden=hidden)

    def _full(self, group: int, groups: int, start: int, rows: int, reach: int) -> Tiles:
        """Return tiles of rows that see all keys."""
        hidden: tuple[Hidden, ...] = ()
        if self.grid.is_causal:
            hidden = (Hidden(start, reach, self._future(reach - start)[:rows]),)
        if self.hidden is not None:
            holes = self.hidden[group : group + groups, None, :reach]
            hidden = (*hidden, Hidden(0, reach, holes))
        return Tiles(group, groups, start, rows, 0, reach, extra=False, hidden=hidden)

    def _future(self, size: int) -> Tensor:
        """Return what comes after each query of `size` among their own keys: ``[size, size]``."""
        if size not in self._triangles:
            ones = torch.ones(size, size, dtype=torch.bool, device=self.device)
            self._triangles[size] = ones.triu_(1)
        return self._triangles[size]

    def _holes(self, hidden: Tensor, tiles: Tiles) -> Hidden:
        """Mark the columns of tiles that are holes, ``[tiles, 1, columns]``."""
        parts = [tiles.window(hidden)]
        of_tile = tiles.of_groups(hidden).expand(tiles.groups * tiles.count, -1)
        if tiles.blocks is not None:
            steps = torch.arange(self.block_size, device=self.device)
            at = self.block_offset + tiles.blocks[:, :, None] * self.block_size + steps
            parts.append(of_tile.gather(1, at.flatten(1)))
        parts.extend(of_tile[:, start:stop] for start, stop in self.extra_ranges)
        mask = torch.cat(parts, dim=1)
        return Hidden(0, mask.shape[1], mask[:, None, :])


def attend_span(
    q: Tensor, k: Tensor, v: Tensor, pattern: BlockPattern, *, is_causal: bool,
    hidden: Tensor | None, scale: float, dropout_p: float, kernel: str,
) -> Tensor:  # fmt: skip
    """Attend within the real span of a batch, of L tokens.

    Tensors are ``[B, H, L, D]``; `hidden` is bool ``[B, L]``, True = a hole in the span.
    """
    grid = pattern.grid(q.shape[2], is_causal)
    random = pattern.random_blocks(grid, q.device)  # [H, blocks, r]
    unseen = pattern.unseen(grid, q.device) if grid.is_small else None  # [H, L, L]

    def attend(rows: slice, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        copies = q.shape[0] // len(random)  # batch rows folded into the groups
        holes = None
        if hidden is not None:
            holes = hidden[rows].repeat_interleave(len(random), dim=0)  # [G, L]
        plan = BlockPlan(
            grid, random.repeat(copies, 1, 1), device=q.device, hidden=holes, unseen=unseen,
            key=pattern.seed,
        )  # fmt: skip
        return tiled_attention(
            q, k, v, plan, scale=scale, dropout_p=dropout_p, compiled=kernel == "compiled"
        )

    return by_groups(attend, q, k, v)
