"""Kernel attention ``φ(Q)(φ(K)ᵀV)`` in tiles of the sequence, with reused buffers.

The sums over keys, ``S = Σ φ(k)vᵀ`` ``[G, R, D]`` and ``z = Σ φ(k)`` ``[G, R]``, are all the state
there is. Features of a tile live in one buffer, are used and forgotten, and are computed anew in
the backward pass: nothing of size ``N·R`` is kept.

Softmax features are exponentials, kept in range by factors that cancel in the quotient: key
feature r is divided by ``exp(m_r)``, m_r the largest logit so far, and the queries multiply it
back before their row maximum is removed. When m_r grows the sums shrink by ``exp(old - new)``. In
the causal pass a chunk uses the maximum after the chunk; where that leaves a query nothing but
underflow, the chunk is cut in two and tried again, down to single tokens if need be.

Logits and stabilisers are in base 2: torch's ``exp2`` takes a quarter of the time of its ``exp``
on a CPU. A factor common to the features of a query cancels, and with it ``|q|²/2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients
from attention.functional import opaque
from attention.kernels.linear_chunked import plain_attention
from attention.kernels.onednn import at_full_rate, full_rate

TILE_FEATURES = 2**19
"""Features in a tile of the bidirectional pass, of all groups: what stays in a CPU's cache."""

CHUNK_TOKENS = 1024
"""Tokens in a causal chunk, of all groups: enough work a call."""

CHUNK_SIZES = (64, 256)
"""Tokens in a causal chunk, of one group: its square adds ``CHUNK·(R + D)/(4·R·D)`` to the linear
part."""


@dataclass(frozen=True)
class Features:
    """A feature map.

    Attributes:
        projection: ω ``[R, D]``, not differentiated.
        scale: factor on x before anything else.
        kind: ``softmax`` or ``relu``.
        epsilon: added to ReLU features.
    """

    projection: Tensor
    scale: float
    kind: str
    epsilon: float

    @property
    def exponential(self) -> bool:
        """Whether features are exponentials, which need a stabiliser."""
        return self.kind == "softmax"

    @staticmethod
    def executed_ops(
        n: int, m: int, d: int, r: int, groups: int, is_causal: bool, training: bool
    ) -> int:
        """Count the matrix-product operations of one head as the code below executes them."""
        product = 2 * r * d
        if not is_causal:
            forward = product * (2 * n + 2 * m) + 2 * n * r
            # queries: features, dS, dφ (two terms), dq; keys: features, dv, dφ, dk
            backward = n * (4 * product + 2 * r) + m * 4 * product
            return forward + (backward if training else 0)
        length = min(n, m)
        prefix = m - length
        squares = sum((stop - start) ** 2 for start, stop in _spans(length, chunk_size(groups)))
        forward = length * (4 * product + 2 * r) + prefix * 2 * product + squares * 2 * (r + d)
        if not training:
            return forward
        first = length * (4 * product + product) + squares * 2 * (d + r) + prefix * 2 * product
        second = length * (2 * product + product + 2 * r + 3 * product)
        second += squares * 2 * (r + d + d + r) + prefix * 4 * product
        return forward + first + second


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


@opaque
def continue_causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    features: Features,
    sums: tuple[Tensor, Tensor, Tensor],
    hidden: Tensor | None = None,
) -> Tensor:
    """Attend causally behind keys of which only the sums are known; not differentiable.

    Args:
        q: ``[G, N, D]``.
        k: ``[G, N, D]``.
        v: ``[G, N, D]``.
        features: the map φ.
        sums: S ``[G, R, D]``, z and stabiliser ``[G, R]``; the new keys are added to them.
        hidden: bool ``[G, N]``, True = this key takes no part; or ``None``.

    Returns:
        ``[G, N, D]``.
    """
    if q.shape[1] == 1:
        return _continue_by_one(q, k, v, features, sums, hidden)
    with full_rate(q):
        work = _Work(q, features)
        before = _Sums(work, sums)
        out, _, _, _ = _walk(work, before, q, k, v, hidden)
        sums[2].copy_(before.top)
    return out


