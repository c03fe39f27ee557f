"""Kind ``quantized``: a trained model's weights kept in fewer bits; what that saves and costs.

The model of the case's task is trained once for all schemes: it is that of the same case of kind
task, and lies under its id. Its weights become those of the scheme (`suites.quantized.schemes`).
Then it is asked what kind task asks: the test split, on which its logits are also held against
those of the float32 model; and a call on one sequence, timed, held against the backend's
reference, and measured for memory.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attention.base import UnsupportedError
from models import TransformerModel
from results.schema import Case
from suites.arms import build
from suites.arms import model as whole
from suites.kind import Inspection, Kind, Measured, Request, arm, metrics
from suites.processes.heartbeat import HeartbeatWriter
from suites.quality.kind import (
    TEST_SEED,
    as_call,
    cost_of_call,
    one_sequence,
    quality,
    scored,
)
from suites.quantized import schemes
from suites.quantized.schemes import held_bytes, keep, kernel_of, linears, scheme_of
from suites.training.evaluate import evaluate
from suites.training.plan import training_of
from suites.training.prepare import Setup, prepare, train


def inspect(case: Case, request: Request) -> Inspection:
    """Check that a case could be started; errors as of `checked`."""
    checked(case, request.files)
    return Inspection()


def checked(case: Case, files: Mapping[str, Path]) -> Setup:
    """Check that a case could be started; return its training.

    Raises:
        ValueError, TypeError: if a field, an option or a file is not accepted.
        UnsupportedError: if the arm cannot serve the task's form, or nothing here can keep the
            model's weights so.
    """
    scheme = scheme_of(case.weights, case.device)
    setup = prepare(training_of(case), files)
    reasons = schemes.unsupported_reasons(case.weights, setup.model, case.device)
    call = call_of(case, setup, scheme.products)
    reasons += build.unsupported_reasons(setup.mixer, whole.layer_case(setup.model.config, call))
    if reasons:
        raise UnsupportedError("; ".join(reasons))
    return setup


def call_of(case: Case, setup: Setup, products: torch.dtype) -> Case:
    """Return a call of the quantised model on one sequence as a case."""
    dtype = str(products).removeprefix("torch.")
    return replace(as_call(training_of(case), setup.task), dtype=dtype)


def run(case: Case, request: Request) -> Measured:
    """Train, or find trained, quantise and measure; errors as of `suites.quality.kind.run`.

    Raises:
        RuntimeError: if a layer was not quantised, or another kernel multiplied.
    """
    stage = request.stage
    stage("building")
    setup = checked(case, request.files)
    stage("training")
    trainer = train(setup, request.store, HeartbeatWriter(request.heartbeat))
    model = setup.model.eval()
    reference = copy.deepcopy(model)
    stage("quantising")
    scheme = keep(case.weights, model, case.device)
    one = one_sequence(setup)
    ids = (one.ids,) if one.decoder_ids is None else (one.ids, one.decoder_ids)
    kernel = kernel_of(scheme, model, ids)
    stage("evaluating the test split")
    with Distance(model, reference) as distance:
        score = evaluate(model, setup.task, batch=case.batch, seed=TEST_SEED)
    del reference
    stage("timing")
    costs, gate, conditions = cost_of_call(
        setup, call_of(case, setup, scheme.products), request.budget_s
    )
    lost = metrics(parameter_bytes=model_bytes(model), output_difference=distance.relative_l2)
    quantized = arm(
        {**lost, **scored(setup.task, score), **costs},
        kernel=f"{kernel}, attention {setup.mixer.kernel}",
        gate=gate,
        quality={
            **quality(setup.task, score, trainer),
            "linear_bytes": held_bytes(layer.weight for _, layer in linears(model)),
            "linear_parameters": sum(layer.weight.numel() for _, layer in linears(model)),
        },
    )
    return Measured([quantized], conditions)


def model_bytes(model: nn.Module) -> int:
    """Return the bytes that hold all parameters and buffers of a model."""
    return held_bytes([*model.parameters(), *model.buffers()])


class Distance:
    """How far a model's logits are from a reference's, over all calls of the model within it.

    Args:
        model: whose calls are watched.
        reference: called with the same.
    """

    def __init__(self, model: TransformerModel, reference: TransformerModel) -> None:
        self._model, self._reference = model, reference
        self._apart = self._whole = 0.0

    def __enter__(self) -> Distance:
        self._handle = self._model.register_forward_hook(self._add, with_kwargs=True)
        return self

    def __exit__(self, *_error: object) -> None:
        self._handle.remove()

    def _add(
        self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        wanted = self._reference(*args, **kwargs).double()
        self._apart += float((output.double() - wanted).square().sum())
        self._whole += float(wanted.square().sum())

    @property
    def relative_l2(self) -> float:
        """``‖model − reference‖ / ‖reference‖`` over all logits of all calls."""
        return math.sqrt(self._apart / self._whole)


KIND = Kind("quantized", inspect, run)
