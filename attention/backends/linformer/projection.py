"""What stands for the keys: a learnt projection of the sequence, or means of its segments."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from attention.kernels.sequence_projection import along_sequence


class LinformerProjection(nn.Module):
    """The matrix E (or F) of eq. 7: ``[heads or 1, R, M]``.

    Args:
        seq_len: longest M.
        rank: R.
        heads: 1 = one matrix for all heads, else one each.
    """

    def __init__(self, *, seq_len: int, rank: int, heads: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, rank, seq_len))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrix: entries of N(0, 1/R), after the paper's theorem 2."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Project ``[B, H, M, D]`` along the sequence: ``[B, H, R, D]``."""
        return along_sequence(self.weight[:, :, : x.shape[2]], x)


def check_shared(projection: object, *, rank: int, seq_len: int) -> LinformerProjection:
    """Return a projection that layers share, if it is one and fits.

    Raises:
        TypeError: if it is no projection.
        ValueError: if its weight has another shape than ``[1, R, M]``.
    """
    if not isinstance(projection, LinformerProjection):
        raise TypeError(
            f"projection: expected a LinformerProjection, got {type(projection).__name__}"
        )
    wanted = (1, rank, seq_len)
    if tuple(projection.weight.shape) != wanted:
        raise ValueError(
            f"projection: expected a weight {wanted}, got {tuple(projection.weight.shape)}"
        )
    return projection


def pool(
    k: Tensor, v: Tensor, segment: int, key_padding_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Average the real tokens of each segment; a segment without any is hidden.

    Args:
        k: ``[B, H, M, D]``.
        v: ``[B, H, M, D]``.
        segment: tokens in one.
        key_padding_mask: bool ``[B, M]``, True = real; or ``None``.

    Returns:
        keys and values ``[B, H, r, D]``, and which segments are hidden, bool ``[B, r]`` or
        ``None``.
    """
    length = k.shape[2]
    if key_padding_mask is None and length % segment == 0:
        k, v = (x.unflatten(2, (-1, segment)).mean(dim=3) for x in (k, v))
        return k, v, None
    missing = -length % segment
    real = (
        torch.ones(k.shape[0], length, dtype=torch.bool, device=k.device)
        if key_padding_mask is None
        else key_padding_mask
    )
    real = pad(real, (0, missing)).unflatten(1, (-1, segment))  # [B, r, segment]
    count = real.sum(dim=2)  # [B, r]
    weight = real.to(k.dtype) / count.clamp(min=1)[:, :, None]
    pooled = []
    for x in (k, v):
        segments = pad(x, (0, 0, 0, missing)).unflatten(2, (-1, segment))  # [B, H, r, segment, D]
        pooled.append((segments * weight[:, None, :, :, None]).sum(dim=3))
    return pooled[0], pooled[1], count == 0
