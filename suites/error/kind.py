"""Kind ``error``: what a backend at its budget gets wrong on stated inputs, beside what it costs.

As kind speed at level attention in mode forward, with one arm, but on q, k and v drawn as the
case's ``inputs`` say; latency, memory and errors are of the same inputs. The order: build, time,
hold the last sample's output against the backend's own reference, one more call for its memory,
then the distances from exact softmax: of that call's output, and of the attention weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attention.base import Attention, UnsupportedError
from results.schema import UNITS, Case
from suites.arms.arm import Contestant
from suites.arms.build import Inputs, dtype_of
from suites.arms.steps import arm_record, arms_timed, build_arms, relative_error
from suites.arms.timing import Measured
from suites.error.trained_inputs import distribution_of, draw_qkv, told_of
from suites.error.weights import weights_error

FIXED = {"level": "attention", "mode": "forward"}
"""What the fields of every case are."""


def run(
    case: Case, *, budget_s: float, stage: Callable[[str], None], store: Path | None = None
) -> Measured:
    """Measure a case of kind error.

    Args:
        case: what to measure.
        budget_s: sampling time.
        stage: told what is being done, for the reason of a failure.
        store: the folder where tensors of trained models are kept; ``None`` = they are not.

    Returns:
        The record's ``arms`` and ``conditions``.

    Raises:
        UnsupportedError: if the backend cannot serve the case, or there are no such inputs.
        WrongOutputError: if the output is off the backend's own reference, or no number.
    """
    stage("building")
    check_inputs(case)
    (built,) = build_arms(case)
    if reasons := unsupported_inputs(case):
        raise UnsupportedError("; ".join(reasons))
    stage("making the inputs")
    tensors = tuple(x.to(case.device, dtype_of(case)) for x in draw_qkv(case, store))
    contestant = Contestant(*built, Inputs(tensors, None), case)
    timings, compiled, conditions = arms_timed([contestant], case, budget_s=budget_s, stage=stage)
    stage("checking the output")
    kernel = contestant.mixer.kernel
    gate = contestant.gate()
    contestant.prepare()
    stage("measuring memory")
    metrics = {"latency": timings[0].metric(), **contestant.memory()}
    stage("comparing with exact softmax")
    metrics["relative_error"] = relative_error(contestant, case, on=f"on {case.inputs}")
    metrics |= _weights(contestant, case)
    arm = arm_record(
        contestant, case, kernel=kernel, gate=gate, compiled=compiled[0], metrics=metrics
    )
    if (told := told_of(case)) is not None:
        arm["inputs"] = told
    return Measured([arm], conditions)


def check_inputs(case: Case) -> None:
    """Check what a case of kind error must be, and that no other kind names inputs.

    Raises:
        ValueError: naming the field, what came and what is accepted.
        TypeError: if the inputs have no such option.
    """
    if case.kind != "error":
        if case.inputs:
            raise ValueError(f"inputs: only of kind error; got {case.inputs} of kind {case.kind}")
        return
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
    distribution_of(case)


def unsupported_inputs(case: Case) -> list[str]:
    """Say why there are no such inputs; empty = there are, or the kind names none."""
    return distribution_of(case).unsupported_reasons(case) if case.kind == "error" else []


def _weights(contestant: Contestant, case: Case) -> dict[str, Any]:
    """Return the metrics of the attention weights."""
    attention, (q, k, _) = contestant.mixer, contestant.inputs.tensors
    assert isinstance(attention, Attention)
    found = weights_error(attention, q, k, is_causal=case.is_causal, seed=case.seed)
    values = {"weights_error": found.relative_l2, "weights_kl": found.kl}
    return {
        name: {"unit": UNITS[name], "value": value, "rows": found.rows}
        for name, value in values.items()
        if value is not None
    }
