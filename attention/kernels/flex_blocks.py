"""Rows of blocks with a window, random blocks and global keys, as tiles for FlexAttention.

The pattern of `attention.backends.bigbird`. A tile is a block, so the window and the random blocks
are tiles seen whole; ``mask_mod`` decides in the own block of a causal row and in the global keys,
which stand as copies behind the sequence (`attention.kernels.flex_tiles.ExtraColumns`). Queries
and keys both start at block 1: what comes before are global tokens and block 0, whose rows see
everything and are computed elsewhere, as those of the last block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attention.functional import gather_tokens
from attention.kernels.flex import attend
from attention.kernels.flex_tiles import ExtraColumns, MaskMod, SparseTiles
from attention.kernels.fused import sdpa_rows

BLOCK_STEP = 32
"""Block sizes are multiples of it: the smallest tile that torch has a backward kernel for."""


@dataclass(frozen=True)
class BlockShape:
    """What is the same for all sequences of a call.

    Attributes:
        seq_len: N, the longest sequence of the batch; all start at 0.
        block_size: tokens in a block.
        global_tokens: extra global tokens before block 0.
        is_causal: whether the last block is an ordinary one, and queries see their past alone.
    """

    seq_len: int
    block_size: int
    global_tokens: int
    is_causal: bool

    @property
    def first(self) -> int:
        """First token of block 1."""
        return self.global_tokens + self.block_size

    @property
    def rows(self) -> int:
        """Rows of blocks from block 1 to the end."""
        return max(0, -(-(self.seq_len - self.first) // self.block_size))

    @property
    def extra(self) -> ExtraColumns:
        """Where the global keys stand: extra tokens, block 0, bidirectional also the last."""
        count = self.first + (0 if self.is_causal else self.block_size)
        return ExtraColumns(self.block_size, self.rows, count)

    def blocks(self, length: int) -> int:
        """Return the blocks of a sequence of `length` tokens."""
        return max(0, -(-(length - self.global_tokens) // self.block_size))

    def sparse_end(self, length: int) -> int:
        """Return one past the last query that sees part of a sequence of `length` tokens only."""
        if self.is_causal:
            return max(length, self.first)
        return self.global_tokens + max(1, self.blocks(length) - 1) * self.block_size

    def global_keys(self, lengths: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return positions of the extra keys ``[B, X]``, and which of them there are.

        Args:
            lengths: of each sequence ``[B]``.
            device: of the result.
        """
        ends = torch.tensor(list(lengths), device=device)[:, None]
        at = torch.arange(self.first, device=device).expand(len(lengths), -1)
        if not self.is_causal:
            last = [self.sparse_end(length) for length in lengths]
            step = torch.arange(self.block_size, device=device)
            at = torch.cat([at, torch.tensor(last, device=device)[:, None] + step], dim=1)
        return at.clamp(max=self.seq_len - 1), at < ends


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shape: BlockShape,
    tiles: SparseTiles,
    lengths: Sequence[int],
    *,
    scale: float,
    hidden: Tensor | None = None,
) -> Tensor:
    """Attend from block 1 on, compiled.

    Args:
        q: ``[B, H, N, D]``, each sequence from position 0 on.
        k: ``[B, H_kv, N, D]``.
        v: ``[B, H_kv, N, D]``.
        shape: of the pattern; it has a row at least.
        tiles: of the pattern, made by `block_tiles`.
        lengths: of each sequence ``[B]``.
        scale: factor on the scores.
        hidden: bool ``[B, N]``, True = a hole in a sequence; or ``None``.

    Returns:
        ``[B, H, N - first, D]``; unspecified from `BlockShape.sparse_end` on.

    Raises:
        UnsupportedError: on a CPU, if a gradient is wanted.
    """
    batch, extra = q.shape[0], shape.extra
    at, present = shape.global_keys(lengths, q.device)  # [B, X], [B, X]
    if hidden is not None:
        present = present & ~hidden.gather(1, at)
    keys, values = (_join(x, at, shape) for x in (k, v))  # [B, H_kv, key_len, D]
    seen = torch.ones(batch, 1, shape.seq_len, dtype=torch.bool, device=q.device)
    seen = seen if hidden is None else ~hidden[:, None]
    seen = extra.join_mask(seen[..., shape.first :], present)[:, 0]  # [B, key_len]
    mask_mod = block_mask(shape.is_causal, extra.base, seen)
    kind = ("blocks", shape)
    queries = q[:, :, shape.first :]
    return attend(queries, keys, values, tiles, mask_mod, scale=scale, kind=kind)


