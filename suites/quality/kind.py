"""Kind ``task``: one arm learns one task; what it then knows, and what a call of it costs.

The order: build, train until the amount is spent (from a checkpoint, if the run's folder has one),
ask the test split, then time a forward call of the trained model on one sequence, hold its output
against the backend's reference, and measure its memory; of a model that decodes also the bytes of
its state after a sequence. So quality and cost are of the same weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models import TransformerModel
from results.schema import Case
from suites.arms.arm import ArmRunner
from suites.arms.build import Inputs, Mixer, dtype_of, no_state
from suites.arms.steps import timed
from suites.kind import Inspection, Kind, Measured, Request, arm, metrics
from suites.processes.heartbeat import HeartbeatWriter
from suites.tasks.base import Batch, Task
from suites.training.evaluate import Score, evaluate
from suites.training.prepare import Setup, as_whole, prepare, train
from suites.training.trainer import Trainer, on_device

TEST_SEED = 0
"""Of the test split: every seed of a training is asked the same."""


class Forward(ArmRunner):
    """A trained model's forward call on one sequence: a `suites.measure.timers.Timed`."""

    def __init__(self, mixer: Mixer, model: TransformerModel, one: Batch, case: Case) -> None:
        ids = (one.ids,) if one.decoder_ids is None else (one.ids, one.decoder_ids)
        super().__init__(mixer, model, Inputs(ids, None), case)

    def call(self) -> None:
        """Compute the logits."""
        self.output = self.run(*self.inputs.tensors)


def inspect(case: Case, request: Request) -> Inspection:
    """Check that the training could be started, without the numbers of its model."""
    prepare(case, request.files, light=True)
    return Inspection()


def run(case: Case, request: Request) -> Measured:
    """Train and measure a case of kind task.

    Raises:
        UnsupportedError: if the arm cannot serve the case.
        DivergedError: if the loss is no longer a number.
        WrongOutputError: if the trained model's output is off its backend's reference.
    """
    stage = request.stage
    stage("building")
    setup = prepare(case, request.files)
    stage("training")
    trainer = train(setup, request.store, HeartbeatWriter(request.heartbeat))
    stage("evaluating the test split")
    score = evaluate(
        trainer.model, setup.task, batch=case.batch, seed=TEST_SEED, dtype=dtype_of(case)
    )
    stage("timing")
    model = setup.model.to(dtype_of(case)).eval()
    costs, gate, conditions = cost_of_call(setup, as_call(case, setup.task), request.budget_s)
    if setup.task.architecture == "decoder" and not no_state(setup.mixer):
        costs |= metrics(state_bytes=_state_bytes(model, one_sequence(setup).ids))
    trained = arm(
        {**scored(setup.task, score), **spent(setup, trainer), **costs},
        kernel=setup.mixer.kernel, gate=gate, quality=quality(setup.task, score, trainer),
    )  # fmt: skip
    return Measured([trained], conditions)


def scored(task: Task, score: Score) -> dict[str, dict[str, Any]]:
    """Return what the test split says, as metrics."""
    in_bits = {"bits_per_byte": score.bits} if task.metric == "bits_per_byte" else {}
    return metrics(accuracy=score.accuracy, loss=score.loss, **in_bits)


def spent(setup: Setup, trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Return what the training took, as metrics."""
    return metrics(
        training_time=trainer.spent.seconds,
        training_steps=trainer.spent.steps,
        training_ops=trainer.spent.steps * setup.step_ops,
        throughput=trainer.tokens_per_s,
    )


def quality(task: Task, score: Score, trainer: Trainer) -> dict[str, Any]:
    """Return the record's ``quality``: what was asked, and how the training went."""
    return {
        "chance": task.chance,
        "metric": task.metric,
        "groups": score.groups_json(task.group),
        "labels": score.labels,
        "curve": trainer.curve.to_json(),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "task": task.settings,
        "facts": task.facts,
    }


def cost_of_call(
    setup: Setup, call: Case, budget_s: float
) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None, dict[str, Any]]:
    """Return latency and peak memory of a call on one sequence; the gate's verdict; conditions.

    Args:
        setup: whose model is called, as it is.
        call: by `as_call`, with the dtype of the model's products.
        budget_s: sampling time.
    """
    with torch.inference_mode():
        runner = Forward(setup.mixer, setup.model, one_sequence(setup), call)
        (timing,), conditions = timed([runner], call, budget_s=budget_s)
        gate = runner.gate()
        runner.prepare()
    return {"latency": timing.metric(), **runner.memory()}, gate, conditions


def one_sequence(setup: Setup) -> Batch:
    """Return the sequence of the test split that calls are timed on, on the model's device."""
    one = setup.task.batch(1, seed=TEST_SEED, index=0, split="test")
    return on_device(one, next(setup.model.parameters()).device)


def as_call(case: Case, task: Task) -> Case:
    """Return a forward call of the trained model as a case: one sequence."""
    return replace(as_whole(case, task), mode="forward", batch=1)


def _state_bytes(model: TransformerModel, ids: Tensor) -> int:
    """Return the bytes that a decoder keeps of a sequence."""
    with torch.inference_mode():
        state = model.init_state(batch_size=1, max_len=ids.shape[1])
        model(ids, state=state)
    return state.nbytes


KIND = Kind("task", inspect, run)
