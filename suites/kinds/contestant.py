"""One arm ready to be called, and its call as the gate wants to see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attention.base import Attention
from attention.functional import relative_l2
from results.schema import Case
from suites.kinds.arms import Inputs, dtype_of
from suites.measure.gate import Call, WrongOutputError, reduced_floor

REORDERED = 16
"""How much further than a repetition a reordered product may be: sums over the sequence round
differently, and the softmax behind them magnifies that."""


class Runner:
    """A module, ready to be called: a `suites.measure.clock.Timed`.

    Args:
        module: what is measured, called as ``module(*inputs, is_causal=...)``.
        inputs: shared by all arms.
        case: gives the mode, the causality and whether to compile.
    """

    def __init__(self, module: nn.Module, inputs: Inputs, case: Case) -> None:
        self.module = module
        self.inputs = inputs
        self.is_causal = case.is_causal
        self.run: Callable[..., Tensor] = torch.compile(module) if case.compile else module
        training = inputs.output_grad is not None
        self.leaves = [*inputs.tensors, *module.parameters()] if training else []
        self.output: Tensor | None = None
        self.input_grad: Tensor | None = None

    def prepare(self) -> None:
        """Drop the last output and all gradients."""
        self.output = self.input_grad = None
        self._drop_grads()

    def call(self) -> None:
        """Run forward, and in mode training backward."""
        output = self.run(*self.inputs.tensors, is_causal=self.is_causal)
        if self.inputs.output_grad is not None:
            torch.autograd.backward(output, self.inputs.output_grad)
        self.output = output

    def settle(self) -> None:
        """Keep the output and the gradient of q (or x); free the shared inputs for other arms."""
        if self.output is not None:
            self.output = self.output.detach()
        self.input_grad = self.inputs.tensors[0].grad
        self._drop_grads()

    def _drop_grads(self) -> None:
        for leaf in self.leaves:
            leaf.grad = None


class Contestant(Runner):
    """One arm with a backend of ours inside.

    Args:
        attention: the backend inside `module`, or `module` itself.
        module: what the case's level measures.
        inputs: shared by all arms.
        case: gives the mode, the causality and whether to compile.
    """

    def __init__(
        self, attention: Attention, module: nn.Module, inputs: Inputs, case: Case
    ) -> None:
        super().__init__(module, inputs, case)
        self.attention = attention


def backend_call(contestant: Contestant, case: Case) -> Call:
    """Return what went into the backend and what came out, in the last call of an arm.

    At level attention that is the call itself. Within a layer or block the module runs once more,
    uncompiled, with the backend's inputs and output recorded; its result must be that of the last
    call, so that what is true of the one is true of the other.

    A layer that multiplied keys and values along the sequence before their features, so that its
    backend saw none of the whole length, does that second call in the other order.

    Raises:
        WrongOutputError: if the two calls differ.
    """
    assert contestant.output is not None
    if case.level == "attention":
        q, k, v = contestant.inputs.tensors
        return Call(
            contestant.attention, q, k, v, case.is_causal, contestant.output,
            contestant.inputs.output_grad, contestant.input_grad,
        )  # fmt: skip
    last_output, last_grad = contestant.output, contestant.input_grad
    reordered = [layer for layer in _layers(contestant) if layer.is_sequence_first(case.key_len)]
    orders = [layer.projection_order for layer in reordered]
    for layer in reordered:
        layer.projection_order = "features_first"
    try:
        seen = _call_recorded(contestant, case)
    finally:
        for layer, order in zip(reordered, orders, strict=True):
            layer.projection_order = order
    budget = reduced_floor(dtype_of(case), case.matmul_precision)
    budget *= REORDERED if reordered else 1
    _check_same("output", last_output, contestant.output, budget)
    _check_same("gradient of x", last_grad, contestant.input_grad, budget)
    q, output = seen["q"], seen["output"]
    training = case.mode == "training"
    return Call(
        contestant.attention, q, seen["k"], seen["v"], case.is_causal, output.detach(),
        output.grad if training else None, q.grad if training else None,
    )  # fmt: skip


def _call_recorded(contestant: Contestant, case: Case) -> dict[str, Tensor]:
    """Call an arm's module; return q, k, v and output of its backend, gradients kept."""
    seen: dict[str, Tensor] = {}

    def record(
        _module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor
    ) -> None:
        named = {**dict(zip("qkv", args, strict=False)), **kwargs}
        seen.update({name: named[name] for name in "qkv"}, output=output)
        if output.requires_grad:
            seen["q"].retain_grad()
            output.retain_grad()

    contestant.prepare()
    run, contestant.run = contestant.run, contestant.module
    handle = contestant.attention.register_forward_hook(record, with_kwargs=True)
    try:
        with torch.inference_mode(case.mode == "forward"):
            contestant.call()
            contestant.settle()
    finally:
        handle.remove()
        contestant.run = run
    return seen


def _layers(contestant: Contestant) -> list[Any]:
    """Return the modules that choose the order of their projections."""
    return [m for m in contestant.module.modules() if hasattr(m, "projection_order")]


def _check_same(what: str, timed: Tensor | None, again: Tensor | None, budget: float) -> None:
    if timed is None or again is None:
        return
    if not (error := relative_l2(timed, again)) <= budget:
        raise WrongOutputError(
            f"{what}: the timed call and a second one differ by {error:.3g} (relative L2), "
            f"allowed is {budget:.3g}"
        )
