"""Hold an arm's output against its reference, or against what the case's first launch gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attention.base import Attention
from attention.functional import least_norms
from suites.arms.arm import ArmRunner, repeated_budget
from suites.kind import Request
from suites.measure.fingerprint import compared, fingerprint, projected
from suites.measure.gate import GATE_ROWS, WrongOutputError, sampled_rows


def gated(runner: ArmRunner, index: int, request: Request) -> dict[str, Any] | None:
    """Hold an arm's last output against its reference, or against that of the first launch.

    Args:
        runner: the arm.
        index: its place in the case.
        request: says what the first launch recorded of it.

    At level attention a later launch may be off by the gate's budget; else by what a second call
    may differ in (`repeated_budget`).

    Returns:
        The verdict. A first launch's holds a fingerprint of the output, and in training of the
        gradient; that of a later one is ``same_as_launch``, ``difference`` and ``allowed``, of
        the gradient likewise. ``None`` where the arm has no reference.

    Raises:
        WrongOutputError: if it is off.
    """
    if request.first is None:
        return with_fingerprint(runner)
    if (before := request.first.arms[index].fingerprint) is None:
        return None
    return {"same_as_launch": request.first.launch, **same_as(runner, before)}


def with_fingerprint(runner: ArmRunner) -> dict[str, Any] | None:
    """Return the gate's verdict with a fingerprint of the last call's output and gradient.

    Raises:
        WrongOutputError: as of `ArmRunner.gate`.
    """
    case, least = runner.case, _least_norms(runner)
    told = {
        part: projected(x, seed=case.seed, least=least.get(part, 0.0))
        for part, x in _parts(runner).items()
    }  # before the gate, which may call again
    if (verdict := runner.gate()) is None:
        return None
    allowed = dict.fromkeys(told, repeated_budget(case))
    if case.level == "attention":  # the gate's own budget, of each part
        allowed = {part: verdict.get(part, verdict)["budget"] for part in told}
    prints = {part: fingerprint(*told[part], allowed=allowed[part]) for part in told}
    return {**verdict, "fingerprint": prints}


def same_as(runner: ArmRunner, first: Mapping[str, Any]) -> dict[str, Any]:
    """Hold the last call's output and gradient against the first launch's fingerprint.

    Raises:
        WrongOutputError: if either is off.
    """
    name, parts = runner.mixer.name, _parts(runner)
    if parts.keys() != first.keys():
        raise WrongOutputError(
            f"reference check: {name}: the first process gave {', '.join(first)}, this one "
            f"{', '.join(parts)}"
        )
    verdicts = {
        part: compared(f"{name}: {part}", x, first[part], seed=runner.case.seed)
        for part, x in parts.items()
    }
    return {**verdicts.pop("output"), **verdicts}


def _parts(runner: ArmRunner) -> dict[str, Tensor]:
    """Return what the last call gave."""
    assert runner.output is not None
    gradient = {} if runner.input_grad is None else {"gradient": runner.input_grad}
    return {"output": runner.output, **gradient}


def _least_norms(runner: ArmRunner) -> dict[str, float]:
    """Return what the norms of `_parts` count at least; within a layer none cancels."""
    if runner.case.level != "attention" or not isinstance(runner.mixer, Attention):
        return {}
    assert runner.output is not None
    _, k, v = runner.inputs.tensors
    at = sampled_rows(runner.output.shape[2], GATE_ROWS, seed=runner.case.seed).to(k.device)
    grad = runner.inputs.output_grad
    grads = None if grad is None else grad[:, :, at]
    least = least_norms(k, v, runner.mixer.scale, runner.output[:, :, at], grads)
    return {"output": least["output"], "gradient": least.get("dq", 0.0)}
