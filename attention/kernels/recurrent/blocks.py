"""One block of chunks: its output, and the state behind it, from the state before it.

All operations are ordinary ones, which autograd follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attention.kernels.recurrent.decays import decayed
from attention.kernels.recurrent.inverse import unit_lower_inverse

CHUNK = 64
"""Tokens of a chunk: C."""

EPSILON = 1e-6
"""Under the root of a norm, as in the published code of Gated DeltaNet."""

Tokens = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""q and k ``[G, T, D]``, v ``[G, T, D_v]``, log-decay ``[G, T]`` or ``[G, T, D]``, beta
``[G, T]``."""


@dataclass(frozen=True)
class Rule:
    """Which recurrence.

    ``S_t = e^{g_t} S_{t-1} + k_t v_tᵀ``, or with `is_delta`
    ``S_t = (I - β_t k_t k_tᵀ) e^{g_t} S_{t-1} + β_t k_t v_tᵀ``; ``o_t = S_tᵀ q_t·scale``.

    Attributes:
        scale: on the output.
        is_delta: whether a value replaces what its key held.
        normalize: whether q and k are divided by their lengths.
    """

    scale: float
    is_delta: bool = False
    normalize: bool = False


def normalized(x: Tensor) -> Tensor:
    """Divide vectors by their lengths."""
    return x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + EPSILON)


def chunk_of(tokens: int) -> int:
    """Return the tokens of a chunk of a block of so many."""
    return min(CHUNK, max(16, 1 << (tokens - 1).bit_length()))


def block(rule: Rule, tokens: Tokens, state: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a block.

    Args:
        rule: which recurrence.
        tokens: T of them.
        state: S before it ``[G, D, D_v]``, float32 or float64.

    Returns:
        ``[G, T, D_v]`` and S behind it, both of the state's dtype.
    """
    length = tokens[0].shape[1]
    size = chunk_of(length)
    q, k, v = (_chunks(x, size, state.dtype) for x in tokens[:3])
    decay, beta = (None if x is None else _chunks(x, size, state.dtype) for x in tokens[3:])
    if rule.normalize:
        q, k = normalized(q), normalized(k)
    parts = decayed(q * rule.scale, k, decay, with_kk=rule.is_delta)
    if parts.kk is None:
        v = v if beta is None else v * beta.unsqueeze(3)
        states, state = _sum(parts.k_out.mT @ v, parts.through, state)
    else:
        a = parts.kk if beta is None else parts.kk * beta.unsqueeze(3)
        solved = unit_lower_inverse(a)
        if beta is not None:
            solved = solved * beta.unsqueeze(2)
        u, w = solved @ v, solved @ parts.k_in
        states, v, state = _correct(u, w, parts.k_out, parts.through, state)
    out = parts.q_in @ states + parts.qk @ v
    return out.flatten(1, 2)[:, :length], state


def _chunks(x: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Cut ``[G, T, ...]`` into ``[G, n, C, ...]``; tokens that are missing change nothing."""
    if missing := -x.shape[1] % size:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
    return x.view(x.shape[0], x.shape[1] // size, size, *x.shape[2:]).to(dtype)


def _sum(added: Tensor, through: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state before each chunk ``[G, n, D, D_v]``, and that behind the last."""
    states = []
    for index, new in enumerate(added.unbind(1)):
        states.append(state)
        state = state + new if through is None else torch.addcmul(new, through[:, index], state)
    return torch.stack(states, dim=1), state


def _correct(
    u: Tensor, w: Tensor, k_out: Tensor, through: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Walk over chunks, whose values are corrected by what their keys held before.

    Returns:
        the state before each chunk ``[G, n, D, D_v]``; values ``[G, n, C, D_v]``; the last state.
    """
    states, values = [], []
    for index, (u_c, w_c, k_c) in enumerate(
        zip(u.unbind(1), w.unbind(1), k_out.unbind(1), strict=True)
    ):
        states.append(state)
        value = torch.baddbmm(u_c, w_c, state, alpha=-1)
        values.append(value)
        faded = state if through is None else state * through[:, index]
        state = torch.baddbmm(faded, k_c.mT, value)
    return torch.stack(states, dim=1), torch.stack(values, dim=1), state
