"""What linear attention in batched products computes of a block, by operations autograd follows.

Feature r of the keys is divided by ``exp(m_r)``, m_r the largest logit among those keys, and the
queries multiply it back before their row maximum is removed. What precedes a chunk has a maximum
of its own, the running one; sums shrink by ``exp(old - new)`` <= 1 where it rises. The chunk
itself has another. So each part of a row is ``exp(a)·(number, total)`` with a term of 1 in its
total, and parts are joined by their a. But a chunk's maximum may come from keys that a query does
not see. Where that leaves a query nothing but underflow, the block is computed again by halves: in
a chunk the right half reads the left half, all of which it sees, then both are halved, down to
single tokens. That holds at any range, and costs ``log2(CHUNK)`` times the exponentials.

Axes beside those of `attention.base`: G groups (batch times heads), C chunks, P pieces of a chunk,
T tokens of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from attention.kernels.linear.features import Features, least_total


def logits(x: Tensor, features: Features, dtype: torch.dtype) -> Tensor:
    """Return ``ωx - |x|²/2`` of the scaled tokens (softmax), or ``φ`` itself (ReLU)."""
    x = x.to(dtype) * features.scale
    projected = x @ features.projection.to(dtype).T  # [..., T, R]
    if not features.is_exponential:
        return torch.relu(projected) + features.epsilon
    return projected - 0.5 * (x * x).sum(dim=-1, keepdim=True)


def key_logits(x: Tensor, features: Features, dtype: torch.dtype, hidden: Tensor | None) -> Tensor:
    """Return `logits` of keys; a hidden one has features of zero."""
    of_keys = logits(x, features, dtype)
    if hidden is None:
        return of_keys
    return of_keys.masked_fill(hidden[..., None], features.lowest(dtype))


def top_of(of_keys: Tensor, features: Features) -> Tensor:
    """Return each feature's largest logit over the tokens ``[..., R]``; 0 for ReLU features."""
    if not features.is_exponential:
        return torch.zeros_like(of_keys[..., 0, :])
    return of_keys.detach().amax(dim=-2)


def key_features(of_keys: Tensor, top: Tensor, features: Features) -> Tensor:
    """Return φ of keys divided by ``exp(top)``: ``[..., T, R]``, `top` ``[..., R]``."""
    if not features.is_exponential:
        return of_keys
    lowest = torch.finfo(of_keys.dtype).min
    # Where no key is seen yet the top is the lowest number, and a hidden key would have φ = 1.
    return torch.where(of_keys > lowest, (of_keys - top[..., None, :]).exp(), 0.0)


def query_features(of_queries: Tensor, top: Tensor, features: Features) -> tuple[Tensor, Tensor]:
    """Return φ of queries times ``exp(top)`` over their row maximum, and its logarithm."""
    if not features.is_exponential:
        return of_queries, torch.zeros_like(of_queries[..., :1])
    raised = of_queries + top[..., None, :]
    row = raised.detach().amax(dim=-1, keepdim=True)  # [..., T, 1]
    return (raised - row).exp(), row


# -- sums over keys -------------------------------------------------------------------------------


class Sums(NamedTuple):
    """``Σ φ(k)(v, 1)ᵀ`` relative to a top: ``[..., R, D]``, ``[..., R]``, ``[..., R]``."""

    s: Tensor
    z: Tensor
    top: Tensor

    def relative_to(self, top: Tensor, features: Features) -> Sums:
        """Shrink the sums to a larger top."""
        if not features.is_exponential:
            return self
        shrink = (self.top - top).exp()
        return Sums(self.s * shrink[..., None], self.z * shrink, top)

    def plus(self, other: Sums, features: Features) -> Sums:
        """Join two sums under the larger top."""
        top = torch.maximum(self.top, other.top)
        mine, its = (x.relative_to(top, features) for x in (self, other))
        return Sums(mine.s + its.s, mine.z + its.z, top)


def sums_of(of_keys: Tensor, v: Tensor, features: Features) -> Sums:
    """Sum keys and values over the tokens: ``[..., T, R]``, ``[..., T, D]``."""
    top = top_of(of_keys, features)
    phi = key_features(of_keys, top, features)
    return Sums(phi.mT @ v, phi.sum(dim=-2), top)  # [..., R, T] · [..., T, D]


