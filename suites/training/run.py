"""From a case to a trained model: built, trained or read from the run's folder.

A trained model lies under its case's id in the folder that the driver names, `<run>/trained`: what
was interrupted goes on from there, and what needs a trained model (quantised weights, inputs of
kind error) finds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path


from attention.base import UnsupportedError
from models import TransformerModel
from results.schema import Case
from suites.kinds import arms, whole
from suites.kinds.arms import Mixer, dtype_of
from suites.tasks import registry
from suites.tasks.base import Task
from suites.training.model import build
from suites.training.plan import Plan, plan_from
from suites.training.trainer import Trainer


@dataclass(frozen=True)
class Setup:
    """A training, ready to be run.

    Attributes:
        case: of kind task.
        task: what is learnt.
        plan: what may be spent.
        mixer: the first compared layer's.
        model: on the CPU until it is trained.
        step_operations: of one step.
    """

    case: Case
    task: Task
    plan: Plan
    mixer: Mixer
    model: TransformerModel
    step_operations: float


def prepare(case: Case, files: Mapping[str, Path]) -> Setup:
    """Build the task and the model of a case, and count a step.

    Args:
        case: of kind task.
        files: content name to file, of the tasks that read any.

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
    mixer, model = build(case.arms[0], case, task)
    if plan.pretrain:  # ask now, not after half an hour
        task.pretraining(1, seed=case.seed, index=0)
    seen = as_whole(case, task)
    if reasons := arms.unsupported_reasons(mixer, whole.layer_case(model.config, seen)):
        raise UnsupportedError("; ".join(reasons))
    if getattr(task, "padded", False) and not case.is_causal and not mixer.supports.key_padding:
        raise UnsupportedError(
            f"key_padding: {task.name} has sequences of different lengths; {mixer.name} leaves no "
            f"padding out{mixer.why_not('key_padding')}"
        )
    cost = whole.cost_of(mixer, model, seen)
    assert cost is not None
    return Setup(case, task, plan, mixer, model, float(cost["executed_ops"]))


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
        raise ValueError("compile: a training runs as it is; got on")


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
        OSError: if a checkpoint cannot be written or read.
    """
    case = setup.case
    trainer = Trainer(
        setup.model.to(case.device), setup.task, setup.plan,
        batch=case.batch, seed=case.seed, dtype=dtype_of(case),
        step_operations=setup.step_operations,
        checkpoint=None if store is None else store / f"{case.id}.pt", tell=tell,
    )  # fmt: skip
    trainer.run()
    return trainer


class Teller:
    """Writes how it goes into a file that the driver looks at; older words are overwritten."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last = ""

    def __call__(self, line: str) -> None:
        """Say it."""
        if self._path is None or line == self._last:
            return
        self._last = line
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".part")
        partial.write_text(f"{time.time():.0f}\n{line}\n")
        partial.replace(self._path)


