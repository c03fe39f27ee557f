"""Linear attention ``φ(Q)(φ(K)ᵀV)`` in tiles of the sequence, with reused buffers: for a CPU.

The sums over keys, ``S = Σ φ(k)vᵀ`` ``[G, R, D]`` and ``z = Σ φ(k)`` ``[G, R]``, are all the state
there is (`attention.kernels.linear.tile_work`). The backward pass computes features anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients
from attention.functional import opaque
from attention.kernels.linear.causal_walk import chunk_of, chunk_size, walk, weigh
from attention.kernels.linear.chunks import plain_attention
from attention.kernels.linear.features import Features, align, inverse_of
from attention.kernels.linear.tile_work import Span, TileSums, Work, cut, spans
from attention.kernels.onednn import at_full_rate


@opaque
def bidirectional(
    q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None = None
) -> Tensor:
    """Attend to all keys.

    Args:
        q: ``[G, N, D]``.
        k: ``[G, M, D]``.
        v: ``[G, M, D]``.
        features: the map φ.
        hidden: bool ``[G, M]``, True = this key takes no part; or ``None``.

    Returns:
        ``[G, N, D]``; zeros where there is no key. Differentiable in q, k and v; second
        derivatives keep every feature.
    """
    out: Tensor = _Bidirectional.apply(q, k, v, features, hidden)  # type: ignore[no-untyped-call]
    return out


@opaque
def causal(
    q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None = None
) -> Tensor:
    """Attend to keys up to ``M - N + i``; arguments and result as in `bidirectional`."""
    out: Tensor = _Causal.apply(q, k, v, features, hidden)  # type: ignore[no-untyped-call]
    return out


def executed_ops(
    groups: int, n: int, m: int, d: int, r: int, *, is_causal: bool, training: bool
) -> int:
    """Count the matrix-product operations of a call as the code below executes them."""
    product = 2 * r * d
    if not is_causal:
        forward = product * (2 * n + 2 * m) + 2 * n * r
        # queries: features, dS, dφ (two terms), dq; keys: features, dv, dφ, dk
        backward = n * (4 * product + 2 * r) + m * 4 * product
        return groups * (forward + (backward if training else 0))
    length = min(n, m)
    prefix = m - length
    squares = sum((stop - start) ** 2 for start, stop in spans(length, chunk_size(groups)))
    forward = length * (4 * product + 2 * r) + prefix * 2 * product + squares * 2 * (r + d)
    if not training:
        return groups * forward
    first = length * (4 * product + product) + squares * 2 * (d + r) + prefix * 2 * product
    second = length * (2 * product + product + 2 * r + 3 * product)
    second += squares * 2 * (r + d + d + r) + prefix * 4 * product
    return groups * (forward + first + second)


class _Bidirectional(torch.autograd.Function):
    @staticmethod
    @at_full_rate
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None
    ) -> Tensor:
        work = Work(q, features)
        sums = TileSums(work)
        sums.absorb(k, v, work.spans(k.shape[1]), hidden)
        out = torch.empty_like(q)
        inverse = work.zeros(q.shape[0], q.shape[1], 1)
        for span in work.spans(q.shape[1]):
            rows = slice(*span)
            phi = work.queries(work.tile("q", q, span, features.scale), sums.top)  # [G, T, R]
            # [G, T, R] · [G, R, D]
            number = work.product(phi, sums.s, work.take("o", span[1] - span[0], work.dim))
            inverse[:, rows] = inverse_of(weigh(sums.z, phi))
            out[:, rows] = number.mul_(inverse[:, rows])
        saved = (q, k, v, hidden, features.projection)
        ctx.save_for_backward(*saved, out, inverse, sums.s, sums.z, sums.top)
        ctx.features = features
        return out

    @staticmethod
    @at_full_rate
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, hidden, projection, out, inverse, s, z, top = ctx.saved_tensors
        features: Features = replace(ctx.features, projection=projection)
        if must_be_plain(grad):
            return _plain_gradients(q, k, v, features, hidden, grad, is_causal=False)
        work = Work(q, features)
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        later = TileSums(work)  # dS [G, R, D] and dz [G, R], summed over all queries
        for span in work.spans(q.shape[1]):
            rows = slice(*span)
            x = work.tile("q", q, span, features.scale)
            phi = work.queries(x, top)
            g, dden = _output_gradient(work, grad, out, inverse, span)  # [G, T, D], [G, T, 1]
            work.accumulate(later.s, phi.mT, g)
            later.z.add_(torch.bmm(dden.mT, phi)[:, 0])
            grad_phi = work.product(g, s.mT, work.take("grad_phi", *phi.shape[1:]))  # [G, T, R]
            grad_phi.addcmul_(dden, z[:, None, :])
            work.input_gradient(phi, grad_phi, grad_q[:, rows])
        _key_gradients(work, k, v, hidden, top, later, work.spans(k.shape[1]), grad_k, grad_v)
        return grad_q, grad_k, grad_v, None, None


def _plain_gradients(
    q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None, grad: Tensor,
    *, is_causal: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Return what a backward pass returns, by ordinary operations."""

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return plain_attention(q, k, v, features, hidden, is_causal=is_causal)

    return *plain_gradients(plain, (q, k, v), grad), None, None


