"""Backends under the transforms of torch.func: grad, vjp, jacrev, vmap, jvp, functional_call.

A transform goes through torch's own operations. A backend with a backward pass of its own, or with
decisions on the host, is shown to it as one function of its tensors: its derivatives are those
that autograd finds of the call, run again; over a batch of examples (vmap) it is one call with a
larger batch, or one call an example where parameters or dropout keep them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from attention.derivatives import followed, gradients_of, in_transform

Tensors = tuple[Tensor, ...]


def as_a_whole(backend: nn.Module, method: str, *args: Any, **kwargs: Any) -> Tensor:
    """Call a method of a backend such that transforms see one function.

    Args:
        backend: holds further tensors: its parameters and buffers.
        method: returns a tensor whose first axis is the batch.
        *args: tensors whose first axis is the batch, and what else it takes.
        **kwargs: likewise.
    """
    flat, spec = tree_flatten((args, kwargs))
    at = [index for index, x in enumerate(flat) if isinstance(x, Tensor)]
    rows = [flat[index] for index in at]
    for index in at:
        flat[index] = None
    parameters_and_buffers = itertools.chain(backend.named_parameters(), backend.named_buffers())
    held: dict[str, Tensor] = {f"backend.{name}": x for name, x in parameters_and_buffers}
    seeds = []
    if backend.active_dropout_p:  # vmap's `randomness` says whether examples share it
        seeds = [torch.randint(2**62, (), device="cpu")]
    call = _Call(
        backend, method, backend.training, tuple(flat), spec, tuple(at), tuple(held), bool(seeds)
    )
    (out,) = _run(call, *rows, *held.values(), *seeds)
    return out


class _Function(Protocol):
    """A function of tensors, run outside of all transforms."""

    @property
    def is_row(self) -> tuple[bool, ...]:
        """Tell of each tensor whether its first axis is the batch."""

    @property
    def outputs(self) -> int:
        """Count what it returns."""

    @property
    def keeps_rows(self) -> bool:
        """Tell whether a row of the outputs depends on that row of the inputs alone."""

    def __call__(self, *tensors: Tensor) -> Tensors:
        """Compute."""


class _Method(nn.Module):
    """A method of a backend as a module, which `functional_call` asks for."""

    def __init__(self, backend: nn.Module, method: str) -> None:
        super().__init__()
        self.backend, self.method = backend, method

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = getattr(self.backend, self.method)(*args, **kwargs)
        return out


@dataclass(frozen=True)
class _Call:
    """A backend's call: of its rows, of the tensors that the backend holds, and of a seed.

    Attributes:
        backend: whose call.
        method: which call.
        training: the backend's mode.
        given: all arguments, ``None`` in the places of tensors.
        spec: how they were nested.
        at: the places of tensors.
        held: names of the tensors that the backend holds.
        has_seed: whether the last tensor is a seed, for dropout.
    """

    backend: nn.Module
    method: str
    training: bool
    given: tuple[Any, ...]
    spec: TreeSpec
    at: tuple[int, ...]
    held: tuple[str, ...]
    has_seed: bool

    outputs = 1

    @property
    def is_row(self) -> tuple[bool, ...]:
        return (True,) * len(self.at) + (False,) * (len(self.held) + self.has_seed)

    @property
    def keeps_rows(self) -> bool:
        return not self.has_seed

    def __call__(self, *tensors: Tensor) -> Tensors:
        given, rows = list(self.given), len(self.at)
        for index, x in zip(self.at, tensors[:rows], strict=True):
            given[index] = x
        args, kwargs = tree_unflatten(given, self.spec)
        held = dict(zip(self.held, tensors[rows:], strict=not self.has_seed))
        with _mode(self.backend, self.training), _seeded(tensors[-1] if self.has_seed else None):
            return (functional_call(_Method(self.backend, self.method), held, args, kwargs),)


@contextmanager
def _mode(backend: nn.Module, training: bool) -> Iterator[None]:
    before, backend.training = backend.training, training
    try:
        yield
    finally:
        backend.training = before


@contextmanager
def _seeded(seed: Tensor | None) -> Iterator[None]:
    """Draw from a stream of one's own, the same in every pass."""
    if seed is None:
        yield
        return
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(seed))
        yield


