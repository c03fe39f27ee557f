"""A band of keys around each query, and extra keys, as tiles for FlexAttention.

Query i of n sees the keys j with ``|i - j| <= W``, when causal the past half, and every extra key
(when causal: that lies in its past). A dilated band over N positions is ``d`` bands, one for each
residue modulo d, which become heads of their own (`attention.kernels.dilation`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attention.kernels.dilation import by_residue, from_residues, hidden_by_residue
from attention.kernels.flex import attend
from attention.kernels.flex_tiles import ExtraColumns, MaskMod, SparseTiles

TILE = 128
CACHED_PATTERNS = 16


@dataclass(frozen=True)
class ExtraKeys:
    """Keys that every query sees.

    Attributes:
        k: ``[B, h, X, D]``.
        v: ``[B, h, X, D]``.
        absent: bool ``[B, X]``, True = an empty slot.
        at: position of each in the sequence ``[B, X]``.
    """

    k: Tensor
    v: Tensor
    absent: Tensor
    at: Tensor


def band_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    dilation: int,
    is_causal: bool,
    scale: float,
    hidden: Tensor | None = None,
    extra: ExtraKeys | None = None,
) -> Tensor:
    """Attend over a band, compiled.

    Args:
        q: ``[B, h, N, D]``.
        k: ``[B, h, N, D]``; without dilation also with fewer heads.
        v: as `k`.
        window: keys on each side.
        dilation: gap between them.
        is_causal: the past half only.
        scale: factor on the scores.
        hidden: bool ``[B, N]``, True = not seen in the band; or ``None``.
        extra: keys that all see; or ``None``.

    Returns:
        ``[B, h, N, D]``; zeros where a query sees no key.

    Raises:
        UnsupportedError: on a CPU, if a gradient is wanted.
    """
    batch, heads, seq_len, _ = q.shape
    q, k, v = (by_residue(x, dilation) for x in (q, k, v))  # [B, h·d, n, D]
    hidden = hidden_by_residue(hidden, batch, seq_len, dilation, q.device)
    seen = None if hidden is None else ~hidden.contiguous()
    length = q.shape[2]
    columns, at = None, None
    if extra is not None:
        columns = ExtraColumns(TILE, -(-length // TILE), extra.k.shape[2])
        repeated = (x.repeat_interleave(dilation, dim=1) for x in (extra.k, extra.v))
        k, v = (columns.join(x, more) for x, more in zip((k, v), repeated, strict=True))
        # k, v: [B, h·d, columns.key_len, D]
        if seen is None:
            seen = torch.ones(batch, dilation, length, dtype=torch.bool, device=q.device)
        seen = columns.join_mask(seen, ~extra.absent)  # [B, d, columns.key_len]
        at = torch.nn.functional.pad(extra.at, (0, columns.width - columns.count))
        columns = replace(columns, count=columns.width)  # one list, one code for 1 to TILE tokens
    tiles = band_tiles(length, window, is_causal, seen is not None, columns, q.device)
    mask_mod = band_mask(window, is_causal, dilation, seen, at, columns)
    kind = ("band", window, is_causal, dilation, seen is not None, columns)
    out = attend(q, k, v, tiles, mask_mod, scale=scale, kind=kind)
    return from_residues(out, dilation, heads, seq_len)


@functools.lru_cache(maxsize=CACHED_PATTERNS)
def band_tiles(
    length: int,
    window: int,
    is_causal: bool,
    masked: bool,
    extra: ExtraColumns | None,
    device: torch.device,
) -> SparseTiles:
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
    window: int,
    is_causal: bool,
    dilation: int,
    seen: Tensor | None,
    at: Tensor | None,
    extra: ExtraColumns | None,
) -> MaskMod:
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
