"""From a case to a trained model: built, trained or read from the run's folder.

A trained model lies under its case's id in the folder that the driver names, `<run>/trained`: what
was interrupted goes on from there, and what needs a trained model (quantised weights, inputs of
kind error) finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from attention.base import UnsupportedError
from models import TransformerModel
from results.schema import MEASUREMENT, Arm, Case, canonical
from suites.arms import build as arms
from suites.arms import model as whole
from suites.arms.build import Mixer, dtype_of
from suites.measure.machine import cpu_name
from suites.tasks import registry
from suites.tasks.base import Task
from suites.training.model import build
from suites.training.plan import Plan, plan_from
from suites.training.trainer import BETAS, Trainer


@dataclass(frozen=True)
class Setup:
    """A training, ready to be run.

    Attributes:
        case: of kind task.
        task: what is learnt.
        plan: what may be spent.
        mixer: the first compared layer's.
        model: on the CPU until it is trained.
        step_ops: operations of one step.
        exact_ops: of one step of the same model with exact attention.
    """

    case: Case
    task: Task
    plan: Plan
    mixer: Mixer
    model: TransformerModel
    step_ops: float
    exact_ops: float


def prepare(case: Case, files: Mapping[str, Path], *, light: bool = False) -> Setup:
    """Build the task and the model of a case, and count a step.

    Args:
        case: of kind task.
        files: content name to file, of the tasks that read any.
        light: build the model without its numbers, as far as its parts can do without them.

    Raises:
        ValueError: if a field, an option or a file is not accepted; `TypeError` likewise.
        UnsupportedError: if the arm cannot serve the task's form.
    """
    check_case(case)
    plan = plan_from(case.training)
    task = registry.build(
        case.task, seq_len=case.seq_len, form="causal" if case.is_causal else "bidirectional",
        files=files,
    )  # fmt: skip
    mixer, model = (_build_light if light else build)(case.arms[0], case, task)
    if plan.pretrain:  # ask now, not after half an hour
        task.pretraining(1, seed=case.seed, index=0)
    seen = as_whole(case, task)
    if reasons := arms.unsupported_reasons(mixer, whole.layer_case(model.config, seen)):
        raise UnsupportedError("; ".join(reasons))
    decoded = task.batch(1, seed=0, index=0, split="train").decoder_ids
    written_len = None if decoded is None else decoded.shape[1]
    ops = _step_ops(mixer, model, seen, written_len)
    with torch.device("meta"):
        exact = build(Arm("sdpa"), replace(case, arms=(Arm("sdpa"),)), task)
    return Setup(case, task, plan, mixer, model, ops, _step_ops(*exact, seen, written_len))


def _build_light(arm: Arm, case: Case, task: Task) -> tuple[Mixer, TransformerModel]:
    """Build a model without its numbers: one that is too large for memory is no misuse."""
    try:
        with torch.device("meta"):
            return build(arm, case, task)
    except Exception:  # what the constructors say about real tensors decides
        return build(arm, case, task)


def _step_ops(mixer: Mixer, model: TransformerModel, seen: Case, written_len: int | None) -> float:
    cost = whole.cost_of(mixer, model, seen, written_len=written_len)
    assert cost is not None
    return float(cost["executed_ops"])


def check_case(case: Case) -> None:
    """Check what no task can: the fields that every training has.

    Raises:
        ValueError: naming the field, what came and what is accepted.
    """
    for name in ("batch", "seq_len", "threads"):
        if getattr(case, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(case, name)}")
    if case.dtype == "float64":
        raise ValueError("dtype: a training's products are float32, bfloat16 or float16")
    if case.dtype == "float16" and case.device == "cpu":
        raise ValueError("dtype: float16 is trained on CUDA, where gradients are scaled; got cpu")
    if case.compile:
        raise ValueError("compile: not available for trainings; expected off, got on")


def as_whole(case: Case, task: Task) -> Case:
    """Return a training step as a case of level model: its causality is the architecture's."""
    return replace(case, kind="speed", mode="training", is_causal=False, key_len=task.seq_len)


def train(
    setup: Setup, store: Path | None, tell: Callable[[str], None] = lambda _line: None
) -> Trainer:
    """Train, or go on, or find that it was done; the model is on the case's device then.

    Args:
        setup: by `prepare`.
        store: where trained models lie; ``None`` = nothing is kept.
        tell: told how it goes, in a line, about once a second.

    Raises:
        DivergedError: if the loss is no longer a number.
        OSError: if a checkpoint cannot be written.
    """
    case = setup.case
    trainer = Trainer(
        setup.model.to(case.device), setup.task, setup.plan,
        batch=case.batch, seed=case.seed, dtype=dtype_of(case),
        step_operations=setup.step_ops / setup.exact_ops,
        checkpoint=None if store is None else store / f"{case.id}.pt",
        signature=signature(setup), tell=tell,
    )  # fmt: skip
    trainer.run()
    return trainer


def signature(setup: Setup) -> str:
    """Return what a checkpoint must agree on, beside its case's id, to be gone on with.

    What the case leaves to defaults (another version may have others), and where it was trained:
    seconds that two machines took are no time, and another torch takes other steps, as other
    measuring code may.
    """
    case, task = setup.case, setup.task
    return canonical(
        {
            "case": case.id, "plan": asdict(setup.plan), "model": asdict(setup.model.config),
            "task": task.settings, "facts": task.facts, "betas": BETAS,
            "measurement": MEASUREMENT, "torch": torch.__version__, "cpu": cpu_name(),
            "gpu": torch.cuda.get_device_name() if case.device == "cuda" else None,
        }
    )  # fmt: skip
