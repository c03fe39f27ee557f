"""Dilation: the positions of one residue modulo d form a sequence of their own.

A band with gaps of d over N positions is d bands without gaps over ``n = ⌈N/d⌉`` positions each;
the residues become heads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def by_residue(x: Tensor, dilation: int) -> Tensor:
    """Split ``[B, h, N, D]`` into its residues ``[B, h·d, n, D]``, padded at the end."""
    if dilation == 1:
        return x
    x = pad(x, (0, 0, 0, -x.shape[2] % dilation))
    # [B, h, n, d, D] to [B, h, d, n, D]: position n·d + r is row n of residue r.
    parts: Tensor = x.unflatten(2, (-1, dilation)).transpose(2, 3).flatten(1, 2)
    return parts


def from_residues(x: Tensor, dilation: int, heads: int, seq_len: int) -> Tensor:
    """Undo `by_residue`."""
    if dilation == 1:
        return x
    x = x.unflatten(1, (heads, dilation)).transpose(2, 3).flatten(2, 3)
    return x[:, :, :seq_len]


def hidden_by_residue(
    hidden: Tensor | None, batch: int, seq_len: int, dilation: int, device: torch.device
) -> Tensor | None:
    """Split a mask ``[B, N]`` as `by_residue` does, its padding hidden: ``[B, d, n]``.

    ``None`` = nothing is hidden.
    """
    missing = -seq_len % dilation
    if hidden is None:
        if not missing:
            return None
        hidden = torch.zeros(batch, seq_len, dtype=torch.bool, device=device)
    hidden = pad(hidden, (0, missing), value=True)
    parts: Tensor = hidden.unflatten(1, (-1, dilation)).transpose(1, 2)
    return parts
