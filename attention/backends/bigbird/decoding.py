"""Decoding over blocks: the keys that a row of blocks reads are gathered from a cache of all."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.backends.bigbird.pattern import BlockPattern
from attention.decoding.caches import KeyValueCache
from attention.decoding.chunk import Chunk
from attention.decoding.state import StateShape, alike
from attention.kernels.fused import sdpa_rows

GATHERED_ELEMENTS = {"cpu": 2**18}
"""Elements of the keys gathered at a time, while decoding; 2²² elsewhere. On a CPU: of a row or
two, which then lie in its cache."""


class PatternCache(KeyValueCache):
    """All keys and values, and which blocks a row reads.

    Attributes:
        seen: blocks that a row of blocks sees, ``[H, blocks, 3 + r]``; `BlockPattern.blocks_seen`.
        start: where the keys of a head begin, all sequences and their heads counted as one:
            ``[B, H, 1, 1]``.
        latest: the row that the last step was in, and where its keys are, by `start`; or ``None``.
    """

    append_only = KeyValueCache.append_only | {"seen", "start"}

    def __init__(self, made_by: str, shape: StateShape, pattern: BlockPattern) -> None:
        super().__init__(made_by, shape)
        assert shape.max_len is not None
        with torch.inference_mode(mode=False):
            self.seen = pattern.blocks_seen(shape.max_len, shape.device)
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


def prefill(chunk: Chunk, state: PatternCache, pattern: BlockPattern, scale: float) -> Tensor:
    """Attend from the tokens of a chunk, each row's blocks gathered from the cache once.

    Args:
        chunk: not the first.
        state: the cache, which takes the chunk in.
        pattern: the blocks.
        scale: factor on the scores.

    Returns:
        ``[B, H, C, D]``.
    """
    if state.is_even and chunk.is_even:
        before = state.longest
        state.append(chunk)
        out = torch.empty_like(chunk.q)
        _walk_rows(chunk.q, out, state, pattern, before, None, scale)
        return out
    out = torch.zeros_like(chunk.q)
    groups = list(alike(state, chunk))
    state.append(chunk)
    for members, before, count in groups:
        q = chunk.q[members, :, :count]
        part = torch.empty_like(q)
        _walk_rows(q, part, state, pattern, before, members, scale)
        out[members, :, :count] = part
    return out


def decode_step(chunk: Chunk, state: PatternCache, pattern: BlockPattern, scale: float) -> Tensor:
    """Attend from the last tokens of sequences that are equally long: ``[B, H, 1, D]``."""
    row, inside = divmod(state.longest - pattern.num_global_tokens, pattern.block_size)
    state.append(chunk)
    if row < 1:
        k, v = state.held()
    else:
        if state.latest is None or state.latest[0] != row:
            state.latest = row, _keys_of_rows(row, 1, state, pattern, None)[:, :, 0]
        at = state.latest[1]  # [B, H, K], the own block last
        seen = at.shape[2] - pattern.block_size + inside + 1
        k, v = (x.narrow(2, 0, seen) for x in state.gather(at))
    return sdpa_rows(chunk.q, k, v, hidden=None, scale=scale)


def decode_step_of_each(
    chunk: Chunk, state: PatternCache, pattern: BlockPattern, scale: float
) -> Tensor:
    """Attend from the last token of sequences of any length: ``[B, H, 1, D]``."""
    newest = state.lengths.clamp(max=state.k.shape[2] - 1)[:, None]  # [B, 1]; may be no token
    state.append(chunk)
    first, size = pattern.num_global_tokens, pattern.block_size
    row = (newest - first).div(size, rounding_mode="floor").clamp_min_(0)
    blocks = state.seen[:, row].transpose(0, 1)  # [B, H, 1, 3 + r]
    inside = torch.arange(first, first + size, device=newest.device)
    at = torch.where(blocks[..., None] >= 0, blocks[..., None] * size + inside, -1).flatten(3)
    everyone = torch.arange(first, device=newest.device).expand(*at.shape[:3], -1)
    at = torch.cat([everyone, at], dim=3)  # [B, H, 1, K]
    hidden = (at < 0) | (at > newest[:, None, :, None])
    k, v = state.gather((at.clamp_(0, state.k.shape[2] - 1) + state.start)[:, :, 0])
    # A token sees itself.
    return sdpa_rows(chunk.q, k, v, hidden=hidden, scale=scale, may_be_empty=False)


def _walk_rows(
    q: Tensor, out: Tensor, state: PatternCache, pattern: BlockPattern, before: int,
    members: Tensor | None, scale: float,
) -> None:  # fmt: skip
    """Attend from the last tokens of sequences that are equally long, row by row.

    Args:
        q: ``[b, H, C, D]``, of tokens that are in the cache already.
        out: likewise, written to.
        state: the cache.
        pattern: the blocks.
        before: tokens before these.
        members: which sequences, int64 ``[b]``; ``None`` = all.
        scale: factor on the scores.
    """
    first, size = pattern.num_global_tokens, pattern.block_size
    batch, heads, tokens, dim = q.shape
    end = before + tokens
    columns = first + (3 + pattern.num_random_blocks) * size
    cells = batch * heads * columns * dim
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
            if not inside and row >= 2 + pattern.num_random_blocks:  # all see as many blocks
                count = max(1, min(most, (end - at) // size))
            stop = min(end, first + (row + count) * size)
            places = _keys_of_rows(row, count, state, pattern, members)
            absent = first + (row + count) * size - stop  # of the last row: tokens to come
            places = places[..., : places.shape[3] - absent].contiguous()
            k, v = (x.flatten(0, 1) for x in state.gather(places))  # [b·H, count, K, D]
        here = slice(at - before, stop - before)
        x = q[:, :, here]
        if row >= 1:
            x = x.unflatten(2, (count, -1)).flatten(0, 1)  # [b·H, count, tokens, D]
        hidden = torch.ones(x.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        hidden = hidden.triu_(k.shape[2] - x.shape[2] + 1)  # a token sees itself, and all before
        rows = sdpa_rows(x, k, v, hidden=hidden, scale=scale, may_be_empty=False)
        out[:, :, here] = rows.reshape(batch, heads, -1, dim)
        at = stop


def _keys_of_rows(
    row: int, count: int, state: PatternCache, pattern: BlockPattern, members: Tensor | None
) -> Tensor:
    """Return the places of the keys of rows that see as many blocks: ``[b, H, count, K]``.

    Places are counted as in `PatternCache.start`. The global tokens, blocks of the past, and
    last the own block, which may reach beyond the end of the cache: the end in its place.
    """
    first, size, device = pattern.num_global_tokens, pattern.block_size, state.k.device
    blocks = 2 if row == 1 else 3 + min(pattern.num_random_blocks, row - 2)
    at = state.seen.narrow(1, row, count).narrow(2, 0, blocks).unsqueeze(3) * size
    at = (at + torch.arange(first, first + size, device=device)).flatten(2)
    at.clamp_(max=state.k.shape[2] - 1)  # [H, count, K]
    if first:
        everyone = torch.arange(first, device=device).expand(*at.shape[:2], -1)
        at = torch.cat([everyone, at], dim=2)
    return at + (state.start if members is None else state.start[members])
