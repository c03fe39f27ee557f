"""Decay within a chunk, such that no exponential is above 1.

Sums of log-decays are kept in float64, so that the difference of two large ones is exact enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = -1e4
"""A log-decay below it counts as it: its exponential is 0 in any dtype."""

BASE = 4
"""Tokens whose decays by channel are formed pair by pair; above it by products."""


@dataclass(frozen=True)
class Chunks:
    """Queries and keys of chunks of C tokens under decay; ``...`` is ``[G, n]``.

    Attributes:
        q_in: queries times the decay since the chunk's start ``[..., C, D]``.
        k_in: keys likewise.
        k_out: keys times the decay up to the chunk's end.
        through: the decay of the whole chunk, ``[..., D, 1]`` or ``[..., 1, 1]``; ``None`` = 1.
        qk: ``q_i·(k_j e^{c_i - c_j})`` for j ≤ i, else 0: ``[..., C, C]``.
        kk: likewise of keys for j < i; ``None`` = not asked for.
    """

    q_in: Tensor
    k_in: Tensor
    k_out: Tensor
    through: Tensor | None
    qk: Tensor
    kk: Tensor | None


def decayed(q: Tensor, k: Tensor, decay: Tensor | None, *, with_kk: bool) -> Chunks:
    """Apply the decay within chunks.

    Args:
        q: ``[G, n, C, D]``.
        k: ``[G, n, C, D]``.
        decay: logarithms, at most 0, ``[G, n, C]`` or ``[G, n, C, D]``; ``None`` = none.
        with_kk: whether the keys' products with keys are needed.
    """
    if decay is None:
        kk = (k @ k.mT).tril(-1) if with_kk else None
        return Chunks(q, k, k, None, (q @ k.mT).tril(), kk)
    sums = decay.double().clamp_min(LEAST).cumsum(dim=2)  # c_i
    whole = sums[:, :, -1:]
    into, out_of = sums.exp().to(q.dtype), (whole - sums).exp().to(q.dtype)
    through = whole.exp().to(q.dtype)
    if decay.dim() == 3:
        future = torch.ones(k.shape[2], k.shape[2], dtype=torch.bool, device=k.device).triu(1)
        between = sums.unsqueeze(3) - sums.unsqueeze(2)
        gamma = between.masked_fill(future, -math.inf).to(q.dtype).exp()
        qk = (q @ k.mT) * gamma
        kk = ((k @ k.mT) * gamma).tril(-1) if with_kk else None
        into, out_of, through = into.unsqueeze(3), out_of.unsqueeze(3), through.unsqueeze(3)
    else:
        rows = torch.stack([q, k] if with_kk else [q], dim=2)
        qk, *more = _by_channel(rows, k, sums).unbind(2)
        kk = more[0].tril(-1) if with_kk else None
        through = through.mT
    return Chunks(q * into, k * into if with_kk else k, k * out_of, through, qk, kk)


def _by_channel(rows: Tensor, k: Tensor, sums: Tensor) -> Tensor:
    """Return ``Σ_d x_id k_jd e^{c_id - c_jd}`` for j ≤ i, else 0: ``[G, n, r, C, C]``.

    The chunk is halved down to `BASE` tokens. Between two halves the reference point is the end
    of the first: both factors are then at most 1.

    Args:
        rows: x, ``[G, n, r, C, D]``.
        k: ``[G, n, C, D]``.
        sums: c, float64 ``[G, n, C, D]``.
    """
    scores = _pairwise(rows, k, sums)
    size = BASE
    while size < k.shape[2]:
        x = rows.unflatten(3, (-1, 2, size))[:, :, :, :, 1]  # [G, n, r, m, size, D]
        c = sums.unflatten(2, (-1, 2, size))  # [G, n, m, 2, size, D]
        at = c[:, :, :, 0, -1:]
        x = x * (c[:, :, :, 1] - at).to(k.dtype).exp().unsqueeze(2)
        y = k.unflatten(2, (-1, 2, size))[:, :, :, 0] * (at - c[:, :, :, 0]).to(k.dtype).exp()
        below = (x.transpose(2, 3).flatten(3, 4) @ y.mT).unflatten(3, (-1, size)).transpose(2, 3)
        first, second = scores.unflatten(3, (-1, 2)).unbind(4)
        upper = torch.cat([first, torch.zeros_like(first)], dim=-1)
        scores = torch.cat([upper, torch.cat([below, second], dim=-1)], dim=-2)
        size *= 2
    return scores.squeeze(3)


def _pairwise(rows: Tensor, k: Tensor, sums: Tensor) -> Tensor:
    """Return the blocks of `BASE` tokens on the diagonal: ``[G, n, r, C/BASE, BASE, BASE]``."""
    c = sums.unflatten(2, (-1, BASE))  # [G, n, m, BASE, D]
    future = torch.ones(BASE, BASE, dtype=torch.bool, device=k.device).triu(1)[..., None]
    between = (c.unsqueeze(4) - c.unsqueeze(3)).to(k.dtype)
    keys = between.masked_fill(future, -math.inf).exp() * k.unflatten(2, (-1, BASE)).unsqueeze(3)
    x = rows.unflatten(3, (-1, BASE)).unsqueeze(-2)  # [G, n, r, m, BASE, 1, D]
    scores: Tensor = x @ keys.unsqueeze(2).mT
    return scores.squeeze(-2)
