"""A plan of tiles as tables of numbers, which the compiled kernel walks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attention.kernels.tiles import Plan, Tiles

ROWS = 64
"""Queries of a tile at most: higher tiles are cut, their scores would leave the caches."""
ALL = 1 << 62
"""No limit to what a batch holds."""

KEPT, KEPT_TILES = 32, 16_384
"""Tables that are kept, and the tiles of the largest of them."""

Ints = NDArray[np.int64]

_kept: OrderedDict[Hashable, Table] = OrderedDict()
_lock = threading.Lock()


@dataclass
class Table:
    """Tiles in the order of their groups.

    Attributes:
        tiles: ``[tiles, 8]``: group, first query, queries, first segment, one past the last one,
            first mask, one past the last one, columns.
        segments: ``[segments, 4]``: whether of the extra keys, first key, keys, first column.
        masks: ``[masks, 5]``: address of a byte a pair, bytes to the next query, bytes to the next
            column, first column, one past the last one.
        held: what the masks' addresses point into.
    """

    tiles: Ints
    segments: Ints
    masks: Ints
    held: list[Tensor] = field(default_factory=list)

    @property
    def most_rows(self) -> int:
        """Queries of the largest tile."""
        return int(self.tiles[:, 2].max(initial=1))

    @property
    def most_columns(self) -> int:
        """Columns of the widest tile."""
        return int(self.tiles[:, 7].max(initial=1))

    def parts(self, groups: int, sharing: int, pieces: int) -> Ints:
        """Cut the tiles into parts: of groups that share keys, each in so many pieces.

        Args:
            groups: G.
            sharing: neighbouring groups that share keys.
            pieces: of each part.

        Returns:
            ``[groups // sharing · pieces + 1]``: of each its first tile, and one past the last.
        """
        firsts = np.searchsorted(self.tiles[:, 0], np.arange(0, groups + 1, sharing))
        spans = pairwise(firsts)
        cuts = [np.linspace(a, b, pieces, endpoint=False, dtype=np.int64) for a, b in spans]
        return np.concatenate([*cuts, firsts[-1:]]).astype(np.int64)


def table_of(plan: Plan, extra: int = 0) -> Table:
    """Write down the tiles of `plan`, each at most `ROWS` queries high.

    Of a plan with a `key` the table is kept: of short inputs it would take as long as the call.

    Args:
        plan: the pattern.
        extra: extra keys beside those of the sequence.
    """
    key = None if plan.key is None else (type(plan), plan.key, extra)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    table = _made(plan, extra)
    if key is not None and len(table.tiles) <= KEPT_TILES:
        with _lock:
            _kept[key] = table
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
    return table


def _made(plan: Plan, extra: int) -> Table:
    made = _Maker(plan, extra)
    for tiles in plan.batches(ALL, disjoint=False):
        made.add(tiles)
    return made.table()


class _Maker:
    """Collects the rows of a table."""

    def __init__(self, plan: Plan, extra: int) -> None:
        self._plan, self._extra = plan, extra
        self._tiles: list[Ints] = []
        self._segments: list[Ints] = []
        self._masks: list[Ints] = []
        self._held: list[Tensor] = []
        self._num_segments = self._num_masks = 0

    def add(self, tiles: Tiles) -> None:
        """Add a batch of tiles, cut into such as are not too high."""
        first_segment, per_tile, columns = self._add_segments(tiles)
        count = tiles.groups * tiles.count
        along = np.arange(count) if tiles.count > 1 else np.zeros(count, np.int64)
        group = tiles.group + (0 if tiles.count > 1 else np.arange(count))
        for at in range(0, tiles.rows, ROWS):
            rows = min(ROWS, tiles.rows - at)
            first_mask = self._add_masks(tiles, at)
            made = np.empty((count, 8), np.int64)
            made[:, 0] = group
            made[:, 1] = tiles.start + along * tiles.step + at
            made[:, 2] = rows
            made[:, 3] = first_segment
            made[:, 4] = first_segment + per_tile
            made[:, 5] = first_mask
            made[:, 6] = first_mask + len(tiles.hidden)
            made[:, 7] = columns
            self._tiles.append(made)

    def _add_segments(self, tiles: Tiles) -> tuple[Ints, int, int]:
        """Return the first segment of each tile, how many each has, and its columns."""
        plan, count = self._plan, tiles.groups * tiles.count
        parts: list[tuple[int, Ints, int]] = []  # is_extra, first keys [tiles] or [1], keys
        if tiles.width:
            moves = tiles.count > 1 and not tiles.same_window
            parts.append((0, tiles.lo + np.arange(count) * tiles.step * moves, tiles.width))
        if tiles.blocks is not None:
            size = plan.block_size
            firsts = plan.block_offset + tiles.blocks.numpy() * size  # [tiles, r]
            parts.extend((0, firsts[:, r], size) for r in range(firsts.shape[1]))
        if tiles.extra:
            parts.extend(self._extra_parts())
        made = np.empty((count, len(parts), 4), np.int64)
        column = 0
        for index, (is_extra, firsts, size) in enumerate(parts):
            made[:, index] = np.stack(np.broadcast_arrays(is_extra, firsts, size, column), axis=-1)
            column += size
        first = self._num_segments + np.arange(count) * len(parts)
        self._segments.append(made.reshape(-1, 4))
        self._num_segments += count * len(parts)
        return first, len(parts), column

    def _extra_parts(self) -> list[tuple[int, Ints, int]]:
        """Return the extra keys: ranges of the keys, or keys of their own."""
        zero = np.zeros(1, np.int64)
        if self._plan.extra_ranges:
            return [(0, zero + start, stop - start) for start, stop in self._plan.extra_ranges]
        return [(1, zero, self._extra)] if self._extra else []

    def _add_masks(self, tiles: Tiles, at: int) -> Ints:
        """Return the first mask of each tile, from its query `at` on."""
        count, per_tile = tiles.groups * tiles.count, len(tiles.hidden)
        made = np.empty((count, per_tile, 5), np.int64)
        for index, part in enumerate(tiles.hidden):
            mask = part.mask if part.mask.dim() == 3 else part.mask[None]
            self._held.append(mask)
            to_tile, to_row, to_column = (
                0 if size == 1 else stride
                for size, stride in zip(mask.shape, mask.stride(), strict=True)
            )
            made[:, index, 0] = mask.data_ptr() + at * to_row + np.arange(count) * to_tile
            made[:, index, 1:] = to_row, to_column, part.lo, part.hi
        first = self._num_masks + np.arange(count) * per_tile
        self._masks.append(made.reshape(-1, 5))
        self._num_masks += count * per_tile
        return first

    def table(self) -> Table:
        """Return all of it, by group and along the sequence."""
        tiles = np.concatenate([*self._tiles, np.empty((0, 8), np.int64)])
        order = np.lexsort((tiles[:, 1], tiles[:, 0]))
        segments = np.concatenate([*self._segments, np.empty((0, 4), np.int64)])
        masks = np.concatenate([*self._masks, np.empty((0, 5), np.int64)])
        return Table(np.ascontiguousarray(tiles[order]), segments, masks, self._held)
