"""Kernel attention ``φ(Q)(φ(K)ᵀV)`` in few, large batched products: for a GPU.

The same sums as `attention.kernels.linear_tiled`, in another order. The sequence is cut into
blocks of at most `BLOCK_FEATURES` features over all heads and `BLOCK_CHUNKS` chunks; within a
block nothing walks the sequence. Bidirectional, a block is one product. Causal, its chunks of
`CHUNK` tokens are handled at once: one batched product sums up each chunk, one turns these into
the sums over all that precedes each, two form the squares within chunks.

**Range.** Feature r of the keys is divided by ``exp(m_r)``, m_r the largest logit among those
keys, and the queries multiply it back before their row maximum is removed. What precedes a chunk
has a maximum of its own, the running one; sums shrink by ``exp(old - new)`` <= 1 where it rises.
The chunk itself has another. So each part of a row is ``exp(a)·(number, total)`` with a term of 1
in its total, and parts are joined by their a. But a chunk's maximum may come from keys that a
query does not see. Where that leaves a query nothing but underflow, the block is computed again by
halves: in a chunk the right half reads the left half, all of which it sees, then both are halved,
down to single tokens. That holds at any range, and costs ``log2(CHUNK)`` times the exponentials.

**Memory** above the output: some ten times `BLOCK_FEATURES` numbers forward, some twenty backward,
whatever the length; and for the backward pass of a causal call the sums before each block,
``[G, R, D]``. Nothing of size ``N·R``: the backward pass computes a block anew and differentiates
it alone.

Half precision is computed in float32; products are then as exact as
``torch.set_float32_matmul_precision`` asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients

CHUNK = 128
"""Tokens in a causal chunk: with D = 64 its sums are half the size of its features."""

BLOCK_CHUNKS = 64
"""Most chunks in a block: joining their sums takes a square of them for each feature."""

BLOCK_FEATURES = 2**25
"""Most features computed at once, over all heads of the batch: 128 MiB in float32."""


class FeatureMap(Protocol):
    """A feature map, as `attention.kernels.linear_tiled.Features` describes it."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def projection(self) -> Tensor:
        """Return ω ``[R, D]``."""

    @property
    def scale(self) -> float:
        """Return the factor on x before anything else."""

    @property
    def kind(self) -> str:
        """Return ``softmax`` or ``relu``."""

    @property
    def epsilon(self) -> float:
        """Return what is added to ReLU features."""


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


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    features: FeatureMap,
    hidden: Tensor | None = None,
    *,
    is_causal: bool,
    before: Sums | None = None,
    sizes: Sizes = SIZES,
) -> Tensor:
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
    k: Tensor,
    v: Tensor,
    features: FeatureMap,
    hidden: Tensor | None = None,
    *,
    sizes: Sizes = SIZES,
) -> Sums:
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


# -- features -------------------------------------------------------------------------------------


def logits(x: Tensor, features: FeatureMap, dtype: torch.dtype) -> Tensor:
    """Return ``ωx - |x|²/2`` of the scaled tokens (softmax), or ``φ`` itself (ReLU)."""
    x = x.to(dtype) * features.scale
    projected = x @ features.projection.to(dtype).T
    if features.kind == "relu":
        return torch.relu(projected) + features.epsilon
    return projected - 0.5 * (x * x).sum(dim=-1, keepdim=True)


def key_logits(
    x: Tensor, features: FeatureMap, dtype: torch.dtype, hidden: Tensor | None
) -> Tensor:
    """Return `logits` of keys; a hidden one has features of zero."""
    found = logits(x, features, dtype)
    if hidden is None:
        return found
    return found.masked_fill(hidden[..., None], _nothing(features, dtype))


def _nothing(features: FeatureMap, dtype: torch.dtype) -> float:
    """Return the logit of a feature that is zero."""
    return torch.finfo(dtype).min if features.kind == "softmax" else 0.0


def top_of(found: Tensor, features: FeatureMap) -> Tensor:
    """Return each feature's largest logit over the tokens ``[..., R]``; 0 for ReLU features."""
    if features.kind == "relu":
        return torch.zeros_like(found[..., 0, :])
    return found.detach().amax(dim=-2)


