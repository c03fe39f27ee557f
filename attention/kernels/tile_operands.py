"""What tiles of softmax attention read, their weights, and where their gradients add up.

Along the sequence operands are strided views of q, k and v, packed into buffers where the
products' library would do it anyway. All buffers are made once a call and reused by every batch:
fresh memory would cost a page fault every 4 KiB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attention.functional import has_values
from attention.kernels.onednn import applies
from attention.kernels.tiles import Plan, Tiles

LOG2_E = math.log2(math.e)


class Operands:
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
            parts.append(tiles.window(x))  # [tiles, width, D], a view
        if tiles.blocks is not None:
            parts.append(self._gathered(name, x, tiles))  # [tiles, r·block_size, D]
        if extra is not None and tiles.extra:
            parts.append(tiles.of_groups(extra))  # [tiles or 1, X, D]
        if len(parts) == 1:
            return self._ready(name, parts[0])
        # One product over all columns takes less time than one for each part.
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
            grid = _block_grid(x[tiles.group], self.plan)  # [blocks, block_size, D]
            index = tiles.blocks.flatten()  # [tiles·r]
            if x.dtype == self.dtype:
                into = self.take(f"gathered {name}", len(index), *grid.shape[1:])
                torch.index_select(grid, 0, index, out=into)
            else:
                into = grid.index_select(0, index)
            return into.view(tiles.blocks.shape[0], -1, x.shape[2])
        grid = _block_grid(x, self.plan)  # [G, blocks, block_size, D]
        # Indices [tiles, 1] and [tiles, r] pick [tiles, r, block_size, D].
        gathered: Tensor = grid[_group_index(tiles, x.device), tiles.blocks].flatten(1, 2)
        return gathered

    def exponentials(
        self, q: Tensor, keys: Tensor, tiles: Tiles, scale: float, sink: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the attention weights of the tiles before dropout, up to a factor a row.

        Logits of a `sink`, ``[G]`` in base 2, take part in each row's sum.

        Returns:
            the weights ``[tiles, rows, columns]``; what to divide each row by, ``[tiles, rows,
            1]``; the logarithm, in base 2, of what divides the exponentials of the scores,
            infinite for a row that sees nothing.
        """
        scores = self._scores(q, keys, tiles, scale * LOG2_E)  # [tiles, rows, columns], base 2
        rows = (*scores.shape[:2], 1)
        # In place from here on: the scores are the largest buffer there is.
        peak = torch.amax(scores, dim=-1, keepdim=True, out=self.take("peak", *rows))
        torch.sub(scores, peak, out=scores)
        torch.exp2(scores, out=scores)
        total = torch.sum(scores, dim=-1, keepdim=True, out=self.take("total", *rows))
        if sink is not None:  # an infinite total is right, too: the sink then takes all
            total += torch.exp2(tiles.of_groups(sink)[:, None, None] - peak)
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
        # With the row's log-sum-exp known, weights take neither a maximum nor a sum.
        torch.sub(scores, tiles.cut(log_total, tiles.start, tiles.rows)[:, :, None], out=scores)
        return torch.exp2(scores, out=scores)

    def _scores(self, q: Tensor, keys: Tensor, tiles: Tiles, scale: float) -> Tensor:
        """Return the scores of the tiles; what is hidden has the least finite number.

        It is not -inf: a row that sees nothing stays free of NaN, and a NaN in the input stays
        visible.
        """
        scores = self.take("weights", q.shape[0], q.shape[1], keys.shape[1])
        product(q, keys.mT, scores, scale)  # [tiles, rows, D] · [tiles, D, columns]
        for part in tiles.hidden:
            columns = scores[:, :, part.lo : part.hi]  # the masked ones alone: a band's two ends
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


def product(a: Tensor, b: Tensor, out: Tensor, scale: float = 1.0) -> Tensor:
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


def dropout_mask(weights: Tensor, probability: float, seed: int, index: int) -> Tensor:
    """Return the factor on the weights of batch `index`: 0, or 1/(1-p)."""
    generator = torch.Generator(device=weights.device)
    generator.manual_seed((seed + index * 0x9E3779B1) % 2**63)
    keep = torch.empty_like(weights).bernoulli_(1.0 - probability, generator=generator)
    return keep.div_(1.0 - probability)


def product_into(
    target: Tensor, a: Tensor, b: Tensor, work: Operands, scale: float = 1.0,
    divisor: Tensor | None = None,
) -> None:  # fmt: skip
    """Write ``scale·a·b / divisor``, by way of a buffer where a product can't write there."""
    is_direct = target.dtype == work.dtype and target.is_contiguous()
    into = target if is_direct else work.take("out", *target.shape)
    product(a, b, into, scale)  # [tiles, rows, columns] · [tiles, columns, D]
    if divisor is not None:  # after the product: [tiles, rows, D] is narrower than the weights
        into.div_(divisor)
    if not is_direct:
        target.copy_(into)


class KeyGradient:
    """Where the tiles' gradients of keys, or of values, add up.

    The sums are float32 for half precision, else of the input's dtype.
    """

    def __init__(self, x: Tensor, extra: Tensor | None, work: Operands) -> None:
        wide = torch.promote_types(x.dtype, torch.float32)
        self.work, self.dtype = work, x.dtype
        self.total = torch.zeros(x.shape, dtype=wide, device=x.device)
        self.extra = None
        if extra is not None:
            self.extra = torch.zeros(extra.shape, dtype=wide, device=x.device)

    def add(self, a: Tensor, b: Tensor, tiles: Tiles, scale: float = 1.0) -> None:
        """Add ``scale·a·b``, ``[tiles, columns, D]``, to where its columns came from."""
        extra = self.extra if tiles.extra else None
        window = tiles.window(self.total)  # [tiles, width, D], a view of the sums
        if tiles.blocks is None:
            # Where the columns lie end to end in memory, the product itself adds to the sums.
            only = window if extra is None else None
            if extra is not None and not tiles.width and tiles.count == 1:
                only = tiles.of_groups(extra)
            if only is not None and only.is_contiguous():
                torch.baddbmm(only, a, b, alpha=scale, out=only)
                return
        part = self.work.take("grad_keys", a.shape[0], a.shape[1], b.shape[2])
        product(a, b, part, scale)  # [tiles, columns, D], cut as `Operands` joined the columns
        at = tiles.width
        if at:
            window += part[:, :at]
        if tiles.blocks is not None:
            size = tiles.blocks.shape[1] * self.work.plan.block_size
            self._add_blocks(part[:, at : at + size], tiles)
            at += size
        if extra is not None:
            rest = part[:, at:]  # [tiles, X, D]; tiles along a sequence share their extra keys
            into = tiles.of_groups(extra)
            into += rest.sum(dim=0, keepdim=True) if tiles.count > 1 else rest

    def _add_blocks(self, part: Tensor, tiles: Tiles) -> None:
        """Add the gathered blocks' gradients ``[tiles, r·block_size, D]``."""
        assert tiles.blocks is not None
        plan, device = self.work.plan, part.device
        groups, seq_len, dim = self.total.shape
        first = _group_index(tiles, device) * seq_len + plan.block_offset
        at = first + tiles.blocks * plan.block_size  # [tiles, r]
        rows = at[:, :, None] + torch.arange(plan.block_size, device=device)  # [tiles, r, size]
        part = self.work.take("gathered gradients", *part.shape).copy_(part)
        # Two tiles may have gathered one block: an indexed add takes the same row twice.
        sums = self.total.view(groups * seq_len, dim)
        sums.index_add_(0, rows.flatten(), part.view(-1, dim))

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
