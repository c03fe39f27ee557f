"""Tiles of queries that attend together, and the plans that cut a sequence into them.

Tiles of equal shape are one batch: neighbours along the sequence of one group, or the same place
of many groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

DENSE_ROWS = 256
"""Queries in a tile that sees all keys of a short sequence."""


@dataclass(frozen=True)
class Hidden:
    """Some columns of a batch of tiles, and which of their pairs are not seen.

    Attributes:
        lo: first column.
        hi: one past the last column.
        mask: bool, broadcastable to ``[tiles, rows, hi - lo]``, True = not seen.
        is_shared: whether other batches hold this very tensor.
    """

    lo: int
    hi: int
    mask: Tensor
    is_shared: bool = False


@dataclass(frozen=True)
class Tiles:
    """A batch of tiles of equal shape.

    Either `count` tiles of one group, `step` positions apart, or one tile of each of `groups`
    groups. The columns of a tile's scores are its window, then the gathered blocks, then the
    extra keys.

    Attributes:
        group: first group.
        groups: number of groups; 1 if `count` > 1.
        start: first query of the first tile.
        rows: queries in a tile.
        lo: first key of the first tile's window.
        width: keys in a window.
        count: tiles along the sequence.
        step: positions from one tile to the next, of queries and windows alike.
        same_window: whether the tiles along the sequence share one window instead.
        blocks: gathered blocks ``[tiles, r]``, indices into the plan's block grid; or ``None``.
        extra: whether the tiles read the extra keys.
        hidden: what is not seen.
    """

    group: int
    groups: int
    start: int
    rows: int
    lo: int
    width: int
    count: int = 1
    step: int = 0
    same_window: bool = False
    blocks: Tensor | None = None
    extra: bool = True
    hidden: tuple[Hidden, ...] = ()

    def cut(self, x: Tensor, start: int, rows: int, step: int | None = None) -> Tensor:
        """View the positions ``start:start + rows`` of each tile: ``[tiles, rows, …]``.

        Args:
            x: ``[G, N, …]``.
            start: of the first tile.
            rows: positions a tile.
            step: positions from one tile to the next; ``None`` means the tiles' own.
        """
        step = self.step if step is None else step
        if self.count == 1:  # [groups, rows, …]
            return x[self.group : self.group + self.groups, start : start + rows]
        # Tiles `step` positions apart may overlap: a view that no slicing makes.
        to_group, to_next, *rest = x.stride()
        return x.as_strided(
            (self.count, rows, *x.shape[2:]),
            (step * to_next, to_next, *rest),
            x.storage_offset() + self.group * to_group + start * to_next,
        )

    def window(self, x: Tensor) -> Tensor:
        """View the window of each tile: ``[tiles, width, …]``."""
        return self.cut(x, self.lo, self.width, 0 if self.same_window else None)

    def positions(self, device: torch.device) -> Tensor:
        """Return the queries' positions ``[tiles or 1, rows]``."""
        first = self.start + self.step * torch.arange(self.count, device=device)  # [count]
        return first[:, None] + torch.arange(self.rows, device=device)

    def of_groups(self, x: Tensor) -> Tensor:
        """Return what ``[G, …]`` holds for each tile: ``[tiles or 1, …]``."""
        return x[self.group : self.group + self.groups]


class Plan(Protocol):
    """Which keys each query reads.

    Attributes:
        block_size: keys in a gathered block.
        block_offset: first key of block 0.
        may_be_empty: whether a query may see no key; it then gives zeros.
    """

    block_size: int
    block_offset: int
    may_be_empty: bool

    @property
    def key(self) -> Hashable:
        """What tells this plan from others of its class; ``None`` = nothing short does."""
        ...

    @property
    def extra_ranges(self) -> Sequence[tuple[int, int]]:
        """Ranges of positions that are extra keys."""
        ...

    def batches(self, cells: int, *, disjoint: bool) -> Iterator[Tiles]:
        """Walk batches of tiles that hold every query once; the same at every call.

        Args:
            cells: about the most scores in a batch.
            disjoint: whether the windows of a batch must not overlap within a group.
        """
        ...

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk the (rows, columns) of one group's tiles."""
        ...


