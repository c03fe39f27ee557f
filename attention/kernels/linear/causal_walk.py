"""The causal pass of linear attention, chunk by chunk forward in time.

A chunk uses the stabiliser after the chunk; where that leaves a query nothing but underflow, the
chunk is cut in two and tried again, down to single tokens if need be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attention.kernels.linear.features import align, inverse_of, least_total
from attention.kernels.linear.tile_work import Span, TileSums, Work, cut, spans

CHUNK_TOKENS = 1024
"""Tokens in a causal chunk, of all groups: enough work a call."""

CHUNK_SIZES = (64, 256)
"""Tokens in a causal chunk, of one group: its square adds ``CHUNK·(R + D)/(4·R·D)`` to the linear
part."""


def chunk_size(groups: int) -> int:
    """Return the tokens in a causal chunk of `groups` groups."""
    least, most = CHUNK_SIZES
    return max(least, min(most, CHUNK_TOKENS // groups))


def walk(
    work: Work, sums: TileSums, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor], list[Span]]:
    """Walk the square part forward in time, chunk by chunk; `sums` holds what came before.

    Returns:
        the output ``[G, N, D]``; one over its denominators ``[G, N, 1]``; the stabiliser before
        the first chunk and after each; the chunks.
    """
    length, q_at, k_at = align(q, k)
    out = torch.empty_like(q)
    out[:, :q_at] = 0
    inverse = work.zeros(q.shape[0], q.shape[1], 1)
    tops, done = [sums.top.clone()], list[Span]()
    waiting = spans(length, chunk_size(work.groups))[::-1]
    while waiting:
        span, old = waiting.pop(), sums.top.clone()
        chunk = chunk_of(work, (q, k, v, hidden), span, sums.top, raise_top=True)
        factor = sums.factor(old)
        weights = work.product(chunk.phi_q, chunk.phi_k.mT, chunk.square()).tril_()  # [G, T, T]
        total = weigh(sums.z * factor, chunk.phi_q)  # [G, T, 1]: of the past, then of the chunk
        total += weights.sum(2, keepdim=True)
        if chunk.size > 1 and _has_underflow(total, hidden, k_at, span):
            sums.top = old
            middle = (span[0] + span[1]) // 2
            waiting += [(middle, span[1]), (span[0], middle)]
            continue
        sums.multiply(factor)  # only now: a chunk that is tried again needs them as they were
        number = work.product(chunk.phi_q, sums.s, work.take("o", chunk.size, work.dim))
        work.accumulate(number, weights, chunk.v)  # [G, T, D]
        inverse[:, chunk.rows] = inverse_of(total)
        out[:, chunk.rows] = number.mul_(inverse[:, chunk.rows])
        sums.add(chunk.phi_k, chunk.v)
        tops.append(sums.top.clone())
        done.append(span)
    return out, inverse, tops, done


def _has_underflow(total: Tensor, hidden: Tensor | None, k_at: int, span: Span) -> bool:
    """Whether a query of a causal chunk sees keys, but none above underflow.

    All its keys then lie far below keys that come later in the chunk, whose stabiliser it shares.
    In a chunk of one token that cannot be.
    """
    lost = total[:, :, 0] <= least_total(total.dtype)  # [G, T]
    if not bool(lost.any()):
        return False
    if hidden is not None:
        seen = (~hidden[:, : k_at + span[1]]).cumsum(dim=1)[:, k_at + span[0] :] > 0
        lost = lost & seen
    return bool(lost.any())


@dataclass(frozen=True)
class Chunk:
    """A causal chunk of T tokens: its scaled inputs ``[G, T, D]``, features and places."""

    work: Work
    span: Span
    keys: slice
    x_k: Tensor
    v: Tensor
    phi_q: Tensor
    phi_k: Tensor
    hidden: Tensor | None

    @property
    def rows(self) -> slice:
        """Its queries."""
        return slice(*self.span)

    @property
    def size(self) -> int:
        """T."""
        return self.span[1] - self.span[0]

    def square(self) -> Tensor:
        """Return a buffer for a number a query and key: ``[G, T, T]``."""
        return self.work.take("square", self.size, self.size)


def chunk_of(
    work: Work,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None],
    span: Span,
    top: Tensor,
    raise_top: bool,
) -> Chunk:
    """Compute the features of one chunk; `span` counts in the square part."""
    q, k, v, hidden = tensors
    _, q_at, k_at = align(q, k)
    at = span[0] + q_at, span[1] + q_at
    keys = span[0] + k_at, span[1] + k_at
    x_k = work.tile("k", k, keys, work.features.scale)
    unseen = cut(hidden, keys)
    phi_k = work.keys(x_k, top, unseen, raise_top)  # before the queries, which take `top` back
    phi_q = work.queries(work.tile("q", q, at, work.features.scale), top)
    return Chunk(work, at, slice(*keys), x_k, work.tile("v", v, keys), phi_q, phi_k, unseen)


def weigh(z: Tensor, phi: Tensor) -> Tensor:
    """Return ``φz``, ``[G, T, 1]``: as a row times a matrix, the fast way round."""
    return torch.bmm(z[:, None, :], phi.mT).mT
