"""Fold batch and heads into one axis of groups, which a kernel walks as one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHORT_ROW = 2**15
"""Elements, ``H·N·D``, of a short batch row."""


def is_short(x: Tensor) -> bool:
    """Whether a batch row of ``[B, H, N, D]`` is so short that a call of its own takes longer.

    One call then serves the whole batch, even where the batch must be copied for it.
    """
    return x.numel() <= SHORT_ROW * x.shape[0]


def by_groups(attend: Callable[..., Tensor], q: Tensor, *others: Tensor) -> Tensor:
    """Call a kernel on folded tensors: once where all fold, else once for each batch row.

    Args:
        attend: ``(rows, q, *others)`` to ``[G, N, D]``: `rows` the slice of the batch that it
            gets, the tensors ``[G, n, D]`` with G = H, or B·H where it gets the whole batch.
        q: ``[B, H, N, D]``.
        *others: ``[B, H, n, D]``, each with an n of its own.

    Returns:
        ``[B, H, N, D]``.
    """
    tensors = (q, *others)
    folds = all(x.shape[0] == 1 or x.stride(0) == x.stride(1) * x.shape[1] for x in tensors)
    if folds or is_short(q):  # a view; short batch rows are copied for it
        out = attend(slice(None), *(x.flatten(0, 1) for x in tensors))
        return out.view(q.shape)
    rows = zip(*(x.unbind(0) for x in tensors), strict=True)
    return torch.stack([attend(slice(at, at + 1), *row) for at, row in enumerate(rows)])
