"""Attention weights of any backend, and how far they are from exact softmax's.

Every backend is linear in its values: ``out_i = Σ_j W_ij v_j``. So the gradient of column c of
``out_i`` at column c of v is row i of W, whatever the backend's formula is; D columns give D rows
in one backward pass of its `reference`, at the cost of the pass and not of M columns of an
identity. These are the weights of the formula in float64, which the gate holds the output to.

They need not be a distribution: learned Linformer mixes keys with numbers of both signs, and its
effective weights ``softmax(Q(EK)ᵀ)F`` are negative in places. A divergence is given only where
every row is non-negative and sums to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from attention.base import Attention
from attention.functional import expand_kv_heads, visible_keys
from suites.measure.gate import CHUNK, sampled_rows

WEIGHT_ROWS = 64
"""Sampled query rows."""

TOLERANCE = 1e-6
"""How far a row's sum may be from 1, and a weight below 0, for a distribution."""


class WeightsError(NamedTuple):
    """How far an approximation's attention weights are from exact softmax's.

    Attributes:
        relative_l2: of the weights of all sampled rows.
        kl: ``KL(approximation ‖ exact)``, mean over rows, in nats; ``None`` = no distribution.
        rows: how many query rows were sampled.
    """

    relative_l2: float
    kl: float | None
    rows: int


def weights_error(
    attention: Attention,
    q: Tensor,
    k: Tensor,
    *,
    is_causal: bool,
    seed: int,
    rows: int = WEIGHT_ROWS,
) -> WeightsError:
    """Compare sampled rows of attention weights with exact softmax's, in float64.

    Args:
        attention: the backend; its scale of the scores is the exact one's too.
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, N, D]``.
        is_causal: as it is called.
        seed: of the sampled rows.
        rows: how many.
    """
    at = sampled_rows(q.shape[2], rows, seed=seed).to(q.device)
    q, k = q.detach().to(torch.float64), k.detach().to(torch.float64)
    k = expand_kv_heads(k, q.shape[1])
    few = max(1, min(q.shape[3], CHUNK // (q.shape[0] * q.shape[1] * k.shape[2])))
    off, norm, divergence, distribution = 0.0, 0.0, 0.0, True
    for chunk in torch.split(at, few):
        weights = effective_weights(attention, q, k, is_causal=is_causal, rows=chunk)
        logs = exact_log_weights(q, k, attention.scale, is_causal=is_causal, rows=chunk)
        exact = logs.exp()
        off += float((weights - exact).square().sum())
        norm += float(exact.square().sum())
        distribution = distribution and is_distribution(weights)
        if distribution:
            # A weight of 0 adds nothing, also where softmax has none.
            ratio = weights.clamp(min=torch.finfo(torch.float64).tiny).log() - logs
            divergence += float(torch.where(weights > 0, weights * ratio, 0.0).sum())
    count = q.shape[0] * q.shape[1] * len(at)
    kl = max(0.0, divergence / count) if distribution else None  # rounding may be below 0
    return WeightsError((off / norm) ** 0.5, kl, len(at))


def effective_weights(
    attention: Attention, q: Tensor, k: Tensor, *, is_causal: bool, rows: Tensor
) -> Tensor:
    """Return the weights with which the queries at `rows` read each value.

    Args:
        attention: the backend.
        q: ``[B, H, N, D]``.
        k: ``[B, H, M, D]``, a head of its own for every query head.
        is_causal: as it is called.
        rows: int64 ``[K]``, at most D of them.

    Returns:
        ``[B, H, K, M]``.
    """
    v = torch.zeros_like(k, requires_grad=True)
    with torch.enable_grad():
        out = attention.reference(q, k, v, is_causal=is_causal, rows=rows)  # [B, H, K, D]
    start = torch.eye(len(rows), q.shape[3], dtype=q.dtype, device=q.device)
    (grad,) = torch.autograd.grad(out, v, start.expand_as(out))  # [B, H, M, D]
    return grad[..., : len(rows)].mT


def exact_log_weights(
    q: Tensor, k: Tensor, scale: float, *, is_causal: bool, rows: Tensor
) -> Tensor:
    """Return the logarithms of softmax attention's weights: ``[B, H, K, M]``, -inf = not seen."""
    scores = (q[:, :, rows] @ k.mT).mul_(scale)
    if is_causal:
        seen = visible_keys(rows, q.shape[2], k.shape[2], is_causal=True, key_padding_mask=None)
        scores.masked_fill_(~seen, -torch.inf)
    return scores.log_softmax(dim=-1)


def is_distribution(weights: Tensor) -> bool:
    """Say whether every row is non-negative and sums to 1."""
    sums = weights.sum(dim=-1)
    return bool((weights >= -TOLERANCE).all() and ((sums - 1).abs() <= TOLERANCE).all())