def key_features(found: Tensor, top: Tensor, features: FeatureMap) -> Tensor:
    """Return φ of keys divided by ``exp(top)``: ``[..., T, R]``, `top` ``[..., R]``."""
    if features.kind == "relu":
        return found
    lowest = torch.finfo(found.dtype).min
    # Where no key is seen yet the top is the lowest number, and a hidden key would have φ = 1.
    return torch.where(found > lowest, (found - top[..., None, :]).exp(), 0.0)


def query_features(found: Tensor, top: Tensor, features: FeatureMap) -> tuple[Tensor, Tensor]:
    """Return φ of queries times ``exp(top)`` over their row maximum, and its logarithm."""
    if features.kind == "relu":
        return found, torch.zeros_like(found[..., :1])
    raised = found + top[..., None, :]
    row = raised.detach().amax(dim=-1, keepdim=True)
    return (raised - row).exp(), row


# -- sums over keys -------------------------------------------------------------------------------


class Sums(NamedTuple):
    """``Σ φ(k)(v, 1)ᵀ`` relative to a top: ``[..., R, D]``, ``[..., R]``, ``[..., R]``."""

    s: Tensor
    z: Tensor
    top: Tensor

    def relative_to(self, top: Tensor, features: FeatureMap) -> Sums:
        """Shrink the sums to a larger top."""
        if features.kind == "relu":
            return self
        shrink = (self.top - top).exp()
        return Sums(self.s * shrink[..., None], self.z * shrink, top)

    def plus(self, other: Sums, features: FeatureMap) -> Sums:
        """Join two sums under the larger top."""
        top = torch.maximum(self.top, other.top)
        mine, its = (x.relative_to(top, features) for x in (self, other))
        return Sums(mine.s + its.s, mine.z + its.z, top)


def sums_of(found: Tensor, v: Tensor, features: FeatureMap) -> Sums:
    """Sum keys and values over the tokens: ``[..., T, R]``, ``[..., T, D]``."""
    top = top_of(found, features)
    phi = key_features(found, top, features)
    return Sums(phi.mT @ v, phi.sum(dim=-2), top)


def joined(parts: Sums, read: Sequence[bool], features: FeatureMap) -> Sums:
    """Join the sums of parts ``[P, ...]``, those that are `read`, under their largest top."""
    wanted = torch.tensor(read, device=parts.s.device)
    blank = _nothing(features, parts.s.dtype)
    tops = torch.where(wanted[:, None, None], parts.top, blank)
    top = tops.amax(dim=0)
    # Where nothing is read the top is the lowest number: what is not read has no weight there.
    shrink = (tops - top).exp() if features.kind == "softmax" else torch.ones_like(tops)
    shrink = shrink * wanted[:, None, None]
    return Sums((parts.s * shrink[..., None]).sum(dim=0), (parts.z * shrink).sum(dim=0), top)


def prefix_sums(chunks: Sums, carry: Sums, features: FeatureMap) -> Sums:
    """Return the sums over all that precedes each chunk, and over everything.

    Args:
        chunks: of each chunk alone ``[G, C, R, ...]``.
        carry: of what precedes the first ``[G, R, ...]``.
        features: the map φ.

    Returns:
        ``[G, C + 1, R, ...]``, the carry alone first; each relative to the largest top so far.
    """
    s, z, top = (torch.cat([a[:, None], b], dim=1) for a, b in zip(carry, chunks, strict=True))
    if features.kind == "relu":
        return Sums(s.cumsum(dim=1), z.cumsum(dim=1), top)
    running = top.cummax(dim=1).values
    future = torch.ones(top.shape[1], top.shape[1], dtype=torch.bool, device=top.device).triu(1)
    tops, runs = top.mT, running.mT  # [G, R, C + 1]
    shrink = (tops[:, :, None, :] - runs[:, :, :, None]).masked_fill(future, -torch.inf).exp()
    joined = (shrink @ s.transpose(1, 2)).transpose(1, 2)
    return Sums(joined, (shrink @ z.mT[..., None])[..., 0].mT, running)


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


