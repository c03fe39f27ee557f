"""How a call of linear attention is cut into blocks of chunks, and the walk over the blocks.

The sequence is cut into blocks of at most `BLOCK_FEATURES` features over all heads and
`BLOCK_CHUNKS` chunks; within a block nothing walks the sequence. Bidirectional, a block is one
product. Causal, its chunks of `CHUNK` tokens are handled at once: one batched product sums up each
chunk, one turns these into the sums over all that precedes each, two form the squares within
chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.kernels.linear.chunk_math import (
    Sums,
    causal_block,
    key_logits,
    logits,
    read,
    sums_of,
)
from attention.kernels.linear.features import Features, align, working_dtype

CHUNK = 128
"""Tokens in a causal chunk: with D = 64 its sums are half the size of its features."""

BLOCK_CHUNKS = 64
"""Most chunks in a block: joining their sums takes a square of them for each feature."""

BLOCK_FEATURES = 2**25
"""Most features computed at once, over all heads of the batch: 128 MiB in float32."""

Tokens = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Queries, keys, values, and which keys are hidden."""


@dataclass(frozen=True)
class Sizes:
    """How a call is cut.

    Attributes:
        chunk: tokens in a causal chunk, a power of two.
        block_chunks: most chunks in a block.
        block_features: most features in a block of more than one chunk.
    """

    chunk: int = CHUNK
    block_chunks: int = BLOCK_CHUNKS
    block_features: int = BLOCK_FEATURES

    def block(self, groups: int, rank: int) -> int:
        """Return the tokens in a block: whole chunks, at least one."""
        chunks = self.block_features // (groups * rank * self.chunk)
        return min(self.block_chunks, max(1, chunks)) * self.chunk


SIZES = Sizes()


@dataclass(frozen=True)
class Call:
    """What stays the same through a call."""

    features: Features
    is_causal: bool
    chunk: int
    block: int
    dtype: torch.dtype

    @classmethod
    def of(cls, q: Tensor, features: Features, is_causal: bool, sizes: Sizes) -> Call:
        """Cut a call on queries ``[G, N, D]``."""
        block = sizes.block(q.shape[0], features.projection.shape[0])
        return cls(features, is_causal, sizes.chunk, block, working_dtype(q.dtype))

    def with_projection(self, projection: Tensor) -> Call:
        """Return the call with the ω that was saved, which nobody has changed since."""
        return replace(self, features=replace(self.features, projection=projection))

    def spans(self, start: int, stop: int) -> list[slice]:
        """Cut a range of tokens into blocks."""
        return [slice(at, min(at + self.block, stop)) for at in range(start, stop, self.block)]

    def start(self, q: Tensor) -> Sums:
        """Return the sums before any key."""
        groups, _, dim = q.shape
        rank = self.features.projection.shape[0]
        zeros = torch.zeros(groups, rank, dim, dtype=self.dtype, device=q.device)
        top = torch.full_like(zeros[..., 0], self.features.lowest(self.dtype))
        return Sums(zeros, zeros[..., 0].clone(), top)

    def keys(self, k: Tensor, v: Tensor, hidden: Tensor | None) -> Sums:
        """Sum a block of keys."""
        of_keys = key_logits(k, self.features, self.dtype, hidden)
        return sums_of(of_keys, v.to(self.dtype), self.features)

    def queries(self, q: Tensor, sums: Sums) -> Tensor:
        """Let a block of queries read the sums."""
        return read(logits(q, self.features, self.dtype), sums, self.features).output()

    def causal(
        self, tokens: Tokens, carry: Sums, *, by_halves: bool, check_range: bool
    ) -> tuple[Tensor, Sums, bool]:
        """Run `causal_block` on any number of tokens, up to whole chunks by hidden keys."""
        q, k, v, hidden = tokens
        length = q.shape[1]
        if missing := -length % self.chunk:
            if hidden is None:
                hidden = torch.zeros(q.shape[:2], dtype=torch.bool, device=q.device)
            q, k, v = (pad(x, (0, 0, 0, missing)) for x in (q, k, v))
            hidden = pad(hidden, (0, missing), value=True)
        out, after, lost = causal_block(
            q, k, v, hidden, carry, self.features, self.chunk,
            by_halves=by_halves, check_range=check_range,
        )  # fmt: skip
        return out[:, :length], after, lost


def cut(hidden: Tensor | None, span: slice) -> Tensor | None:
    """Return the part of a mask ``[G, M]``; ``None`` of none."""
    return None if hidden is None else hidden[:, span]


def sum_keys(
    call: Call, sums: Sums, k: Tensor, v: Tensor, hidden: Tensor | None, stop: int
) -> Sums:
    """Add the keys before `stop` to sums."""
    for span in call.spans(0, stop):
        sums = sums.plus(call.keys(k[:, span], v[:, span], cut(hidden, span)), call.features)
    return sums


def square(tokens: Tokens, span: slice, q_at: int, k_at: int) -> tuple[Tokens, slice, slice]:
    """Return a block's tokens and where they are in queries and keys.

    Args:
        tokens: of the call.
        span: the block, counted in the causal square.
        q_at: where that starts in the queries.
        k_at: and in the keys.
    """
    q, k, v, hidden = tokens
    rows = slice(q_at + span.start, q_at + span.stop)
    keys = slice(k_at + span.start, k_at + span.stop)
    return (q[:, rows], k[:, keys], v[:, keys], cut(hidden, keys)), rows, keys


def blocks(
    call: Call, tokens: Tokens, before: Sums | None, carries: list[Sums], halves: list[bool]
) -> Iterator[tuple[slice, Tensor]]:
    """Walk the queries that see a key: which, and their output.

    Args:
        call: what stays the same.
        tokens: ``[G, N, D]``, ``[G, M, D]``, ``[G, M, D]`` and ``[G, M]`` or ``None``.
        before: sums over further keys, which all queries see; or ``None``.
        carries: gets the sums before the first block and after each causal one.
        halves: gets whether each causal block was computed by halves.
    """
    q, k, v, hidden = tokens
    length, q_at, k_at = align(q, k) if call.is_causal else (q.shape[1], 0, k.shape[1])
    sums = sum_keys(call, call.start(q) if before is None else before, k, v, hidden, k_at)
    carries.append(sums)
    if not call.is_causal:
        for span in call.spans(0, length):
            yield span, call.queries(q[:, span], sums)
        return
    for span in call.spans(0, length):
        part, rows, _ = square(tokens, span, q_at, k_at)
        out, after, lost = call.causal(
            part, carries[-1], by_halves=False, check_range=call.features.is_exponential
        )
        if lost:
            out, after, _ = call.causal(part, carries[-1], by_halves=True, check_range=False)
        yield rows, out
        halves.append(lost)
        carries.append(after)


def plain_call(call: Call, tokens: Tokens, before: Sums | None) -> Tensor:
    """Do the whole call by operations that autograd follows."""
    q = tokens[0]
    outs = [out.to(q.dtype) for _, out in blocks(call, tokens, before, [], [])]
    seeing = sum(out.shape[1] for out in outs)
    blind = torch.zeros_like(q[:, : q.shape[1] - seeing])
    return torch.cat([blind, *outs], dim=1)


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None, *, is_causal: bool
) -> Tensor:
    """Do `attention.kernels.linear.chunked.chunked_attention` so that autograd follows it.

    It can be differentiated any number of times.
    """
    return plain_call(Call.of(q, features, is_causal, SIZES), (q, k, v, hidden), None)
