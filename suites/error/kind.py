"""Kind ``error``: what a backend at its budget gets wrong on stated inputs, beside what it costs.

As kind speed at level attention in mode forward, with one arm, but on q, k and v drawn as the
case's ``inputs`` say; latency, memory and errors are of the same inputs. The order: build, time,
hold the last sample's output against the backend's own reference, one more call for its memory,
then the distances from exact softmax: of that call's output, and of the attention weights.
"""

from __future__ import annotations

from typing import Any

from attention import registry
from attention.base import Attention, UnsupportedError
from results.schema import LSTM, UNITS, Case
from suites.arms.arm import ArmRunner
from suites.arms.build import Inputs, check_case, dtype_of
from suites.arms.steps import (
    arm_record,
    arms_timed,
    build_arms,
    inspect_arms,
    relative_error,
)
from suites.error.inputs import Distribution
from suites.error.trained_inputs import distribution_of, draw_qkv, told_of
from suites.error.weights import weights_error
from suites.kind import Inspection, Kind, Measured, Request

FIXED = {"level": "attention", "mode": "forward"}
"""What the fields of every case are."""


def inspect(case: Case, _request: Request) -> Inspection:
    """Say whether the backend and the inputs are there, and what the call would cost."""
    check_case(case)
    inspection = inspect_arms(case, check_inputs(case).unsupported_reasons(case))
    inspection.unsupported += _own_formula(case)
    return inspection


def _own_formula(case: Case) -> list[str]:
    """Say why there is no error of a method that comes near to nothing but itself."""
    return [
        f"backend: {arm.name} has a formula of its own; an error against softmax says nothing"
        for arm in case.arms
        if arm.name != LSTM and registry.get(arm.name).approximates == "itself"
    ]


def run(case: Case, request: Request) -> Measured:
    """Measure a case of kind error.

    Raises:
        UnsupportedError: if the backend cannot serve the case, or there are no such inputs.
        WrongOutputError: if the output is off the backend's own reference, or no number.
    """
    stage = request.stage
    stage("building")
    distribution = check_inputs(case)
    (built,) = build_arms(case)
    if reasons := distribution.unsupported_reasons(case) + _own_formula(case):
        raise UnsupportedError("; ".join(reasons))
    stage("making the inputs")
    tensors = tuple(x.to(case.device, dtype_of(case)) for x in draw_qkv(case, request.store))
    runner = ArmRunner(*built, Inputs(tensors, None), case)
    timings, compiled, conditions = arms_timed([runner], case, request)
    stage("checking the output")
    kernel = runner.mixer.kernel
    gate = runner.gate()
    runner.prepare()
    stage("measuring memory")
    metrics = {"latency": timings[0].metric(), **runner.memory()}
    stage("comparing with exact softmax")
    metrics["relative_error"] = relative_error(runner, case, on=f"on {case.inputs}")
    metrics |= _weights(runner, case)
    arm = arm_record(runner, case, kernel=kernel, gate=gate, compiled=compiled[0], metrics=metrics)
    if (learnt := told_of(case)) is not None:
        arm["inputs"] = learnt
    return Measured([arm], conditions)


def check_inputs(case: Case) -> Distribution:
    """Check what a case of kind error must be; return what its inputs are drawn from.

    Raises:
        ValueError: naming the field, what came and what is accepted.
        TypeError: if the inputs have no such option.
    """
    for name, value in FIXED.items():
        if getattr(case, name) != value:
            raise ValueError(f"{name}: expected {value}, got {getattr(case, name)}")
    if len(case.arms) != 1:
        raise ValueError(f"arms: expected one, got {len(case.arms)}")
    if case.key_len != case.seq_len:
        raise ValueError(
            f"key_len: queries and keys are of one sequence; expected {case.seq_len}, "
            f"got {case.key_len}"
        )
    return distribution_of(case)


def _weights(runner: ArmRunner, case: Case) -> dict[str, Any]:
    """Return the metrics of the attention weights."""
    attention, (q, k, _) = runner.mixer, runner.inputs.tensors
    assert isinstance(attention, Attention)
    error = weights_error(attention, q, k, is_causal=case.is_causal, seed=case.seed)
    values = {"weights_error": error.relative_l2, "weights_kl": error.kl}
    return {
        name: {"unit": UNITS[name], "value": value, "rows": error.rows}
        for name, value in values.items()
        if value is not None
    }


KIND = Kind("error", inspect, run)