def read(found: Tensor, sums: Sums, features: FeatureMap) -> Read:
    """Let queries read the sums of keys that they all see."""
    phi, row = query_features(found, sums.top, features)
    return _weighed(phi @ sums.s, phi @ sums.z[..., None], row)


def _weighed(number: Tensor, total: Tensor, row: Tensor) -> Read:
    """Give a part that holds no key no weight, wherever its row maximum lies."""
    lowest = torch.finfo(row.dtype).min
    return Read(number, total, torch.where(total > 0, row, lowest))


def read_square(q: Tensor, k: Tensor, v: Tensor, features: FeatureMap, causal: bool) -> Read:
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
    weights = phi @ key_features(k, top, features).mT
    weights = weights.tril() if causal else weights
    return _weighed(weights @ v, weights.sum(dim=-1, keepdim=True), row)


def read_by_halves(q: Tensor, k: Tensor, v: Tensor, features: FeatureMap) -> Read:
    """Read the keys of a chunk up to oneself at any range: softmax features, T a power of two."""
    found = read_oneself(q, k, v)
    size = q.shape[2]
    while size > 1:
        size //= 2
        (_, right), (left, _), (values, _) = (_halves(x, size) for x in (q, k, v))
        part = read_square(right, left, values, features, causal=False)
        blank = (0.0, 0.0, torch.finfo(q.dtype).min)
        whole = (_beside(fill, x) for x, fill in zip(part, blank, strict=True))
        found = found.plus(Read(*(x.view(y.shape) for x, y in zip(whole, found, strict=True))))
    return found


def read_oneself(q: Tensor, k: Tensor, v: Tensor) -> Read:
    """Let each query read the key at its own position."""
    row = (q + k).detach().amax(dim=-1, keepdim=True)
    seen = (k > torch.finfo(k.dtype).min).any(dim=-1, keepdim=True)
    total = torch.where(seen, (q + k - row).exp().sum(dim=-1, keepdim=True), 0.0)
    return _weighed(total * v, total, row)


