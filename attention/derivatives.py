"""Second derivatives of kernels whose backward pass is written by hand.

Such a backward pass is fast because it overwrites its buffers, which autograd cannot follow. It
serves where nobody will differentiate the gradients. Else (``create_graph=True``) the gradients
are computed by ordinary operations, at the price of keeping every score; so they are where torch
asks for many of them at once (``is_grads_batched``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling


def in_transform() -> bool:
    """Whether a transform of torch.func (grad, vmap, ...) is running, outside of torch.compile."""
    return not is_dynamo_compiling() and torch._C._are_functorch_transforms_active()


def must_be_plain(grad: Tensor) -> bool:
    """Whether a backward pass must consist of ordinary operations, for what follows it.

    Args:
        grad: of the output.
    """
    is_batched: bool = in_transform() or torch._C._functorch.is_legacy_batchedtensor(grad)
    return is_batched or torch.is_grad_enabled()


def plain_gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: tuple[Tensor | None, ...],
    grads: Tensor | tuple[Tensor, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs that require one, themselves differentiable.

    Args:
        function: of the inputs, made of operations that autograd follows.
        inputs: ``None`` where one is absent.
        grads: of its outputs.
    """
    at = tuple(i for i, x in enumerate(inputs) if x is not None and x.requires_grad)
    device = next(x.device.type for x in inputs if x is not None)
    with torch.autocast(device, enabled=False):
        leaves, outs = followed(function, inputs, at)
        gradients = iter(gradients_of(outs, leaves, grads))
    return tuple(next(gradients) if i in at else None for i in range(len(inputs)))


def followed(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: tuple[Tensor | None, ...],
    at: tuple[int, ...],
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Run a function such that autograd follows the inputs `at`; return those and the outputs.

    They are views, so that the gradient of one is not also that of what another was made from.
    """
    given, leaves = list(inputs), list[Tensor]()
    with torch.enable_grad():
        for index in at:
            x = given[index]
            assert x is not None
            leaves.append(x.view_as(x) if x.requires_grad else x.detach().requires_grad_())
            given[index] = leaves[-1]
        outs = function(*given)
    return leaves, outs if isinstance(outs, tuple) else (outs,)


def gradients_of(
    outs: Sequence[Tensor], inputs: Sequence[Tensor], grads: Tensor | Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return the gradients of inputs: zero where no output depends on one.

    Args:
        outs: of a function.
        inputs: of it.
        grads: of the outputs.
    """
    pairs = zip(outs, [grads] if isinstance(grads, Tensor) else grads, strict=True)
    dependent = [(out, grad) for out, grad in pairs if out.requires_grad]
    if not dependent:
        return tuple(torch.zeros_like(x) for x in inputs)
    outs, grads = zip(*dependent, strict=True)
    return torch.autograd.grad(
        outs, inputs, grads, create_graph=torch.is_grad_enabled(), materialize_grads=True
    )


def with_plain_gradients(out: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Give what a fused kernel computed gradients that can be differentiated.

    A first derivative is the kernel's own.

    Args:
        out: what the kernel made of the inputs.
        function: computes the same by ordinary operations; or raises.
        *inputs: of both.
    """
    if not out.requires_grad or is_dynamo_compiling() or in_transform():
        return out
    routed: Tensor = _Routed.apply(out, function, *inputs)  # type: ignore[no-untyped-call]
    return routed


class _Routed(torch.autograd.Function):
    """Leads a gradient to the kernel, or round it."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return out.detach()  # no copy, and no view, which could not be changed in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if not must_be_plain(grad):
            return grad, None, *(None for _ in inputs)
        return None, None, *plain_gradients(ctx.function, inputs, grad)
