"""BigBird: softmax attention over blocks: a window, a few random ones, and global ones.

Zaheer et al. 2020, arXiv 2007.14062, section 2 and appendix D: the sequence is cut into blocks;
a block of queries sees its own block and one on each side, `num_random_blocks` random ones, and
the first and last block, which also see everything (internal global tokens, ITC). Extra global
tokens may stand before the blocks (ETC). Time ``O(N·(3 + r + 2)·block_size·D)``, memory
``O(N·D)``; sequences of at most 256 tokens in blocks below 16 are one masked square, at exact
attention's cost.

Causal, which the paper does not define: a block of queries sees its own block up to the query,
the block before it, random blocks of its past, and the first block. Which random blocks a row of
blocks sees is then a function of (seed, head, row) alone: a longer input never changes the past.

The pattern belongs to the real tokens: with a mask, each batch row is cut to the span from its
first to its last real token, so padding at either end changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from attention.base import Attention
from attention.checks import check_choice, check_int, check_seed
from attention.decoding.caches import KeyValueCache
from attention.decoding.chunk import Chunk
from attention.decoding.state import StateShape, alike
from attention.functional import (
    dense_softmax_attention,
    draw_seed,
    expand_kv_heads,
    opaque,
    query_positions,
    sdpa_rows,
)
from attention.kernels.flex import (
    INSTEAD,
    KERNELS,
    Kernel,
    SparseTiles,
    check_gradient,
    flex_ops,
    flex_reasons,
)
from attention.kernels.flex_blocks import (
    BLOCK_STEP,
    BlockShape,
    block_attention,
    block_tiles,
    full_rows,
)
from attention.kernels.onednn import mark
from attention.kernels.tiled import (
    Hidden,
    Tiles,
    fold_heads,
    tiled_attention,
    tiled_cost,
    tiles_of_groups,
    tiles_of_run,
)
from attention.problem import Cost, Mode, Problem, Supports, softmax_ops
from attention.registry import register

K = TypeVar("K")
V = TypeVar("V")

CACHED_PATTERNS = 4

FULL_ROWS = 64
"""Queries that see all keys, at a time."""

SMALL_BLOCK, SMALL_LENGTH = 16, 256
"""Tokens: blocks below the one, in a sequence up to the other, are served by one masked square:
rows of so few tokens take less time than the call for each."""


GATHERED_ELEMENTS = {"cpu": 2**18}
"""Elements of the keys gathered at a time, while decoding; 2²² elsewhere. On a CPU: of a row or
two, which then lie in its cache."""


class PatternCache(KeyValueCache):
    """All keys and values, and which blocks a row reads.

    Attributes:
        seen: blocks that a row of blocks sees, ``[H, blocks, 3 + r]``: block 0, the one before,
            the random ones, and last its own; -1 = none, behind all others.
        start: where the keys of a head begin, all sequences and their heads counted as one:
            ``[B, H, 1, 1]``.
        latest: the row that the last step was in, and where its keys are, by `start`; or ``None``.
    """

    append_only = KeyValueCache.append_only | {"seen", "start"}

    def __init__(self, backend: BigBirdAttention, shape: StateShape) -> None:
        super().__init__(backend.shown(), shape)
        assert shape.max_len is not None
        with torch.inference_mode(mode=False):
            self.seen = backend.blocks_seen(shape.max_len, shape.device)
        self.start = self._starts()
        self.latest: tuple[int, Tensor] | None = None

    def _starts(self) -> Tensor:
        shape = self.shape
        assert shape.max_len is not None
        batch, shared = shape.batch_size, shape.num_heads // shape.num_kv_heads
        with torch.inference_mode(mode=False):
            heads = torch.arange(batch * shape.num_kv_heads, device=shape.device) * shape.max_len
            start = heads.view(batch, -1).repeat_interleave(shared, dim=1)
            return start[:, :, None, None]

    def select(self, indices: Tensor) -> None:
        """Keep these sequences, whose keys then begin elsewhere; see `DecodeState.select`."""
        super().select(indices)
        self.start, self.latest = self._starts(), None

    def gather(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Gather keys and values by their places, counted as in `start`: ``[*at, D]``."""
        k, v = (
            x.view(-1, self.shape.head_dim).index_select(0, at.view(-1)).view(*at.shape, -1)
            for x in (self.k, self.v)
        )
        return k, v