def _halves(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Cut ``[G, C, T, ...]`` into pieces of two halves: twice ``[G, C·T/2h, h, ...]``."""
    pieces = x.unflatten(2, (-1, 2, half)).flatten(1, 2)
    return pieces[:, :, 0], pieces[:, :, 1]


def _beside(fill: float, x: Tensor) -> Tensor:
    """Put right halves ``[G, P, h, ...]`` beside left ones of `fill`: ``[G, P, 2, h, ...]``."""
    return torch.stack([torch.full_like(x, fill), x], dim=2)


# -- one block ------------------------------------------------------------------------------------


def causal_block(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    hidden: Tensor | None,
    carry: Sums,
    features: FeatureMap,
    chunk: int,
    *,
    by_halves: bool,
    check_range: bool,
) -> tuple[Tensor, Sums, bool]:
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
    v = v.to(dtype).unflatten(1, (-1, chunk))
    found_q = logits(q, features, dtype).unflatten(1, (-1, chunk))
    found_k = key_logits(k, features, dtype, hidden).unflatten(1, (-1, chunk))
    before = prefix_sums(sums_of(found_k, v, features), carry, features)
    earlier = read(found_q, Sums(*(x[:, :-1] for x in before)), features)
    if by_halves:
        within, lost = read_by_halves(found_q, found_k, v, features), False
    else:
        within = read_square(found_q, found_k, v, features, causal=True)
        lost = check_range and underflows(within.total.flatten(1), hidden, chunk)
    out = earlier.plus(within).output().flatten(1, 2)
    return out, Sums(*(x[:, -1] for x in before)), lost


def underflows(total: Tensor, hidden: Tensor | None, chunk: int) -> bool:
    """Whether a query sees keys of its chunk, but none above underflow.

    They then lie a factor of 1e25 (float32) below keys that come later in the chunk.

    Args:
        total: of each query within its chunk ``[G, T]``.
        hidden: bool ``[G, T]`` or ``None``.
        chunk: tokens in a chunk.
    """
    lost = total <= torch.finfo(total.dtype).tiny ** (2 / 3)
    if hidden is not None:
        seen = (~hidden).unflatten(1, (-1, chunk)).cumsum(dim=2) > 0
        lost = lost & seen.flatten(1)
    return bool(lost.any())


# -- the whole sequence ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """What stays the same through a call."""

    features: FeatureMap
    is_causal: bool
    chunk: int
    block: int
    dtype: torch.dtype

    @classmethod
    def of(cls, q: Tensor, features: FeatureMap, is_causal: bool, sizes: Sizes) -> _Call:
        half = q.dtype in (torch.float16, torch.bfloat16)
        return cls(
            features=features,
            is_causal=is_causal,
            chunk=sizes.chunk,
            block=sizes.block(q.shape[0], features.projection.shape[0]),
            dtype=torch.float32 if half else q.dtype,
        )

    def with_projection(self, projection: Tensor) -> _Call:
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
        top = torch.full_like(zeros[..., 0], _nothing(self.features, self.dtype))
        return Sums(zeros, zeros[..., 0].clone(), top)

    def keys(self, k: Tensor, v: Tensor, hidden: Tensor | None) -> Sums:
        """Sum a block of keys."""
        found = key_logits(k, self.features, self.dtype, hidden)
        return sums_of(found, v.to(self.dtype), self.features)

    def queries(self, q: Tensor, sums: Sums) -> Tensor:
        """Let a block of queries read the sums."""
        return read(logits(q, self.features, self.dtype), sums, self.features).output()

    def padded(
        self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Fill a block up to whole chunks with hidden keys."""
        pad = -q.shape[1] % self.chunk
        if not pad:
            return q, k, v, hidden
        if hidden is None:
            hidden = torch.zeros(q.shape[:2], dtype=torch.bool, device=q.device)
        fill = torch.nn.functional.pad
        q, k, v = (fill(x, (0, 0, 0, pad)) for x in (q, k, v))
        return q, k, v, fill(hidden, (0, pad), value=True)


def _cut(hidden: Tensor | None, span: slice) -> Tensor | None:
    return None if hidden is None else hidden[:, span]


def _run_causal(
    call: _Call,
    part: tuple[Tensor, Tensor, Tensor, Tensor | None],
    carry: Sums,
    *,
    by_halves: bool,
    check_range: bool,
) -> tuple[Tensor, Sums, bool]:
    """Run `causal_block` on any number of tokens."""
    out, after, lost = causal_block(
        *call.padded(*part), carry, call.features, call.chunk,
        by_halves=by_halves, check_range=check_range,
    )  # fmt: skip
    return out[:, : part[0].shape[1]], after, lost


def _given(s: Tensor | None, z: Tensor | None, top: Tensor | None) -> Sums | None:
    return None if s is None or z is None or top is None else Sums(s, z, top)


def _sum_keys(
    call: _Call, sums: Sums, k: Tensor, v: Tensor, hidden: Tensor | None, stop: int
) -> Sums:
    """Add the keys before `stop` to sums."""
    for span in call.spans(0, stop):
        sums = sums.plus(call.keys(k[:, span], v[:, span], _cut(hidden, span)), call.features)
    return sums


def _blocks(
    call: _Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before: Sums | None,
    hidden: Tensor | None,
    carries: list[Sums],
    halves: list[bool],
) -> Iterator[tuple[slice, Tensor]]:
    """Walk the queries that see a key: which, and their output.

    Args:
        call: what stays the same.
        q: ``[G, N, D]``.
        k: ``[G, M, D]``.
        v: ``[G, M, D]``.
        before: sums over further keys, which all queries see; or ``None``.
        hidden: bool ``[G, M]``, True = this key takes no part; or ``None``.
        carries: gets the sums before the first block and after each causal one.
        halves: gets whether each causal block was computed by halves.
    """
    q_at, k_at = _align(q, k) if call.is_causal else (0, k.shape[1])
    sums = _sum_keys(call, call.start(q) if before is None else before, k, v, hidden, k_at)
    carries.append(sums)
    if not call.is_causal:
        for span in call.spans(0, q.shape[1]):
            yield span, call.queries(q[:, span], sums)
        return
    checked = call.features.kind == "softmax"
    for span in call.spans(0, q.shape[1] - q_at):
        part = _square(q, k, v, hidden, span, q_at, k_at)
        block, after, lost = _run_causal(
            call, part, carries[-1], by_halves=False, check_range=checked
        )
        if lost:
            block, after, _ = _run_causal(
                call, part, carries[-1], by_halves=True, check_range=False
            )
        yield slice(q_at + span.start, q_at + span.stop), block
        halves.append(lost)
        carries.append(after)


def _plain(
    call: _Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before: Sums | None,
    hidden: Tensor | None,
) -> Tensor:
    """Do the whole call by operations that autograd follows."""
    outs = [block.to(q.dtype) for _, block in _blocks(call, q, k, v, before, hidden, [], [])]
    seeing = sum(out.shape[1] for out in outs)
    blind = torch.zeros_like(q[:, : q.shape[1] - seeing])
    return torch.cat([blind, *outs], dim=1)


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    features: FeatureMap,
    hidden: Tensor | None,
    *,
    is_causal: bool,
) -> Tensor:
    """Do `chunked_attention` by operations that autograd follows, any number of times."""
    call = _Call.of(q, features, is_causal, SIZES)
    return _plain(call, q, k, v, None, hidden)


