"""Linear attention ``φ(Q)(φ(K)ᵀV)`` by the compiled kernel, forward and backward.

The same function as `attention.kernels.linear.tiled`, of float32; half precision is converted, and
the output and the gradients are rounded once. A thread takes a head at a time.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients
from attention.functional import has_values, opaque
from attention.kernels.compiled.attention import matrix, ready
from attention.kernels.compiled.library import FeatureCall, library
from attention.kernels.linear.chunks import plain_attention
from attention.kernels.linear.features import Features, least_total

CHUNK = 64
"""Tokens of a chunk: ``CHUNK`` of features.cpp."""


@opaque
def compiled_features(
    q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None, *, is_causal: bool
) -> Tensor:
    """Attend by a feature map.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H, M, D]``.
        v: ``[B, H, M, D]``.
        features: the map φ.
        hidden: bool ``[B, H, M]``, True = this key takes no part; or ``None``.
        is_causal: query i sees the keys up to ``M - N + i``.

    Returns:
        ``[B, H, N, D]``; zeros where there is no key. Differentiable in q, k and v; second
        derivatives keep every feature.
    """
    if not has_values(q):  # a dry run: shapes are all there is
        return _plain(q, k, v, features, hidden, is_causal)
    out: Tensor = _CompiledFeatures.apply(  # type: ignore[no-untyped-call]
        q, k, v, features, hidden, is_causal
    )
    return out


def executed_ops(groups: int, n: int, m: int, d: int, r: int, *, is_causal: bool,
                 training: bool) -> int:  # fmt: skip
    """Count the matrix-product operations of a call as features.cpp executes them."""
    product = 2 * r * d
    if not is_causal:
        backward = n * 4 * product + m * 4 * product  # features, dS, dφ, dq; features, dv, dφ, dk
        return groups * ((n + m) * 2 * product + (backward if training else 0))
    length = min(n, m)
    prefix = m - length
    squares = sum(min(CHUNK, length - at) ** 2 for at in range(0, length, CHUNK))
    forward = length * 4 * product + prefix * 2 * product + squares * 2 * (r + d)
    if not training:
        return groups * forward
    first = prefix * 2 * product + length * 5 * product + squares * 2 * (d + r)
    second = length * 6 * product + prefix * 4 * product + squares * 2 * (2 * r + 2 * d)
    return groups * (forward + first + second)


def _plain(
    q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None, is_causal: bool
) -> Tensor:
    """Compute the same by ordinary operations."""
    unseen = None if hidden is None else hidden.flatten(0, 1)
    q3, k3, v3 = (x.flatten(0, 1) for x in (q, k, v))
    out = plain_attention(q3, k3, v3, features, unseen, is_causal=is_causal)
    return out.view(*q.shape[:3], v.shape[3])


class _CompiledFeatures(torch.autograd.Function):
    """Forward and backward of `compiled_features`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None,
        is_causal: bool,
    ) -> Tensor:  # fmt: skip
        ctx.features, ctx.is_causal = features, is_causal
        call = _Call((q, k, v), features, hidden, is_causal, keeps=any(ctx.needs_input_grad))
        kept = call.kept()
        out = call.run("features_forward", kept)[..., : v.shape[3]]
        ctx.save_for_backward(q, k, v, hidden, features.projection, out, *kept)
        return out.to(q.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, hidden, projection, out, *kept = ctx.saved_tensors
        features: Features = replace(ctx.features, projection=projection)
        if must_be_plain(grad):

            def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return _plain(q, k, v, features, hidden, ctx.is_causal)

            return *plain_gradients(plain, (q, k, v), grad), None, None, None
        call = _Call((q, k, v), features, hidden, ctx.is_causal, keeps=True)
        made = call.gradients(ready(grad), ready(out), kept)
        grads = (
            x[..., : like.shape[3]].to(like.dtype) for x, like in zip(made, (q, k, v), strict=True)
        )
        return *grads, None, None, None


class _Call:
    """A call of the kernel: holds what it points into until it has run."""

    def __init__(
        self, inputs: tuple[Tensor, Tensor, Tensor], features: Features, hidden: Tensor | None,
        is_causal: bool, *, keeps: bool,
    ) -> None:  # fmt: skip
        self._q, self._k, self._v = (ready(x) for x in inputs)
        q, v = self._q, self._v
        omega = F.pad(
            features.projection.detach().float(), (0, q.shape[3] - inputs[0].shape[3])
        ).contiguous()
        unit = math.log2(math.e) if features.is_exponential else 1.0
        self._omegas = omega * (unit * features.scale), omega * features.scale
        self._hidden = None if hidden is None else hidden.contiguous()
        self._shape = (*q.shape[:2], q.shape[2], self._k.shape[2], omega.shape[0])
        batch, heads, queries, keys, rank = self._shape
        self._call = FeatureCall(
            omega=self._omegas[0].data_ptr(), plain_omega=self._omegas[1].data_ptr(),
            hidden=None if self._hidden is None else self._hidden.data_ptr(),
            groups=batch * heads, heads=heads, queries=queries, keys=keys, rank=rank,
            dim=q.shape[3], value_dim=v.shape[3], is_causal=is_causal,
            is_exponential=features.is_exponential, keeps=keeps, epsilon=features.epsilon,
            norm=features.scale**2 * unit / 2, square_scale=features.scale**2,
            least_total=least_total(torch.float32), q=matrix(q), k=matrix(self._k), v=matrix(v),
        )  # fmt: skip
        self._keeps, self._is_causal = keeps, is_causal

    def kept(self) -> tuple[Tensor, Tensor, Tensor]:
        """Make room for what the backward pass reads: 1/totals, sums, stabilisers."""
        batch, heads, queries, keys, rank = self._shape
        groups = batch * heads
        chunks = -(-min(queries, keys) // CHUNK) if self._is_causal else 0
        sums = 0 if self._is_causal or not self._keeps else rank * (self._v.shape[3] + 1)
        tops = (chunks + 1) * rank if self._keeps else 0
        new = self._q.new_empty
        return new(groups, queries), new(groups, sums), new(groups, tops)

    def run(self, name: str, kept: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Run the forward pass; return its output."""
        out = torch.empty_like(self._q)
        self._call.out = matrix(out)
        self._start(name, kept)
        return out

    def gradients(
        self, grad: Tensor, out: Tensor, kept: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the backward pass; return the gradients of q, k and v."""
        made = torch.empty_like(self._q), torch.empty_like(self._k), torch.empty_like(self._v)
        self._call.out, self._call.grad_out = matrix(out), matrix(grad)
        self._call.grad_q, self._call.grad_k, self._call.grad_v = map(matrix, made)
        self._start("features_backward", kept)
        return made

    def _start(self, name: str, kept: Any) -> None:
        inverse, sums, tops = kept
        self._call.inverse, self._call.sums = inverse.data_ptr(), sums.data_ptr()
        self._call.tops = tops.data_ptr()
        getattr(library(), name)(ctypes.byref(self._call), torch.get_num_threads())
