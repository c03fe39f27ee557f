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

Tiles of equal shape run as one batched product: neighbours along the sequence of one group, or
the same place of many groups. Along the sequence their operands are strided views of q, k and v,
packed into buffers where the products' library would do it anyway, and where the output is
contiguous the product writes straight into it. Backward, such a batch takes tiles whose windows
lie end to end, so that one product adds straight into the gradients of keys and values. All
buffers are made once a call and reused by every batch: fresh memory would cost a page fault every
4 KiB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients
from attention.functional import has_values, is_short, opaque
from attention.kernels.onednn import applies, at_full_rate

LOG2_E = math.log2(math.e)

FORWARD_BYTES = {"cpu": 6_500_000, "cuda": 1 << 27}
"""Scores of one batch of tiles, forward: on a CPU a few times its second-level caches."""

BACKWARD_BYTES = {"cpu": 6_500_000, "cuda": 1 << 27}
"""The same backward, where two such buffers are live."""

DENSE_ROWS = 256
"""Queries in a tile that sees all keys of a short sequence."""


@dataclass(frozen=True)
class Hidden:
    """Some columns of a batch of tiles, and which of their pairs are not seen.

    Attributes:
        lo: first column.
        hi: one past the last column.
        mask: bool, broadcastable to ``[tiles, rows, hi - lo]``, True = not seen.
        is_shared: whether other batches hold this very tensor.
    """

    lo: int
    hi: int
    mask: Tensor
    is_shared: bool = False


@dataclass(frozen=True)
class Tiles:
    """A batch of tiles of equal shape.

    Either `count` tiles of one group, `step` positions apart, or one tile of each of `groups`
    groups. The columns of a tile's scores are its window, then the gathered blocks, then the
    extra keys.

    Attributes:
        group: first group.
        groups: number of groups; 1 if `count` > 1.
        start: first query of the first tile.
        rows: queries in a tile.
        lo: first key of the first tile's window.
        width: keys in a window.
        count: tiles along the sequence.
        step: positions from one tile to the next, of queries and windows alike.
        same_window: whether the tiles along the sequence share one window instead.
        blocks: gathered blocks ``[tiles, r]``, indices into the plan's block grid; or ``None``.
        extra: whether the tiles read the extra keys.
        hidden: what is not seen.
    """

    group: int
    groups: int
    start: int
    rows: int
    lo: int
    width: int
    count: int = 1
    step: int = 0
    same_window: bool = False
    blocks: Tensor | None = None
    extra: bool = True
    hidden: tuple[Hidden, ...] = ()

    def cut(self, x: Tensor, start: int, rows: int, step: int | None = None) -> Tensor:
        """View the positions ``start:start + rows`` of each tile: ``[tiles, rows, …]``.

        Args:
            x: ``[G, N, …]``.
            start: of the first tile.
            rows: positions a tile.
            step: positions from one tile to the next; ``None`` means the tiles' own.
        """
        step = self.step if step is None else step
        if self.count == 1:
            return x[self.group : self.group + self.groups, start : start + rows]
        to_group, to_next, *rest = x.stride()
        return x.as_strided(
            (self.count, rows, *x.shape[2:]),
            (step * to_next, to_next, *rest),
            x.storage_offset() + self.group * to_group + start * to_next,
        )

    def window(self, x: Tensor) -> Tensor:
        """View the window of each tile: ``[tiles, width, …]``."""
        return self.cut(x, self.lo, self.width, 0 if self.same_window else None)

    def positions(self, device: torch.device) -> Tensor:
        """Return the queries' positions ``[tiles or 1, rows]``."""
        first = self.start + self.step * torch.arange(self.count, device=device)
        return first[:, None] + torch.arange(self.rows, device=device)

    def of_groups(self, x: Tensor) -> Tensor:
        """Return what ``[G, …]`` holds for each tile: ``[tiles or 1, …]``."""
        return x[self.group : self.group + self.groups]


