"""Kind ``peer``: another library's attention and our counterpart, in alternation, on equal inputs.

The arms are our backend, the peer and, where the peer carries projections, those projections
alone. At level attention both get q, k and v; at level layer both get x, and ours stands between
copies of the peer's projections. After the timing our output is held against its reference as in
kind speed and, where both compute the same function, the peer's against ours. One more call an arm
gives its peak memory; it runs on inputs of the scale at which errors are taken, and gives the
difference of the outputs too. The launches behind a case's first are lean as those of kind speed:
our output is held against the first launch's, and where both compute the same function the peer's
against ours, as in the first.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from attention.base import Attention, UnsupportedError
from attention.functional import least_norms, relative_l2
from models import IdentityAttention
from models.layers.projection import saved_ops
from results.schema import FULL_PRECISION, IDENTITY, PROJECTIONS, Arm, Case
from suites.arms.arm import ArmRunner, Runner
from suites.arms.build import (
    build_attention,
    check_case,
    cost_of,
    draw_inputs,
    dtype_of,
    expected_exponents,
    refuse_inputs,
    unsupported_reasons,
)
from suites.arms.checks import gated
from suites.arms.levels import build_light
from suites.arms.steps import timed
from suites.kind import Inspection, Kind, Measured, Request, arm, metrics
from suites.measure.gate import INPUT_SCALE, WrongOutputError, reduced_floor
from suites.peers.base import Built, Peer
from suites.peers.projected import ProjectedAttention
from suites.peers.registry import of_arm


def inspect(case: Case, _request: Request) -> Inspection:
    """Tell of our arm as of any, and whether the peer can run beside it; its cost is unknown."""
    check_case(case)
    refuse_inputs(case)
    peer = peer_of(case)
    ours, _ = build_light(case.arms[0], replace(case, level="attention"))
    assert isinstance(ours, Attention)
    reasons = unsupported_reasons(ours, case) + peer.unsupported_reasons(ours, case)
    exponents = expected_exponents(ours, case)
    cost = [] if reasons else [cost_beside(ours, case, peer)]
    return Inspection(reasons, [*cost], exponents["time"], exponents["memory"])


def run(case: Case, request: Request) -> Measured:
    """Measure a case of kind peer: its arms are ours, the peer and maybe the projections.

    Raises:
        UnsupportedError: if an arm cannot serve the case.
        WrongOutputError: if our output is off its reference, or the peer's off ours though both
            compute the same function.
    """
    request.stage("building")
    check_case(case)
    peer = peer_of(case)
    attention = build_attention(case.arms[0], case)
    reasons = unsupported_reasons(attention, case) + peer.unsupported_reasons(attention, case)
    if reasons:
        raise UnsupportedError("; ".join(reasons))
    with warnings.catch_warnings():  # a library's deprecations are its own
        warnings.simplefilter("ignore")
        return _measure(case, peer, attention, request)


def peer_of(case: Case) -> Peer:
    """Return the peer of a case, the form of its arms being checked.

    Raises:
        ValueError: if the arms or the level are not those of a case with this peer.
    """
    names = [arm.name for arm in case.arms]
    if len(names) < 2 or names[0] == IDENTITY:
        raise ValueError(f"arms: expected our backend and a peer, got {', '.join(names)}")
    peer = of_arm(names[1])
    wanted = [names[0], names[1], *([PROJECTIONS] if peer.subtracts_projections else [])]
    if names != wanted or any(arm.options for arm in case.arms[1:]):
        raise ValueError(
            f"arms: expected {', '.join(wanted)}, options at the first alone; got "
            f"{', '.join(arm.label for arm in case.arms)}"
        )
    if names[0] != peer.counterpart:
        raise ValueError(f"arms: the counterpart of {peer.name} is {peer.counterpart}")
    level = "layer" if peer.num_projections else "attention"
    if case.level != level:
        raise ValueError(f"level: {peer.name} is measured at level {level}, got {case.level}")
    return peer


def cost_beside(attention: Attention, case: Case, peer: Peer) -> dict[str, int]:
    """Return the cost of our arm, as the record holds it: the backend and the projections."""
    inner = cost_of(attention, replace(case, level="attention"))
    assert inner is not None
    if not peer.num_projections:
        return inner
    num_projections = peer.num_projections
    width, tokens = case.num_heads * case.head_dim, case.batch * case.seq_len
    weights = num_projections * width * width
    passes, activations = (1, 2) if case.mode == "forward" else (3, 5)
    ops = 2 * tokens * weights
    if peer.whole_layer and not case.is_causal:
        ops -= case.batch * saved_ops(attention, width, width, case.key_len)
    ops *= passes
    size = dtype_of(case).itemsize
    return {
        "pattern_ops": inner["pattern_ops"] + ops,
        "executed_ops": inner["executed_ops"] + ops,
        "exponentials": inner["exponentials"],
        "bytes": (activations * tokens * width + passes * weights) * size,
    }


def agreement_budget(dtype: torch.dtype) -> float:
    """Return the relative L2 by which two implementations of one function may differ.

    Sixty-four units in the last place, eight in half precision: a few times what either may be off
    the truth, and far below the difference between two functions.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    return (8 if half else 64) * torch.finfo(dtype).eps


# -- the arms ------------------------------------------------------------------------------------


