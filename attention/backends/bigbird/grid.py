"""How a sequence is cut into blocks, and which random blocks a row of them sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALL_BLOCK, SMALL_LENGTH = 16, 256
"""Tokens: blocks below the one, in a sequence up to the other, are served by one masked square:
rows of so few tokens take less time than the call for each."""


@dataclass(frozen=True)
class BlockGrid:
    """How a sequence of `length` tokens is cut into blocks.

    Attributes:
        length: tokens.
        block_size: tokens in a block; the last block may be shorter.
        global_tokens: extra global tokens before block 0.
        is_causal: whether the last block is an ordinary one.
    """

    length: int
    block_size: int
    global_tokens: int
    is_causal: bool

    @property
    def offset(self) -> int:
        """First token of block 0."""
        return min(self.global_tokens, self.length)

    @property
    def first(self) -> int:
        """First token of block 1, in a sequence that has one."""
        return self.global_tokens + self.block_size

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-(self.length - self.offset) // self.block_size)

    @property
    def is_small(self) -> bool:
        """Whether one masked square serves it."""
        return self.block_size < SMALL_BLOCK and self.length <= SMALL_LENGTH

    def start(self, block: int) -> int:
        """First token of a block (or the end of the sequence)."""
        return min(self.length, self.offset + block * self.block_size)

    def sparse_rows(self) -> range:
        """Rows of blocks that see part of the sequence only."""
        return range(1, self.blocks if self.is_causal else self.blocks - 1)

    def full_rows(self) -> list[tuple[int, int]]:
        """Ranges of queries that see everything: global tokens, first and last block."""
        head = (0, self.start(1))
        if self.is_causal or self.blocks < 2:
            return [head]
        return [head, (self.start(self.blocks - 1), self.length)]

    def window(self, block: int) -> tuple[int, int]:
        """Blocks ``lo:hi`` of a row's window that are not global already."""
        if self.is_causal:
            return max(1, block - 1), block + 1
        return max(1, block - 1), min(self.blocks - 1, block + 2)


def real_spans(key_padding_mask: Tensor) -> list[tuple[int, int]]:
    """Return each row's span from its first to one past its last real token; (0, 0) if none."""
    length = key_padding_mask.shape[1]
    real = key_padding_mask.to(torch.int8)
    first = real.argmax(dim=1).tolist()
    last = (length - real.flip(1).argmax(dim=1)).tolist()
    some = key_padding_mask.any(dim=1).tolist()
    return [(a, b) if any_ else (0, 0) for a, b, any_ in zip(first, last, some, strict=True)]


def random_blocks(grid: BlockGrid, heads: int, count: int, seed: int) -> Tensor:
    """Choose `count` random blocks a row and head, without repetition, uniformly.

    Candidates of a row are the blocks outside its window that are not global: when causal, those
    of its past. A draw is a hash of (seed, head, row, draw) and, bidirectional, of the number of
    blocks; so causal choices do not depend on the length.

    Returns:
        int64 ``[heads, blocks, count]`` on the CPU; -1 where a row has fewer candidates.
    """
    total, cpu = grid.blocks, torch.device("cpu")  # whatever torch's default device is
    chosen = torch.full((heads, total, count), -1, dtype=torch.int64, device=cpu)
    rows = torch.tensor(grid.sparse_rows(), dtype=torch.int64, device=cpu)
    if not len(rows) or not count:
        return chosen
    lo = (rows - 1).clamp(min=1)  # the window, global blocks left out
    hi = rows + 1 if grid.is_causal else (rows + 2).clamp(max=total - 1)
    pool = lo - 1 if grid.is_causal else total - 2 - (hi - lo)
    stream = seed if grid.is_causal else seed + 0x51ED270B * total
    state = _mix(torch.full((heads, 1), stream, dtype=torch.int64, device=cpu))
    state = _mix(state ^ torch.arange(heads, dtype=torch.int64, device=cpu)[:, None])
    state = _mix(state ^ rows)
    picks: list[Tensor] = []  # ascending, as indices into the pool
    for draw in range(count):
        state = _mix(state + draw + 1)
        left = (pool - draw).clamp(min=1)
        pick = (state & (2**62 - 1)) % left
        for other in picks:  # step over what is taken already
            pick = pick + (pick >= other).to(torch.int64)
        picks = list(torch.stack([*picks, pick]).sort(dim=0).values.unbind(0))
        block = pick + 1  # candidates start at block 1, and leave out the window
        block = torch.where(block >= lo, block + (hi - lo), block)
        chosen[:, rows, draw] = torch.where(draw < pool, block, -1)
    return chosen


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 (Steele, Lea and Flood 2014, SplitMix64's finaliser; wraps around)."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift int64 right, filling with zeros."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Read 64 bits as a signed number."""
    return value - 2**64 if value >= 2**63 else value