def _output_gradient(
    work: Work, grad: Tensor, out: Tensor, inverse: Tensor, span: Span
) -> tuple[Tensor, Tensor]:
    """Return the gradients of numerator ``[G, T, D]`` and denominator ``[G, T, 1]``."""
    g = work.tile("g", grad, span).mul_(inverse[:, span[0] : span[1]])
    dden = (g * out[:, span[0] : span[1]]).sum(dim=2, keepdim=True).neg_()
    return g, dden


def _key_gradients(
    work: Work, k: Tensor, v: Tensor, hidden: Tensor | None, top: Tensor, later: TileSums,
    tiles: list[Span], grad_k: Tensor, grad_v: Tensor,
) -> None:  # fmt: skip
    """Write the gradients of keys that every query behind `later` sees whole."""
    for span in tiles:
        rows = slice(*span)
        x = work.tile("k", k, span, work.features.scale)
        values = work.tile("v", v, span)
        phi = work.keys(x, top, cut(hidden, span), raise_top=False)  # [G, T, R]
        grad_v[:, rows] = work.product(phi, later.s, work.take("o", *values.shape[1:]))
        grad_phi = work.product(values, later.s.mT, work.take("grad_phi", *phi.shape[1:]))
        grad_phi.add_(later.z[:, None, :])
        work.input_gradient(phi, _without(grad_phi, cut(hidden, span)), grad_k[:, rows], x)


def _without(grad_phi: Tensor, hidden: Tensor | None) -> Tensor:
    return grad_phi if hidden is None else grad_phi.masked_fill_(hidden[:, :, None], 0.0)


class _Causal(torch.autograd.Function):
    """Causal forward and backward: keys before the square are absorbed, then chunk by chunk."""

    @staticmethod
    @at_full_rate
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None
    ) -> Tensor:
        work = Work(q, features)
        sums = TileSums(work)
        sums.absorb(k, v, work.spans(align(q, k)[2]), hidden)
        out, inverse, tops, done = walk(work, sums, q, k, v, hidden)
        saved = (q, k, v, hidden, features.projection)
        ctx.save_for_backward(*saved, out, inverse, torch.stack(tops))
        ctx.features, ctx.spans = features, done
        return out

    @staticmethod
    @at_full_rate
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, hidden, projection, out, inverse, tops = ctx.saved_tensors
        features: Features = replace(ctx.features, projection=projection)
        if must_be_plain(grad):
            return _plain_gradients(q, k, v, features, hidden, grad, is_causal=True)
        work = Work(q, features)
        _, _, k_at = align(q, k)
        grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (q, k, v))
        # S before each chunk, R·D numbers, is not kept but summed up again: dq is written on a way
        # forward in time, dk and dv on one back.
        sums = TileSums(work)
        sums.absorb(k, v, work.spans(k_at), hidden)
        for span in ctx.spans:
            old = sums.top.clone()
            chunk = chunk_of(work, (q, k, v, hidden), span, sums.top, raise_top=True)
            sums.multiply(sums.factor(old))
            g, dden = _output_gradient(work, grad, out, inverse, chunk.span)
            # d(φ(q)·φ(k)ᵀ) within the chunk: [G, T, T], queries by keys
            square = work.product(g, chunk.v.mT, chunk.square()).add_(dden).tril_()
            grad_phi = work.product(
                square, chunk.phi_k, work.take("grad_phi", chunk.size, work.rank)
            )  # [G, T, R]
            work.accumulate(grad_phi, g, sums.s.mT).addcmul_(dden, sums.z[:, None, :])
            sums.add(chunk.phi_k, chunk.v)
            work.input_gradient(chunk.phi_q, grad_phi, grad_q[:, chunk.rows])
        later = TileSums(work)  # dS and dz of all queries after each chunk
        later.top = tops[-1].clone()
        for index in reversed(range(len(ctx.spans))):
            top = tops[index + 1]
            later.rescale(top)
            chunk = chunk_of(work, (q, k, v, hidden), ctx.spans[index], top, raise_top=False)
            g, dden = _output_gradient(work, grad, out, inverse, chunk.span)
            weights = work.product(chunk.phi_q, chunk.phi_k.mT, chunk.square()).tril_()
            values = work.product(weights.mT, g, work.take("o", chunk.size, work.dim))
            grad_v[:, chunk.keys] = work.accumulate(values, chunk.phi_k, later.s)
            square = work.product(g, chunk.v.mT, chunk.square()).add_(dden).tril_()
            grad_phi = work.product(
                square.mT, chunk.phi_q, work.take("grad_phi", chunk.size, work.rank)
            )
            work.accumulate(grad_phi, chunk.v, later.s.mT).add_(later.z[:, None, :])
            work.accumulate(later.s, chunk.phi_q.mT, g)
            later.z.add_(torch.bmm(dden.mT, chunk.phi_q)[:, 0])
            grad_phi = _without(grad_phi, chunk.hidden)
            work.input_gradient(chunk.phi_k, grad_phi, grad_k[:, chunk.keys], chunk.x_k)
        later.rescale(tops[0])
        _key_gradients(work, k, v, hidden, tops[0], later, work.spans(k_at), grad_k, grad_v)
        return grad_q, grad_k, grad_v, None, None