def _join(x: Tensor, at: Tensor, shape: BlockShape) -> Tensor:
    """Append the global keys to those from block 1 on."""
    return shape.extra.join(x[:, :, shape.first :], gather_tokens(x, at))


def full_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    edges: tuple[int, int],
    *,
    is_causal: bool,
    scale: float,
    hidden: Tensor | None = None,
) -> Tensor:
    """Attend from a few queries to all keys, when causal to their past, by torch's fused kernel.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, N, D]``.
        v: ``[B, H_kv, N, D]``.
        edges: the first of these queries, and one past the last.
        is_causal: whether the future is hidden.
        scale: factor on the scores.
        hidden: bool ``[B, N]``, True = a hole in the sequence; or ``None``.

    Returns:
        ``[B, H, stop - start, D]``; zeros where a query sees no key.
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
    shape: BlockShape,
    lengths: Sequence[int],
    random: Sequence[Tensor],
    *,
    holes: bool,
    device: torch.device,
) -> SparseTiles:
    """List the tiles of the rows from block 1 on.

    Args:
        shape: of the pattern; it has a row at least.
        lengths: of each sequence; one for all, where they are equal.
        random: for each length the random blocks ``[H, blocks, r]``, -1 = none.
        holes: whether single keys may be hidden: no tile is then seen whole.
        device: of the lists.
    """
    parts = [_rows(shape, n, r.to(device)) for n, r in zip(lengths, random, strict=True)]
    partial, full = (torch.stack(part) for part in zip(*parts, strict=True))
    if holes:
        partial, full = torch.cat([partial, full], dim=3), torch.full_like(full[..., :1], -1)
    return SparseTiles.of(
        partial,
        full,
        tile=shape.block_size,
        seq_len=shape.seq_len - shape.first,
        key_len=shape.extra.key_len,
    )


def _rows(shape: BlockShape, length: int, random: Tensor) -> tuple[Tensor, Tensor]:
    """Return the partial and the full tiles of one sequence ``[H, rows, K]``; tile = block - 1."""
    device, heads = random.device, random.shape[0]
    total = shape.blocks(length)
    block = torch.arange(1, shape.rows + 1, device=device)[:, None]  # [rows, 1]
    live = block < (total if shape.is_causal else total - 1)
    near = block + torch.tensor([-1, 0] if shape.is_causal else [-1, 0, 1], device=device)
    last = total if shape.is_causal else total - 1  # one past the last block of a window
    # Block 0 is no tile: what has none is 0 here, and -1 once blocks become tiles at the end.
    window = torch.where(live & (near >= 1) & (near < last), near, 0)  # [rows, 2 or 3]
    chosen = torch.full((heads, shape.rows, random.shape[2]), -1, device=device)
    count = min(shape.rows, max(0, random.shape[1] - 1))
    chosen[:, :count] = random[:, 1 : count + 1]
    chosen = torch.where(live, chosen, -1).clamp(min=0)
    own = window[:, 1:] if shape.is_causal else window[:, :0]
    others = window[:, :1] if shape.is_causal else window
    extra = torch.where(live, shape.extra.columns(device) + 1, 0)  # [rows, tiles of a copy]
    partial = torch.cat([own, extra], dim=1).expand(heads, -1, -1)
    full = torch.cat([others.expand(heads, -1, -1), chosen], dim=2)
    return partial - 1, full - 1