@dataclass(frozen=True)
class _Gradients:
    """Of a function's tensors and the gradients of its outputs: the gradients of the tensors.

    Attributes:
        of: the function.
        wanted: the tensors whose gradients are returned.
    """

    of: _Function
    wanted: tuple[int, ...]

    @property
    def outputs(self) -> int:
        return len(self.wanted)

    @property
    def is_row(self) -> tuple[bool, ...]:
        return self.of.is_row + (True,) * self.of.outputs

    @property
    def keeps_rows(self) -> bool:
        return self.of.keeps_rows and all(self.of.is_row[at] for at in self.wanted)

    def __call__(self, *tensors: Tensor) -> Tensors:
        inputs, grads = tensors[: -self.of.outputs], tensors[-self.of.outputs :]
        leaves, outs = followed(self.of, inputs, self.wanted)
        return gradients_of(outs, leaves, grads)


@dataclass(frozen=True)
class _Tangents:
    """Of a function's tensors and the tangents of some of them: the tangents of its outputs.

    The gradients are linear in the gradients of the outputs; the gradient of that is the tangent.

    Attributes:
        of: the function.
        given: the tensors that have a tangent.
    """

    of: _Function
    given: tuple[int, ...]

    @property
    def outputs(self) -> int:
        return self.of.outputs

    @property
    def is_row(self) -> tuple[bool, ...]:
        return self.of.is_row + tuple(self.of.is_row[at] for at in self.given)

    @property
    def keeps_rows(self) -> bool:
        return self.of.keeps_rows

    def __call__(self, *tensors: Tensor) -> Tensors:
        inputs, tangents = tensors[: -len(self.given)], tensors[-len(self.given) :]
        with torch.enable_grad():
            leaves, outs = followed(self.of, inputs, self.given)
            weights = [torch.zeros_like(out, requires_grad=True) for out in outs]
            linear = gradients_of(outs, leaves, weights)
        return gradients_of(linear, weights, tangents)


def _run(function: _Function, *tensors: Tensor) -> Tensors:
    return _apply(function, *tensors) if in_transform() else function(*tensors)


def _apply(function: _Function, *tensors: Tensor) -> Tensors:
    outs: Tensors = _Whole.apply(function, *tensors)  # type: ignore[no-untyped-call]
    return outs


class _Whole(torch.autograd.Function):
    """A function of tensors, to any number of transforms."""

    @staticmethod
    def forward(function: _Function, *tensors: Tensor) -> Tensors:
        # What is returned must not be what came in: torch saves the one and not the other.
        given = {id(x) for x in tensors}
        return tuple(x.view_as(x) if id(x) in given else x for x in function(*tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = tuple(at - 1 for at, needed in enumerate(ctx.needs_input_grad) if needed)
        gradients = _apply(_Gradients(ctx.function, wanted), *ctx.saved_tensors, *grads)
        every: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for at, grad in zip(wanted, gradients, strict=True):
            every[at + 1] = grad
        return tuple(every)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensors:
        given = tuple(at for at, tangent in enumerate(tangents) if tangent is not None)
        function = _Tangents(ctx.function, given)
        return _apply(function, *ctx.saved_tensors, *(x for x in tangents if x is not None))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], function: _Function, *tensors: Tensor
    ) -> tuple[Tensors, tuple[int, ...]]:
        size, dims = info.batch_size, in_dims[1:]
        together = function.keeps_rows and all(
            dim is None or row for dim, row in zip(dims, function.is_row, strict=True)
        )
        if together:
            wide = [
                _beside(x, dim, size).flatten(0, 1) if row else x
                for x, dim, row in zip(tensors, dims, function.is_row, strict=True)
            ]
            outs = tuple(out.unflatten(0, (size, -1)) for out in _run(function, *wide))
        else:
            each = [
                _run(
                    function,
                    *(x if dim is None else x.select(dim, at)
                      for x, dim in zip(tensors, dims, strict=True)),
                )
                for at in range(size)
            ]  # fmt: skip
            outs = tuple(torch.stack(same) for same in zip(*each, strict=True))
        return outs, (0,) * len(outs)


def _beside(x: Tensor, dim: int | None, size: int) -> Tensor:
    """Put the examples' axis first; what they share is repeated."""
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
