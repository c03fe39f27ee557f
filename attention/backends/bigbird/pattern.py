"""The pattern of one backend: which blocks each row of blocks sees, in every head."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from attention.backends.bigbird.grid import BlockGrid, random_blocks

T = TypeVar("T")

CACHED_PATTERNS = 4


@dataclass(eq=False)
class BlockPattern:
    """Blocks of a window, random ones and global ones.

    Attributes:
        num_heads: H.
        block_size: tokens in a block.
        num_random_blocks: r, of each row of blocks; fewer where there are not as many others.
        num_global_tokens: extra global tokens before the blocks.
        seed: of the random blocks.
    """

    num_heads: int
    block_size: int
    num_random_blocks: int
    num_global_tokens: int
    seed: int
    _kept: dict[str, dict[Hashable, Any]] = field(default_factory=dict, repr=False)

    def grid(self, length: int, is_causal: bool) -> BlockGrid:
        """Cut a sequence into blocks."""
        return BlockGrid(length, self.block_size, self.num_global_tokens, is_causal)

    def random_blocks(self, grid: BlockGrid, device: torch.device) -> Tensor:
        """Return the random blocks ``[H, blocks, r]``, -1 where a row has fewer; cached."""
        return self.cached(
            "random",
            (grid.blocks, grid.is_causal, device),
            lambda: self.draw(grid, self.num_heads).to(device),
        )

    def draw(self, grid: BlockGrid, heads: int) -> Tensor:
        """Draw the random blocks of the first heads, on the CPU."""
        return random_blocks(grid, heads, self.num_random_blocks, self.seed)

    def unseen(self, grid: BlockGrid, device: torch.device) -> Tensor:
        """Return which pairs of a small grid are not seen, ``[H, L, L]``; cached."""
        return self.cached(
            "unseen",
            (grid, device),
            lambda: ~self.dense(grid, torch.arange(grid.length, device=device)),
        )

    def blocks_seen(self, max_len: int, device: torch.device) -> Tensor:
        """Return which blocks the rows of a causal sequence see, ``[H, blocks, 3 + r]``.

        Block 0, the one before, the random ones, and last its own; -1 = none, behind all others.
        No longer sequence changes them.
        """
        tokens = max(max_len, self.num_global_tokens + 1)  # one block at least
        grid = self.grid(tokens, is_causal=True)
        seen = torch.nn.functional.pad(self.random_blocks(grid, device), (2, 1), value=-1)
        seen[:, 1:, 0] = 0
        row = torch.arange(grid.blocks, device=device)
        seen[:, 2:, 1] = row[1:-1]
        seen[:, row, (seen[0] >= 0).sum(dim=1)] = row  # as many in every head
        return seen

    def dense(self, grid: BlockGrid, at: Tensor) -> Tensor:
        """Return which keys the queries at `at` see, pair by pair: bool ``[H, K, L]``."""
        position = torch.arange(grid.length, device=at.device)
        block = (position - grid.offset).div(grid.block_size, rounding_mode="floor")
        own_block = (at - grid.offset).div(grid.block_size, rounding_mode="floor")[:, None]
        last = -2 if grid.is_causal else grid.blocks - 1  # no last-block rule when causal
        everyone = (position < grid.offset) | (block == 0) | (block == last)
        sees_all = (at < grid.offset) | (own_block[:, 0] == 0) | (own_block[:, 0] == last)
        near = (block - own_block).abs() <= 1
        random = self.random_blocks(grid, at.device)
        picked = torch.zeros(
            self.num_heads, len(at), grid.length, dtype=torch.bool, device=at.device
        )
        if grid.blocks:
            chosen = random[:, own_block[:, 0].clamp(min=0)]  # [H, K, r]
            picked = (chosen[:, :, :, None] == block).any(dim=2) & (block >= 0) & (own_block >= 0)
        seen = picked | (near & (block >= 0) & (own_block >= 0)) | everyone | sees_all[:, None]
        return seen & (position <= at[:, None]) if grid.is_causal else seen

    def cached(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept under `key`, made if it is not; the oldest of too many is dropped.

        Tensors without numbers, as an export makes them, are not kept.
        """
        cache = self._kept.setdefault(kind, {})
        if key in cache:
            value: T = cache[key]
            return value
        made = make()
        if not isinstance(made, Tensor) or type(made) is Tensor:
            while len(cache) >= CACHED_PATTERNS:
                cache.pop(next(iter(cache)))
            cache[key] = made
        return made