def _continue_by_one(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    features: Features,
    sums: tuple[Tensor, Tensor, Tensor],
    hidden: Tensor | None,
) -> Tensor:
    """Do `continue_causal` for one token, whose key is the last that its query sees.

    There is no product large enough for tiles: what it costs is S, read and written, and the calls
    that torch takes. Both sides of all groups get their features in one product.
    """
    s, z, top = sums
    unit = math.log2(math.e) if features.exponential else 1.0
    x = torch.cat([q, k]).view(-1, q.shape[2]).to(s.dtype)  # [2·G, D]
    x.mul_(features.scale * unit)
    phi = torch.mm(x, features.projection.to(s.dtype).T)  # for softmax, logits in base 2
    phi_q, phi_k = phi.chunk(2)  # [G, R]
    if features.exponential:
        norm = torch.linalg.vector_norm(x.chunk(2)[1], dim=1, keepdim=True)
        phi_k.sub_(norm.square_(), alpha=0.5 / unit)
        if hidden is not None:
            phi_k.masked_fill_(hidden, torch.finfo(s.dtype).min)
        risen = torch.maximum(top, phi_k)
        # On a CPU it costs less to ask than to read and write S once more.
        if s.device.type != "cpu" or not torch.equal(risen, top):
            factor = (top - risen).exp2_()
            s.mul_(factor.unsqueeze(2))
            z.mul_(factor)
            top.copy_(risen)
        phi_q.add_(top)
        phi_q.sub_(phi_q.amax(dim=1, keepdim=True))
        phi_k.sub_(top)
        phi.exp2_()
    else:
        phi.relu_().add_(features.epsilon)
    if hidden is not None:
        phi_k.masked_fill_(hidden, 0.0)
    s.addcmul_(phi_k.unsqueeze(2), v)  # [G, R, 1] times [G, 1, D]
    z.add_(phi_k)
    row = phi_q.unsqueeze(1)
    number, total = torch.bmm(row, s), torch.bmm(row, z.unsqueeze(2))  # [G, 1, D], [G, 1, 1]
    if features.exponential and hidden is None:
        return number.div_(total).to(q.dtype)  # a token sees itself: its total is no less than 1
    return number.mul_(_inverse(total)).to(q.dtype)


def lowest_top(features: Features, dtype: torch.dtype) -> float:
    """Return the stabiliser before any key, for inputs of `dtype`."""
    wide = torch.promote_types(dtype, torch.float32)
    return torch.finfo(wide).min if features.exponential else 0.0


def chunk_size(groups: int) -> int:
    """Return the tokens in a causal chunk of `groups` groups."""
    least, most = CHUNK_SIZES
    return max(least, min(most, CHUNK_TOKENS // groups))


def _spans(length: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, length)) for start in range(0, length, step)]


