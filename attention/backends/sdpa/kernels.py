"""Torch's kernels by name: which one it takes for a call, and why it has none."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from attention.checks import UnsupportedError, dtype_names
from attention.problem import Problem

Kernel = Literal["auto", "flash", "efficient", "cudnn", "math"]
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
CPU_KERNELS = ("flash", "math")
UNKNOWN = "auto"
"""The kernel where torch chooses and cannot be asked which: in a graph, under the transforms of
``torch.func``, of nested tensors and of tensors without values."""
NAMES: dict[int | None, str] = {int(backend.value): name for name, backend in KERNELS.items()}
NAMES[None] = UNKNOWN
LSE_KERNELS = {"cpu": "flash", "cuda": "efficient"}
"""What runs where the log-sum-exp is asked for."""
FLASH_HEAD_DIM = 256
"""The largest D of flash on CUDA."""


def chosen(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool,
    *, pinned: str | None, dropout_p: float, scale: float,
) -> int:  # fmt: skip
    """Return the number of the kernel that torch will take.

    Raises:
        UnsupportedError: if the pinned one cannot serve the call, with torch's reason.
    """
    call = (q, k, v, mask, dropout_p, is_causal)
    gqa = k.shape[1] != q.shape[1]
    try:
        return torch._fused_sdp_choice(*call, scale=scale, enable_gqa=gqa)
    except RuntimeError as error:
        if not pinned:
            raise
        with warnings.catch_warnings(record=True) as caught:  # torch warns of each reason
            warnings.simplefilter("always")
            try:
                torch._fused_sdp_choice(*call, scale=scale, enable_gqa=gqa)
            except RuntimeError as again:
                last = str(again).strip()
            else:
                last = "no reason given"
        reasons = [str(one.message).partition(" (Triggered internally")[0] for one in caught]
        raise UnsupportedError(
            f"kernel: {pinned} cannot serve this call (dtype {q.dtype}, head_dim "
            f"{q.shape[-1]}, mask {'yes' if mask is not None else 'no'}, dropout_p "
            f"{dropout_p:g}, device {q.device.type}); torch: {' '.join(reasons) or last}"
        ) from error


def lse_reasons(problem: Problem, *, pinned: str | None, dropout_p: float) -> list[str]:
    """Say why no kernel of torch returns the log-sum-exp of a call; empty = one does."""
    device = problem.device
    if device not in (*LSE_KERNELS, "meta"):
        return [f"return_lse: sdpa has one on {', '.join(LSE_KERNELS)}, not on {device}"]
    reasons = []
    kernel = LSE_KERNELS.get(device, UNKNOWN)
    if pinned not in (None, kernel):
        reasons.append(f"kernel: beside return_lse it is {kernel}, not {pinned}")
    if dropout_p:
        reasons.append("dropout_p: sdpa drops no weight beside return_lse; full does")
    if device == "cuda" and (problem.dtype == torch.float64 or problem.head_dim % 8):
        reasons.append(
            "return_lse: on cuda torch's kernel takes float32 and half precision and a "
            f"head_dim that is a multiple of 8; got {dtype_names((problem.dtype,))} and "
            f"{problem.head_dim}"
        )
    return reasons


def ring_kernel(
    problem: Problem, spans: Sequence[tuple[int, int]], *, pinned: str | None, dropout_p: float
) -> str | None:
    """Return which of `attention.parallel.ring.KERNELS` a ring runs; None = keys are fetched.

    Ranks must not differ in it, so it depends on what they agree on alone.

    Args:
        problem: the whole call.
        spans: of the ranks.
        pinned: the kernel that was asked for; ``None`` = any.
        dropout_p: of the call.
    """
    lengths = {stop - start for start, stop in spans}
    if len(spans) == 1 or len(lengths) > 1 or problem.key_padding or dropout_p:
        return None
    if problem.device == "cpu":
        return "flash_for_cpu" if pinned in (None, "flash") else None
    if problem.head_dim % 8:  # torch pads those before its kernels see them
        return None
    is_half = problem.dtype in (torch.float16, torch.bfloat16)
    if pinned in (None, "flash") and is_half and problem.head_dim <= FLASH_HEAD_DIM:
        return "flash"
    (length,) = lengths  # the log-sum-exp of `efficient` is of whole blocks of 32 queries
    fits = length % 32 == 0 and problem.dtype != torch.float64
    return "efficient" if pinned in (None, "efficient") and fits else None
