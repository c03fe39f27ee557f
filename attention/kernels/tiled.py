"""Softmax attention over a sparse pattern, in tiles of queries that share a few buffers.

Shared by Longformer, BigBird and Linformer. A *plan* cuts the queries into tiles; a tile names
the keys it reads: one contiguous window, some gathered blocks, and the extra (global or projected)
keys. Because a tile holds every score of its rows, softmax needs no second pass, and the backward
pass computes the scores anew from q, k and v: nothing of size ``N·W`` is ever kept, only one
number a query. Time is the sum of the tiles, memory is the output plus one batch of tiles.

Scores are in base 2 (``scale·log2(e)`` is the products' factor), for torch's ``exp2`` takes a
fraction of the time of its softmax; the sum of a row divides the output, which is narrower than
the scores. Of half precision, scores and weights are float32, as in fused kernels: what a tile
reads is converted, and the output and the gradients are rounded once.

Tiles of equal shape run as one batched product (`attention.kernels.tiles`); where the output is
contiguous it writes straight into it. Backward, a batch takes tiles whose windows lie end to end,
so that one product adds straight into the gradients of keys and values.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients
from attention.functional import draw_seed, has_values, opaque
from attention.kernels.compiled.attention import compiled_attention
from attention.kernels.compiled.table import table_of
from attention.kernels.onednn import at_full_rate
from attention.kernels.tile_operands import (
    LOG2_E,
    KeyGradient,
    Operands,
    dropout_mask,
    product,
    product_into,
)
from attention.kernels.tiles import DensePlan, Plan

FORWARD_BYTES = {"cpu": 6_500_000, "cuda": 1 << 27}
"""Scores of one batch of tiles, forward: on a CPU a few times its second-level caches."""

BACKWARD_BYTES = {"cpu": 6_500_000, "cuda": 1 << 27}
"""The same backward, where two such buffers are live."""


@opaque
def tiled_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: Plan, *, scale: float, extra_k: Tensor | None = None,
    extra_v: Tensor | None = None, sink: Tensor | None = None, dropout_p: float = 0.0,
    compiled: bool = False,
) -> Tensor:  # fmt: skip
    """Attend over the pattern of `plan`. G counts heads, or batch times heads.

    Args:
        q: ``[G, N, D]``.
        k: ``[G, M, D]``.
        v: ``[G, M, D]``.
        plan: the pattern.
        scale: factor on the scores.
        extra_k: keys that every tile reads, ``[G, X, D]``; or ``None``. Not together with a plan
            that names `Plan.extra_ranges`.
        extra_v: their values.
        sink: logits ``[G]`` that take part in each row's softmax; or ``None``. Not together with
            a `DensePlan`.
        dropout_p: probability of dropping an attention weight.
        compiled: whether `attention.kernels.compiled` does it; without dropout.

    Returns:
        ``[G, N, D]``. Differentiable in q, k, v, extra_k and extra_v; second derivatives keep
        every score.
    """
    if compiled:
        return _by_compiled_kernel(q, k, v, extra_k, extra_v, sink, plan, scale)
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    dropout_seed = draw_seed() if dropout_p else 0  # what is dropped follows from it and the tile
    out: Tensor = _Tiled.apply(  # type: ignore[no-untyped-call]
        q, k, v, extra_k, extra_v, sink, plan, scale, dropout_p, dropout_seed
    )
    return out


def _by_compiled_kernel(
    q: Tensor, k: Tensor, v: Tensor, extra_k: Tensor | None, extra_v: Tensor | None,
    sink: Tensor | None, plan: Plan, scale: float,
) -> Tensor:  # fmt: skip
    """Attend as `tiled_attention` does, each group as a head."""

    def plain(
        q: Tensor, k: Tensor, v: Tensor, extra_k: Tensor | None, extra_v: Tensor | None,
        sink: Tensor | None,
    ) -> Tensor:  # fmt: skip
        out = _plain(
            q[0], k[0], v[0], None if extra_k is None else extra_k[0],
            None if extra_v is None else extra_v[0], sink, plan=plan, scale=scale, dropout_p=0.0,
            dropout_seed=0,
        )  # fmt: skip
        return out[None]

    extra = [None if x is None else x[None] for x in (extra_k, extra_v)]
    if not has_values(q):  # a dry run: shapes are all there is
        return plain(q[None], k[None], v[None], extra[0], extra[1], sink)[0]
    out = compiled_attention(
        q[None], k[None], v[None], table_of(plan, 0 if extra_k is None else extra_k.shape[1]),
        plain=plain, scale=scale, may_be_empty=plan.may_be_empty, extra_k=extra[0],
        extra_v=extra[1], sink=sink,
    )  # fmt: skip
    return out[0]


class _Tiled(torch.autograd.Function):
    """Forward and backward of `tiled_attention`; keeps its inputs and a number a query."""

    @staticmethod
    @at_full_rate
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, extra_k: Tensor | None,
        extra_v: Tensor | None, sink: Tensor | None, plan: Plan, scale: float, dropout_p: float,
        dropout_seed: int,
    ) -> Tensor:  # fmt: skip
        ctx.plan, ctx.scale, ctx.dropout = plan, scale, (dropout_p, dropout_seed)
        is_dense = isinstance(plan, DensePlan) and plan.hidden is None
        if is_dense and not dropout_p:
            # Few keys, all seen: torch's own kernel, and the tiles for the backward pass alone.
            ctx.save_for_backward(q, k, v, extra_k, extra_v, None, None, None)
            fused = F.scaled_dot_product_attention(q[None], k[None], v[None], scale=scale)
            return fused[0]
        work = Operands(q, k, v, (extra_k, extra_v), plan)
        out = torch.empty_like(q)  # strides included: heads side by side stay so
        log_totals = None
        if any(ctx.needs_input_grad):
            log_totals = torch.empty(q.shape[:2], dtype=work.dtype, device=q.device)
        kept = (None, None) if sink is None else (sink, out)
        ctx.save_for_backward(q, k, v, extra_k, extra_v, log_totals, *kept)
        logits = None if sink is None else sink.to(work.dtype) * LOG2_E
        # Dropout is drawn batch by batch: both passes must then walk the same ones.
        budget = BACKWARD_BYTES if dropout_p else FORWARD_BYTES
        batches = plan.batches(work.cells(budget), disjoint=bool(dropout_p))
        for index, tiles in enumerate(batches):
            rows = work.rows("rows", q, tiles)  # [tiles, rows, D]
            keys = work.keys(tiles)  # [tiles, columns, D]
            # [tiles, rows, columns], [tiles, rows, 1] twice
            weights, total, log_total = work.exponentials(rows, keys, tiles, scale, logits)
            if log_totals is not None:  # all that the backward pass needs of this one: [G, N]
                tiles.cut(log_totals, tiles.start, tiles.rows).copy_(log_total[:, :, 0])
            if dropout_p:
                weights.mul_(dropout_mask(weights, dropout_p, dropout_seed, index))
            target = tiles.cut(out, tiles.start, tiles.rows)
            product_into(target, weights, work.values(tiles), work, divisor=total)
        return out

    @staticmethod
    @at_full_rate
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, extra_k, extra_v, log_totals, sink, out = ctx.saved_tensors
        plan: Plan = ctx.plan
        scale: float = ctx.scale
        dropout_p, dropout_seed = ctx.dropout
        if must_be_plain(grad):
            plain = partial(
                _plain, plan=plan, scale=scale, dropout_p=dropout_p, dropout_seed=dropout_seed
            )
            inputs = (q, k, v, extra_k, extra_v, sink)
            return *plain_gradients(plain, inputs, grad), None, None, None, None
        grad = grad if grad.stride(2) == 1 else grad.contiguous()
        work = Operands(q, k, v, (extra_k, extra_v), plan)
        grad_q = torch.empty_like(q)
        grad_k = KeyGradient(k, work.extra_k, work)
        grad_v = KeyGradient(v, work.extra_v, work)
        batches = plan.batches(work.cells(BACKWARD_BYTES), disjoint=True)
        for index, tiles in enumerate(batches):
            rows, keys = work.rows("rows", q, tiles), work.keys(tiles)
            weights = work.weights(
                rows, keys, tiles, scale, log_totals
            )  # P: [tiles, rows, columns]
            grad_out = work.rows("grad", grad, tiles)  # dO: [tiles, rows, D]
            grad_weights = work.take("grad_weights", *weights.shape)  # dP = dO·Vᵀ
            product(grad_out, work.values(tiles).mT, grad_weights)
            dropped = weights
            if dropout_p:
                mask = dropout_mask(weights, dropout_p, dropout_seed, index)
                grad_weights.mul_(mask)
                dropped = mask.mul_(weights)
            grad_v.add(dropped.mT, grad_out, tiles)  # dV = Pᵀ·dO, before dP becomes dS in place
            torch._softmax_backward_data(
                grad_weights, weights, -1, weights.dtype, grad_input=grad_weights
            )
            grad_k.add(grad_weights.mT, rows, tiles, scale)  # dK = dSᵀ·Q
            target = tiles.cut(grad_q, tiles.start, tiles.rows)
            product_into(target, grad_weights, keys, work, scale)  # dQ = dS·K
        (gk, gek), (gv, gev) = grad_k.result(plan), grad_v.result(plan)
        of_sink = None
        if sink is not None:
            mean = (grad.to(work.dtype) * out.to(work.dtype)).sum(dim=2)
            share = torch.exp2(sink.to(work.dtype)[:, None] * LOG2_E - log_totals)
            of_sink = -(share * mean).sum(dim=1).to(sink.dtype)
        return grad_q, gk, gv, gek, gev, of_sink, None, None, None, None


def _plain(
    q: Tensor, k: Tensor, v: Tensor, extra_k: Tensor | None, extra_v: Tensor | None,
    sink: Tensor | None, *, plan: Plan, scale: float, dropout_p: float, dropout_seed: int,
) -> Tensor:  # fmt: skip
    """Compute `tiled_attention` by operations that autograd follows, over the same tiles.

    A tile's rows and columns are found by cutting the places of all queries and keys as the fast
    passes cut the tensors.
    """
    groups, seq_len, dim = q.shape
    work = Operands(q, k, v, (extra_k, extra_v), plan)
    q_at, k_at = (_places(x, 0) for x in (q, k))
    extra_at = None if extra_k is None else _places(extra_k, k_at.numel())
    places = Operands(q_at, k_at, k_at, (extra_at, extra_at), plan)
    q, keys, values = (
        torch.cat([x.flatten(0, 1) for x in parts if x is not None]).to(
            torch.promote_types(q.dtype, torch.float32)
        )
        for parts in ((q,), (k, extra_k), (v, extra_v))
    )
    outs, ats = [], []
    batches = plan.batches(work.cells(BACKWARD_BYTES), disjoint=True)
    for index, tiles in enumerate(batches):
        rows = places.rows("rows", q_at, tiles)[..., 0].clone()  # [tiles, rows]
        columns = places.keys(tiles)[..., 0].clone()  # [tiles, columns]
        scores = q[rows] @ keys[columns].mT * scale  # [tiles, rows, columns]
        hidden = torch.zeros(scores.shape, dtype=torch.bool, device=q.device)
        for part in tiles.hidden:
            hidden[:, :, part.lo : part.hi] |= part.mask
        some = ~hidden.all(dim=2, keepdim=True)
        scores = scores.masked_fill(hidden & some, -math.inf)
        if sink is not None:
            logits = tiles.of_groups(sink.to(scores.dtype))[:, None, None]
            logits = logits.expand(*scores.shape[:2], 1)
            scores = torch.cat([scores, logits], dim=2)
        weights = torch.softmax(scores, dim=2)[:, :, : columns.shape[1]] * some
        if dropout_p:
            like = torch.empty(weights.shape, dtype=work.dtype, device=q.device)
            weights = weights * dropout_mask(like, dropout_p, dropout_seed, index)
        outs.append((weights @ values[columns]).flatten(0, 1))
        ats.append(rows.flatten())
    order = torch.argsort(torch.cat(ats))  # the batches hold every query once
    return torch.cat(outs)[order].view(groups, seq_len, dim).to(work.q.dtype)


def _places(x: Tensor, first: int) -> Tensor:
    """Number the rows of ``[G, N, D]`` from `first`: ``[G, N, 1]``."""
    groups, length, _ = x.shape
    return torch.arange(first, first + groups * length, device=x.device).view(groups, length, 1)