class _Work:
    """Buffers that all tiles of a call share, and the feature map on a tile."""

    def __init__(self, q: Tensor, features: Features) -> None:
        half = q.dtype in (torch.float16, torch.bfloat16)
        self.dtype = torch.float32 if half else q.dtype
        # Products of features, never the logits, whose rounding the exponential would magnify. A
        # CPU multiplies bfloat16 several times as fast as float32, and float16 far slower.
        fast = q.dtype == torch.bfloat16 and q.device.type == "cpu"
        self.narrow = torch.bfloat16 if fast else None
        self.device, self.groups, self.dim = q.device, q.shape[0], q.shape[2]
        self.features = features
        self.omega = features.projection.to(self.dtype).contiguous()  # [R, D]
        self.unit = math.log2(math.e) if features.exponential else 1.0
        self.omega_t = (self.omega * self.unit).T  # makes logits in base 2
        self.rank = self.omega.shape[0]
        self._buffers: dict[str, Tensor] = {}

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Cut `length` tokens into tiles: (start, stop)."""
        return _spans(length, max(16, TILE_FEATURES // (self.groups * self.rank)))

    def zeros(self, *shape: int) -> Tensor:
        """Make a zero tensor in the working dtype."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def take(self, name: str, rows: int, columns: int) -> Tensor:
        """Return the buffer `name` as ``[G, rows, columns]``, contents undefined."""
        size = self.groups * rows * columns
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=self.dtype, device=self.device)
            self._buffers[name] = buffer
        return buffer[:size].view(self.groups, rows, columns)

    def product(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """Write ``a·b`` to `out`."""
        if self.narrow is None:
            return torch.bmm(a, b, out=out)
        return out.copy_(torch.bmm(a.to(self.narrow), b.to(self.narrow)))

    def accumulate(self, total: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Add ``a·b`` to `total`, in place (by ``out=``: torch's operation counter sees that)."""
        if self.narrow is None:
            return torch.baddbmm(total, a, b, out=total)
        return total.add_(torch.bmm(a.to(self.narrow), b.to(self.narrow)))

    def tile(self, name: str, x: Tensor, span: tuple[int, int], scale: float = 1.0) -> Tensor:
        """Copy the tokens `span` of `x`, scaled, into the buffer `name`: ``[G, T, D]``."""
        target = self.take(name, span[1] - span[0], x.shape[2])
        target.copy_(x[:, span[0] : span[1]])
        return target if scale == 1.0 else target.mul_(scale)

    def projected(self, name: str, x: Tensor) -> Tensor:
        """Return ``ωx`` of a scaled tile, for softmax features in base 2: ``[G, T, R]``."""
        target = self.take(name, x.shape[1], self.rank)
        torch.mm(x.view(-1, self.dim), self.omega_t, out=target.view(-1, self.rank))
        return target

    def queries(self, x: Tensor, top: Tensor) -> Tensor:
        """Return φ of a scaled tile of queries, `top` ``[G, R]`` multiplied back."""
        phi = self.projected("phi_q", x)
        if not self.features.exponential:
            return phi.relu_().add_(self.features.epsilon)
        phi.add_(top[:, None, :])
        return phi.sub_(phi.amax(dim=2, keepdim=True)).exp2_()

    def keys(self, x: Tensor, top: Tensor, hidden: Tensor | None, raise_top: bool) -> Tensor:
        """Return φ of a scaled tile of keys, divided by ``exp(top)``.

        Args:
            x: ``[G, T, D]``.
            top: ``[G, R]``, the stabiliser; raised in place where this tile is larger.
            hidden: bool ``[G, T]`` or ``None``.
            raise_top: whether `top` has yet to learn of this tile.
        """
        phi = self.projected("phi_k", x)
        if self.features.exponential:
            norm = torch.linalg.vector_norm(x, dim=2, keepdim=True)
            phi.sub_(norm.square_().mul_(self.unit / 2))
            if hidden is not None:
                phi.masked_fill_(hidden[:, :, None], torch.finfo(self.dtype).min)
            if raise_top:
                torch.maximum(top, phi.amax(dim=1), out=top)
            phi.sub_(top[:, None, :]).exp2_()
        else:
            phi.relu_().add_(self.features.epsilon)
        return phi if hidden is None else phi.masked_fill_(hidden[:, :, None], 0.0)

    def input_gradient(
        self, phi: Tensor, grad_phi: Tensor, out: Tensor, x: Tensor | None = None
    ) -> None:
        """Turn the gradient of φ into that of the unscaled input, written to `out` ``[G, T, D]``.

        Args:
            phi: of the tile, ``[G, T, R]``.
            grad_phi: ``[G, T, R]``, overwritten.
            out: target.
            x: scaled keys, whose ``|x|²/2`` counts; ``None`` for queries, where it cancels.
        """
        if self.features.exponential:
            grad = grad_phi.mul_(phi)  # of the logits
        else:
            grad = grad_phi.mul_(phi > self.features.epsilon)
        target = self.take("grad_x", phi.shape[1], self.dim)
        torch.mm(grad.view(-1, self.rank), self.omega, out=target.view(-1, self.dim))
        if self.features.exponential and x is not None:
            target.addcmul_(x, grad.sum(dim=2, keepdim=True), value=-1.0)
        out.copy_(target.mul_(self.features.scale))

    def start_top(self) -> Tensor:
        """Return the stabiliser before any key: ``[G, R]``."""
        lowest = lowest_top(self.features, self.dtype)
        return torch.full((self.groups, self.rank), lowest, dtype=self.dtype, device=self.device)


class _Sums:
    """``S = Σ φ(k)vᵀ`` and ``z = Σ φ(k)``, relative to a stabiliser that may rise."""

    def __init__(self, work: _Work, held: tuple[Tensor, Tensor, Tensor] | None = None) -> None:
        self.work = work
        if held is None:
            zeros = work.zeros(work.groups, work.rank, work.dim)
            held = zeros, work.zeros(work.groups, work.rank), work.start_top()
        self.s, self.z, self.top = held

    def factor(self, old: Tensor) -> Tensor:
        """Return what sums shrink by as the stabiliser goes from `old` to `top`: ``[G, R]``."""
        exponential = self.work.features.exponential
        return (old - self.top).exp2_() if exponential else torch.ones_like(self.z)

    def multiply(self, factor: Tensor) -> None:
        """Multiply the sums of each feature."""
        if self.work.features.exponential:
            self.s.mul_(factor[:, :, None])
            self.z.mul_(factor)

    def rescale(self, new: Tensor) -> None:
        """Make the sums, which belong to a stabiliser of later keys, relative to `new` <= `top`.

        These are the backward pass's sums: they multiply features divided by ``exp(new)`` that
        were divided by ``exp(top)`` where the sums arose.
        """
        self.multiply(self.factor(new))
        self.top = new

    def add(self, phi: Tensor, v: Tensor) -> None:
        """Add a tile's keys and values."""
        self.work.accumulate(self.s, phi.mT, v)
        self.z.add_(phi.sum(dim=1))

    def absorb(
        self, k: Tensor, v: Tensor, spans: list[tuple[int, int]], hidden: Tensor | None
    ) -> None:
        """Add all keys of `spans`."""
        work = self.work
        for span in spans:
            x = work.tile("k", k, span, work.features.scale)
            old = self.top.clone()
            phi = work.keys(x, self.top, _cut(hidden, span), raise_top=True)
            self.multiply(self.factor(old))
            self.add(phi, work.tile("v", v, span))


def _cut(hidden: Tensor | None, span: tuple[int, int]) -> Tensor | None:
    return None if hidden is None else hidden[:, span[0] : span[1]]


def _shift(spans: list[tuple[int, int]], by: int) -> list[tuple[int, int]]:
    return [(start + by, stop + by) for start, stop in spans]


def _inverse(total: Tensor) -> Tensor:
    """Return 1/total, and 0 where there was no key."""
    return torch.where(total > _floor(total), total.reciprocal(), 0.0)


def _floor(total: Tensor) -> float:
    """Below it a denominator has lost its meaning to underflow, and 1/total could overflow."""
    tiny: float = torch.finfo(total.dtype).tiny ** (2 / 3)
    return tiny


def _has_underflow(total: Tensor, hidden: Tensor | None, k_at: int, span: tuple[int, int]) -> bool:
    """Whether a query of a causal chunk sees keys, but none above underflow.

    All its keys then lie a factor of 1e25 (float32) below keys that come later in the chunk, whose
    stabiliser it shares. In a chunk of one token that cannot be.
    """
    lost = total[:, :, 0] <= _floor(total)
    if not bool(lost.any()):
        return False
    if hidden is not None:
        seen = (~hidden[:, : k_at + span[1]]).cumsum(dim=1)[:, k_at + span[0] :] > 0
        lost = lost & seen
    return bool(lost.any())


def _weigh(z: Tensor, phi: Tensor) -> Tensor:
    """Return ``φz``, ``[G, T, 1]``: as a row times a matrix, the fast way round."""
    return torch.bmm(z[:, None, :], phi.mT).mT


class _Bidirectional(torch.autograd.Function):
    @staticmethod
    @at_full_rate
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None
    ) -> Tensor:
        work = _Work(q, features)
        sums = _Sums(work)
        sums.absorb(k, v, work.spans(k.shape[1]), hidden)
        out = torch.empty_like(q)
        inverse = work.zeros(q.shape[0], q.shape[1], 1)
        for span in work.spans(q.shape[1]):
            rows = slice(*span)
            phi = work.queries(work.tile("q", q, span, features.scale), sums.top)
            number = work.product(phi, sums.s, work.take("o", span[1] - span[0], work.dim))
            inverse[:, rows] = _inverse(_weigh(sums.z, phi))
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
        work = _Work(q, features)
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        later = _Sums(work)  # dS and dz
        for span in work.spans(q.shape[1]):
            rows = slice(*span)
            x = work.tile("q", q, span, features.scale)
            phi = work.queries(x, top)
            g, dden = _output_gradient(work, grad, out, inverse, span)
            work.accumulate(later.s, phi.mT, g)
            later.z.add_(torch.bmm(dden.mT, phi)[:, 0])
            grad_phi = work.product(g, s.mT, work.take("grad_phi", *phi.shape[1:]))
            grad_phi.addcmul_(dden, z[:, None, :])
            work.input_gradient(phi, grad_phi, grad_q[:, rows])
        _key_gradients(work, k, v, hidden, top, later, work.spans(k.shape[1]), grad_k, grad_v)
        return grad_q, grad_k, grad_v, None, None


def _plain_gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    features: Features,
    hidden: Tensor | None,
    grad: Tensor,
    *,
    is_causal: bool,
) -> tuple[Tensor | None, ...]:
    """Return what a backward pass returns, by ordinary operations."""

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return plain_attention(q, k, v, features, hidden, is_causal=is_causal)

    return *plain_gradients(plain, (q, k, v), grad), None, None


def _output_gradient(
    work: _Work, grad: Tensor, out: Tensor, inverse: Tensor, span: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of numerator ``[G, T, D]`` and denominator ``[G, T, 1]``."""
    g = work.tile("g", grad, span).mul_(inverse[:, span[0] : span[1]])
    dden = (g * out[:, span[0] : span[1]]).sum(dim=2, keepdim=True).neg_()
    return g, dden


def _key_gradients(
    work: _Work,
    k: Tensor,
    v: Tensor,
    hidden: Tensor | None,
    top: Tensor,
    later: _Sums,
    spans: list[tuple[int, int]],
    grad_k: Tensor,
    grad_v: Tensor,
) -> None:
    """Write the gradients of keys that every query behind `later` sees whole."""
    for span in spans:
        rows = slice(*span)
        x = work.tile("k", k, span, work.features.scale)
        values = work.tile("v", v, span)
        phi = work.keys(x, top, _cut(hidden, span), raise_top=False)
        grad_v[:, rows] = work.product(phi, later.s, work.take("o", *values.shape[1:]))
        grad_phi = work.product(values, later.s.mT, work.take("grad_phi", *phi.shape[1:]))
        grad_phi.add_(later.z[:, None, :])
        work.input_gradient(phi, _without(grad_phi, _cut(hidden, span)), grad_k[:, rows], x)


def _without(grad_phi: Tensor, hidden: Tensor | None) -> Tensor:
    return grad_phi if hidden is None else grad_phi.masked_fill_(hidden[:, :, None], 0.0)


class _Causal(torch.autograd.Function):
    """Causal forward and backward.

    N and M may differ: keys before the first query are absorbed, queries before the first key give
    zeros, the rest is square.
    """

    @staticmethod
    @at_full_rate
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None
    ) -> Tensor:
        work = _Work(q, features)
        sums = _Sums(work)
        sums.absorb(k, v, work.spans(_align(q, k)[2]), hidden)
        out, inverse, tops, done = _walk(work, sums, q, k, v, hidden)
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
        work = _Work(q, features)
        _, _, k_at = _align(q, k)
        grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (q, k, v))
        sums = _Sums(work)  # forward in time: S and z before each chunk
        sums.absorb(k, v, work.spans(k_at), hidden)
        for span in ctx.spans:
            old = sums.top.clone()
            chunk = _chunk(work, (q, k, v, hidden), span, sums.top, raise_top=True)
            sums.multiply(sums.factor(old))
            g, dden = _output_gradient(work, grad, out, inverse, chunk.span)
            square = work.product(g, chunk.v.mT, chunk.square()).add_(dden).tril_()
            grad_phi = work.product(
                square, chunk.phi_k, work.take("grad_phi", chunk.size, work.rank)
            )
            work.accumulate(grad_phi, g, sums.s.mT).addcmul_(dden, sums.z[:, None, :])
            sums.add(chunk.phi_k, chunk.v)
            work.input_gradient(chunk.phi_q, grad_phi, grad_q[:, chunk.rows])
        later = _Sums(work)  # back in time: dS and dz after each chunk
        later.top = tops[-1].clone()
        for index in reversed(range(len(ctx.spans))):
            top = tops[index + 1]
            later.rescale(top)
            chunk = _chunk(work, (q, k, v, hidden), ctx.spans[index], top, raise_top=False)
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


def _walk(
    work: _Work, sums: _Sums, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor], list[tuple[int, int]]]:
    """Walk the square part forward in time, chunk by chunk; `sums` holds what came before.

    Returns:
        the output ``[G, N, D]``; one over its denominators ``[G, N, 1]``; the stabiliser before
        the first chunk and after each; the chunks.
    """
    length, q_at, k_at = _align(q, k)
    out = torch.empty_like(q)
    out[:, :q_at] = 0
    inverse = work.zeros(q.shape[0], q.shape[1], 1)
    tops, done = [sums.top.clone()], list[tuple[int, int]]()
    waiting = _spans(length, chunk_size(work.groups))[::-1]
    while waiting:
        span, old = waiting.pop(), sums.top.clone()
        chunk = _chunk(work, (q, k, v, hidden), span, sums.top, raise_top=True)
        factor = sums.factor(old)
        weights = work.product(chunk.phi_q, chunk.phi_k.mT, chunk.square()).tril_()
        total = _weigh(sums.z * factor, chunk.phi_q)
        total += weights.sum(2, keepdim=True)
        if chunk.size > 1 and _has_underflow(total, hidden, k_at, span):
            sums.top = old
            middle = (span[0] + span[1]) // 2
            waiting += [(middle, span[1]), (span[0], middle)]
            continue
        sums.multiply(factor)
        number = work.product(chunk.phi_q, sums.s, work.take("o", chunk.size, work.dim))
        work.accumulate(number, weights, chunk.v)
        inverse[:, chunk.rows] = _inverse(total)
        out[:, chunk.rows] = number.mul_(inverse[:, chunk.rows])
        sums.add(chunk.phi_k, chunk.v)
        tops.append(sums.top.clone())
        done.append(span)
    return out, inverse, tops, done


def _align(q: Tensor, k: Tensor) -> tuple[int, int, int]:
    """Return the length of the square part, and where it starts in queries and keys."""
    length = min(q.shape[1], k.shape[1])
    return length, q.shape[1] - length, k.shape[1] - length


@dataclass(frozen=True)
class _Chunk:
    """A causal chunk: its scaled inputs, features and places."""

    work: _Work
    span: tuple[int, int]
    keys: slice
    x_q: Tensor
    x_k: Tensor
    v: Tensor
    phi_q: Tensor
    phi_k: Tensor
    hidden: Tensor | None

    @property
    def rows(self) -> slice:
        return slice(*self.span)

    @property
    def size(self) -> int:
        return self.span[1] - self.span[0]

    def square(self) -> Tensor:
        return self.work.take("square", self.size, self.size)


def _chunk(
    work: _Work,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None],
    span: tuple[int, int],
    top: Tensor,
    raise_top: bool,
) -> _Chunk:
    """Compute the features of one chunk; `span` counts in the square part."""
    q, k, v, hidden = tensors
    _, q_at, k_at = _align(q, k)
    scale = work.features.scale
    (at,), (key_at,) = _shift([span], q_at), _shift([span], k_at)
    x_q, x_k = work.tile("q", q, at, scale), work.tile("k", k, key_at, scale)
    cut = _cut(hidden, key_at)
    phi_k = work.keys(x_k, top, cut, raise_top)
    phi_q = work.queries(x_q, top)
    return _Chunk(work, at, slice(*key_at), x_q, x_k, work.tile("v", v, key_at), phi_q, phi_k, cut)