def joined(parts: Sums, read: Sequence[bool], features: Features) -> Sums:
    """Join the sums of parts ``[P, ...]``, those that are `read`, under their largest top."""
    wanted = torch.tensor(read, device=parts.s.device)
    tops = torch.where(wanted[:, None, None], parts.top, features.lowest(parts.s.dtype))
    top = tops.amax(dim=0)
    # Where nothing is read the top is the lowest number: what is not read has no weight there.
    shrink = (tops - top).exp() if features.is_exponential else torch.ones_like(tops)
    shrink = shrink * wanted[:, None, None]
    return Sums((parts.s * shrink[..., None]).sum(dim=0), (parts.z * shrink).sum(dim=0), top)


def prefix_sums(chunks: Sums, carry: Sums, features: Features) -> Sums:
    """Return the sums over all that precedes each chunk, and over everything.

    Args:
        chunks: of each chunk alone ``[G, C, R, ...]``.
        carry: of what precedes the first ``[G, R, ...]``.
        features: the map φ.

    Returns:
        ``[G, C + 1, R, ...]``, the carry alone first; each relative to the largest top so far.
    """
    s, z, top = (torch.cat([a[:, None], b], dim=1) for a, b in zip(carry, chunks, strict=True))
    if not features.is_exponential:
        return Sums(s.cumsum(dim=1), z.cumsum(dim=1), top)
    running = top.cummax(dim=1).values
    future = torch.ones(top.shape[1], top.shape[1], dtype=torch.bool, device=top.device).triu(1)
    tops, runs = top.mT, running.mT  # [G, R, C + 1]
    # What chunk j's sums shrink by where those of chunk i are joined, [G, R, C + 1, C + 1]: one
    # product instead of a walk over the chunks.
    shrink = (tops[:, :, None, :] - runs[:, :, :, None]).masked_fill(future, -torch.inf).exp()
    whole = (shrink @ s.transpose(1, 2)).transpose(1, 2)  # [G, C + 1, R, D]
    return Sums(whole, (shrink @ z.mT[..., None])[..., 0].mT, running)


# -- what a row has read so far -------------------------------------------------------------------


class Read(NamedTuple):
    """``exp(row)·(number, total)``: ``[..., T, D]``, ``[..., T, 1]``, ``[..., T, 1]``."""

    number: Tensor
    total: Tensor
    row: Tensor

    def plus(self, other: Read) -> Read:
        """Join two parts of the same rows."""
        row = torch.maximum(self.row, other.row)
        mine, its = (self.row - row).exp(), (other.row - row).exp()
        return Read(
            self.number * mine + other.number * its, self.total * mine + other.total * its, row
        )

    def output(self) -> Tensor:
        """Return the quotient, and 0 where there was no key."""
        return self.number / torch.where(self.total > 0, self.total, 1.0)


def read(of_queries: Tensor, sums: Sums, features: Features) -> Read:
    """Let queries read the sums of keys that they all see."""
    phi, row = query_features(of_queries, sums.top, features)
    # [..., T, R] · [..., R, D], and · [..., R, 1]
    return _weighed(phi @ sums.s, phi @ sums.z[..., None], row)


def _weighed(number: Tensor, total: Tensor, row: Tensor) -> Read:
    """Give a part that holds no key no weight, wherever its row maximum lies."""
    lowest = torch.finfo(row.dtype).min
    return Read(number, total, torch.where(total > 0, row, lowest))


def read_square(q: Tensor, k: Tensor, v: Tensor, features: Features, causal: bool) -> Read:
    """Let queries of pieces read the keys of their piece, all or up to themselves.

    Args:
        q: logits of queries ``[G, P, T, R]``.
        k: logits of keys.
        v: values ``[G, P, T, D]``.
        features: the map φ.
        causal: up to themselves.
    """
    top = top_of(k, features)
    phi, row = query_features(q, top, features)
    weights = phi @ key_features(k, top, features).mT  # [G, P, T, T]
    weights = weights.tril() if causal else weights
    return _weighed(weights @ v, weights.sum(dim=-1, keepdim=True), row)


