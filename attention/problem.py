"""What a backend declares and is asked: what it supports, a call's sizes, what a call costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from attention.checks import UnsupportedError as UnsupportedError

Family = Literal["dense", "sparse", "low_rank", "kernel", "recurrent"]
Mode = Literal["forward", "training"]

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
        cross: N and M may differ.
        key_padding: ``key_padding_mask`` is honoured.
        dropout: ``dropout_p`` acts on the attention weights in training.
        state: decode with a state (`attention.decoding.mixin`).
        log_sum_exp: ``return_lse=True`` at the call.
        nested: nested tensors of layout ``torch.jagged``.
        dtypes: device type to the dtypes served there.
    """

    causal: bool = False
    cross: bool = False
    key_padding: bool = True
    dropout: bool = False
    state: bool = False
    log_sum_exp: bool = False
    nested: bool = False
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
            is given.
        doc: one line for people.
        needed_by: the call input whose presence makes this one necessary.
    """

    kind: Literal["token_mask", "projected_qkv"]
    doc: str
    needed_by: str | None = None


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

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        *,
        is_causal: bool = False,
        key_padding: bool = False,
        length: int | None = None,
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
        )

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
        query = self.batch * self.num_heads * self.seq_len * self.head_dim
        key = self.batch * self.num_kv_heads * self.key_len * self.head_dim
        once = 2 * query + 2 * key
        total = once if mode == "forward" else once + (3 * query + 4 * key)
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


def softmax_ops(pairs: int, head_dim: int, mode: Mode) -> int:
    """Return the matrix-product operations of softmax attention over `pairs`.

    QKᵀ and PV are two products of ``2·pairs·D`` each; the backward pass has four.
    """
    return pairs * head_dim * (4 if mode == "forward" else 12)