@register("bigbird")
class BigBirdAttention(Attention):
    """Block-sparse attention: window, random and global blocks.

    Args:
        num_heads: H.
        head_dim: D.
        block_size: tokens in a block.
        num_random_blocks: random blocks each row of blocks sees beside its window; fewer where
            the sequence has not as many others.
        num_global_tokens: the first so many positions are extra global tokens (ETC): outside the
            blocks, they see all and all see them. The blocks start after them.
        seed: of the random blocks, which differ from head to head.
        kernel: ``tiled`` runs anywhere; ``flex`` is FlexAttention, compiled, for block sizes that
            are multiples of 32, without dropout and, on a CPU, without a backward pass; ``auto``
            is flex on CUDA, else tiled, decided by the device alone.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.
    """

    summary = "window, random and global blocks"
    paper = "Zaheer et al. 2020, arXiv 2007.14062"
    family = "sparse"
    exact = True
    reads_values = True
    supports = Supports(causal=True, cross=False, key_padding=True, dropout=True, state=True)
    refusals = {
        "cross": "its blocks are positions of one sequence",
        "context_parallel": "its random blocks lie anywhere in the sequence: every rank would "
        "have to hold all keys",
    }
    time_exponent = memory_exponent = 1.0
    decode_time_exponent = 0.0
    cuda_kernel = "flex"
    whole_in_transforms = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        block_size: int = 64,
        num_random_blocks: int = 3,
        num_global_tokens: int = 0,
        seed: int = 0,
        kernel: Kernel = "auto",
        scale: float | None = None,
        dropout_p: float = 0.0,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale, dropout_p=dropout_p)
        self.kernel_choice = check_choice("kernel", kernel, KERNELS)
        self.block_size = check_int("block_size", block_size, minimum=1)
        self.num_random_blocks = check_int("num_random_blocks", num_random_blocks, minimum=0)
        self.num_global_tokens = check_int("num_global_tokens", num_global_tokens, minimum=0)
        self.seed = check_seed(seed)
        self._patterns: dict[tuple[int, bool, torch.device], Tensor] = {}
        self._squares: dict[tuple[BlockGrid, torch.device], Tensor] = {}
        self._tiles: dict[tuple[object, ...], SparseTiles] = {}

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: what FlexAttention cannot serve, where it was chosen."""
        reasons = super().unsupported_reasons(problem)
        if self.kernel_on(problem.device) == "flex":
            reasons += flex_reasons(problem, dropout_p=self.active_dropout_p)
            if self.block_size % BLOCK_STEP:
                reasons.append(
                    f"block_size: kernel 'flex' needs a multiple of {BLOCK_STEP}, "
                    f"got {self.block_size}{INSTEAD}"
                )
        return reasons

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Attend tile by tile: a row of blocks each, or a few of the rows that see all."""
        if self.kernel_on(q.device.type) == "flex":
            return self._flex(q, k, v, is_causal, key_padding_mask)
        self.kernel = "tiled_blocks" + mark(q)
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        if key_padding_mask is None:
            return self._span(q, k, v, is_causal, None)
        rows = []
        spans = _real_spans(key_padding_mask)
        for x, keys, values, mask, (start, stop) in zip(
            q.unbind(0), k.unbind(0), v.unbind(0), key_padding_mask, spans, strict=True
        ):
            inner = mask[start:stop]
            hidden = None if bool(inner.all()) else ~inner[None]
            q1, k1, v1 = (t[None, :, start:stop] for t in (x, keys, values))
            out = (
                self._span(q1, k1, v1, is_causal, hidden)[0]
                if stop > start
                else (x + keys + values)[:, :0]  # no real token: empty, but in the graph
            )
            rows.append(torch.nn.functional.pad(out, (0, 0, start, q.shape[2] - stop)))
        return torch.stack(rows)

    @opaque
    def _flex(
        self, q: Tensor, k: Tensor, v: Tensor, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Attend with FlexAttention; each sequence is first moved to position 0."""
        check_gradient(q, k, v)
        self.kernel = "flex_blocks"
        batch, _, seq_len, _ = q.shape
        if key_padding_mask is None:
            return torch.cat(self._parts(q, k, v, is_causal, [seq_len] * batch, None)[0], dim=2)
        spans = _real_spans(key_padding_mask)
        starts = torch.tensor([start for start, _ in spans], device=q.device)
        at = (torch.arange(seq_len, device=q.device) + starts[:, None]).clamp(max=seq_len - 1)
        lengths = [stop - start for start, stop in spans]
        ends = torch.tensor(lengths, device=q.device)[:, None]
        hidden = ~key_padding_mask.gather(1, at) & (torch.arange(seq_len, device=q.device) < ends)
        index = at[:, None, :, None]
        q, k, v = (x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3])) for x in (q, k, v))
        holes = hidden if bool(hidden.any()) else None
        rows = self._parts(q, k, v, is_causal, lengths, holes)
        pad = torch.nn.functional.pad
        outs = [
            pad(torch.cat(parts, dim=2), (0, 0, start, seq_len - stop))
            for parts, (start, stop) in zip(rows, spans, strict=True)
        ]
        return torch.cat(outs)

    def _parts(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        is_causal: bool,
        lengths: list[int],
        hidden: Tensor | None,
    ) -> list[list[Tensor]]:
        """Return the rows of the output in order, in parts; one list a sequence.

        Where all sequences are whole, one list serves the batch.
        """
        shape = BlockShape(q.shape[2], self.block_size, self.num_global_tokens, is_causal)
        whole = min(lengths) == shape.seq_len and hidden is None
        sparse = None
        if shape.rows:
            tiles = self._flex_tiles(shape, lengths[:1] if whole else lengths, hidden, q.device)
            sparse = block_attention(
                q, k, v, shape, tiles, lengths, scale=self.scale, hidden=hidden
            )
        rows = []
        for row, length in enumerate(lengths[:1] if whole else lengths):
            some = slice(None) if whole else slice(row, row + 1)
            mask = None if hidden is None else hidden[some, :length]
            mask = mask if mask is not None and bool(mask.any()) else None
            x, keys, values = (one[some, :, :length] for one in (q, k, v))
            grid = self._grid(length, is_causal)
            full = [
                full_rows(
                    x, keys, values, edges, is_causal=is_causal, scale=self.scale, hidden=mask
                )
                for edges in grid.full_rows()
                if length
            ]
            if sparse is not None and length > shape.first:
                full.insert(1, sparse[some, :, : shape.sparse_end(length) - shape.first])
            # No real token: empty, but in the graph.
            rows.append(full or [x + keys.sum() + values.sum()])
        return rows

    def _flex_tiles(
        self,
        shape: BlockShape,
        lengths: list[int],
        hidden: Tensor | None,
        device: torch.device,
    ) -> SparseTiles:
        """Return FlexAttention's tiles of sequences of these lengths; cached."""
        return _cached(
            self._tiles,
            (shape, tuple(lengths), hidden is not None, device),
            lambda: block_tiles(
                shape,
                lengths,
                [self._random_blocks(self._grid(n, shape.is_causal), device) for n in lengths],
                holes=hidden is not None,
                device=device,
            ),
        )

    def _span(
        self, q: Tensor, k: Tensor, v: Tensor, is_causal: bool, hidden: Tensor | None
    ) -> Tensor:
        """Attend within the real span of a batch; `hidden` ``[B, L]`` marks holes in it."""
        grid = self._grid(q.shape[2], is_causal)
        if grid.is_small:
            self.kernel = "masked_square" + mark(q)
        unseen = self._unseen(grid, q.device) if grid.is_small else None
        outs = []
        for q3, k3, v3 in (folded := fold_heads(q, k, v)):
            copies = q3.shape[0] // self.num_heads
            plan = BlockPlan(
                grid,
                self._random_blocks(grid, q.device).repeat(copies, 1, 1),
                device=q.device,
                hidden=None
                if hidden is None
                else hidden.repeat_interleave(q3.shape[0] // hidden.shape[0], dim=0),
                unseen=unseen,
            )
            outs.append(
                tiled_attention(
                    q3,
                    k3,
                    v3,
                    plan,
                    scale=self.scale,
                    dropout_p=self.active_dropout_p,
                    dropout_seed=draw_seed() if self.active_dropout_p else 0,
                )
            )
        return outs[0].unflatten(0, q.shape[:2]) if len(folded) == 1 else torch.stack(outs)

    def blocks_seen(self, max_len: int, device: torch.device) -> Tensor:
        """Return which blocks the rows of a causal sequence see; see `PatternCache`.

        No longer sequence changes them.
        """
        tokens = max(max_len, self.num_global_tokens + 1)  # one block at least
        grid = self._grid(tokens, is_causal=True)
        random = self._random_blocks(grid, device)
        seen = torch.nn.functional.pad(random, (2, 1), value=-1)
        seen[:, 1:, 0] = 0
        row = torch.arange(grid.blocks, device=device)
        seen[:, 2:, 1] = row[1:-1]
        seen[:, row, (seen[0] >= 0).sum(dim=1)] = row  # as many in every head
        return seen

    def _random_blocks(self, grid: BlockGrid, device: torch.device) -> Tensor:
        """Return the random blocks ``[H, blocks, r]``, -1 where a row has fewer; cached."""
        return _cached(
            self._patterns,
            (grid.blocks, grid.is_causal, device),
            lambda: random_blocks(grid, self.num_heads, self.num_random_blocks, self.seed).to(
                device
            ),
        )

    def _unseen(self, grid: BlockGrid, device: torch.device) -> Tensor:
        """Return which pairs of a small grid are not seen, ``[H, L, L]``; cached."""
        return _cached(
            self._squares,
            (grid, device),
            lambda: ~self._dense_pattern(grid, torch.arange(grid.length, device=device)),
        )

    def _grid(self, length: int, is_causal: bool) -> BlockGrid:
        """Cut a sequence into blocks."""
        return BlockGrid(length, self.block_size, self.num_global_tokens, is_causal)

    def make_state(self, shape: StateShape) -> PatternCache:
        """Keep every key and value: a later row may reach back to any block."""
        return PatternCache(self, shape)

    def advance(self, chunk: Chunk, state: PatternCache) -> Tensor:
        """Attend to the blocks of each row of blocks, gathered from the cache once for a row."""
        if not state.longest:
            state.append(chunk)
            mask = None if chunk.is_even else chunk.is_real
            return self.attend(chunk.q, chunk.k, chunk.v, is_causal=True, key_padding_mask=mask)
        if self.kernel != "gathered_blocks":  # a module is slow to write to
            self.kernel = "gathered_blocks"
        even = state.is_even and chunk.is_even
        if chunk.size == 1:
            return self._newest(chunk, state) if even else self._newest_of_each(chunk, state)
        if even:
            before = state.longest
            state.append(chunk)
            out = torch.empty_like(chunk.q)
            self._rows(chunk.q, out, state, before, None)
            return out
        out = torch.zeros_like(chunk.q)
        groups = list(alike(state, chunk))
        state.append(chunk)
        for members, before, count in groups:
            q = chunk.q[members, :, :count]
            part = torch.empty_like(q)
            self._rows(q, part, state, before, members)
            out[members, :, :count] = part
        return out

    def _newest(self, chunk: Chunk, state: PatternCache) -> Tensor:
        """Attend from the last tokens of sequences that are equally long: ``[B, H, 1, D]``."""
        row, inside = divmod(state.longest - self.num_global_tokens, self.block_size)
        state.append(chunk)
        if row < 1:
            k, v = state.held()
        else:
            if state.latest is None or state.latest[0] != row:
                state.latest = row, self._keys_of_rows(row, 1, state, None)[:, :, 0]
            at = state.latest[1]
            seen = at.shape[2] - self.block_size + inside + 1
            k, v = (x.narrow(2, 0, seen) for x in state.gather(at))
        return sdpa_rows(chunk.q, k, v, hidden=None, scale=self.scale)

    def _rows(
        self, q: Tensor, out: Tensor, state: PatternCache, before: int, members: Tensor | None
    ) -> None:
        """Attend from the last tokens of sequences that are equally long, row by row.

        Args:
            q: ``[b, H, C, D]``, of tokens that are in the cache already.
            out: likewise, written to.
            state: the cache.
            before: tokens before these.
            members: which sequences, int64 ``[b]``; ``None`` = all.
        """
        first, size, end = self.num_global_tokens, self.block_size, before + q.shape[2]
        columns = first + (3 + self.num_random_blocks) * size
        cells = q.shape[0] * self.num_heads * columns * self.head_dim
        most = max(1, GATHERED_ELEMENTS.get(q.device.type, 2**22) // cells)  # rows at a time
        at = before
        while at < end:
            row, inside = divmod(at - first, size)
            count = 1
            if row < 1:  # the global tokens and block 0 see their past
                stop = min(end, first + size)
                some = slice(None) if members is None else members
                k, v = (x[some, :, :stop] for x in (state.k, state.v))
            else:
                if not inside and row >= 2 + self.num_random_blocks:  # all see as many blocks
                    count = max(1, min(most, (end - at) // size))
                stop = min(end, first + (row + count) * size)
                places = self._keys_of_rows(row, count, state, members)
                absent = first + (row + count) * size - stop  # of the last row: tokens to come
                places = places[..., : places.shape[3] - absent].contiguous()
                k, v = (x.flatten(0, 1) for x in state.gather(places))  # [b·H, count, K, D]
            here = slice(at - before, stop - before)
            x = q[:, :, here]
            if row >= 1:
                x = x.unflatten(2, (count, -1)).flatten(0, 1)  # [b·H, count, tokens, D]
            tokens, keys = x.shape[2], k.shape[2]
            hidden = torch.ones(tokens, keys, dtype=torch.bool, device=q.device)
            hidden = hidden.triu_(keys - tokens + 1)  # a token sees itself, and all before
            found = sdpa_rows(x, k, v, hidden=hidden, scale=self.scale, may_be_empty=False)
            out[:, :, here] = found.reshape(*out.shape[:2], -1, self.head_dim)
            at = stop

    def _keys_of_rows(
        self, row: int, count: int, state: PatternCache, members: Tensor | None
    ) -> Tensor:
        """Return the places of the keys of rows that see as many blocks: ``[b, H, count, K]``.

        Places are counted as in `PatternCache.start`. The global tokens, blocks of the past, and
        last the own block, which may reach beyond the end of the cache: the end in its place.
        """
        first, size, device = self.num_global_tokens, self.block_size, state.k.device
        blocks = 2 if row == 1 else 3 + min(self.num_random_blocks, row - 2)
        at = state.seen.narrow(1, row, count).narrow(2, 0, blocks).unsqueeze(3) * size
        at = (at + torch.arange(first, first + size, device=device)).flatten(2)
        at.clamp_(max=state.k.shape[2] - 1)  # [H, count, K]
        if first:
            everyone = torch.arange(first, device=device).expand(*at.shape[:2], -1)
            at = torch.cat([everyone, at], dim=2)
        return at + (state.start if members is None else state.start[members])

    def _newest_of_each(self, chunk: Chunk, state: PatternCache) -> Tensor:
        """Attend from the last token of sequences of any length: ``[B, H, 1, D]``."""
        own = state.lengths.clamp(max=state.k.shape[2] - 1)[:, None]  # [B, 1]; may be no token
        state.append(chunk)
        first, size = self.num_global_tokens, self.block_size
        row = (own - first).div(size, rounding_mode="floor").clamp_min_(0)
        blocks = state.seen[:, row].transpose(0, 1)  # [B, H, 1, 3 + r]
        inside = torch.arange(first, first + size, device=own.device)
        at = torch.where(blocks[..., None] >= 0, blocks[..., None] * size + inside, -1).flatten(3)
        everyone = torch.arange(first, device=own.device).expand(*at.shape[:3], -1)
        at = torch.cat([everyone, at], dim=3)  # [B, H, 1, K]
        hidden = (at < 0) | (at > own[:, None, :, None])
        k, v = state.gather((at.clamp_(0, state.k.shape[2] - 1) + state.start)[:, :, 0])
        # A token sees itself.
        return sdpa_rows(chunk.q, k, v, hidden=hidden, scale=self.scale, may_be_empty=False)

    def reference(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Mask dense attention by the pattern, built pair by pair from its definition."""
        at = query_positions(q.shape[2], rows, q.device)
        outs = []
        for row in range(q.shape[0]):
            mask = None if key_padding_mask is None else key_padding_mask[row : row + 1]
            start, stop = (0, q.shape[2]) if mask is None else _real_spans(mask)[0]
            seen = torch.zeros(
                self.num_heads, len(at), q.shape[2], dtype=torch.bool, device=q.device
            )
            inside = (at >= start) & (at < stop)
            grid = self._grid(stop - start, is_causal)
            seen[:, inside, start:stop] = self._dense_pattern(grid, at[inside] - start)
            if mask is not None:
                seen = seen & mask[0]
            one = slice(row, row + 1)
            outs.append(
                dense_softmax_attention(q[one, :, at], k[one], v[one], seen[None], self.scale)
            )
        return torch.cat(outs)

    def _dense_pattern(self, grid: BlockGrid, at: Tensor) -> Tensor:
        """Return which keys the queries at `at` see: bool ``[H, K, L]``."""
        position = torch.arange(grid.length, device=at.device)
        block = (position - grid.offset).div(grid.block_size, rounding_mode="floor")
        own = (at - grid.offset).div(grid.block_size, rounding_mode="floor")[:, None]
        last = -2 if grid.is_causal else grid.blocks - 1  # no last-block rule when causal
        everyone = (position < grid.offset) | (block == 0) | (block == last)
        sees_all = (at < grid.offset) | (own[:, 0] == 0) | (own[:, 0] == last)
        near = (block - own).abs() <= 1
        random = self._random_blocks(grid, at.device)
        picked = torch.zeros(
            self.num_heads, len(at), grid.length, dtype=torch.bool, device=at.device
        )
        if grid.blocks:
            chosen = random[:, own[:, 0].clamp(min=0)]  # [H, K, r]
            picked = (chosen[:, :, :, None] == block).any(dim=2) & (block >= 0) & (own >= 0)
        seen = picked | (near & (block >= 0) & (own >= 0)) | everyone | sees_all[:, None]
        return seen & (position <= at[:, None]) if grid.is_causal else seen

    def fixed_sizes(self) -> dict[str, int]:
        """Name the pattern: three blocks of window, the random ones, the first and the last."""
        return {"pattern": (3 + self.num_random_blocks + 2) * self.block_size}

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the pairs of the pattern and of the tiles and full rows that cover it."""
        grid = self._grid(problem.seq_len, problem.is_causal)
        plan = BlockPlan(
            grid,
            random_blocks(grid, 1, self.num_random_blocks, self.seed),
            device=torch.device("cpu"),
        )
        dim, heads = problem.head_dim, problem.batch * problem.num_heads
        training = mode == "training"
        executed, pairs = tiled_cost(plan, dim, training), plan.pattern_pairs()
        if self.kernel_on(problem.device) == "flex":
            executed = self._flex_cost(grid, dim, training)
        return Cost(
            pattern_ops=heads * softmax_ops(pairs, dim, mode),
            executed_ops=heads * executed,
            exponentials=heads * pairs,
            bytes=problem.io_bytes(mode),
        )

    def _flex_cost(self, grid: BlockGrid, dim: int, training: bool) -> int:
        """Count the operations of FlexAttention's tiles and of the full rows, for one head."""
        full = sum(
            (stop - start) * (stop if grid.is_causal else grid.length)
            for start, stop in grid.full_rows()
        )
        executed = full * 2 * dim * (7 if training else 2)
        shape = BlockShape(grid.length, grid.block_size, grid.global_tokens, grid.is_causal)
        if not shape.rows or grid.block_size % BLOCK_STEP:
            return executed
        random = random_blocks(grid, 1, self.num_random_blocks, self.seed)
        tiles = block_tiles(shape, [grid.length], [random], holes=False, device=random.device)
        return executed + flex_ops(tiles.covered_pairs, dim, training)


@dataclass(frozen=True)
class BlockGrid:
    """How a sequence of `length` tokens is cut into blocks.

    Attributes:
        length: tokens.
        block_size: tokens in a block; the last block may be shorter.
        global_tokens: extra global tokens before block 0.
        is_causal: whether the last block is an ordinary one.
    """

    length: int
    block_size: int
    global_tokens: int
    is_causal: bool

    @property
    def offset(self) -> int:
        """First token of block 0."""
        return min(self.global_tokens, self.length)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-(self.length - self.offset) // self.block_size)

    @property
    def is_small(self) -> bool:
        """Whether one masked square serves it."""
        return self.block_size < SMALL_BLOCK and self.length <= SMALL_LENGTH

    def start(self, block: int) -> int:
        """First token of a block (or the end of the sequence)."""
        return min(self.length, self.offset + block * self.block_size)

    def sparse_rows(self) -> range:
        """Rows of blocks that see part of the sequence only."""
        return range(1, self.blocks if self.is_causal else self.blocks - 1)

    def full_rows(self) -> list[tuple[int, int]]:
        """Ranges of queries that see everything: global tokens, first and last block."""
        head = (0, self.start(1))
        if self.is_causal or self.blocks < 2:
            return [head]
        return [head, (self.start(self.blocks - 1), self.length)]

    def window(self, block: int) -> tuple[int, int]:
        """Blocks ``lo:hi`` of a row's window that are not global already."""
        if self.is_causal:
            return max(1, block - 1), block + 1
        return max(1, block - 1), min(self.blocks - 1, block + 2)


class BlockPlan:
    """Tiles of one row of blocks each, and of the rows that see all; an `attention` plan of tiles.

    Of a small grid they are squares of all queries and keys.

    Args:
        grid: the blocks.
        random: random blocks ``[G, blocks, r]``, -1 = none.
        device: of the masks.
        hidden: bool ``[G, L]``, True = a hole in the sequence; or ``None``.
        unseen: of a small grid: bool ``[H, L, L]``, True = this pair is not seen, of group g that
            of head g mod H; for counting none is needed.
    """

    def __init__(
        self,
        grid: BlockGrid,
        random: Tensor,
        *,
        device: torch.device,
        hidden: Tensor | None = None,
        unseen: Tensor | None = None,
    ) -> None:
        self.grid, self.random, self.hidden, self.device = grid, random, hidden, device
        self.unseen = unseen
        self.groups = random.shape[0]
        self.block_size, self.block_offset = grid.block_size, grid.offset
        seen_by_all = tuple(grid.full_rows()) if grid.sparse_rows() else ()
        self.extra = sum(stop - start for start, stop in seen_by_all)
        self.extra_ranges = () if grid.is_small else seen_by_all
        self.may_be_empty = hidden is not None
        # A row has as many random blocks in every head: the count depends on the row alone.
        self.counts = (random[0] >= 0).sum(dim=1).tolist() if self.groups else []
        self._triangles: dict[int, Tensor] = {}

    def _shape(self, block: int) -> tuple[int, int, int, int]:
        """Return (rows, queries before the window ends, window, random blocks) of a row."""
        start, stop = self.grid.start(block), self.grid.start(block + 1)
        lo, hi = (self.grid.start(edge) for edge in self.grid.window(block))
        return stop - start, start - lo, hi - lo, self.counts[block]

    def _cells(self, block: int) -> int:
        rows, _, window, count = self._shape(block)
        return rows * (window + count * self.block_size + self.extra)

    def _full_rows(self) -> Iterator[tuple[int, int, int]]:
        """Walk (start, stop, keys) of the rows that see all (their past, when causal)."""
        for start, stop in self.grid.full_rows():
            yield start, stop, stop if self.grid.is_causal else self.grid.length

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk (rows, columns)."""
        if self.grid.is_small:
            return iter([(self.grid.length, self.grid.length)])
        return self._rows()

    def _rows(self) -> Iterator[tuple[int, int]]:
        """Walk (rows, columns), row of blocks by row of blocks."""
        for block in self.grid.sparse_rows():
            rows = self._shape(block)[0]
            yield rows, self._cells(block) // max(1, rows)
        for start, stop, reach in self._full_rows():
            yield stop - start, reach

    def pattern_pairs(self) -> int:
        """Count the pairs of the pattern, for one group."""
        pairs = sum(rows * columns for rows, columns in self._rows())
        if self.grid.is_causal:  # the own block counts up to the query
            sizes = [self._shape(block)[0] for block in self.grid.sparse_rows()]
            sizes += [stop - start for start, stop, _ in self._full_rows()]
            pairs -= sum(rows * (rows - 1) // 2 for rows in sizes)
        return pairs

    def batches(self, cells: int, *, disjoint: bool) -> Iterator[Tiles]:
        """Walk runs of equal rows along the sequence, other rows over the groups."""
        if self.grid.is_small:
            yield from self._squares(cells)
            return
        cells //= 2  # the gathered keys and values take as much again
        for first, count in self._runs():
            rows, _, window, _ = self._shape(first)
            spacing = -(-window // self.block_size) if disjoint else 1
            run = tiles_of_run(count, self.groups, cells, self._cells(first), spacing)
            if run is None:
                for block in range(first, first + count):
                    for group, number in tiles_of_groups(self.groups, cells, self._cells(block)):
                        yield self._row(block, group, number, 1, 1)
                continue
            for at, number, apart in run:
                for group in range(self.groups):
                    yield self._row(first + at, group, 1, number, apart)
        for start, stop, reach in self._full_rows():
            # Fewer rows would read all keys again and again; these scores are as large as q is.
            rows = max(FULL_ROWS, cells // (2 * max(1, reach)))
            for at in range(start, stop, rows):
                size = min(rows, stop - at)
                for group, number in tiles_of_groups(self.groups, cells, size * reach):
                    yield self._full(group, number, at, size, reach)

    def _squares(self, cells: int) -> Iterator[Tiles]:
        """Walk all queries and keys over the groups."""
        assert self.unseen is not None
        length = self.grid.length
        for group, count in tiles_of_groups(self.groups, cells, length * length):
            some = slice(group, group + count)
            head = torch.arange(group, group + count, device=self.device) % len(self.unseen)
            hidden: tuple[Hidden, ...] = (Hidden(0, length, self.unseen[head]),)
            if self.hidden is not None:
                hidden = (*hidden, Hidden(0, length, self.hidden[some, None]))
            yield Tiles(group, count, 0, length, 0, length, extra=False, hidden=hidden)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Walk (first, count) of neighbouring rows of equal shape."""
        for _, blocks in itertools.groupby(self.grid.sparse_rows(), key=self._shape):
            members = list(blocks)
            yield members[0], len(members)

    def _row(self, block: int, group: int, groups: int, count: int, apart: int) -> Tiles:
        """Return the tiles of a row of blocks and of `count - 1` more, `apart` rows apart."""
        rows, shift, window, picked = self._shape(block)
        start = self.grid.start(block)
        blocks = None
        if picked:
            last = block + (count - 1) * apart
            blocks = self.random[group : group + groups, block : last + 1 : apart, :picked]
            blocks = blocks.flatten(0, 1)
        tiles = Tiles(
            group, groups, start, rows, start - shift, window, count,
            apart * self.block_size, blocks=blocks,
        )  # fmt: skip
        hidden: tuple[Hidden, ...] = ()
        if self.grid.is_causal:
            hidden = (Hidden(shift, shift + rows, self._future(rows), is_shared=True),)
        if self.hidden is not None:
            hidden = (*hidden, self._holes(self.hidden, tiles))
        return replace(tiles, hidden=hidden)

    def _full(self, group: int, groups: int, start: int, rows: int, reach: int) -> Tiles:
        """Return tiles of rows that see all keys."""
        hidden: tuple[Hidden, ...] = ()
        if self.grid.is_causal:
            hidden = (Hidden(start, reach, self._future(reach - start)[:rows]),)
        if self.hidden is not None:
            holes = self.hidden[group : group + groups, None, :reach]
            hidden = (*hidden, Hidden(0, reach, holes))
        return Tiles(group, groups, start, rows, 0, reach, extra=False, hidden=hidden)

    def _future(self, size: int) -> Tensor:
        """Return what comes after each query of `size` among their own keys: ``[size, size]``."""
        if size not in self._triangles:
            ones = torch.ones(size, size, dtype=torch.bool, device=self.device)
            self._triangles[size] = ones.triu_(1)
        return self._triangles[size]

    def _holes(self, hidden: Tensor, tiles: Tiles) -> Hidden:
        """Mark the columns of tiles that are holes, ``[tiles, 1, columns]``."""
        parts = [tiles.window(hidden)]
        own = tiles.of_groups(hidden).expand(tiles.groups * tiles.count, -1)
        if tiles.blocks is not None:
            steps = torch.arange(self.block_size, device=self.device)
            at = self.block_offset + tiles.blocks[:, :, None] * self.block_size + steps
            parts.append(own.gather(1, at.flatten(1)))
        parts.extend(own[:, start:stop] for start, stop in self.extra_ranges)
        mask = torch.cat(parts, dim=1)
        return Hidden(0, mask.shape[1], mask[:, None, :])


def random_blocks(grid: BlockGrid, heads: int, count: int, seed: int) -> Tensor:
    """Choose `count` random blocks a row and head, without repetition, uniformly.

    Candidates of a row are the blocks outside its window that are not global: when causal, those
    of its past. A draw is a hash of (seed, head, row, draw) and, bidirectional, of the number of
    blocks; so causal choices do not depend on the length.

    Returns:
        int64 ``[heads, blocks, count]`` on the CPU; -1 where a row has fewer candidates.
    """
    total, cpu = grid.blocks, torch.device("cpu")  # whatever torch's default device is
    chosen = torch.full((heads, total, count), -1, dtype=torch.int64, device=cpu)
    rows = torch.tensor(grid.sparse_rows(), dtype=torch.int64, device=cpu)
    if not len(rows) or not count:
        return chosen
    lo = (rows - 1).clamp(min=1)  # the window, global blocks left out
    hi = rows + 1 if grid.is_causal else (rows + 2).clamp(max=total - 1)
    pool = lo - 1 if grid.is_causal else total - 2 - (hi - lo)
    stream = seed if grid.is_causal else seed + 0x51ED270B * total
    state = _mix(torch.full((heads, 1), stream, dtype=torch.int64, device=cpu))
    state = _mix(state ^ torch.arange(heads, dtype=torch.int64, device=cpu)[:, None])
    state = _mix(state ^ rows)
    picks: list[Tensor] = []  # ascending, as indices into the pool
    for draw in range(count):
        state = _mix(state + draw + 1)
        left = (pool - draw).clamp(min=1)
        pick = (state & (2**62 - 1)) % left
        for other in picks:  # step over what is taken already
            pick = pick + (pick >= other).to(torch.int64)
        picks = list(torch.stack([*picks, pick]).sort(dim=0).values.unbind(0))
        block = pick + 1  # candidates start at block 1, and leave out the window
        block = torch.where(block >= lo, block + (hi - lo), block)
        chosen[:, rows, draw] = torch.where(draw < pool, block, -1)
    return chosen


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 (Steele, Lea and Flood 2014, SplitMix64's finaliser; wraps around)."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift int64 right, filling with zeros."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Read 64 bits as a signed number."""
    return value - 2**64 if value >= 2**63 else value


def _cached(cache: dict[K, V], key: K, make: Callable[[], V]) -> V:
    """Return what is kept under `key`, made if it is not; the oldest of too many is dropped.

    Tensors without numbers, as an export makes them, are not kept.
    """
    if key in cache:
        return cache[key]
    made = make()
    if not isinstance(made, Tensor) or type(made) is Tensor:
        while len(cache) >= CACHED_PATTERNS:
            cache.pop(next(iter(cache)))
        cache[key] = made
    return made


def _real_spans(key_padding_mask: Tensor) -> list[tuple[int, int]]:
    """Return each row's span from its first to one past its last real token; (0, 0) if none."""
    length = key_padding_mask.shape[1]
    real = key_padding_mask.to(torch.int8)
    first = real.argmax(dim=1).tolist()
    last = (length - real.flip(1).argmax(dim=1)).tolist()
    some = key_padding_mask.any(dim=1).tolist()
    return [(a, b) if any_ else (0, 0) for a, b, any_ in zip(first, last, some, strict=True)]