class _Chunked(torch.autograd.Function):
    """The whole call, forward and backward.

    N and M may differ: causal, keys before the first query are summed up, queries before the first
    key give zeros, the rest is square.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        s: Tensor | None,
        z: Tensor | None,
        top: Tensor | None,
        features: FeatureMap,
        hidden: Tensor | None,
        is_causal: bool,
        sizes: Sizes,
    ) -> Tensor:
        call = _Call.of(q, features, is_causal, sizes)
        out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
        carries, halves = list[Sums](), list[bool]()
        before = _given(s, z, top)
        for rows, block in _blocks(call, q, k, v, before, hidden, carries, halves):
            out[:, rows] = block
        carries = carries[: max(1, len(halves))]  # the last block's successor has no reader
        saved = (q, k, v, s, z, top, hidden, features.projection)
        ctx.save_for_backward(*saved, *(x for carry in carries for x in carry))
        ctx.call, ctx.halves = call, halves
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, s, z, top, hidden, projection, *flat = ctx.saved_tensors
        call: _Call = ctx.call.with_projection(projection)
        if must_be_plain(grad):

            def plain(
                q: Tensor, k: Tensor, v: Tensor, s: Tensor | None, z: Tensor | None
            ) -> Tensor:
                return _plain(call, q, k, v, _given(s, z, top), hidden)

            dq, dk, dv, ds, dz = plain_gradients(plain, (q, k, v, s, z), grad)
            return dq, dk, dv, ds, dz, None, None, None, None, None
        carries = [Sums(*flat[at : at + 3]) for at in range(0, len(flat), 3)]
        grads = [torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)]
        q_at, k_at = _align(q, k) if call.is_causal else (0, k.shape[1])
        later = [torch.zeros_like(carries[0].s), torch.zeros_like(carries[0].z)]
        if not call.is_causal:
            for span in call.spans(0, q.shape[1]):
                _query_gradients(call, q, grad, carries[0], span, grads[0], later)
        else:
            spans = call.spans(0, q.shape[1] - q_at)
            for index in reversed(range(len(spans))):
                part = _square(q, k, v, hidden, spans[index], q_at, k_at)
                at = slice(q_at + spans[index].start, q_at + spans[index].stop)
                later = _block_gradients(
                    call, part, carries[index], ctx.halves[index], grad[:, at], later, grads,
                    (at, slice(k_at + spans[index].start, k_at + spans[index].stop)),
                )  # fmt: skip
        for span in call.spans(0, k_at):
            _key_gradients(call, k, v, hidden, carries[0].top, span, grads[1:], later)
        before: tuple[Tensor | None, ...] = (None, None, None)
        if top is not None:
            earlier = Sums(later[0], later[1], top)
            before = (*earlier.relative_to(carries[0].top, call.features)[:2], None)
        return grads[0], grads[1], grads[2], *before, None, None, None, None


class _KeySums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        k: Tensor,
        v: Tensor,
        features: FeatureMap,
        hidden: Tensor | None,
        sizes: Sizes,
    ) -> tuple[Tensor, Tensor, Tensor]:
        call = _Call.of(k, features, False, sizes)
        sums = _sum_keys(call, call.start(k), k, v, hidden, k.shape[1])
        ctx.save_for_backward(k, v, hidden, features.projection, sums.top)
        ctx.call = call
        ctx.mark_non_differentiable(sums.top)
        return sums.s, sums.z, sums.top

    @staticmethod
    def backward(ctx: Any, ds: Tensor, dz: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        k, v, hidden, projection, top = ctx.saved_tensors
        call: _Call = ctx.call.with_projection(projection)
        if must_be_plain(ds):

            def plain(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
                sums = _sum_keys(call, call.start(k), k, v, hidden, k.shape[1])
                return sums.s, sums.z

            return *plain_gradients(plain, (k, v), (ds, dz)), None, None, None
        grads = [torch.zeros_like(x) for x in (k, v)]
        for span in call.spans(0, k.shape[1]):
            _key_gradients(call, k, v, hidden, top, span, grads, [ds, dz])
        return grads[0], grads[1], None, None, None


def _align(q: Tensor, k: Tensor) -> tuple[int, int]:
    """Return where the square part starts in queries and keys."""
    length = min(q.shape[1], k.shape[1])
    return q.shape[1] - length, k.shape[1] - length


def _square(
    q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, span: slice, q_at: int, k_at: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return a block's tokens; `span` counts in the square part."""
    rows = slice(q_at + span.start, q_at + span.stop)
    keys = slice(k_at + span.start, k_at + span.stop)
    return q[:, rows], k[:, keys], v[:, keys], _cut(hidden, keys)


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in tensors]


