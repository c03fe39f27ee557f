"""Causal attention where torch has no kernel for it: N ≠ M, or beside a padding mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attention.kernels.fused import attention_with_lse

MASK_ELEMENTS = 2**22
"""Most elements of a mask made at once: 16 MiB in float32."""

Masked = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Attention of q, k and v under what is hidden, bool ``[B or 1, 1, K, M]``."""


def row_tiles(q: Tensor, k: Tensor, key_padding_mask: Tensor | None) -> list[tuple[int, Tensor]]:
    """Cut the queries so that a mask for those of a tile is small: (first, ``[B, H, K, D]``)."""
    n, m = q.shape[2], k.shape[2]
    masks = 1 if key_padding_mask is None else q.shape[0]
    step = max(16, min(n, MASK_ELEMENTS // (m * max(1, masks))))
    return list(zip(range(0, n, step), q.split(step, dim=2), strict=True))


def future_keys(q: Tensor, k: Tensor, first: int) -> Tensor:
    """Return which keys come after those of queries, the i-th of which sees up to ``first + i``.

    Returns:
        bool ``[1, 1, N, M]``.
    """
    at = torch.arange(first, first + q.shape[2], device=q.device)[:, None]
    return (torch.arange(k.shape[2], device=q.device) > at)[None, None]


def causal_tile(
    attend: Masked, q: Tensor, k: Tensor, v: Tensor, first: int, key_padding_mask: Tensor | None
) -> Tensor:
    """Attend from a few queries, the i-th of which sees keys up to ``first + i``."""
    hidden = future_keys(q, k, first)
    if key_padding_mask is not None:
        hidden = hidden | ~key_padding_mask[:, None, None, : k.shape[2]]
    return attend(q, k, v, hidden)


def causal_rows(
    attend: Masked, q: Tensor, k: Tensor, v: Tensor, key_padding_mask: Tensor | None
) -> Tensor:
    """Attend causally under a mask, for a few queries at a time over the keys they reach.

    Args:
        attend: under a mask.
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D]``.
        key_padding_mask: bool ``[B, M]``, True = takes part; or ``None``.
    """
    shift = k.shape[2] - q.shape[2]
    tiles, outs = row_tiles(q, k, key_padding_mask), []
    for start, rows in tiles:
        reach = shift + start + rows.shape[2]  # keys that the last of these queries sees
        if reach < 1:
            outs.append(torch.zeros_like(rows))
            continue
        # `start + shift`: the last key that the first of these queries sees.
        inputs = (rows, k[:, :, :reach], v[:, :, :reach], start + shift, key_padding_mask)
        if torch.is_grad_enabled() and len(tiles) > 1:
            # Kept for the backward pass, the masks of all tiles would be N×M together.
            outs.append(checkpoint(causal_tile, attend, *inputs, use_reentrant=False))
        else:
            outs.append(causal_tile(attend, *inputs))
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)


def lse_in_parts(
    q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, padding: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return output and log-sum-exp, for a few queries at a time where causal needs a mask.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H, M, D]``.
        v: ``[B, H, M, D]``.
        is_causal: query ``i`` sees keys up to ``M - N + i``.
        padding: bool ``[B, M]``, True = takes part.
        scale: factor on the scores.
    """
    n, m = q.shape[2], k.shape[2]
    whole: dict[str, Any] = {"hidden": None, "is_causal": False, "scale": scale}
    if padding is None and (not is_causal or n == m):
        return attention_with_lse(q, k, v, **whole | {"is_causal": is_causal})
    padded = None if padding is None else ~padding[:, None, None, :]
    if not is_causal:
        return attention_with_lse(q, k, v, **whole | {"hidden": padded})
    outs, sums = [], []
    for start, rows in row_tiles(q, k, padding):
        hidden = future_keys(rows, k, start + m - n)
        hidden = hidden if padded is None else hidden | padded
        out, lse = attention_with_lse(rows, k, v, **whole | {"hidden": hidden})
        outs.append(out)
        sums.append(lse)
    return torch.cat(outs, dim=2), torch.cat(sums, dim=2)


def as_wide(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the narrower of keys and values with zeros: torch's fused kernels take one width.

    Zeros leave scores as they are, and the output's further channels are zero.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D_v]``.

    Returns:
        q, k and v ``[..., max(D, D_v)]``.
    """
    further = v.shape[3] - k.shape[3]
    if further == 0:
        return q, k, v
    if further > 0:
        return F.pad(q, (0, further)), F.pad(k, (0, further)), v
    return q, k, F.pad(v, (0, -further))


def with_padding_channel(
    q: Tensor, k: Tensor, v: Tensor, key_padding_mask: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Leave padding out by a channel of its own, where N = M: no N×M mask.

    There a key has 0, or where it is padding so much that its score is 2²⁰ less: beside other
    keys its weight is 0. More would leave a query that sees padding alone no digits behind
    the point, and its weights would overflow in the backward pass. Nothing is asked about
    values, and of lengths only whether they are equal: so it is one graph.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, N, D]``.
        v: ``[B, H_kv, N, D]``.
        key_padding_mask: bool ``[B, N]``, True = takes part.
        scale: factor on the scores.

    Returns:
        q, k and v ``[..., D']``, of whose product with v the first D channels count.
    """
    most = min(2.0**12 / scale, 2.0**15)  # that float16 can hold
    dims = -q.shape[3] % 8 or 8  # in all a multiple of 8, as some kernels of CUDA need
    q = F.pad(F.pad(q, (0, 1), value=2.0**8), (0, dims - 1))
    column = torch.where(key_padding_mask, 0.0, -most).to(k.dtype)[:, None, :, None]
    k = torch.cat([k, column.expand(-1, k.shape[1], -1, -1)], dim=3)  # [B, H_kv, N, D + 1]
    return q, F.pad(k, (0, dims - 1)), F.pad(v, (0, dims))
