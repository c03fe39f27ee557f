"""Torch's kernels by name: which one it takes for a call, and why it has none."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from attention.checks import UnsupportedError, dtype_names
from attention.kernels.compiled.exact import LEAST_QUERIES, compiled_ops
from attention.problem import Cost, Mode, Problem, softmax_ops

Kernel = Literal["auto", "compiled", "flash", "efficient", "cudnn", "math"]
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
COMPILED = "compiled"
"""No kernel of torch's, but `attention.kernels.compiled`."""
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


def lse_reasons(
    problem: Problem, *, pinned: str | None, dropout_p: float, what: str = "return_lse"
) -> list[str]:
    """Say why no kernel of torch returns the log-sum-exp of a call; empty = one does.

    Args:
        problem: the call.
        pinned: the kernel that was asked for; ``None`` = any.
        dropout_p: of the call.
        what: needs it, for the messages.
    """
    device = problem.device
    if device not in (*LSE_KERNELS, "meta"):
        return [f"{what}: sdpa has one on {', '.join(LSE_KERNELS)}, not on {device}"]
    reasons = []
    kernel = LSE_KERNELS.get(device, UNKNOWN)
    if pinned not in (None, kernel):
        reasons.append(f"kernel: beside {what} it is {kernel}, not {pinned}")
    if dropout_p:
        reasons.append(f"dropout_p: sdpa drops no weight beside {what}; full does")
    if device == "cuda" and (problem.dtype == torch.float64 or problem.head_dim % 8):
        reasons.append(
            f"{what}: on cuda torch's kernel takes float32 and half precision and a "
            f"head_dim that is a multiple of 8; got {dtype_names((problem.dtype,))} and "
            f"{problem.head_dim}"
        )
    return reasons


def lse_kernel(what: str, q: Tensor, *others: Tensor) -> str:
    """Return which kernel has a log-sum-exp.

    Args:
        what: needs it, for the message.
        q: ``[B, H, N, D]``.
        *others: what else a gradient may be wanted of.

    Raises:
        UnsupportedError: where a gradient is wanted and it has none.
    """
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in (q, *others))
    if trains and q.device.type == "cuda":
        raise UnsupportedError(
            f"{what}: on cuda sdpa's has no gradient; expected torch.no_grad(), or full"
        )
    return UNKNOWN if q.is_meta else LSE_KERNELS[q.device.type]


def check_nested(q: Tensor, is_causal: bool, sink: Tensor | None) -> None:
    """Refuse of nested tensors what torch has no kernel for."""
    if not q.is_nested:
        return
    if sink is not None:
        raise UnsupportedError("sink: nested tensors have none; expected padded tensors")
    if is_causal and q.device.type == "cpu":
        raise UnsupportedError(
            "is_causal: of nested tensors torch has no causal kernel on cpu; expected False, "
            "or padded tensors and their key_padding_mask"
        )


def check_fetched(problem: Problem, pinned: str | None) -> None:
    """Refuse a pinned kernel for a rank's part where keys are fetched."""
    if pinned == "flash" and problem.is_causal and problem.device == "cuda":
        raise UnsupportedError(
            "kernel: causal parts that are not equally long, padded or under dropout need "
            "a mask, which flash does not take on cuda; expected auto, efficient, cudnn "
            "or math"
        )


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


def executed_ops(cost: Cost, problem: Problem, mode: Mode, kernel: str) -> int:
    """Count the matrix-product operations that a kernel executes.

    Args:
        cost: of the pairs that are seen.
        problem: the call.
        mode: what of it.
        kernel: the one that was asked for.
    """
    if kernel == COMPILED and problem.seq_len >= LEAST_QUERIES:
        return compiled_ops(problem, mode)
    if problem.v_dim != problem.head_dim:  # q and v are made as wide as one another
        wide = replace(problem, head_dim=max(problem.v_dim, problem.head_dim), value_dim=0)
        heads = wide.batch * wide.num_heads
        again = heads * 2 * wide.pairs * wide.head_dim
        executed = heads * softmax_ops(wide.pairs, wide.head_dim, mode)
        recomputed = again if mode == "training" and kernel != "math" else 0
        return executed_ops(replace(cost, executed_ops=executed + recomputed), wide, mode, kernel)
    if kernel != "math" or not problem.is_causal:
        return cost.executed_ops
    # Queries before the first key are left out.
    pairs = min(problem.seq_len, problem.key_len) * problem.key_len
    whole = softmax_ops(pairs, problem.head_dim, mode, problem.v_dim)
    return problem.batch * problem.num_heads * whole
