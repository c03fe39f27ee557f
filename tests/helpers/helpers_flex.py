"""FlexAttention's lists of tiles and ``mask_mod``, spread out into a dense mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attention.backends.bigbird import flex as bigbird
from attention.backends.longformer import flex as longformer
from attention.functional import dense_softmax_attention
from attention.kernels import flex
from attention.kernels.flex_tiles import MaskMod, SparseTiles, TileLists


def dense_tiles(lists: TileLists | None, like: TileLists) -> Tensor:
    """Return which tiles are listed, bool ``[B, H, rows, columns]``."""
    if lists is None:
        return torch.zeros(like.indices.shape, dtype=torch.bool)
    width = lists.indices.shape[-1]
    listed = torch.arange(width) < lists.counts[..., None]
    at = torch.where(listed, lists.indices, width).long()
    found = torch.zeros(*at.shape[:-1], width + 1, dtype=torch.int64)
    return found.scatter_add_(-1, at, torch.ones_like(at))[..., :width] > 0


def dense_pairs(tiles: SparseTiles, mask_mod: MaskMod, batch: int, heads: int) -> Tensor:
    """Return which keys each query sees, bool ``[B, H, N, M]``."""

    def spread(x: Tensor) -> Tensor:
        x = x.repeat_interleave(tiles.tile, 2).repeat_interleave(tiles.tile, 3)
        return x[:, :, : tiles.seq_len, : tiles.key_len]

    b, h, q, kv = (
        torch.arange(size).view([-1 if axis == at else 1 for axis in range(4)])
        for at, size in enumerate((batch, heads, tiles.seq_len, tiles.key_len))
    )
    partial = spread(dense_tiles(tiles.partial, tiles.partial))
    full = spread(dense_tiles(tiles.full, tiles.partial))
    return (partial & mask_mod(b, h, q, kv)) | full


def dense_attend(
    q: Tensor, k: Tensor, v: Tensor, tiles: SparseTiles, mask_mod: MaskMod, *, scale: float,
    kind: object,
) -> Tensor:  # fmt: skip
    """Stand in for the compiled call."""
    assert hash(kind) is not None
    assert (tiles.seq_len, tiles.key_len) == (q.shape[2], k.shape[2])
    seen = dense_pairs(tiles, mask_mod, q.shape[0], q.shape[1])
    return dense_softmax_attention(q, k, v, seen, scale)


def without_kernel(patch: pytest.MonkeyPatch) -> None:
    """Let kernel 'flex' run densely: in every dtype, with gradients, without a compiler."""
    dtypes = (*flex.DTYPES, torch.float64)
    patch.setattr(flex, "DTYPES", dtypes)

    def allow(*_: Any) -> None:
        return None

    for module in (bigbird, longformer):
        patch.setattr(module, "attend", dense_attend)
        patch.setattr(module, "check_gradient", allow)
