"""Softmax attention over a sparse pattern, one tile of queries at a time, in reused buffers.

Shared by Longformer and BigBird. A *plan* walks the queries in tiles; each tile names the keys it
reads: one contiguous range, some gathered blocks, and the extra (global) keys. Because a tile
holds every score of its rows, softmax needs no second pass, and the backward pass computes the
scores anew from q, k and v: nothing of size ``N·W`` is ever kept. Time is the sum of the tiles,
memory is the output plus one tile.

Scores live in two buffers that every tile reuses, so a call touches few fresh pages: on a CPU a
page fault for every temporary would cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Tile:
    """The keys that one run of queries reads.

    The columns of its scores are the range ``lo:hi``, then the gathered blocks, then the extra
    keys.

    Attributes:
        start: first query.
        stop: one past the last query.
        lo: first key of the contiguous range.
        hi: one past its last key.
        blocks: gathered blocks ``[G, r]``, indices into the plan's block grid; or ``None``.
        hidden: bool, broadcastable to ``[G, rows, columns]``, True = not seen; or ``None``.
    """

    start: int
    stop: int
    lo: int
    hi: int
    blocks: Tensor | None = None
    hidden: Tensor | None = None


class Plan(Protocol):
    """Which keys each query reads.

    Attributes:
        rows: the most queries in a tile.
        columns: the most columns in a tile, extra keys included.
        block_size: keys in a gathered block.
        block_offset: first key of block 0.
        may_be_empty: whether a query may see no key; it then gives zeros.
    """

    rows: int
    columns: int
    block_size: int
    block_offset: int
    may_be_empty: bool

    def tiles(self) -> Iterator[Tile]:
        """Walk the tiles in order of their queries; the same at every call."""
        ...

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk the tiles' (rows, columns) without building their masks."""
        ...


def tiled_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: Plan,
    *,
    scale: float,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
    dropout_p: float = 0.0,
    dropout_seed: int = 0,
) -> Tensor:
    """Attend over the pattern of `plan`. G counts heads, or batch times heads.

    Args:
        q: ``[G, N, D]``.
        k: ``[G, N, D]``.
        v: ``[G, N, D]``.
        plan: the pattern. Queries in none of its tiles get zeros.
        scale: factor on the scores.
        extra_k: keys that every tile reads, ``[G, X, D]``; or ``None``.
        extra_v: their values.
        dropout_p: probability of dropping an attention weight.
        dropout_seed: the weights dropped are a function of it and of the tile.

    Returns:
        ``[G, N, D]``, contiguous. Differentiable once in q, k, v, extra_k, extra_v; a second
        derivative raises.
    """
    out: Tensor = _Tiled.apply(  # type: ignore[no-untyped-call]
        q, k, v, extra_k, extra_v, plan, scale, dropout_p, dropout_seed
    )
    return out