def _query_gradients(
    call: _Call,
    q: Tensor,
    grad: Tensor,
    sums: Sums,
    span: slice,
    grad_q: Tensor,
    later: list[Tensor],
) -> None:
    """Write the gradients of a block of queries; add theirs to those of the sums."""
    with torch.enable_grad():
        x, s, z = _leaves(q[:, span], sums.s, sums.z)
        out = call.queries(x, Sums(s, z, sums.top))
    grad_q[:, span], ds, dz = torch.autograd.grad(out, (x, s, z), grad[:, span].to(out.dtype))
    later[0] += ds
    later[1] += dz


def _key_gradients(
    call: _Call,
    k: Tensor,
    v: Tensor,
    hidden: Tensor | None,
    top: Tensor,
    span: slice,
    grads: list[Tensor],
    later: list[Tensor],
) -> None:
    """Write the gradients of keys that every later query sees; `later` is relative to `top`."""
    with torch.enable_grad():
        x, y = _leaves(k[:, span], v[:, span])
        sums = call.keys(x, y, _cut(hidden, span)).relative_to(top, call.features)
    grads[0][:, span], grads[1][:, span] = torch.autograd.grad((sums.s, sums.z), (x, y), later)


def _block_gradients(
    call: _Call,
    part: tuple[Tensor, Tensor, Tensor, Tensor | None],
    carry: Sums,
    by_halves: bool,
    grad: Tensor,
    later: list[Tensor],
    grads: list[Tensor],
    at: tuple[slice, slice],
) -> list[Tensor]:
    """Write the gradients of a causal block; return those of the sums before it."""
    q, k, v, hidden = part
    with torch.enable_grad():
        x, y, w, s, z = _leaves(q, k, v, carry.s, carry.z)
        before = Sums(s, z, carry.top)
        out, after, _ = _run_causal(
            call, (x, y, w, hidden), before, by_halves=by_halves, check_range=False
        )
    dq, dk, dv, ds, dz = torch.autograd.grad(
        (out, after.s, after.z), (x, y, w, s, z), (grad.to(out.dtype), *later)
    )
    grads[0][:, at[0]], grads[1][:, at[1]], grads[2][:, at[1]] = dq, dk, dv
    return [ds, dz]
