"""The inverse of many small unit lower triangular matrices, by products.

Blocks of `BASE` rows on the diagonal are inverted by substitution, over all matrices at once;
pairs of blocks are then joined, ``[[L, 0], [B, R]]⁻¹ = [[L⁻¹, 0], [-R⁻¹BL⁻¹, R⁻¹]]``. That is as
stable as substitution, where a product of powers ``(I - A)(I + A²)…`` cancels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BASE = 16
"""Rows of a block that is inverted by substitution."""


def unit_lower_inverse(a: Tensor) -> Tensor:
    """Return ``(I + A)⁻¹``.

    Args:
        a: ``[..., C, C]``; of it the part below the diagonal is read. C is `BASE` or a power of
            two times it.

    Returns:
        ``[..., C, C]``, differentiable any number of times.
    """
    inverse: Tensor = _Inverse.apply(a)  # type: ignore[no-untyped-call]
    return inverse


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        size = a.shape[-1]
        inverse = _join(a.reshape(-1, size, size), _base_inverses(a.reshape(-1, size, size)))
        ctx.save_for_backward(inverse := inverse.view(a.shape))
        return inverse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        product: Tensor = inverse.mT @ grad @ inverse.mT
        return -product.tril(-1)


def _base_inverses(a: Tensor) -> Tensor:
    """Invert the blocks on the diagonals of ``[M, C, C]``: ``[M, C/BASE, BASE, BASE]``."""
    blocks = a.shape[1] // BASE
    diagonal = a.view(-1, blocks, BASE, blocks, BASE).diagonal(dim1=1, dim2=3)
    rows = diagonal.permute(1, 2, 0, 3).reshape(BASE, BASE, -1)  # all matrices side by side
    inverse = torch.zeros_like(rows)
    inverse[0, 0] = 1
    for i in range(1, BASE):
        torch.sum(rows[i, :i, None] * inverse[:i, :i], dim=0, out=inverse[i, :i])
        inverse[i, :i].neg_()
        inverse[i, i] = 1
    out: Tensor = inverse.view(BASE, BASE, -1, blocks).permute(2, 3, 0, 1).contiguous()
    return out


def _join(a: Tensor, inverse: Tensor) -> Tensor:
    """Join inverses of blocks ``[M, m, s, s]`` up to ``[M, C, C]``."""
    size = BASE
    while size < a.shape[1]:
        pairs = a.shape[1] // (2 * size)
        cut = a.view(-1, pairs, 2, size, pairs, 2, size)[:, :, 1, :, :, 0]
        lower = cut.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)  # [M, pairs, size, size]
        first, second = inverse.view(-1, pairs, 2, size, size).unbind(2)
        joined = a.new_zeros(a.shape[0], pairs, 2, size, 2, size)
        joined[:, :, 0, :, 0] = first
        joined[:, :, 1, :, 1] = second
        joined[:, :, 1, :, 0] = (second @ lower @ first).neg_()
        inverse = joined.view(-1, pairs, 2 * size, 2 * size)
        size *= 2
    return inverse