def _measure(case: Case, peer: Peer, attention: Attention, request: Request) -> Measured:
    stage = request.stage
    torch.manual_seed(case.seed)
    built = peer.build(attention, case)
    ours, *others = runners = _runners(case, attention, built, peer)
    with torch.inference_mode(case.mode == "forward"):
        if case.compile or peer.is_compiled:
            stage("compiling")
            for runner in runners:
                runner.prepare()
                runner.call()
                runner.settle()
        stage("timing")
        timings, conditions = timed(runners, case, budget_s=request.budget_s, first=request.first)
    stage("checking the output")
    kernel = attention.kernel
    theirs = others[0]
    agreement = _agreement(peer, theirs, ours, case)
    gate = gated(ours, 0, request)
    for runner in runners:
        runner.prepare()
    is_first = request.first is None
    if is_first:
        with torch.no_grad():
            for tensor in ours.inputs.tensors:  # one set, shared by all arms
                tensor.mul_(INPUT_SCALE)
    stage("measuring memory")
    with_memory = is_first or request.with_memory
    arms = [
        arm({"latency": timing.metric(), **(runner.memory() if with_memory else {})})
        for runner, timing in zip(runners, timings, strict=True)
    ]
    arms[0] |= {
        "kernel": kernel,
        "gate": gate,
        "cost": cost_beside(attention, case, peer),
        "expected": expected_exponents(attention, case),
    }
    arms[1] |= {"kernel": f"{peer.version()}: {built.kernel}", "gate": agreement}
    arms[1]["peer"] = {
        "same_function": peer.same_function,
        "difference": peer.difference,
        "project": peer.project,
    }
    if is_first:
        arms[1]["metrics"] |= metrics(output_difference=_difference(peer, theirs, ours, 0.0))
        arms[1]["metrics"]["output_difference"]["input_scale"] = INPUT_SCALE
    return Measured(arms, conditions)


def _runners(
    case: Case, attention: Attention, built: Built, peer: Peer
) -> tuple[ArmRunner, Runner, *tuple[Runner, ...]]:
    """Return the arms' modules, ready to be called, in the order of the case."""
    modules: list[tuple[Attention, nn.Module]]
    if built.projections is None:
        modules = [(attention, attention)]
    elif peer.whole_layer:
        modules = [(attention, ProjectedAttention(built.projections, attention, "auto"))]
    else:
        floor = build_attention(Arm(IDENTITY), case)
        assert isinstance(floor, IdentityAttention)
        modules = [(a, ProjectedAttention(built.projections, a)) for a in (attention, floor)]
    inputs = draw_inputs(case)
    ours, *alone = (ArmRunner(a, _placed(m, case), inputs, case) for a, m in modules)
    return (ours, Runner(_placed(built.module, case), inputs, case), *alone)


def _placed(module: nn.Module, case: Case) -> nn.Module:
    return module.to(case.device, dtype_of(case)).train(case.mode == "training")


# -- do both compute the same? -------------------------------------------------------------------


def _agreement(peer: Peer, theirs: Runner, ours: ArmRunner, case: Case) -> dict[str, Any] | None:
    """Return the verdict on one function computed twice; ``None`` where it is not one.

    Raises:
        WrongOutputError: if one function gave two outputs, or two gradients of the input.
    """
    least = _least_norms(ours, case)
    error = _difference(peer, theirs, ours, least.get("output", 0.0))
    if not peer.same_function:
        return None
    budget = agreement_budget(dtype_of(case))
    if case.matmul_precision != FULL_PRECISION:
        budget = max(budget, reduced_floor(dtype_of(case), case.matmul_precision))
    gate: dict[str, Any] = {"relative_l2": error, "budget": budget, "rows": case.seq_len}
    _check(peer, "output", error, budget)
    if ours.input_grad is not None and theirs.input_grad is not None:
        slope = relative_l2(theirs.input_grad, ours.input_grad, least=least.get("dq", 0.0))
        _check(peer, "gradient of the input", slope, budget)
        gate["gradient"] = {"relative_l2": slope, "budget": budget}
    return gate


def _least_norms(ours: ArmRunner, case: Case) -> dict[str, float]:
    """Return what the norms of output and dq count at least; at other levels none cancels."""
    if case.level != "attention":
        return {}
    assert isinstance(ours.mixer, Attention)
    assert ours.output is not None
    _, k, v = ours.inputs.tensors
    return least_norms(k, v, ours.mixer.scale, ours.output, ours.inputs.output_grad)


def _difference(peer: Peer, theirs: Runner, ours: Runner, least: float = 0.0) -> float:
    """Return the relative L2 distance of the peer's last output from ours.

    Raises:
        WrongOutputError: if the shapes differ, or the peer's output is not finite.
    """
    assert theirs.output is not None
    assert ours.output is not None
    if theirs.output.shape != ours.output.shape:
        raise WrongOutputError(
            f"{peer.name}: expected an output {tuple(ours.output.shape)}, got "
            f"{tuple(theirs.output.shape)}"
        )
    if not bool(torch.isfinite(theirs.output).all()):
        raise WrongOutputError(f"{peer.name}: the output contains NaN or infinity")
    return relative_l2(theirs.output, ours.output, least=least)


def _check(peer: Peer, what: str, error: float, budget: float) -> None:
    if not error <= budget:  # so that NaN fails
        raise WrongOutputError(
            f"reference check: {peer.name}: {what} differs from that of {peer.counterpart} by "
            f"{error:.3g} (relative L2), allowed {budget:.3g}: both compute the same function"
        )


KIND = Kind("peer", inspect, run)
