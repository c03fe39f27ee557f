"""Hide tokens, to be predicted from both sides: the masked language model's input, in numpy.

Devlin et al. 2019, arXiv 1810.04805, section 3.1: of the chosen tokens 80 % are masked, 10 %
replaced by any token, 10 % kept. As `models.objectives.mask_tokens`, but from a task's random
numbers, and with a share of each row's tokens that is fixed and not a chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.objectives import IGNORED

DRAWS = 3
"""Uniform numbers that a token takes: whether it is chosen, what becomes of it, and which."""


def hide(
    ids: NDArray[np.int64],
    draws: NDArray[np.float64],
    *,
    density: float,
    mask_id: int,
    ordinary: int,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return inputs and labels; a row has ``density`` of its allowed tokens hidden, at least one.

    Args:
        ids: int64 ``[B, N]``.
        draws: uniform in [0, 1), float64 ``[B, DRAWS, N]``.
        density: share of the tokens that is chosen, rounded to whole tokens.
        mask_id: what stands for a masked token.
        ordinary: a replacement is an id below it.
        allowed: bool ``[B, N]``, what may be chosen, at least one of each row; ``None`` = all.

    Returns:
        Two int64 ``[B, N]``; a label is `IGNORED` where nothing is asked.
    """
    choice, kind, other = draws.swapaxes(0, 1)
    if allowed is not None:
        choice = np.where(allowed, choice, 1.0)
    tokens = np.full(len(ids), ids.shape[1]) if allowed is None else allowed.sum(axis=1)
    count = np.maximum(np.rint(tokens * density).astype(np.int64), 1)
    largest = np.take_along_axis(np.sort(choice, axis=1), count[:, None] - 1, axis=1)
    chosen = choice <= largest
    inputs = np.where(chosen & (kind < 0.8), mask_id, ids)
    replaced = chosen & (kind >= 0.9)
    inputs = np.where(replaced, (other * ordinary).astype(np.int64), inputs)
    return inputs, np.where(chosen, ids, IGNORED)
