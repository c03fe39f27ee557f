"""Exact attention over a ring of ranks: torch's own context parallelism, round a chosen kernel.

Each rank keeps its queries; keys and values of a part go from rank to rank, and what each brings
is merged by its log-sum-exp (Liu et al. 2023, arXiv 2310.01889). Loop, merging and transport are
those of `torch.distributed.tensor.experimental`, which torch reaches by dispatch for three kernels
of CUDA; here its loop is handed the kernel, so that a CPU has it too. A rank holds the keys of one
other part at a time, where fetching holds those of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor.experimental._context_parallel import _attention as torch_ring
from torch.utils._python_dispatch import TorchDispatchMode

from attention.parallel.collectives import Exchange, check_first_derivative

aten = torch.ops.aten


@dataclass(frozen=True)
class Kernel:
    """A fused kernel that returns the log-sum-exp, with its backward pass.

    Attributes:
        forward: ``(q, k, v, *, is_causal, scale)`` to output, log-sum-exp and what `backward`
            needs besides.
        backward: ``(grad_out, q, k, v, out, logsumexp, rest, *, is_causal, scale)`` to the three
            gradients, first of what it returns.
    """

    forward: Callable[..., Sequence[Any]]
    backward: Callable[..., Sequence[Any]]


def _cpu_forward(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Any:
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, **given)


def _cpu_backward(grad: Tensor, *saved: Any, **given: Any) -> Any:
    *tensors, _ = saved
    is_causal, scale = given["is_causal"], given["scale"]
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, *tensors, 0.0, is_causal, scale=scale
    )


def _flash_forward(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Any:
    return aten._scaled_dot_product_flash_attention(q, k, v, **given)


def _flash_backward(grad: Tensor, *saved: Any, **given: Any) -> Any:
    *tensors, (cum_q, cum_k, max_q, max_k, seed, offset, _) = saved
    is_causal, scale = given["is_causal"], given["scale"]
    return aten._scaled_dot_product_flash_attention_backward(
        grad, *tensors, cum_q, cum_k, max_q, max_k, 0.0, is_causal, seed, offset, scale=scale
    )


def _efficient_forward(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Any:
    return aten._scaled_dot_product_efficient_attention(q, k, v, None, True, **given)


def _efficient_backward(grad: Tensor, *saved: Any, **given: Any) -> Any:
    q, k, v, out, logsumexp, (seed, offset) = saved
    is_causal, scale = given["is_causal"], given["scale"]
    return aten._scaled_dot_product_efficient_attention_backward(
        grad, q, k, v, None, out, logsumexp, seed, offset, 0.0, [True, True, True, False],
        is_causal, scale=scale,
    )  # fmt: skip


KERNELS = {
    "flash_for_cpu": Kernel(_cpu_forward, _cpu_backward),
    "flash": Kernel(_flash_forward, _flash_backward),
    "efficient": Kernel(_efficient_forward, _efficient_backward),
}
"""By name; what a call runs is `attention.backends.sdpa`'s choice."""


def ring_attention(
    q: Tensor, k: Tensor, v: Tensor, exchange: Exchange, *, kernel: str, is_causal: bool,
    scale: float,
) -> Tensor:  # fmt: skip
    """Attend from a rank's queries to the keys of all ranks; causal, of those before and its own.

    Args:
        q: ``[B, H, n, D]``; all ranks' parts are equally long.
        k: ``[B, H_kv, n, D]``.
        v: ``[B, H_kv, n, D]``.
        exchange: the way to the other parts; it counts what comes.
        kernel: of `KERNELS`.
        is_causal: over the whole sequence.
        scale: factor on QKᵀ.

    Returns:
        ``[B, H, n, D]``.
    """
    out: Tensor = _Ring.apply(q, k, v, exchange, KERNELS[kernel], is_causal, scale)  # type: ignore[no-untyped-call]
    return out


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, exchange: Exchange, kernel: Kernel,
        is_causal: bool, scale: float,
    ) -> Tensor:  # fmt: skip
        groups = q.shape[1] // k.shape[1]

        def attend(query: Tensor, key: Tensor, value: Tensor, **asked: Any) -> Any:
            key, value = (_repeated(x, groups) for x in (key, value))
            return kernel.forward(query, key, value, is_causal=asked["is_causal"], scale=scale)

        with _as_torch_does(exchange, q.dtype):
            out, logsumexp, *rest = torch_ring._templated_ring_attention(
                _group(exchange), 2, attend, q, k, v, is_causal=is_causal
            )
        ctx.save_for_backward(q, k, v, out, logsumexp)
        ctx.given = exchange, kernel, is_causal, scale, groups, rest
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        check_first_derivative(grad)
        q, k, v, out, logsumexp = ctx.saved_tensors
        exchange, kernel, is_causal, scale, groups, rest = ctx.given

        def attend(query: Tensor, key: Tensor, value: Tensor, **asked: Any) -> Any:
            key, value = (_repeated(x, groups) for x in (key, value))
            grads = kernel.backward(
                asked["grad_out"], query, key, value, asked["out"], asked["logsumexp"], rest,
                is_causal=asked["is_causal"], scale=scale,
            )  # fmt: skip
            return grads[0], *(_summed(x, groups) for x in grads[1:3])

        with _as_torch_does(exchange, q.dtype):
            grads = torch_ring._templated_ring_attention_backward(
                _group(exchange), 2, attend, grad.contiguous(), "grad_out", q, k, v, out,
                logsumexp, is_causal,
            )  # fmt: skip
        return (*grads[:3], None, None, None, None)


def _repeated(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def _summed(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.unflatten(1, (-1, groups)).sum(dim=2)


def _group(exchange: Exchange) -> dist.ProcessGroup:
    group = dist.group.WORLD if exchange.group is None else exchange.group
    assert group is not None  # an exchange has asked it already
    return group


@contextmanager
def _as_torch_does(exchange: Exchange, dtype: torch.dtype) -> Iterator[None]:
    """Set the options of torch's ring for one pass, and count what it receives.

    Parts lie in the order of the ranks, and go round one by one. Merged is in float32, but for
    float64.
    """
    options = torch_ring._cp_options
    before = (options.convert_to_f32, options.enable_load_balance, options.rotate_method)
    options.convert_to_f32 = dtype != torch.float64
    options.enable_load_balance = False
    options.rotate_method = torch_ring._RotateMethod.ALL_TO_ALL
    try:
        with _Counted(exchange):
            yield
    finally:
        options.convert_to_f32, options.enable_load_balance, options.rotate_method = before


class _Counted(TorchDispatchMode):
    """Adds what collectives of torch receive to an exchange's count."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.exchange = exchange

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops._c10d_functional.all_to_all_single.default:
            self.exchange.received += out.numel() * out.element_size()
        return out
