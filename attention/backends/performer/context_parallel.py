"""Linear attention over a sequence that is cut over ranks: they exchange sums over keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attention.kernels.linear.chunk_math import Sums, joined
from attention.kernels.linear.chunked import chunked_attention, key_sums
from attention.kernels.linear.features import Features

if TYPE_CHECKING:
    from attention.parallel.collectives import Part


def attend_across(part: Part, features: Features) -> Tensor:
    """Exchange the sums over keys, ``[R, D + 1]`` and their stabilisers: whatever N is.

    Returns:
        ``[B, H, n, D]``.
    """
    exchange, mask, kv_heads = part.exchange, part.key_padding_mask, part.k.shape[1]
    shared = part.q.shape[1] // kv_heads
    hidden = None if mask is None else (~mask).repeat_interleave(kv_heads, dim=0)
    k3, v3 = part.k.flatten(0, 1), part.v.flatten(0, 1)  # [B·H_kv, n, D]
    here = key_sums(k3, v3, features, hidden)
    packed = torch.cat([here.s, here.z[..., None], here.top[..., None]], dim=-1)
    every = exchange.gather(packed)  # [P, B·H_kv, R, D + 2]
    sums = Sums(every[..., :-2], every[..., -2], every[..., -1].detach())
    read = [not part.is_causal or rank < exchange.rank for rank in range(exchange.ranks)]
    before = joined(sums, read, features)
    before = Sums(*(x.repeat_interleave(shared, dim=0) for x in before))  # [B·H, R, ...]
    if part.is_causal:
        if hidden is not None:
            hidden = hidden.repeat_interleave(shared, dim=0)
        k3, v3 = (x.repeat_interleave(shared, dim=0) for x in (k3, v3))
    else:  # what `before` holds are the part's own keys too
        k3, v3, hidden = k3[:, :0].repeat(shared, 1, 1), v3[:, :0].repeat(shared, 1, 1), None
    out = chunked_attention(
        part.q.flatten(0, 1), k3, v3, features, hidden, is_causal=part.is_causal, before=before
    )
    return out.view(part.q.shape)
