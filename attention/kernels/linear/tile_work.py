"""A tile of tokens: its features, and the sums over keys that it adds to.

Features of a tile live in one buffer, are used and forgotten: nothing of size ``N·R`` is kept.
Logits and stabilisers are in base 2: torch's ``exp2`` takes a quarter of the time of its ``exp``
on a CPU. A factor common to the features of a query cancels, and with it ``|q|²/2``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attention.kernels.linear.features import Features, working_dtype

TILE_FEATURES = 2**19
"""Features in a tile of the bidirectional pass, of all groups: what stays in a CPU's cache."""

Span = tuple[int, int]
"""Tokens from the first to before the last."""


def spans(length: int, step: int) -> list[Span]:
    """Cut `length` tokens into spans of `step`."""
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def cut(hidden: Tensor | None, span: Span) -> Tensor | None:
    """Return the part of a mask ``[G, M]``; ``None`` of none."""
    return None if hidden is None else hidden[:, span[0] : span[1]]


class Work:
    """Buffers that all tiles of a call share, and the feature map on a tile.

    Args:
        q: ``[G, N, D]``.
        features: the map φ.
    """

    def __init__(self, q: Tensor, features: Features) -> None:
        self.dtype = working_dtype(q.dtype)
        # Products of features, never the logits, whose rounding the exponential would magnify. A
        # CPU multiplies bfloat16 several times as fast as float32, and float16 far slower.
        fast = q.dtype == torch.bfloat16 and q.device.type == "cpu"
        self.narrow = torch.bfloat16 if fast else None
        self.device, self.groups, self.dim = q.device, q.shape[0], q.shape[2]
        self.features = features
        self.omega = features.projection.to(self.dtype).contiguous()  # [R, D]
        self.unit = math.log2(math.e) if features.is_exponential else 1.0
        self.omega_t = (self.omega * self.unit).T  # [D, R]: makes logits in base 2
        self.rank = self.omega.shape[0]
        self._buffers: dict[str, Tensor] = {}

    def spans(self, length: int) -> list[Span]:
        """Cut `length` tokens into tiles."""
        return spans(length, max(16, TILE_FEATURES // (self.groups * self.rank)))

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

    def tile(self, name: str, x: Tensor, span: Span, scale: float = 1.0) -> Tensor:
        """Copy the tokens `span` of `x`, scaled, into the buffer `name`: ``[G, T, D]``."""
        target = self.take(name, span[1] - span[0], x.shape[2])
        target.copy_(x[:, span[0] : span[1]])
        return target if scale == 1.0 else target.mul_(scale)

    def projected(self, name: str, x: Tensor) -> Tensor:
        """Return ``ωx`` of a scaled tile, for softmax features in base 2: ``[G, T, R]``."""
        target = self.take(name, x.shape[1], self.rank)
        # All groups share ω: [G·T, D] · [D, R] is one product instead of a batch of G.
        torch.mm(x.view(-1, self.dim), self.omega_t, out=target.view(-1, self.rank))
        return target

    def queries(self, x: Tensor, top: Tensor) -> Tensor:
        """Return φ of a scaled tile of queries, `top` ``[G, R]`` multiplied back."""
        phi = self.projected("phi_q", x)  # [G, T, R]
        if not self.features.is_exponential:
            return phi.relu_().add_(self.features.epsilon)
        phi.add_(top[:, None, :])
        return phi.sub_(phi.amax(dim=2, keepdim=True)).exp2_()  # each row's largest is 1

    def keys(self, x: Tensor, top: Tensor, hidden: Tensor | None, raise_top: bool) -> Tensor:
        """Return φ of a scaled tile of keys, divided by ``exp(top)``.

        Args:
            x: ``[G, T, D]``.
            top: ``[G, R]``, the stabiliser; raised in place where this tile is larger.
            hidden: bool ``[G, T]`` or ``None``.
            raise_top: whether `top` has yet to learn of this tile.
        """
        phi = self.projected("phi_k", x)  # [G, T, R]
        if self.features.is_exponential:
            norm = torch.linalg.vector_norm(x, dim=2, keepdim=True)  # [G, T, 1]
            phi.sub_(norm.square_().mul_(self.unit / 2))
            if hidden is not None:  # before the maximum, which they must not raise
                phi.masked_fill_(hidden[:, :, None], torch.finfo(self.dtype).min)
            if raise_top:
                torch.maximum(top, phi.amax(dim=1), out=top)
            phi.sub_(top[:, None, :]).exp2_()
        else:
            phi.relu_().add_(self.features.epsilon)
        # Softmax once more: where no key is seen `top` is the lowest number, and φ would be 1.
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
        if self.features.is_exponential:
            grad = grad_phi.mul_(phi)  # of the logits: exp is its own derivative
        else:
            grad = grad_phi.mul_(phi > self.features.epsilon)
        target = self.take("grad_x", phi.shape[1], self.dim)
        torch.mm(grad.view(-1, self.rank), self.omega, out=target.view(-1, self.dim))
        if self.features.is_exponential and x is not None:
            target.addcmul_(x, grad.sum(dim=2, keepdim=True), value=-1.0)
        out.copy_(target.mul_(self.features.scale))


class TileSums:
    """``S = Σ φ(k)vᵀ`` and ``z = Σ φ(k)``, relative to a stabiliser that may rise.

    When it grows from m to m' the sums shrink by ``exp(m - m')``.

    Args:
        work: of the call.
        held: S ``[G, R, D]``, z and stabiliser ``[G, R]``, changed in place; ``None`` = no key.
    """

    def __init__(self, work: Work, held: tuple[Tensor, Tensor, Tensor] | None = None) -> None:
        self.work = work
        if held is None:
            z = work.zeros(work.groups, work.rank)
            top = torch.full_like(z, work.features.lowest(work.dtype))
            held = work.zeros(work.groups, work.rank, work.dim), z, top
        self.s, self.z, self.top = held

    def factor(self, old: Tensor) -> Tensor:
        """Return what sums shrink by as the stabiliser goes from `old` to `top`: ``[G, R]``."""
        exponential = self.work.features.is_exponential
        return (old - self.top).exp2_() if exponential else torch.ones_like(self.z)

    def multiply(self, factor: Tensor) -> None:
        """Multiply the sums of each feature."""
        if self.work.features.is_exponential:
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
        self.work.accumulate(self.s, phi.mT, v)  # [G, R, T] · [G, T, D]
        self.z.add_(phi.sum(dim=1))

    def absorb(self, k: Tensor, v: Tensor, tiles: list[Span], hidden: Tensor | None) -> None:
        """Add all keys of some tiles."""
        work = self.work
        for span in tiles:
            x = work.tile("k", k, span, work.features.scale)
            old = self.top.clone()
            phi = work.keys(x, self.top, cut(hidden, span), raise_top=True)
            self.multiply(self.factor(old))  # after `keys` has raised the stabiliser
            self.add(phi, work.tile("v", v, span))
