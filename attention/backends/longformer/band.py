"""The band: which keys lie in a query's window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

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
