"""What a backend declares and is asked: what it supports, a call's sizes, what a call costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from attention.checks import UnsupportedError as UnsupportedError

Family = Literal["dense", "sparse", "low_rank", "kernel", "recurrent"]
Mode = Literal["forward", "training"]
Approximates = Literal["softmax", "pattern", "itself"]
"""What a method comes near to: softmax attention; its own pattern, exactly (softmax over fewer
keys); nothing but its own formula, beside which an error against softmax says nothing."""

CPU_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
UNMEASURED = {
    "mps": (torch.float32, torch.bfloat16, torch.float16),
    "xpu": (torch.float32, torch.bfloat16, torch.float16),
}
"""Devices on which nothing of ours was ever run: for backends of torch's own operations alone."""
EVERYWHERE = {"cpu": CPU_DTYPES, "cuda": CUDA_DTYPES, **UNMEASURED}


@dataclass(frozen=True)
class Supports:
    """What a backend serves. Everything not declared here is refused before it runs.

    Attributes:
        causal: query ``i`` may be restricted to keys up to ``M - N + i``.
        bidirectional: ``is_causal=False``; without it the method is causal only.
        cross: N and M may differ.
        key_padding: ``key_padding_mask`` is honoured.
        dropout: ``dropout_p`` acts on the attention weights in training.
        state: decode with a state (`attention.decoding.mixin`).
        log_sum_exp: ``return_lse=True`` at the call.
        nested: nested tensors of layout ``torch.jagged``.
        value_dim: values may be ``[B, H_kv, M, D_v]`` with D_v ≠ D.
        dtypes: device type to the dtypes served there.
    """

    causal: bool = False
    bidirectional: bool = True
    cross: bool = False
    key_padding: bool = True
    dropout: bool = False
    state: bool = False
    log_sum_exp: bool = False
    nested: bool = False
    value_dim: bool = False
    dtypes: Mapping[str, tuple[torch.dtype, ...]] = field(
        default_factory=lambda: {"cpu": CPU_DTYPES, "cuda": CUDA_DTYPES}
    )


@dataclass(frozen=True)
class CallInput:
    """An extra input that a backend takes at the call, beside q, k and v.

    Attributes:
        kind: ``token_mask`` is a bool ``[B, N]`` that the caller gives; ``projected_qkv`` is a
            triple of ``[B, H, N, D]``, ``[B, H_kv, N, D]``, ``[B, H_kv, N, D]`` that a multi-head
            layer makes with three projections of its own, when the input named in `needed_by`
            is given; ``per_head`` and ``per_channel`` are numbers of each token,
            ``[B, H, N]`` and ``[B, H, N, D]``, of the dtype of q or float32. At padding they
            become 0, which must mean that the token changes nothing.
        doc: one line for people.
        needed_by: the call input whose presence makes this one necessary.
        required: whether each call needs it; else `attend` has a default for it.
        or_per_channel: of a ``per_head`` input: ``[B, H, N, D]`` is taken too.
        minimum: of ``per_head`` and ``per_channel``: the least that is accepted.
        maximum: likewise the most.
        layer: makes the module with which a multi-head layer computes the input from
            ``x [B, N, d_model]``: a function of d_model, H and D. ``None`` = a layer makes none.
        draw: draws one as trained models have it: a function of the shape and a generator that
            gives float32 on the CPU. Needed where the contract and the suites are to give one.
    """

    kind: Literal["token_mask", "projected_qkv", "per_head", "per_channel"]
    doc: str
    needed_by: str | None = None
    required: bool = False
    or_per_channel: bool = False
    minimum: float | None = None
    maximum: float | None = None
    layer: Callable[[int, int, int], nn.Module] | None = None
    draw: Callable[[tuple[int, ...], torch.Generator], Tensor] | None = None

    @property
    def is_of_tokens(self) -> bool:
        """Whether it is numbers of each token: ``per_head`` or ``per_channel``."""
        return self.kind in ("per_head", "per_channel")

    def shape(self, batch: int, heads: int, tokens: int, dim: int) -> tuple[int, ...]:
        """Return the shape of a ``per_head`` or ``per_channel`` input."""
        shape = (batch, heads, tokens)
        return shape if self.kind == "per_head" else (*shape, dim)


@dataclass(frozen=True)
class Problem:
    """The shape and the circumstances of one call: what support and cost are asked about."""

    batch: int
    num_heads: int
    head_dim: int
    seq_len: int
    key_len: int
    num_kv_heads: int
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    is_causal: bool = False
    key_padding: bool = False
    value_dim: int = 0
    """D_v; 0 = D."""

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        *,
        is_causal: bool = False,
        key_padding: bool = False,
        length: int | None = None,
        value_dim: int = 0,
    ) -> Problem:
        """Describe the call that these tensors make; with `length`, as parts of so many tokens."""
        batch, num_heads, seq_len, head_dim = q.shape
        return cls(
            batch=batch,
            num_heads=num_heads,
            head_dim=head_dim,
            seq_len=length or seq_len,
            key_len=length or k.shape[2],
            num_kv_heads=k.shape[1],
            dtype=q.dtype,
            device=q.device.type,
            is_causal=is_causal,
            key_padding=key_padding,
            value_dim=value_dim,
        )

    @property
    def v_dim(self) -> int:
        """D_v, the width of values and output."""
        return self.value_dim or self.head_dim

    @property
    def pairs(self) -> int:
        """Query-key pairs of one head that dense attention computes: N·M, or the causal part."""
        if not self.is_causal:
            return self.seq_len * self.key_len
        return causal_pairs(self.seq_len, self.key_len)

    def io_bytes(self, mode: Mode) -> int:
        """Compulsory bytes: q, k, v read and the output written once.

        Training adds the output's gradient and q, k, v read again, and three gradients written.
        """
        widths = self.head_dim + self.v_dim  # of q and the output, and of k and v
        query = self.batch * self.num_heads * self.seq_len
        key = self.batch * self.num_kv_heads * self.key_len
        total = (query + key) * widths
        if mode == "training":
            total += query * (widths + self.head_dim) + 2 * key * widths
        return total * self.dtype.itemsize


def causal_pairs(seq_len: int, key_len: int) -> int:
    """Count the pairs with key ``j <= M - N + i`` for one head."""
    shift = key_len - seq_len
    first = max(0, -shift)  # queries before it see no key
    count = seq_len - first
    return count * (first + shift + 1) + count * (count - 1) // 2 if count > 0 else 0


@dataclass(frozen=True)
class Cost:
    """What one call must do.

    Attributes:
        pattern_ops: floating-point operations of matrix products (a multiply-add counts two) of
            the method's formula, over exactly the pairs its pattern defines.
        executed_ops: the same as the implementation's tiles execute it: tiles cover more pairs
            than the pattern, and a backward pass may compute scores anew.
        exponentials: exponentials of the formula, in the forward pass.
        bytes: compulsory traffic: each input read once, each output written once.
    """

    pattern_ops: int
    executed_ops: int
    exponentials: int
    bytes: int


def softmax_ops(pairs: int, head_dim: int, mode: Mode, value_dim: int = 0) -> int:
    """Return the matrix-product operations of softmax attention over `pairs`.

    QKᵀ and PV are products of ``2·pairs·D`` and ``2·pairs·D_v``; the backward pass has two each.
    """
    return pairs * (head_dim + (value_dim or head_dim)) * (2 if mode == "forward" else 6)