class _Workspace:
    """The buffers that all tiles of a call share, in the dtype the products run in."""

    def __init__(self, q: Tensor, plan: Plan) -> None:
        self.groups, _, self.dim = q.shape
        # A CPU multiplies float16 a hundred times slower than float32: convert tile by tile.
        slow = q.dtype == torch.float16 and q.device.type == "cpu"
        self.dtype = torch.float32 if slow else q.dtype
        self.like = torch.empty(0, dtype=self.dtype, device=q.device)
        self.plan = plan
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, rows: int, columns: int) -> Tensor:
        """Return the buffer `name` as a contiguous ``[G, rows, columns]``, contents undefined."""
        size = self.groups * rows * columns
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self.like.new_empty(size)
            self._buffers[name] = buffer
        return buffer[:size].view(self.groups, rows, columns)

    def queries(self, name: str, x: Tensor, tile: Tile, scale: float | None = None) -> Tensor:
        """Return the tile's rows of `x`, scaled, in the working dtype."""
        rows = x[:, tile.start : tile.stop]
        target = self.take(name, tile.stop - tile.start, self.dim)
        if scale is None:
            return target.copy_(rows)
        return (
            torch.mul(rows, scale, out=target)
            if x.dtype == self.dtype
            else target.copy_(rows).mul_(scale)
        )

    def keys(self, name: str, x: Tensor, extra: Tensor | None, tile: Tile) -> Tensor:
        """Return the tile's keys (or values), ``[G, columns, D]``: a view where one will do."""
        window = x[:, tile.lo : tile.hi]
        if tile.blocks is None and extra is None and x.dtype == self.dtype:
            return window
        parts = [window]
        if tile.blocks is not None:
            parts.append(self._gather(x, tile.blocks))
        if extra is not None:
            parts.append(extra)
        target = self.take(name, sum(p.shape[1] for p in parts), self.dim)
        at = 0
        for part in parts:
            target[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        return target

    def _gather(self, x: Tensor, blocks: Tensor) -> Tensor:
        grid = _block_grid(x, self.plan)
        groups = torch.arange(self.groups, device=x.device)[:, None]
        gathered: Tensor = grid[groups, blocks].flatten(1, 2)
        return gathered

    def scores(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """Multiply ``a·bᵀ`` into the buffer `name`: ``[G, rows, columns]``."""
        target = self.take(name, a.shape[1], b.shape[1])
        return torch.bmm(a, b.transpose(1, 2), out=target)

    def weights(self, q: Tensor, k: Tensor, tile: Tile) -> Tensor:
        """Return the attention weights of a tile before dropout, ``[G, rows, columns]``."""
        scores = self.scores("weights", q, k)
        if tile.hidden is not None:
            # The least finite number, not -inf: a row that sees nothing stays free of NaN, and
            # a NaN in the input stays visible.
            scores.masked_fill_(tile.hidden, torch.finfo(scores.dtype).min)
        torch._softmax(scores, -1, False, out=scores)
        if tile.hidden is not None and self.plan.may_be_empty:
            scores.masked_fill_(tile.hidden, 0.0)
        return scores


def _block_grid(x: Tensor, plan: Plan) -> Tensor:
    """View ``[G, N, D]`` as whole blocks ``[G, blocks, block_size, D]``."""
    count = (x.shape[1] - plan.block_offset) // plan.block_size
    stop = plan.block_offset + count * plan.block_size
    grid: Tensor = x[:, plan.block_offset : stop].unflatten(1, (count, plan.block_size))
    return grid


def _dropout_mask(weights: Tensor, probability: float, seed: int, index: int) -> Tensor:
    """Return the factor on the weights of tile `index`: 0, or 1/(1-p)."""
    generator = torch.Generator(device=weights.device)
    generator.manual_seed((seed + index * 0x9E3779B1) % 2**63)
    keep = torch.empty_like(weights).bernoulli_(1.0 - probability, generator=generator)
    return keep.div_(1.0 - probability)


class _Tiled(torch.autograd.Function):
    """Forward and backward of `tiled_attention`; keeps only its inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        extra_k: Tensor | None,
        extra_v: Tensor | None,
        plan: Plan,
        scale: float,
        dropout_p: float,
        dropout_seed: int,
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, extra_k, extra_v)
        ctx.plan, ctx.scale, ctx.dropout = plan, scale, (dropout_p, dropout_seed)
        work = _Workspace(q, plan)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        done = 0
        for index, tile in enumerate(plan.tiles()):
            if tile.start > done:
                out[:, done : tile.start] = 0
            keys = work.keys("keys", k, extra_k, tile)
            weights = work.weights(work.queries("q", q, tile, scale), keys, tile)
            if dropout_p:
                weights.mul_(_dropout_mask(weights, dropout_p, dropout_seed, index))
            values = work.keys("values", v, extra_v, tile)
            rows = work.take("out", tile.stop - tile.start, work.dim)
            out[:, tile.start : tile.stop] = torch.bmm(weights, values, out=rows)
            done = tile.stop
        out[:, done:] = 0
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, extra_k, extra_v = ctx.saved_tensors
        plan: Plan = ctx.plan
        dropout_p, dropout_seed = ctx.dropout
        work = _Workspace(q, plan)
        grads = _Gradients(q, k, v, extra_k, plan)
        for index, tile in enumerate(plan.tiles()):
            keys = work.keys("keys", k, extra_k, tile)
            values = work.keys("values", v, extra_v, tile)
            rows = work.queries("q", q, tile, ctx.scale)
            weights = work.weights(rows, keys, tile)
            grad_out = work.queries("grad", grad, tile)
            grad_weights = work.scores("grad_weights", grad_out, values)
            dropped = weights
            if dropout_p:
                mask = _dropout_mask(weights, dropout_p, dropout_seed, index)
                grad_weights.mul_(mask)
                dropped = mask.mul_(weights)
            columns = weights.shape[2]
            into = work.take("grad_keys", columns, work.dim)
            grads.add(grads.v, grads.extra_v, torch.bmm(dropped.mT, grad_out, out=into), tile)
            torch._softmax_backward_data(
                grad_weights, weights, -1, weights.dtype, grad_input=grad_weights
            )
            into = work.take("grad_keys", columns, work.dim)
            grads.add(grads.k, grads.extra_k, torch.bmm(grad_weights.mT, rows, out=into), tile)
            out = work.take("out", tile.stop - tile.start, work.dim)
            torch.bmm(grad_weights, keys, out=out)
            grads.q[:, tile.start : tile.stop] = out.mul_(ctx.scale)
        return (*grads.result(), None, None, None, None)


class _Gradients:
    """Where the tiles' gradients add up: float32 for half precision, else the input's dtype."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, extra: Tensor | None, plan: Plan) -> None:
        half = q.dtype in (torch.float16, torch.bfloat16)
        wide = torch.float32 if half else q.dtype
        self.plan, self.dtype = plan, q.dtype
        self.q = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
        self.k = torch.zeros(k.shape, dtype=wide, device=q.device)
        self.v = torch.zeros(v.shape, dtype=wide, device=q.device)
        self.extra_k = self.extra_v = None
        if extra is not None:
            self.extra_k = torch.zeros(extra.shape, dtype=wide, device=q.device)
            self.extra_v = torch.zeros(extra.shape, dtype=wide, device=q.device)

    def add(self, total: Tensor, extra: Tensor | None, part: Tensor, tile: Tile) -> None:
        """Add a tile's gradient ``[G, columns, D]`` to where its columns came from."""
        at = tile.hi - tile.lo
        total[:, tile.lo : tile.hi] += part[:, :at]
        if tile.blocks is not None:
            size = self.plan.block_size
            grid = _block_grid(total, self.plan)
            width = tile.blocks.shape[1] * size
            block_grads = part[:, at : at + width].unflatten(1, (-1, size))
            groups = torch.arange(part.shape[0], device=part.device)[:, None]
            # A head never gathers a block twice in one tile, so reading, adding and writing back
            # loses nothing.
            grid[groups, tile.blocks] = grid[groups, tile.blocks] + block_grads
            at += width
        if extra is not None:
            extra += part[:, at:]

    def result(self) -> tuple[Tensor | None, ...]:
        """Return the gradients in the inputs' dtype."""
        parts = (self.q, self.k, self.v, self.extra_k, self.extra_v)
        return tuple(None if x is None else x.to(self.dtype) for x in parts)


def fold_heads(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Fold ``[B, H, N, D]`` tensors into ``[G, N, D]``, without a copy.

    Returns:
        one tuple with G = B·H where all of them fold, else one tuple a batch row with G = H.
    """
    if all(x.shape[0] == 1 or x.stride(0) == x.stride(1) * x.shape[1] for x in tensors):
        return [tuple(x.flatten(0, 1) for x in tensors)]
    return list(zip(*(x.unbind(0) for x in tensors), strict=True))


def tiled_cost(plan: Plan, dim: int, training: bool) -> int:
    """Count the matrix-product operations that the tiles of `plan` execute for one group.

    Two products forward; the backward pass has four and computes the scores anew.

    Args:
        plan: the pattern.
        dim: D.
        training: forward and backward, not forward alone.
    """
    pairs = sum(rows * columns for rows, columns in plan.sizes())
    return pairs * 2 * dim * (7 if training else 2)