def _batch(cells: int, tile_cells: int) -> int:
    """Return how many tiles make a batch: an even number, as most machines' threads are."""
    return max(2, cells // max(1, tile_cells) // 2 * 2)


def chunks(total: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut ``range(total)`` into (first, count) of nearly equal, even size, at most `most`."""
    parts = -(-total // most)
    size = -(-total // parts) if parts else 1
    size += size % 2
    for first in range(0, total, size):
        yield first, min(size, total - first)


def tiles_of_groups(groups: int, cells: int, tile_cells: int) -> Iterator[tuple[int, int]]:
    """Cut the groups so that one tile of each fits `cells`: (first, count), two at least."""
    return chunks(groups, _batch(cells, tile_cells))


def tiles_of_run(
    count: int, groups: int, cells: int, tile_cells: int, spacing: int
) -> Iterator[tuple[int, int, int]] | None:
    """Cut a run of `count` equal tiles along the sequence: (first, tiles, spacing).

    Args:
        count: tiles in the run.
        groups: G.
        cells: the most scores in a batch.
        tile_cells: scores in a tile.
        spacing: tiles from one to the next within a batch.

    Returns:
        batches for each group; ``None`` where the run is too short to fill a batch, or its tiles
        are so small that this takes more than twice as many batches: then the same tile of all
        groups makes the better one.
    """
    if count // spacing < (4 if groups > 1 else 1):
        return None
    most = _batch(cells, tile_cells)
    # Tiles of one residue modulo `spacing` lie far enough apart to be one batch.
    residues = [range(residue, count, spacing) for residue in range(min(spacing, count))]
    of_runs = groups * sum(-(-len(tiles) // most) for tiles in residues)
    if of_runs > 2 * count * -(-groups // most):
        return None
    return (
        (tiles.start + first * spacing, number, spacing)
        for tiles in residues
        for first, number in chunks(len(tiles), most)
    )


class DensePlan:
    """Tiles of queries that see all keys: a `Plan`.

    Args:
        groups: G.
        seq_len: N.
        key_len: M, few enough that a tile holds them all.
        hidden: bool ``[G, M]``, True = this key is not seen; or ``None``.
    """

    block_size, block_offset = 1, 0
    extra_ranges: Sequence[tuple[int, int]] = ()
    key = None

    def __init__(
        self, groups: int, seq_len: int, key_len: int, hidden: Tensor | None = None
    ) -> None:
        self.groups, self.seq_len, self.key_len = groups, seq_len, key_len
        self.hidden, self.may_be_empty = hidden, hidden is not None

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk (rows, columns)."""
        yield self.seq_len, self.key_len

    def batches(self, cells: int, *, disjoint: bool) -> Iterator[Tiles]:
        """Walk the queries: forward along the sequence, backward over the groups."""
        # All tiles of a group read the same keys, whose gradients add up in one place: backward, a
        # batch may therefore hold one tile of each group alone.
        rows = min(self.seq_len, DENSE_ROWS)
        tile = rows * self.key_len
        run = None if disjoint else tiles_of_run(self.seq_len // rows, 1, cells, tile, 1)
        done = 0
        for at, count, _ in run or ():
            done = max(done, (at + count) * rows)
            for group in range(self.groups):
                yield self._masked(
                    Tiles(group, 1, at * rows, rows, 0, self.key_len, count, rows, True)
                )
        for start in range(done, self.seq_len, rows):
            size = min(rows, self.seq_len - start)
            for group, count in tiles_of_groups(self.groups, cells, size * self.key_len):
                yield self._masked(Tiles(group, count, start, size, 0, self.key_len))

    def _masked(self, tiles: Tiles) -> Tiles:
        if self.hidden is None:
            return tiles
        unseen = tiles.of_groups(self.hidden)[:, None]
        return replace(tiles, hidden=(Hidden(0, self.key_len, unseen),))


def tiled_cost(plan: Plan, dim: int, training: bool) -> int:
    """Count the matrix-product operations that the tiles of `plan` execute for one group.

    Two products forward; the backward pass has four and computes the scores anew.

    Args:
        plan: the pattern.
        dim: D.
        training: forward and backward, not forward alone.
    """
    pairs = sum(rows * columns for rows, columns in plan.sizes())
    return pairs * 2 * dim * (7 if training else 2)
