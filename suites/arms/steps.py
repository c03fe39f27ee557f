"""The steps that several kinds take with their arms: inspect, build, time, and write down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from attention.base import Attention, UnsupportedError
from results.schema import UNITS, Case
from suites.arms.arm import ArmRunner
from suites.arms.build import check_case, expected_exponents
from suites.arms.documents import one_document
from suites.arms.levels import (
    Built,
    build,
    build_light,
    cost_of,
    placed,
    unsupported_reasons,
)
from suites.kind import FirstLaunch, Inspection, Request
from suites.measure.clock import Timing, sample_in_turn
from suites.measure.compile import compile_by_calling
from suites.measure.conditions import Watch
from suites.measure.gate import ERROR_ROWS, Call, WrongOutputError, error_against_softmax
from suites.measure.sentinel import sentinel_of
from suites.measure.timers import Timed, timer_for

SEARCH_S = 0.25
"""Sampling time by which a warm-up is found out, where less is sampled."""


class TimedArms(NamedTuple):
    """What timing gives: per arm the timing and what compiling took; and the conditions."""

    timings: list[Timing]
    compiled: list[dict[str, Any] | None]
    conditions: dict[str, Any]


def inspect_arms(case: Case, unsupported: Sequence[str] = ()) -> Inspection:
    """Say whether the arms of a case are supported here, and what each would cost.

    Args:
        case: what would be measured.
        unsupported: reasons against it that are known already.

    Raises:
        ValueError: if the case's fields do not fit one another, or an option is out of range.
        TypeError: if there is no such option.
        UnsupportedError: if an arm cannot be built for the case.
    """
    check_case(case)
    inspection = Inspection(list(unsupported))
    for index, arm in enumerate(case.arms):
        mixer, module = build_light(arm, case)
        if index == 0:
            inspection.unsupported += unsupported_reasons(mixer, case)
            exponents = expected_exponents(mixer, case)
            inspection.time_exponent = exponents["time"]
            inspection.memory_exponent = exponents["memory"]
        inspection.cost.append(None if inspection.unsupported else cost_of(mixer, module, case))
    return inspection


def build_arms(case: Case) -> list[Built]:
    """Build the arms of a case on its device.

    Raises:
        ValueError: if the case's fields do not fit one another.
        UnsupportedError: if an arm cannot serve the case.
    """
    check_case(case)
    built = [placed(build(arm, case), case) for arm in case.arms]
    for mixer, _ in built:
        if reasons := unsupported_reasons(mixer, case):
            raise UnsupportedError("; ".join(reasons))
    return built


def arms_timed(runners: Sequence[ArmRunner], case: Case, request: Request) -> TimedArms:
    """Compile the arms if the case says so, and time them in alternation."""
    compiled: list[dict[str, Any] | None] = [None] * len(runners)
    with torch.inference_mode(case.mode != "training"):
        if case.compile:
            request.stage("compiling")
            compiled = [compile_by_calling(c, case.device) for c in runners]
        request.stage("timing")
        timings, conditions = timed(runners, case, budget_s=request.budget_s, first=request.first)
    return TimedArms(timings, compiled, conditions)


def arms_called(runners: Sequence[ArmRunner], case: Case) -> None:
    """Call each arm once, as a sample would: what is made only once is there, and an output."""
    with torch.inference_mode(case.mode != "training"):
        for runner in runners:
            runner.prepare()
            runner.call()
            runner.settle()


def timed(
    arms: Sequence[Timed], case: Case, *, budget_s: float, first: FirstLaunch | None = None
) -> tuple[list[Timing], dict[str, Any]]:
    """Time the arms of a case in alternation, with the sentinel beside every sample.

    Args:
        arms: what is compared.
        case: gives the device and the seed.
        budget_s: sampling time per arm.
        first: what the case's first launch found out, if it found how long the warm-ups take.

    Returns:
        The timings; the record's ``conditions``.
    """
    timer, sentinel = timer_for(case.device), sentinel_of(case.device)
    known = [arm.warm_up_calls for arm in first.arms] if first else []
    watch = Watch(case.device)
    timings = sample_in_turn(
        arms, timer, budget_s=budget_s, seed=case.seed, companion=sentinel,
        warm_up_calls=known, search_s=SEARCH_S,
    )  # fmt: skip
    return timings, watch.conditions()


def arm_record(
    runner: ArmRunner,
    case: Case,
    *,
    kernel: str,
    gate: Mapping[str, Any] | None,
    compiled: Mapping[str, Any] | None,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Write down what was measured of an arm, and what is declared of it."""
    return {
        "kernel": kernel,
        "gate": gate,
        "cost": cost_of(runner.mixer, runner.module, case),
        "expected": expected_exponents(runner.mixer, case),
        "fixed_size": dict(runner.mixer.fixed_sizes()),
        "compiled": compiled,
        "metrics": metrics,
    }


def relative_error(runner: ArmRunner, case: Case, *, on: str) -> dict[str, Any]:
    """Return the metric of how far an arm's last output is from exact softmax attention.

    Args:
        runner: at level attention.
        case: gives causality and the seed of the sampled rows.
        on: which inputs, for the reason of a failure.

    Raises:
        WrongOutputError: if the output contains NaN or infinity.
    """
    attention, (q, k, v) = runner.mixer, map(one_document(case), runner.inputs.tensors)
    assert isinstance(attention, Attention)
    assert runner.output is not None
    call = Call(attention, q, k, v, case.is_causal, one_document(case)(runner.output))
    value = error_against_softmax(call, seed=case.seed)
    if not math.isfinite(value):
        raise WrongOutputError(f"{attention.name}: {on} the output contains NaN or infinity")
    unit = UNITS["relative_error"]
    return {"unit": unit, "value": value, "rows": min(ERROR_ROWS, q.shape[2])}
