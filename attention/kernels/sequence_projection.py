"""Products along the sequence by a learnt matrix: linformer's keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention.derivatives import in_transform, must_be_plain, plain_gradients
from attention.functional import opaque
from attention.kernels.fold import is_short
from attention.kernels.onednn import at_full_rate


@opaque
def along_sequence(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply sequences by a matrix that mixes their tokens.

    Args:
        matrix: ``[R, M]`` beside ``[B, M, …]``, or ``[heads or 1, R, M]`` beside ``[B, H, M, D]``.
        x: the sequences.

    Returns:
        `x` with M replaced by R, in its dtype.
    """
    matrix = matrix.to(x.dtype)
    mixed: Tensor
    if in_transform():
        return matrix @ x
    if matrix.dim() == 2:
        mixed = _AlongSequence.apply(x[:, None], matrix[None])  # type: ignore[no-untyped-call]
        return mixed[:, 0]
    if matrix.shape[0] == 1 and x.transpose(1, 2).is_contiguous():
        # Heads side by side, as a layer's projection leaves them: one wide product for all.
        rows = x.transpose(1, 2).flatten(2)[:, None]  # [B, 1, M, H·D]
        mixed = _AlongSequence.apply(rows, matrix)  # type: ignore[no-untyped-call]
        by_head: Tensor = mixed[:, 0].unflatten(-1, (x.shape[1], x.shape[3]))  # [B, R, H, D]
        return by_head.transpose(1, 2)
    mixed = _AlongSequence.apply(x, matrix)  # type: ignore[no-untyped-call]
    return mixed


class _AlongSequence(torch.autograd.Function):
    """``E·X``, with a backward pass that adds the heads' gradients of E up in place.

    Autograd's own would make one ``[R, M]`` gradient a head, and then their sum.
    """

    @staticmethod
    @at_full_rate
    def forward(ctx: Any, x: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(x, matrix)
        return _by_head(matrix, x)

    @staticmethod
    @at_full_rate
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors  # [B, H, M, D], [heads or 1, R, M]
        if must_be_plain(grad):
            return plain_gradients(lambda x, matrix: matrix @ x, (x, matrix), grad)
        grad_matrix = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _by_head(matrix.mT, grad)
        if ctx.needs_input_grad[1]:
            grad_matrix = _matrix_gradient(matrix, x, grad)
        return grad_x, grad_matrix


def _matrix_gradient(matrix: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    """Sum ``grad·xᵀ`` over the batch, and over the heads that share a matrix.

    Products of half precision add up in float32; the sum is rounded once.

    Args:
        matrix: ``[heads or 1, R, M]``.
        x: ``[B, H, M, D]``.
        grad: ``[B, H, R, D]``.
    """
    if x.device.type != "cpu" or is_short(x):
        # One product over tokens of all that share a matrix: [heads, R, B·D] or [1, R, B·H·D].
        order = (1, 2, 0, 3) if matrix.shape[0] > 1 else (2, 0, 1, 3)
        g, y = (t.permute(order).reshape(matrix.shape[0], t.shape[2], -1) for t in (grad, x))
        return torch.bmm(g, y.mT, out=torch.empty_like(matrix))
    half = matrix.dtype in (torch.float16, torch.bfloat16)
    sums = torch.zeros_like(matrix, dtype=torch.float32 if half else matrix.dtype)
    for g, y in zip(grad.unbind(0), x.unbind(0), strict=True):
        for head in range(x.shape[1]):
            total = sums[head % matrix.shape[0]]  # [R, M], added to in place
            if half:
                total += g[head] @ y[head].mT
            else:
                torch.addmm(total, g[head], y[head].mT, out=total)
    return sums.to(matrix.dtype)


def _by_head(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply each head by its matrix, ``[heads or 1, R, M]``: ``[B, H, R, D]``.

    On a CPU one product a head, where each is large: a batch of them would share an operand, which
    some libraries copy for each.
    """
    batch, heads, _, dim = x.shape
    out = torch.empty(batch, heads, matrix.shape[1], dim, dtype=x.dtype, device=x.device)
    longer = x if x.shape[2] > out.shape[2] else out
    if x.device.type != "cpu" or is_short(longer):
        return torch.matmul(matrix, x, out=out)  # into `out`: autocast leaves its dtype alone
    for target, y in zip(out.unbind(0), x.unbind(0), strict=True):
        for head in range(heads):
            torch.mm(matrix[head % matrix.shape[0]], y[head], out=target[head])
    return out
