"""One arm ready to be called, and its call as the gate wants to see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attention.base import Attention
from attention.functional import relative_l2
from models import IdentityAttention, LSTMLayer
from results.schema import Case
from suites.arms.build import Inputs, Mixer, dtype_of
from suites.arms.documents import as_rows, one_document
from suites.arms.token_inputs import draw_token_inputs, of_tokens
from suites.kind import metrics
from suites.measure.gate import (
    GATE_ROWS,
    Call,
    WrongOutputError,
    check_call,
    check_rows,
    reduced_floor,
)
from suites.measure.memory import peak_memory

REORDERED = 16
"""How much further than a repetition a reordered product may be: sums over the sequence round
differently, and the softmax behind them magnifies that."""


class Runner:
    """A module, ready to be called: a `suites.measure.timers.Timed`.

    Args:
        module: what is measured, called as ``module(*inputs, is_causal=...)``.
        inputs: shared by all arms.
        case: gives the mode, the causality and whether to compile.
    """

    def __init__(self, module: nn.Module, inputs: Inputs, case: Case) -> None:
        self.module = module
        self.inputs = inputs
        self.case = case
        self.is_causal = case.is_causal
        self.run: Callable[..., Tensor] = torch.compile(module) if case.compile else module
        training = inputs.output_grad is not None
        self.leaves = [*inputs.tensors, *module.parameters()] if training else []
        self.extra: dict[str, Tensor] = {}
        self.output: Tensor | None = None
        self.input_grad: Tensor | None = None

    def prepare(self) -> None:
        """Drop the last output and all gradients."""
        self.output = self.input_grad = None
        self._drop_grads()

    def call(self) -> None:
        """Run forward, and in mode training backward."""
        asks = {**self.inputs.asks, **self.extra}
        output = self.run(*self.inputs.tensors, is_causal=self.is_causal, **asks)
        if self.inputs.output_grad is not None:
            torch.autograd.backward(output, self.inputs.output_grad)
        self.output = output

    def settle(self) -> None:
        """Keep the output and the gradient of q (or x); free the shared inputs for other arms."""
        if self.output is not None:
            self.output = self.output.detach()
        self.input_grad = self._watched().grad
        self._drop_grads()

    def memory(self) -> dict[str, Any]:
        """Call once more; return the metric of its memory, and keep the output."""
        with torch.inference_mode(self.case.mode == "forward"):
            peak = peak_memory(self.call, self.case.device)
        self.settle()
        return metrics(peak_memory=peak)

    def _watched(self) -> Tensor:
        """Return the tensor whose gradient a second call must leave again."""
        return self.inputs.tensors[0]

    def _drop_grads(self) -> None:
        for leaf in self.leaves:
            leaf.grad = None


class ArmRunner(Runner):
    """One arm with a mixer of ours inside.

    Args:
        mixer: the backend or LSTM inside `module`, or `module` itself.
        module: what the case's level measures.
        inputs: shared by all arms.
        case: gives the mode, the causality and whether to compile.
    """

    def __init__(self, mixer: Mixer, module: nn.Module, inputs: Inputs, case: Case) -> None:
        super().__init__(module, inputs, case)
        self.mixer = mixer
        drawn = draw_token_inputs(mixer, case)
        self.extra = {
            name: as_rows(case, x.detach()).requires_grad_(x.requires_grad)
            for name, x in drawn.items()
        }
        if self.leaves:
            self.leaves += self.extra.values()

    def gate(self) -> dict[str, Any] | None:
        """Hold the output of the last call against its reference, if it has one.

        Raises:
            WrongOutputError: if it is off.
        """
        if isinstance(self.mixer, IdentityAttention) or not self.mixer.has_reference:
            return None
        if isinstance(self.mixer, LSTMLayer):
            return self.check_recurrence()
        return check_call(
            self.gate_call(), seed=self.case.seed, precision=self.case.matmul_precision
        )

    def gate_call(self) -> Call:
        """Return what went into the backend and what came out, in the last call."""
        return backend_call(self, self.case)

    def check_recurrence(self) -> dict[str, Any]:
        """Hold the beginning against the LSTM's recurrence, and a second call to the last."""
        last, last_grad = self.output, self.input_grad

        def again() -> None:
            call_plainly(self, self.case)
            check_same("output", last, self.output, repeated_budget(self.case))
            check_same("gradient", last_grad, self.input_grad, repeated_budget(self.case))

        return follows_recurrence(self, again)


