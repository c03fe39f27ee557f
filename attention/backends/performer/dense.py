"""The N×M matrix of weights that the features stand for: the reference, in the log domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attention.kernels.linear.features import Features

LOG_RANGE = 600.0
"""How far a logit may lie below another for a product of their exponentials in float64."""


def dense_weights(q: Tensor, k: Tensor, hidden: Tensor, features: Features) -> Tensor:
    """Return ``φ(Q)φ(K)ᵀ`` of eq. 4, up to a factor a row.

    Of softmax features in the log domain: neither long keys nor long queries underflow.

    Args:
        q: ``[B, H, K, D]``.
        k: ``[B, H, M, D]``.
        hidden: bool, broadcastable to ``[B, H, K, M]``, True = not seen.
        features: the map φ.
    """
    phi_q, phi_k = _features(q, features), _features(k, features)
    if features.kind == "relu":
        return (phi_q @ phi_k.mT).masked_fill(hidden, 0.0)
    weights = _log_product(phi_q.double(), phi_k.double()).masked_fill(hidden, -math.inf)
    top = weights.detach().amax(dim=-1, keepdim=True)
    top.masked_fill_(top == -math.inf, 0.0)  # no key
    return (weights - top).exp().to(q.dtype)


def _features(x: Tensor, features: Features) -> Tensor:
    """Compute ReLU features, or the logarithms of softmax features, as the paper has them."""
    x = x * features.scale
    phi: Tensor = x @ features.projection.to(x.dtype).T
    if features.kind == "relu":
        return torch.relu(phi) + features.epsilon
    # In place: the features of a million keys in float64 are 2 GiB a head, and enough once.
    phi -= 0.5 * (x * x).sum(dim=-1, keepdim=True)
    return phi


def _log_product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``log(exp(a)·exp(b)ᵀ)``, a log-sum-exp over R: ``[..., K, R]``, ``[..., M, R]``.

    With the largest of each row taken out, a product holds all that counts: where b is largest
    its factor is 1, and a is no more than its own range below its maximum. Only where a row of a
    spans more than float64 is there one sum a query.

    Args:
        a: float64, of queries.
        b: float64, of keys; overwritten.
    """
    top_a, top_b = (x.detach().amax(dim=-1, keepdim=True) for x in (a, b))
    if bool((top_a - a.detach() > LOG_RANGE).any()):
        rows = [checkpoint(_log_sums, row, b, use_reentrant=False) for row in a.unbind(dim=-2)]
        return torch.stack(rows, dim=-2)
    b -= top_b
    product = (a - top_a).exp() @ b.exp_().mT
    return product.log() + top_a + top_b.mT


def _log_sums(row: Tensor, b: Tensor) -> Tensor:
    """Return `_log_product` of one row ``[..., R]``: ``[..., M]``."""
    return torch.logsumexp(row[..., None, :] + b, dim=-1)
