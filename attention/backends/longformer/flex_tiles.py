"""A band of keys around each query, and extra keys, as tiles for FlexAttention.

Query i of n sees the keys j with ``|i - j| <= W``, when causal the past half, and every extra key
(when causal: that lies in its past).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from attention.kernels.flex_tiles import ExtraColumns, MaskMod, SparseTiles

TILE = 128
CACHED_PATTERNS = 16


@functools.lru_cache(maxsize=CACHED_PATTERNS)
def band_tiles(
    length: int, window: int, is_causal: bool, masked: bool, extra: ExtraColumns | None,
    device: torch.device,
) -> SparseTiles:  # fmt: skip
    """List the tiles of a band over `length` positions, and of its extra keys.

    Args:
        length: n.
        window: keys on each side.
        is_causal: the past half only.
        masked: whether single keys may be hidden: no tile is then seen whole.
        extra: where the extra keys stand; or ``None``.
        device: of the lists.
    """
    rows = -(-length // TILE)
    row = torch.arange(rows, device=device)[:, None]  # [rows, 1]
    reach = min(rows - 1, -(-window // TILE))  # tiles to each side
    step = torch.arange(-reach, 1 if is_causal else reach + 1, device=device)
    column = row + step  # [rows, tiles in reach]
    near = (step.abs() - 1).clamp(min=0) * TILE + (step != 0)  # the smallest distance in a tile
    far = step.abs() * TILE + TILE - 1  # the largest
    present = (column >= 0) & (column < rows) & (near <= window)
    whole = (far <= window) & (step < 0 if is_causal else step == step)
    whole = whole & ((column + 1) * TILE <= length) & present
    if masked:
        whole = torch.zeros_like(whole)
    partial = torch.where(present & ~whole, column, -1)
    if extra is not None:
        partial = torch.cat([partial, extra.columns(device)], dim=1)
    full = torch.where(whole, column, -1)
    return SparseTiles.of(
        partial[None, None],
        full[None, None],
        tile=TILE,
        seq_len=length,
        key_len=length if extra is None else extra.key_len,
    )


def band_mask(
    window: int, is_causal: bool, dilation: int, seen: Tensor | None, at: Tensor | None,
    extra: ExtraColumns | None,
) -> MaskMod:  # fmt: skip
    """Return what is seen inside a tile.

    Args:
        window: keys on each side.
        is_causal: the past half only.
        dilation: head h holds the positions of residue ``h mod dilation``.
        seen: bool ``[B, dilation, M]``, which keys take part; ``None`` = all.
        at: positions of the extra keys ``[B, X]``, padded to a copy's width; or ``None``.
        extra: where the extra keys stand; or ``None``.
    """
    reach = 0 if is_causal else window

    def near(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (q - kv <= window) & (kv - q <= reach)

    if seen is None:
        return near

    def near_and_seen(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return near(b, h, q, kv) & seen[b, h % dilation, kv]

    if extra is None or at is None:
        return near_and_seen
    base, width = extra.base, extra.width

    def past(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return at[b, (kv - base) % width] <= h % dilation + q * dilation

    def with_extra(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        common = past(b, h, q, kv) if is_causal else kv >= base
        inside = (kv < base) & near(b, h, q, kv)
        return (((kv >= base) & common) | inside) & seen[b, h % dilation, kv]

    return with_extra