def read_by_halves(q: Tensor, k: Tensor, v: Tensor, features: Features) -> Read:
    """Read the keys of a chunk up to oneself at any range: softmax features, T a power of two."""
    rows = read_oneself(q, k, v)
    size = q.shape[2]
    while size > 1:
        size //= 2
        # Of every piece of two halves: [G, C·T/(2·size), size, ...]
        (_, right), (left, _), (values, _) = (_halves(x, size) for x in (q, k, v))
        part = read_square(right, left, values, features, causal=False)
        # The left halves read nothing at this size; beside them the rows are in order again.
        blank = (0.0, 0.0, torch.finfo(q.dtype).min)
        whole = (_beside(fill, x) for x, fill in zip(part, blank, strict=True))
        rows = rows.plus(Read(*(x.view(y.shape) for x, y in zip(whole, rows, strict=True))))
    return rows


def read_oneself(q: Tensor, k: Tensor, v: Tensor) -> Read:
    """Let each query read the key at its own position."""
    row = (q + k).detach().amax(dim=-1, keepdim=True)
    seen = (k > torch.finfo(k.dtype).min).any(dim=-1, keepdim=True)
    total = torch.where(seen, (q + k - row).exp().sum(dim=-1, keepdim=True), 0.0)
    return _weighed(total * v, total, row)


def _halves(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Cut ``[G, C, T, ...]`` into pieces of two halves: twice ``[G, C·T/(2·h), h, ...]``."""
    pieces = x.unflatten(2, (-1, 2, half)).flatten(1, 2)
    return pieces[:, :, 0], pieces[:, :, 1]


def _beside(fill: float, x: Tensor) -> Tensor:
    """Put right halves ``[G, P, h, ...]`` beside left ones of `fill`: ``[G, P, 2, h, ...]``."""
    return torch.stack([torch.full_like(x, fill), x], dim=2)


def causal_block(
    q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, carry: Sums, features: Features,
    chunk: int, *, by_halves: bool, check_range: bool,
) -> tuple[Tensor, Sums, bool]:  # fmt: skip
    """Attend causally within a block and to what precedes it.

    Args:
        q: ``[G, T, D]``, T a multiple of `chunk`.
        k: ``[G, T, D]``.
        v: ``[G, T, D]``.
        hidden: bool ``[G, T]`` or ``None``.
        carry: of what precedes the block.
        features: the map φ.
        chunk: tokens in a chunk.
        by_halves: within chunks, at any range.
        check_range: look for underflow.

    Returns:
        the output ``[G, T, D]``, the sums with this block, and whether a query found nothing but
        underflow in its chunk.
    """
    dtype = carry.s.dtype
    v = v.to(dtype).unflatten(1, (-1, chunk))  # [G, C, chunk, D]
    of_queries = logits(q, features, dtype).unflatten(1, (-1, chunk))  # [G, C, chunk, R]
    of_keys = key_logits(k, features, dtype, hidden).unflatten(1, (-1, chunk))
    before = prefix_sums(sums_of(of_keys, v, features), carry, features)  # [G, C + 1, R, ...]
    earlier = read(of_queries, Sums(*(x[:, :-1] for x in before)), features)
    if by_halves:
        within, lost = read_by_halves(of_queries, of_keys, v, features), False
    else:
        within = read_square(of_queries, of_keys, v, features, causal=True)
        lost = check_range and underflows(within.total.flatten(1), hidden, chunk)
    out = earlier.plus(within).output().flatten(1, 2)
    return out, Sums(*(x[:, -1] for x in before)), lost


def underflows(total: Tensor, hidden: Tensor | None, chunk: int) -> bool:
    """Whether a query sees keys of its chunk, but none above underflow.

    They then lie far below keys that come later in the chunk.

    Args:
        total: of each query within its chunk ``[G, T]``.
        hidden: bool ``[G, T]`` or ``None``.
        chunk: tokens in a chunk.
    """
    lost = total <= least_total(total.dtype)
    if hidden is not None:
        seen = (~hidden).unflatten(1, (-1, chunk)).cumsum(dim=2) > 0
        lost = lost & seen.flatten(1)
    return bool(lost.any())
