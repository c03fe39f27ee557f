"""Kind ``speed``: latency, peak memory and error of the arms of one case.

The order: build, time all arms in alternation, hold the very output of each arm's last sample
against its reference, then one more call an arm for the peak memory; at level attention that call
runs on inputs of the scale at which the error against exact softmax is taken, and gives it too.
So a case's first launch costs at least three calls an arm: one to warm up, one sample, the last
one; at level layer and block a fourth, in which the gate watches the backend.

The launches behind it are lean: they warm up as long as that one had to, hold 64 numbers of their
output against its, take no error, and after the third no memory.

In mode decode the memory is the size of the state, and at level model there is no error against
softmax, as at layer and block (`suites.arms.decode`, `suites.arms.model`).

A request without latency (`Request.with_latency`) is of a length that is too long to be timed
again and again: each arm is called once in place of the timing, its output checked, and its peak
memory measured; no error is taken.

Where it is asked for, each arm is then called a few times under the profiler, the floor of level
layer and block too.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from results.schema import Case
from suites.arms.arm import ArmRunner
from suites.arms.build import dtype_of, refuse_inputs
from suites.arms.checks import gated
from suites.arms.levels import runners_of
from suites.arms.steps import (
    arm_record,
    arms_called,
    arms_timed,
    build_arms,
    inspect_arms,
    relative_error,
)
from suites.kind import Inspection, Kind, Measured, Request
from suites.measure.clock import Timing
from suites.measure.gate import INPUT_SCALE
from suites.measure.process import TimeLimitError, seconds_left
from suites.measure.profile import MIN_CALLS, TRACE, profiled
from suites.processes.outcome import scrub

ERROR_LIMIT = 131072
"""Longest key length at which the error against exact softmax is taken."""

LONGEST_FAULT = 200
"""Letters of the reason why an arm has no profile."""

LONGEST_NAME = 120
"""Letters of a trace's name, before the case's id."""

SLOWED = 2.0
"""A call under the profiler may take so many times as long."""


def inspect(case: Case, _request: Request) -> Inspection:
    """Say whether the arms are supported here, and what each would cost."""
    refuse_inputs(case)
    return inspect_arms(case)


def run(case: Case, request: Request) -> Measured:
    """Measure a case of kind speed; a profiler that fails costs its answer alone.

    Raises:
        UnsupportedError: if an arm cannot serve the case.
        WrongOutputError: if an output is off its reference.
    """
    stage = request.stage
    stage("building")
    built = build_arms(case)
    stage("feeding the context" if case.mode == "decode" else "building")
    runners = runners_of(built, case)
    if not request.with_latency:
        return _memory_alone(runners, case, request)
    timings, compiled, conditions = arms_timed(runners, case, request)
    stage("checking the output")
    kernels = [runner.mixer.kernel for runner in runners]
    gates = [gated(runner, index, request) for index, runner in enumerate(runners)]
    for runner in runners:
        runner.prepare()
    with_error = request.first is None and has_error(case)
    if with_error:
        _scale_inputs(runners, INPUT_SCALE)  # in place: the memory has no room for a second set
    stage("measuring memory")
    with_memory = request.first is None or request.with_memory
    last = [_last_call(r, case, with_error=with_error) if with_memory else {} for r in runners]
    arms = [
        arm_record(
            runner, case, kernel=kernel, gate=gate, compiled=made,
            metrics={"latency": timing.metric(), **metrics},
        )
        for runner, timing, gate, kernel, made, metrics in zip(
            runners, timings, gates, kernels, compiled, last, strict=True
        )
    ]  # fmt: skip
    if request.profile:
        stage("profiling")
        if with_error:
            _scale_inputs(runners, 1 / INPUT_SCALE)  # what was timed is profiled
        traces = [trace_of(request.traces, case, i) for i in range(len(runners))]
        profiles = _profiles(runners, kernels, timings, traces, case, request.budget_s)
        for arm, profile in zip(arms, profiles, strict=True):
            arm["profile"] = profile
    return Measured(arms, conditions)


def _memory_alone(runners: Sequence[ArmRunner], case: Case, request: Request) -> Measured:
    """Check what one call gives, and measure the memory of another.

    Raises:
        WrongOutputError: if an output is off its reference.
    """
    request.stage("calling once")
    arms_called(runners, case)
    arms = []
    for runner in runners:
        request.stage("checking the output")
        kernel, gate = runner.mixer.kernel, runner.gate()
        runner.prepare()
        request.stage("measuring memory")
        metrics = runner.memory()
        runner.prepare()
        arms.append(
            arm_record(runner, case, kernel=kernel, gate=gate, compiled=None, metrics=metrics)
        )
    return Measured(arms)


def _profiles(
    runners: Sequence[ArmRunner],
    kernels: Sequence[str],
    timings: Sequence[Timing],
    traces: Sequence[Path | None],
    case: Case,
    budget_s: float,
) -> list[dict[str, Any]]:
    """Profile each arm; where that fails, say why: what is measured already stands without it."""
    profiles: list[dict[str, Any]] = []
    try:
        for runner, kernel, timing, keep in zip(runners, kernels, timings, traces, strict=True):
            _check_time(timing)
            with torch.inference_mode(case.mode != "training"):
                profiles.append(
                    profiled(
                        runner, case.device, kernel=kernel, dtype=dtype_of(case),
                        budget_s=budget_s, seed=case.seed, keep=keep,
                    )
                )  # fmt: skip
    except (Exception, TimeLimitError) as error:
        traceback.print_exc(file=sys.stderr)
        reason = scrub(" ".join(f"{type(error).__name__}: {error}".split()))[:LONGEST_FAULT]
        profiles += [{"failed": reason}] * (len(runners) - len(profiles))
    return profiles


def trace_of(folder: Path | None, case: Case, arm: int) -> Path | None:
    """Return the file of an arm's trace: named for people, told apart by the case's id."""
    if folder is None:
        return None
    level = "" if case.level == "attention" else f"{case.model or case.level}-"
    causal = "causal-" if case.is_causal else ""
    named = f"{case.arms[arm].label}-{level}{case.mode}-{causal}{case.seq_len}"
    plain = re.sub(r"[^A-Za-z0-9.=+-]+", "_", named)[:LONGEST_NAME]
    return folder / f"{plain}-{case.id}{TRACE}"


def _check_time(timing: Timing) -> None:
    """Check that the limit leaves time for the profiler: one long operation cannot be ended.

    Raises:
        TimeLimitError: if it does not.
    """
    needed = SLOWED * MIN_CALLS * max(timing.samples)
    if needed > seconds_left():
        raise TimeLimitError(
            f"{MIN_CALLS} calls under the profiler may take {needed:.3g} s; the time limit of the "
            f"case leaves {seconds_left():.3g} s"
        )


def has_error(case: Case) -> bool:
    """Say whether a case's last call also gives the error against exact softmax."""
    return case.level == "attention" and case.mode != "decode"


def _scale_inputs(runners: Sequence[ArmRunner], factor: float) -> None:
    with torch.no_grad():
        for tensor in runners[0].inputs.tensors:
            tensor.mul_(factor)


def _last_call(runner: ArmRunner, case: Case, *, with_error: bool) -> dict[str, Any]:
    """Take the metrics that one more call gives: its memory, and its output's error."""
    metrics = runner.memory()
    if with_error and case.key_len <= ERROR_LIMIT and runner.mixer.approximates != "itself":
        metrics["relative_error"] = {
            **relative_error(runner, case, on=f"at input scale {INPUT_SCALE}"),
            "input_scale": INPUT_SCALE,
        }
    runner.prepare()
    return metrics


KIND = Kind("speed", inspect, run)
