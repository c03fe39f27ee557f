"""Linear attention ``φ(Q)(φ(K)ᵀV)`` in few, large batched products: for a GPU.

The same sums as `attention.kernels.linear.tiled`, in another order: by blocks of chunks
(`attention.kernels.linear.chunks`), each computed as `attention.kernels.linear.chunk_math` says.

**Memory** above the output: some ten times `BLOCK_FEATURES` numbers forward, some twenty backward,
whatever the length; and for the backward pass of a causal call the sums before each block,
``[G, R, D]``. Nothing of size ``N·R``: the backward pass computes a block anew and differentiates
it alone.

Half precision is computed in float32; products are then as exact as
``torch.set_float32_matmul_precision`` asks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients
from attention.kernels.linear.chunk_math import Sums
from attention.kernels.linear.chunks import (
    CHUNK,
    SIZES,
    Call,
    Sizes,
    Tokens,
    blocks,
    cut,
    plain_call,
    square,
    sum_keys,
)
from attention.kernels.linear.features import Features, align


def chunked_attention(
    q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None = None, *,
    is_causal: bool, before: Sums | None = None, sizes: Sizes = SIZES,
) -> Tensor:  # fmt: skip
    """Attend to all keys, or to keys up to ``M - N + i``.

    Args:
        q: ``[G, N, D]``.
        k: ``[G, M, D]``; M may be 0 where there is `before`.
        v: ``[G, M, D]``.
        features: the map φ; its projection is not differentiated.
        hidden: bool ``[G, M]``, True = this key takes no part; or ``None``.
        is_causal: whether the future is hidden.
        before: sums over further keys, which all queries see (`key_sums`); or ``None``.
        sizes: how the call is cut.

    Returns:
        ``[G, N, D]``; zeros where there is no key. Differentiable in q, k, v and the sums
        `before`; second derivatives keep every feature.
    """
    earlier = (None, None, None) if before is None else before
    out: Tensor = _Chunked.apply(  # type: ignore[no-untyped-call]
        q, k, v, *earlier, features, hidden, is_causal, sizes
    )
    return out


def key_sums(
    k: Tensor, v: Tensor, features: Features, hidden: Tensor | None = None, *,
    sizes: Sizes = SIZES,
) -> Sums:  # fmt: skip
    """Sum keys and values: all that queries behind them need to know.

    Args:
        k: ``[G, M, D]``.
        v: ``[G, M, D]``.
        features: the map φ; its projection is not differentiated.
        hidden: bool ``[G, M]``, True = this key takes no part; or ``None``.
        sizes: how the call is cut.

    Returns:
        ``[G, R, D]``, ``[G, R]``, ``[G, R]``; float32 for half precision. Differentiable in k
        and v; the top is a constant.
    """
    return Sums(*_KeySums.apply(k, v, features, hidden, sizes))  # type: ignore[no-untyped-call]


def executed_ops(
    groups: int, n: int, m: int, d: int, r: int, *, is_causal: bool, training: bool
) -> int:
    """Count the matrix-product operations of a call as executed while nothing underflows.

    Autograd has two products for each, one where a factor is a constant (ω, and what joins the
    sums of chunks); before it the forward pass runs again.
    """
    product, vector = 2 * r * d, 2 * r
    if not is_causal:
        features, others, constant = (n + m) * product, m * product + n * (product + vector), 0
    else:
        length = min(n, m)
        block = SIZES.block(groups, r)
        sizes = [min(block, length - at) for at in range(0, length, block)]
        chunks = [-(-size // CHUNK) for size in sizes]
        padded, before = sum(chunks) * CHUNK, m - length
        features = (2 * padded + before) * product
        squares = padded * CHUNK * 2 * (r + d)
        others = before * product + padded * (2 * product + vector) + squares
        constant = sum((count + 1) ** 2 for count in chunks) * (product + vector)
    forward = features + others + constant
    return groups * (forward + (forward + features + 2 * others + constant if training else 0))


class _Chunked(torch.autograd.Function):
    """The whole call, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor,
        s: Tensor | None, z: Tensor | None, top: Tensor | None,
        features: Features, hidden: Tensor | None, is_causal: bool, sizes: Sizes,
    ) -> Tensor:  # fmt: skip
        call = Call.of(q, features, is_causal, sizes)
        out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
        carries, halves = list[Sums](), list[bool]()
        for rows, block in blocks(call, (q, k, v, hidden), _given(s, z, top), carries, halves):
            out[:, rows] = block
        carries = carries[: max(1, len(halves))]  # the last block's successor has no reader
        saved = (q, k, v, s, z, top, hidden, features.projection)
        ctx.save_for_backward(*saved, *(x for carry in carries for x in carry))
        ctx.call, ctx.halves = call, halves
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, s, z, top, hidden, projection, *flat = ctx.saved_tensors
        call: Call = ctx.call.with_projection(projection)
        if must_be_plain(grad):

            def plain(
                q: Tensor, k: Tensor, v: Tensor, s: Tensor | None, z: Tensor | None
            ) -> Tensor:
                return plain_call(call, (q, k, v, hidden), _given(s, z, top))

            return *plain_gradients(plain, (q, k, v, s, z), grad), None, None, None, None, None
        carries = [Sums(*flat[at : at + 3]) for at in range(0, len(flat), 3)]
        grad_q, grad_k, grad_v = (x.new_zeros(x.shape) for x in (q, k, v))
        # Back in time: `later` are dS [G, R, D] and dz [G, R] of the sums that a block hands on.
        later = tuple(torch.zeros_like(x) for x in carries[0][:2])
        if not call.is_causal:
            k_at = k.shape[1]
            for span in call.spans(0, q.shape[1]):
                grad_q[:, span], ds, dz = _query_gradients(
                    call, q[:, span], carries[0], grad[:, span]
                )
                later[0].add_(ds)
                later[1].add_(dz)
        else:
            length, q_at, k_at = align(q, k)
            spans = call.spans(0, length)
            for index in reversed(range(len(spans))):
                part, rows, keys = square((q, k, v, hidden), spans[index], q_at, k_at)
                grad_q[:, rows], grad_k[:, keys], grad_v[:, keys], *more = _block_gradients(
                    call, part, carries[index], ctx.halves[index], (grad[:, rows], *later)
                )
                later = tuple(more)
        for span in call.spans(0, k_at):
            tokens = k[:, span], v[:, span], cut(hidden, span)
            grad_k[:, span], grad_v[:, span] = _key_gradients(call, *tokens, carries[0].top, later)
        before: tuple[Tensor | None, ...] = (None, None)
        if top is not None:
            before = Sums(later[0], later[1], top).relative_to(carries[0].top, call.features)[:2]
        return grad_q, grad_k, grad_v, *before, None, None, None, None, None