class Plan(Protocol):
    """Which keys each query reads.

    Attributes:
        block_size: keys in a gathered block.
        block_offset: first key of block 0.
        may_be_empty: whether a query may see no key; it then gives zeros.
    """

    block_size: int
    block_offset: int
    may_be_empty: bool

    @property
    def extra_ranges(self) -> Sequence[tuple[int, int]]:
        """Ranges of positions that are extra keys."""
        ...

    def batches(self, cells: int, *, disjoint: bool) -> Iterator[Tiles]:
        """Walk batches of tiles that hold every query once; the same at every call.

        Args:
            cells: about the most scores in a batch.
            disjoint: whether the windows of a batch must not overlap within a group.
        """
        ...

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk the (rows, columns) of one group's tiles."""
        ...


@opaque
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
        k: ``[G, M, D]``.
        v: ``[G, M, D]``.
        plan: the pattern.
        scale: factor on the scores.
        extra_k: keys that every tile reads, ``[G, X, D]``; or ``None``. Not together with a plan
            that names `Plan.extra_ranges`.
        extra_v: their values.
        dropout_p: probability of dropping an attention weight.
        dropout_seed: the weights dropped are a function of it and of the tile.

    Returns:
        ``[G, N, D]``. Differentiable in q, k, v, extra_k and extra_v; second derivatives keep
        every score.
    """
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    out: Tensor = _Tiled.apply(  # type: ignore[no-untyped-call]
        q, k, v, extra_k, extra_v, plan, scale, dropout_p, dropout_seed
    )
    return out


class _Operands:
    """What the tiles read, cut and converted to the dtype the products run in."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        extra: tuple[Tensor | None, Tensor | None],
        plan: Plan,
    ) -> None:
        self.q, self.k, self.v, self.plan = q, k, v, plan
        self.extra_k, self.extra_v = extra
        if plan.extra_ranges:
            self.extra_k, self.extra_v = (_ranges_of(x, plan.extra_ranges) for x in (k, v))
        # A score of half precision, rounded to it, would be off by as much as 1 from 256 on.
        # Numbers of rows (`_places`) stay whole numbers.
        wide = torch.promote_types(q.dtype, torch.float32)
        self.dtype = wide if q.is_floating_point() else q.dtype
        # oneDNN takes contiguous matrices; what is not it copies, to fresh memory.
        self._packs = applies(q)
        self._buffers: dict[str, Tensor] = {}
        self._bounds: dict[int, tuple[Tensor, Tensor]] = {}

    def cells(self, budget: dict[str, int]) -> int:
        """Return how many scores fit a budget in bytes."""
        return budget.get(self.q.device.type, budget["cuda"]) // self.dtype.itemsize

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the buffer `name`, contiguous, contents undefined."""
        size = 1
        for extent in shape:
            size *= extent
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=self.dtype, device=self.q.device)
            self._buffers[name] = buffer
        return buffer[:size].view(shape)

    def rows(self, name: str, x: Tensor, tiles: Tiles) -> Tensor:
        """Return the tiles' rows of `x`, ``[tiles, rows, D]``: a view where one will do."""
        return self._ready(name, tiles.cut(x, tiles.start, tiles.rows))

    def keys(self, tiles: Tiles) -> Tensor:
        """Return the keys of each tile, ``[tiles, columns, D]``: a view where one will do."""
        return self._columns("keys", self.k, self.extra_k, tiles)

    def values(self, tiles: Tiles) -> Tensor:
        """Return the values of each tile, as `keys` does."""
        return self._columns("values", self.v, self.extra_v, tiles)

    def _columns(self, name: str, x: Tensor, extra: Tensor | None, tiles: Tiles) -> Tensor:
        parts = []
        if tiles.width:
            parts.append(tiles.window(x))
        if tiles.blocks is not None:
            parts.append(self._gathered(name, x, tiles))
        if extra is not None and tiles.extra:
            parts.append(tiles.of_groups(extra))
        if len(parts) == 1:
            return self._ready(name, parts[0])
        count = tiles.groups * tiles.count
        target = self.take(name, count, sum(part.shape[1] for part in parts), x.shape[2])
        at = 0
        for part in parts:
            target[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        return target

    def _ready(self, name: str, x: Tensor) -> Tensor:
        if x.dtype == self.dtype and (x.is_contiguous() or not self._packs):
            return x
        return self.take(name, *x.shape).copy_(x)

    def _gathered(self, name: str, x: Tensor, tiles: Tiles) -> Tensor:
        """Return the gathered blocks of each tile, ``[tiles, r·block_size, D]``."""
        assert tiles.blocks is not None
        if tiles.groups == 1:
            grid = _block_grid(x[tiles.group], self.plan)
            index = tiles.blocks.flatten()
            if x.dtype == self.dtype:
                into = self.take(f"gathered {name}", len(index), *grid.shape[1:])
                torch.index_select(grid, 0, index, out=into)
            else:
                into = grid.index_select(0, index)
            return into.view(tiles.blocks.shape[0], -1, x.shape[2])
        grid = _block_grid(x, self.plan)
        every: Tensor = grid[_group_index(tiles, x.device), tiles.blocks].flatten(1, 2)
        return every

    def exponentials(
        self, q: Tensor, keys: Tensor, tiles: Tiles, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the attention weights of the tiles before dropout, up to a factor a row.

        Returns:
            the weights ``[tiles, rows, columns]``; what to divide each row by, ``[tiles, rows,
            1]``; the logarithm, in base 2, of what divides the exponentials of the scores,
            infinite for a row that sees nothing.
        """
        scores = self._scores(q, keys, tiles, scale * LOG2_E)
        rows = (*scores.shape[:2], 1)
        peak = torch.amax(scores, dim=-1, keepdim=True, out=self.take("peak", *rows))
        torch.sub(scores, peak, out=scores)
        torch.exp2(scores, out=scores)
        total = torch.sum(scores, dim=-1, keepdim=True, out=self.take("total", *rows))
        if self.plan.may_be_empty and tiles.hidden:
            # Divided by infinity, the output is zero.
            total.masked_fill_(peak <= torch.finfo(scores.dtype).min, math.inf)
        return scores, total, peak + total.log2()

    def weights(
        self, q: Tensor, keys: Tensor, tiles: Tiles, scale: float, log_total: Tensor | None
    ) -> Tensor:
        """Return the attention weights of the tiles before dropout, ``[tiles, rows, columns]``.

        Args:
            q: of the tiles.
            keys: of the tiles.
            tiles: which.
            scale: factor on the scores.
            log_total: for all queries ``[G, N]``, as `exponentials` returned it; or ``None``.
        """
        if log_total is None:
            weights, total, _ = self.exponentials(q, keys, tiles, scale)
            return weights.mul_(total.reciprocal_())
        scores = self._scores(q, keys, tiles, scale * LOG2_E)
        torch.sub(scores, tiles.cut(log_total, tiles.start, tiles.rows)[:, :, None], out=scores)
        return torch.exp2(scores, out=scores)

    def _scores(self, q: Tensor, keys: Tensor, tiles: Tiles, scale: float) -> Tensor:
        """Return the scores of the tiles; what is hidden has the least finite number.

        It is not -inf: a row that sees nothing stays free of NaN, and a NaN in the input stays
        visible.
        """
        scores = self.take("weights", q.shape[0], q.shape[1], keys.shape[1])
        _product(q, keys.mT, scores, scale)
        for part in tiles.hidden:
            columns = scores[:, :, part.lo : part.hi]
            if part.is_shared:
                torch.minimum(columns, self._bound(part.mask), out=columns)
            elif not has_values(part.mask) or bool(part.mask.any()):
                columns.masked_fill_(part.mask, torch.finfo(scores.dtype).min)
        return scores

    def _bound(self, mask: Tensor) -> Tensor:
        """Return the most that a score may be: a minimum is many times as fast as a fill."""
        if id(mask) not in self._bounds:
            bound = torch.full(mask.shape, math.inf, dtype=self.dtype, device=mask.device)
            bound.masked_fill_(mask, torch.finfo(self.dtype).min)
            self._bounds[id(mask)] = mask, bound  # the mask too: its id must stay its own
        return self._bounds[id(mask)][1]


def _product(a: Tensor, b: Tensor, out: Tensor, scale: float = 1.0) -> Tensor:
    """Write ``scale·a·b`` to `out`, whatever was there."""
    if scale == 1.0:
        return torch.bmm(a, b, out=out)
    return torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)


def _block_grid(x: Tensor, plan: Plan) -> Tensor:
    """View ``[…, N, D]`` as whole blocks ``[…, blocks, block_size, D]``."""
    count = (x.shape[-2] - plan.block_offset) // plan.block_size
    whole = x.narrow(-2, plan.block_offset, count * plan.block_size)
    grid: Tensor = whole.unflatten(-2, (count, plan.block_size))
    return grid


def _group_index(tiles: Tiles, device: torch.device) -> Tensor:
    """Return the group of each tile, ``[tiles or 1, 1]``."""
    return torch.arange(tiles.group, tiles.group + tiles.groups, device=device)[:, None]


def _ranges_of(x: Tensor, ranges: Sequence[tuple[int, int]]) -> Tensor:
    """Concatenate ranges of positions of ``[G, N, D]``."""
    return torch.cat([x[:, start:stop] for start, stop in ranges], dim=1)


def _dropout_mask(weights: Tensor, probability: float, seed: int, index: int) -> Tensor:
    """Return the factor on the weights of batch `index`: 0, or 1/(1-p)."""
    generator = torch.Generator(device=weights.device)
    generator.manual_seed((seed + index * 0x9E3779B1) % 2**63)
    keep = torch.empty_like(weights).bernoulli_(1.0 - probability, generator=generator)
    return keep.div_(1.0 - probability)


class _Tiled(torch.autograd.Function):
    """Forward and backward of `tiled_attention`; keeps its inputs and a number a query."""

    @staticmethod
    @at_full_rate
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
        ctx.plan, ctx.scale, ctx.dropout = plan, scale, (dropout_p, dropout_seed)
        is_dense = isinstance(plan, DensePlan) and plan.hidden is None
        if is_dense and not dropout_p:
            ctx.save_for_backward(q, k, v, extra_k, extra_v, None)
            fused = F.scaled_dot_product_attention(q[None], k[None], v[None], scale=scale)
            return fused[0]
        work = _Operands(q, k, v, (extra_k, extra_v), plan)
        out = torch.empty_like(q)  # strides included: heads side by side stay so
        log_totals = None
        if any(ctx.needs_input_grad):
            log_totals = torch.empty(q.shape[:2], dtype=work.dtype, device=q.device)
        ctx.save_for_backward(q, k, v, extra_k, extra_v, log_totals)
        # Dropout is drawn batch by batch: both passes must then walk the same ones.
        budget = BACKWARD_BYTES if dropout_p else FORWARD_BYTES
        batches = plan.batches(work.cells(budget), disjoint=bool(dropout_p))
        for index, tiles in enumerate(batches):
            rows = work.rows("rows", q, tiles)
            keys = work.keys(tiles)
            weights, total, log_total = work.exponentials(rows, keys, tiles, scale)
            if log_totals is not None:
                tiles.cut(log_totals, tiles.start, tiles.rows).copy_(log_total[:, :, 0])
            if dropout_p:
                weights.mul_(_dropout_mask(weights, dropout_p, dropout_seed, index))
            target = tiles.cut(out, tiles.start, tiles.rows)
            _product_into(target, weights, work.values(tiles), work, divisor=total)
        return out

    @staticmethod
    @at_full_rate
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, extra_k, extra_v, log_totals = ctx.saved_tensors
        plan: Plan = ctx.plan
        scale: float = ctx.scale
        dropout_p, dropout_seed = ctx.dropout
        if must_be_plain(grad):
            plain = partial(
                _plain, plan=plan, scale=scale, dropout_p=dropout_p, dropout_seed=dropout_seed
            )
            inputs = (q, k, v, extra_k, extra_v)
            return *plain_gradients(plain, inputs, grad), None, None, None, None
        grad = grad if grad.stride(2) == 1 else grad.contiguous()
        work = _Operands(q, k, v, (extra_k, extra_v), plan)
        grad_q = torch.empty_like(q)
        grad_k = _KeyGradient(k, work.extra_k, work)
        grad_v = _KeyGradient(v, work.extra_v, work)
        batches = plan.batches(work.cells(BACKWARD_BYTES), disjoint=True)
        for index, tiles in enumerate(batches):
            rows, keys = work.rows("rows", q, tiles), work.keys(tiles)
            weights = work.weights(rows, keys, tiles, scale, log_totals)
            grad_out = work.rows("grad", grad, tiles)
            grad_weights = work.take("grad_weights", *weights.shape)
            _product(grad_out, work.values(tiles).mT, grad_weights)
            dropped = weights
            if dropout_p:
                mask = _dropout_mask(weights, dropout_p, dropout_seed, index)
                grad_weights.mul_(mask)
                dropped = mask.mul_(weights)
            grad_v.add(dropped.mT, grad_out, tiles)
            torch._softmax_backward_data(
                grad_weights, weights, -1, weights.dtype, grad_input=grad_weights
            )
            grad_k.add(grad_weights.mT, rows, tiles, scale)
            target = tiles.cut(grad_q, tiles.start, tiles.rows)
            _product_into(target, grad_weights, keys, work, scale)
        (gk, gek), (gv, gev) = grad_k.result(plan), grad_v.result(plan)
        return grad_q, gk, gv, gek, gev, None, None, None, None


def _plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
    *,
    plan: Plan,
    scale: float,
    dropout_p: float,
    dropout_seed: int,
) -> Tensor:
    """Compute `tiled_attention` by operations that autograd follows, over the same tiles.

    A tile's rows and columns are found by cutting the places of all queries and keys as the fast
    passes cut the tensors.
    """
    groups, seq_len, dim = q.shape
    work = _Operands(q, k, v, (extra_k, extra_v), plan)
    q_at, k_at = (_places(x, 0) for x in (q, k))
    extra_at = None if extra_k is None else _places(extra_k, k_at.numel())
    places = _Operands(q_at, k_at, k_at, (extra_at, extra_at), plan)
    q, keys, values = (
        torch.cat([x.flatten(0, 1) for x in parts if x is not None]).to(
            torch.promote_types(q.dtype, torch.float32)
        )
        for parts in ((q,), (k, extra_k), (v, extra_v))
    )
    outs, ats = [], []
    batches = plan.batches(work.cells(BACKWARD_BYTES), disjoint=True)
    for index, tiles in enumerate(batches):
        rows = places.rows("rows", q_at, tiles)[..., 0].clone()
        columns = places.keys(tiles)[..., 0].clone()
        scores = q[rows] @ keys[columns].mT * scale
        hidden = torch.zeros(scores.shape, dtype=torch.bool, device=q.device)
        for part in tiles.hidden:
            hidden[:, :, part.lo : part.hi] |= part.mask
        some = ~hidden.all(dim=2, keepdim=True)
        weights = torch.softmax(scores.masked_fill(hidden & some, -math.inf), dim=2) * some
        if dropout_p:
            like = torch.empty(weights.shape, dtype=work.dtype, device=q.device)
            weights = weights * _dropout_mask(like, dropout_p, dropout_seed, index)
        outs.append((weights @ values[columns]).flatten(0, 1))
        ats.append(rows.flatten())
    order = torch.argsort(torch.cat(ats))  # the batches hold every query once
    return torch.cat(outs)[order].view(groups, seq_len, dim).to(work.q.dtype)


def _places(x: Tensor, first: int) -> Tensor:
    """Number the rows of ``[G, N, D]`` from `first`: ``[G, N, 1]``."""
    groups, length, _ = x.shape
    return torch.arange(first, first + groups * length, device=x.device).view(groups, length, 1)


def _product_into(
    target: Tensor,
    a: Tensor,
    b: Tensor,
    work: _Operands,
    scale: float = 1.0,
    divisor: Tensor | None = None,
) -> None:
    """Write ``scale·a·b / divisor``, by way of a buffer where a product can't write there."""
    is_direct = target.dtype == work.dtype and target.is_contiguous()
    into = target if is_direct else work.take("out", *target.shape)
    _product(a, b, into, scale)
    if divisor is not None:
        into.div_(divisor)
    if not is_direct:
        target.copy_(into)


class _KeyGradient:
    """Where the tiles' gradients of keys, or of values, add up.

    The sums are float32 for half precision, else of the input's dtype.
    """

    def __init__(self, x: Tensor, extra: Tensor | None, work: _Operands) -> None:
        wide = torch.promote_types(x.dtype, torch.float32)
        self.work, self.dtype = work, x.dtype
        self.total = torch.zeros(x.shape, dtype=wide, device=x.device)
        self.extra = None
        if extra is not None:
            self.extra = torch.zeros(extra.shape, dtype=wide, device=x.device)

    def add(self, a: Tensor, b: Tensor, tiles: Tiles, scale: float = 1.0) -> None:
        """Add ``scale·a·b``, ``[tiles, columns, D]``, to where its columns came from."""
        extra = self.extra if tiles.extra else None
        window = tiles.window(self.total)
        if tiles.blocks is None:
            only = window if extra is None else None
            if extra is not None and not tiles.width and tiles.count == 1:
                only = tiles.of_groups(extra)
            if only is not None and only.is_contiguous():
                torch.baddbmm(only, a, b, alpha=scale, out=only)
                return
        part = self.work.take("grad_keys", a.shape[0], a.shape[1], b.shape[2])
        _product(a, b, part, scale)
        at = tiles.width
        if at:
            window += part[:, :at]
        if tiles.blocks is not None:
            size = tiles.blocks.shape[1] * self.work.plan.block_size
            self._add_blocks(part[:, at : at + size], tiles)
            at += size
        if extra is not None:
            rest = part[:, at:]
            into = tiles.of_groups(extra)
            into += rest.sum(dim=0, keepdim=True) if tiles.count > 1 else rest

    def _add_blocks(self, part: Tensor, tiles: Tiles) -> None:
        """Add the gathered blocks' gradients ``[tiles, r·block_size, D]``."""
        assert tiles.blocks is not None
        plan, device = self.work.plan, part.device
        groups, seq_len, dim = self.total.shape
        first = _group_index(tiles, device) * seq_len + plan.block_offset
        at = first + tiles.blocks * plan.block_size  # [tiles, r]
        rows = at[:, :, None] + torch.arange(plan.block_size, device=device)
        part = self.work.take("gathered gradients", *part.shape).copy_(part)
        every = self.total.view(groups * seq_len, dim)
        every.index_add_(0, rows.flatten(), part.view(-1, dim))

    def result(self, plan: Plan) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of the keys and of the extra keys, in the input's dtype."""
        extra = self.extra
        if plan.extra_ranges:
            assert extra is not None
            at = 0
            for start, stop in plan.extra_ranges:
                self.total[:, start:stop] += extra[:, at : at + stop - start]
                at += stop - start
            extra = None
        return self.total.to(self.dtype), None if extra is None else extra.to(self.dtype)


def _batch(cells: int, tile_cells: int) -> int:
    """Return how many tiles make a batch: an even number, as most machines' threads are."""
    return max(2, cells // max(1, tile_cells) // 2 * 2)


def chunks(total: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut ``range(total)`` into (first, count) of nearly equal, even size, at most `most`."""
    parts = -(-total // most)
    size = -(-total // parts) if parts else 1
    size += size % 2
    for first in range(0, total, size):
        yield first, min(size, total - first)


def tiles_of_groups(groups: int, cells: int, tile_cells: int) -> Iterator[tuple[int, int]]:
    """Cut the groups so that one tile of each fits `cells`: (first, count), two at least."""
    return chunks(groups, _batch(cells, tile_cells))


def tiles_of_run(
    count: int, groups: int, cells: int, tile_cells: int, spacing: int
) -> Iterator[tuple[int, int, int]] | None:
    """Cut a run of `count` equal tiles along the sequence: (first, tiles, spacing).

    Args:
        count: tiles in the run.
        groups: G.
        cells: the most scores in a batch.
        tile_cells: scores in a tile.
        spacing: tiles from one to the next within a batch.

    Returns:
        batches for each group; ``None`` where the run is too short to fill a batch, or its tiles
        are so small that this takes more than twice as many batches: then the same tile of all
        groups makes the better one.
    """
    if count // spacing < (4 if groups > 1 else 1):
        return None
    most = _batch(cells, tile_cells)
    residues = [range(residue, count, spacing) for residue in range(min(spacing, count))]
    of_runs = groups * sum(-(-len(tiles) // most) for tiles in residues)
    if of_runs > 2 * count * -(-groups // most):
        return None
    return (
        (tiles.start + first * spacing, number, spacing)
        for tiles in residues
        for first, number in chunks(len(tiles), most)
    )


class DensePlan:
    """Tiles of queries that see all keys: a `Plan`.

    Args:
        groups: G.
        seq_len: N.
        key_len: M, few enough that a tile holds them all.
        hidden: bool ``[G, M]``, True = this key is not seen; or ``None``.
    """

    block_size, block_offset = 1, 0
    extra_ranges: Sequence[tuple[int, int]] = ()

    def __init__(
        self, groups: int, seq_len: int, key_len: int, hidden: Tensor | None = None
    ) -> None:
        self.groups, self.seq_len, self.key_len = groups, seq_len, key_len
        self.hidden, self.may_be_empty = hidden, hidden is not None

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk (rows, columns)."""
        yield self.seq_len, self.key_len

    def batches(self, cells: int, *, disjoint: bool) -> Iterator[Tiles]:
        """Walk the queries: forward along the sequence, backward over the groups."""
        rows = min(self.seq_len, DENSE_ROWS)
        tile = rows * self.key_len
        run = None if disjoint else tiles_of_run(self.seq_len // rows, 1, cells, tile, 1)
        done = 0
        for at, count, _ in run or ():
            done = max(done, (at + count) * rows)
            for group in range(self.groups):
                yield self._masked(
                    Tiles(group, 1, at * rows, rows, 0, self.key_len, count, rows, True)
                )
        for start in range(done, self.seq_len, rows):
            size = min(rows, self.seq_len - start)
            for group, count in tiles_of_groups(self.groups, cells, size * self.key_len):
                yield self._masked(Tiles(group, count, start, size, 0, self.key_len))

    def _masked(self, tiles: Tiles) -> Tiles:
        if self.hidden is None:
            return tiles
        unseen = tiles.of_groups(self.hidden)[:, None]
        return replace(tiles, hidden=(Hidden(0, self.key_len, unseen),))


def fold_heads(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Fold ``[B, H, N, D]`` tensors into ``[G, N, D]``; short batch rows are copied for it.

    Returns:
        one tuple with G = B·H where all of them fold, else one tuple a batch row with G = H.
    """
    folds = all(x.shape[0] == 1 or x.stride(0) == x.stride(1) * x.shape[1] for x in tensors)
    if folds or is_short(tensors[0]):
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