def backend_call(runner: ArmRunner, case: Case) -> Call:
    """Return what went into the backend and what came out, in the last call of an arm.

    At level attention that is the call itself. Within a layer, block or model it runs once more,
    uncompiled, with the backend's inputs and output recorded; its result must be that of the last
    call, so that what is true of the one is true of the other.

    A layer that multiplied keys and values along the sequence before their features, so that its
    backend saw none of the whole length, does that second call in the other order.

    Raises:
        WrongOutputError: if the two calls differ.
    """
    assert runner.output is not None
    assert isinstance(runner.mixer, Attention)
    if case.level == "attention":
        q, k, v = runner.inputs.tensors
        of = one_document(case)
        output_grad, input_grad = (
            None if x is None else of(x) for x in (runner.inputs.output_grad, runner.input_grad)
        )
        return Call(
            runner.mixer, of(q), of(k), of(v), case.is_causal, of(runner.output),
            output_grad, input_grad,
            extra={name: of(x) for name, x in runner.extra.items()},
        )  # fmt: skip
    last_output, last_grad = runner.output, runner.input_grad
    reordered = [layer for layer in _layers(runner) if layer.is_sequence_first(case.key_len)]
    orders = [layer.projection_order for layer in reordered]
    for layer in reordered:
        layer.projection_order = "features_first"
    try:
        seen = _call_recorded(runner, case)
    finally:
        for layer, order in zip(reordered, orders, strict=True):
            layer.projection_order = order
    budget = repeated_budget(case, reordered=len(reordered))
    check_same("output", last_output, runner.output, budget)
    check_same("gradient", last_grad, runner.input_grad, budget)
    q, output = seen["q"], seen["output"]
    training = case.mode == "training"
    return Call(
        runner.mixer, q, seen["k"], seen["v"], seen["is_causal"], output.detach(),
        output.grad if training else None, q.grad if training else None, extra=seen["extra"],
    )  # fmt: skip


def _call_recorded(runner: ArmRunner, case: Case) -> dict[str, Any]:
    """Call an arm's module; return q, k, v, causality and output of its backend, with gradients.

    Of several layers with the same backend the arm's mixer is the one that is watched.
    """
    seen: dict[str, Any] = {}

    def record(
        _module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor
    ) -> None:
        named = {**dict(zip("qkv", args, strict=False)), **kwargs}
        seen.update({name: named[name] for name in "qkv"}, output=output)
        seen["is_causal"] = named.get("is_causal", False)
        seen["extra"] = of_tokens(runner.mixer, named)
        if output.requires_grad:
            seen["q"].retain_grad()
            output.retain_grad()

    handle = runner.mixer.register_forward_hook(record, with_kwargs=True)
    try:
        call_plainly(runner, case)
    finally:
        handle.remove()
    return seen


def call_plainly(runner: ArmRunner, case: Case) -> None:
    """Call an arm's module as it is, neither compiled nor recomputing."""
    runner.prepare()
    run, runner.run = runner.run, runner.module
    recomputing = [m for m in runner.module.modules() if getattr(m, "checkpointing", False)]
    for module in recomputing:
        module.checkpointing = False  # type: ignore[assignment]
    try:
        with torch.inference_mode(case.mode != "training"):
            runner.call()
            runner.settle()
    finally:
        runner.run = run
        for module in recomputing:
            module.checkpointing = True  # type: ignore[assignment]


def repeated_budget(case: Case, *, reordered: int = 0) -> float:
    """Return how far a second call, neither compiled nor recomputing, may be from a timed one.

    Args:
        case: what is called.
        reordered: layers whose products the second call takes in another order; what they add up
            to goes through those behind them.
    """
    floor = reduced_floor(dtype_of(case), case.matmul_precision)
    further = reordered or case.compile or case.level == "model"
    return floor * (REORDERED * max(1, reordered) if further else 1)


def follows_recurrence(runner: ArmRunner, call: Callable[[], None]) -> dict[str, Any]:
    """Hold the first tokens that `call` gives an arm's LSTM against its recurrence.

    Of one that reads both ways the last ones too, as they are read from the end.

    Raises:
        WrongOutputError: if they are off.
    """
    case, layer = runner.case, runner.mixer
    assert isinstance(layer, LSTMLayer)
    seen: dict[str, Tensor] = {}

    def record(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if not seen:
            seen.update(x=args[0].detach(), output=output.detach())

    handle = layer.register_forward_hook(record)
    try:
        call()
    finally:
        handle.remove()
    x, output = seen["x"], seen["output"]
    rows = min(GATE_ROWS, x.shape[1])
    expected = [layer.reference_rows(x, rows)]
    actual = [output[:, :rows, : expected[0].shape[2]]]
    if not layer.is_causal:
        expected.append(layer.reference_rows(x, rows, backwards=True))
        actual.append(output[:, -rows:, expected[0].shape[2] :])
    budget = REORDERED * reduced_floor(dtype_of(case), case.matmul_precision)
    return check_rows(layer.name, torch.cat(actual, dim=2), torch.cat(expected, dim=2), budget)


def _layers(runner: ArmRunner) -> list[Any]:
    """Return the modules that choose the order of their projections."""
    return [m for m in runner.module.modules() if hasattr(m, "projection_order")]


def check_same(what: str, timed: Tensor | None, again: Tensor | None, budget: float) -> None:
    """Hold what a timed call gave against what a second one gave; absent on either side is well.

    Raises:
        WrongOutputError: if they are further apart than `budget` (relative L2).
    """
    if timed is None or again is None:
        return
    if not (error := relative_l2(timed, again)) <= budget:
        raise WrongOutputError(
            f"reference check: {what} of the timed call and of a repetition differ by "
            f"{error:.3g} (relative L2), allowed {budget:.3g}"
        )
