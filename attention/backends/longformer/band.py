"""The band: which keys lie in a query's window, and what dilation makes of it.

A band with gaps of d over N positions is d bands without gaps over ``n = ⌈N/d⌉`` positions each,
one for each residue modulo d; the residues become heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.checks import check_int


@dataclass(frozen=True)
class Band:
    """Windows of one width, dilated head by head.

    Attributes:
        window: W, keys on each side.
        dilation: gap between the keys of a window, of each head ``[H]``.
    """

    window: int
    dilation: tuple[int, ...]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Neighbouring heads of equal dilation: (number of heads, dilation)."""
        return [(len(list(heads)), gap) for gap, heads in groupby(self.dilation)]

    @property
    def reach(self) -> int:
        """Tokens on each side of a query within which its window lies."""
        return self.window * max(self.dilation)

    def pairs(self, seq_len: int, is_causal: bool) -> int:
        """Count the pairs of all heads over `seq_len` positions."""
        return sum(
            heads * band_pairs(len(range(residue, seq_len, gap)), self.window, is_causal)
            for heads, gap in self.runs
            for residue in range(gap)
        )


def band_pairs(seq_len: int, window: int, is_causal: bool) -> int:
    """Count the pairs of an undilated band over `seq_len` positions."""
    reach = min(window, seq_len - 1)
    if reach < 0:
        return 0
    side = reach * seq_len - reach * (reach + 1) // 2
    return seq_len + (1 if is_causal else 2) * side


def check_dilation(dilation: Any, num_heads: int) -> tuple[int, ...]:
    """Return the dilation of each head, given as one number or as one for each."""
    if isinstance(dilation, Sequence) and not isinstance(dilation, str):
        if len(dilation) != num_heads:
            raise ValueError(
                f"dilation: expected one number or {num_heads} (one per head), "
                f"got {len(dilation)}: {list(dilation)}"
            )
        return tuple(check_int("dilation", d, minimum=1) for d in dilation)
    return (check_int("dilation", dilation, minimum=1),) * num_heads


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