class _KeySums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None, sizes: Sizes
    ) -> tuple[Tensor, Tensor, Tensor]:
        call = Call.of(k, features, False, sizes)
        sums = sum_keys(call, call.start(k), k, v, hidden, k.shape[1])
        ctx.save_for_backward(k, v, hidden, features.projection, sums.top)
        ctx.call = call
        ctx.mark_non_differentiable(sums.top)
        return sums.s, sums.z, sums.top

    @staticmethod
    def backward(ctx: Any, ds: Tensor, dz: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        k, v, hidden, projection, top = ctx.saved_tensors
        call: Call = ctx.call.with_projection(projection)
        if must_be_plain(ds):

            def plain(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
                sums = sum_keys(call, call.start(k), k, v, hidden, k.shape[1])
                return sums.s, sums.z

            return *plain_gradients(plain, (k, v), (ds, dz)), None, None, None
        grad_k, grad_v = (torch.zeros_like(x) for x in (k, v))
        for span in call.spans(0, k.shape[1]):
            tokens = k[:, span], v[:, span], cut(hidden, span)
            grad_k[:, span], grad_v[:, span] = _key_gradients(call, *tokens, top, (ds, dz))
        return grad_k, grad_v, None, None, None


def _given(s: Tensor | None, z: Tensor | None, top: Tensor | None) -> Sums | None:
    return None if s is None or z is None or top is None else Sums(s, z, top)


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in tensors]


def _query_gradients(call: Call, q: Tensor, sums: Sums, grad: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of a block of queries, and of s and z of the sums that they read."""
    with torch.enable_grad():
        x, s, z = _leaves(q, sums.s, sums.z)
        out = call.queries(x, Sums(s, z, sums.top))
    return torch.autograd.grad(out, (x, s, z), grad.to(out.dtype))


def _key_gradients(
    call: Call, k: Tensor, v: Tensor, hidden: Tensor | None, top: Tensor, later: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Return the gradients of keys that every later query sees; `later` is relative to `top`."""
    with torch.enable_grad():
        x, y = _leaves(k, v)
        sums = call.keys(x, y, hidden).relative_to(top, call.features)
    return torch.autograd.grad((sums.s, sums.z), (x, y), later)


def _block_gradients(
    call: Call, part: Tokens, carry: Sums, by_halves: bool, grads: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Return the gradients of a causal block's q, k and v, and of s and z of the sums before it.

    Args:
        call: what stays the same.
        part: the block's tokens.
        carry: the sums before it.
        by_halves: as it was computed forward.
        grads: of its output, and of s and z of the sums behind it.
    """
    *tokens, hidden = part
    with torch.enable_grad():
        q, k, v, s, z = _leaves(*tokens, carry.s, carry.z)
        before = Sums(s, z, carry.top)
        out, after, _ = call.causal(
            (q, k, v, hidden), before, by_halves=by_halves, check_range=False
        )
    grads = (grads[0].to(out.dtype), *grads[1:])
    return torch.autograd.grad((out, after.s, after.z), (q, k, v, s, z), grads)
