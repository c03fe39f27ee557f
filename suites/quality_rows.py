"""What suites quality and quantized train where no option says otherwise. No torch.

At the default difficulty exact attention solves every task but ListOps and text within its budget,
so that failing means something. The approximations get a quarter of exact attention's keys: at the
lengths of the tasks their usual budgets would be exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from results.schema import Arm
from suites.training.plan import VIEWS, View

FORMS = ("causal", "bidirectional")

SHAPE = "small"
"""How ``--model`` names the model of a training: its architecture follows from the form."""

SHARE = 4
"""An approximation sees one of so many keys."""

EXACT = (Arm("full"), Arm("sdpa"))


def budgets(seq_len: int) -> tuple[Arm, ...]:
    """Return the backends at a length: exact, and approximations at a quarter of its keys."""
    return (
        *EXACT,
        Arm("longformer", {"window": max(1, seq_len // (2 * SHARE))}),
        Arm("bigbird", {"block_size": max(1, seq_len // (4 * SHARE)), "num_random_blocks": 1}),
        Arm("linformer", {"rank": max(1, seq_len // SHARE)}),
        Arm("performer", {"num_features": 64}),
    )


@dataclass(frozen=True)
class TaskRow:
    """A task at one difficulty, and what its training may spend.

    Attributes:
        task: with its options.
        seq_len: N, tokens.
        steps: of equal steps; of equal operations, those of exact attention.
        seconds: of equal time.
        lr: the highest learning rate.
        batch: sequences a step.
        forms: causal, bidirectional.
        shape: values of the model in place of `suites.training.model.SHAPE`.
        pretrain: shares of the budget that go into self-pretraining; each is a case.
        backends: what is compared; empty = `budgets`.
    """

    task: Arm
    seq_len: int
    steps: int
    seconds: float
    lr: float = 0.003
    batch: int = 64
    forms: tuple[str, ...] = FORMS
    shape: Mapping[str, Any] = field(default_factory=dict)
    pretrain: tuple[float, ...] = (0.0,)
    backends: tuple[Arm, ...] = ()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What is compared."""
        return self.backends or budgets(self.seq_len)

    def model(self, form: str) -> str:
        """Return the model of a form as a case holds it."""
        return Arm(architecture_of(self.task, form), self.shape).label

    def training(self, view: View, pretrain: float) -> str:
        """Return the training of a view as a case holds it."""
        amount = self.seconds if view == "seconds" else self.steps
        more = {"pretrain": pretrain} if pretrain else {}
        return Arm(view, {"amount": amount, "lr": self.lr, **more}).label


def architecture_of(task: Arm, form: str) -> str:
    """Return the architecture that a task asks in a form."""
    if task.options.get("objective") == "denoise":
        return "encoder_decoder"
    return "decoder" if form == "causal" else "encoder"


_NO_FULL = tuple
_LANGUAGE: Mapping[str, Any] = {
    "steps": 2500, "seconds": 300.0, "lr": 0.002, "batch": 16,
    "shape": {"d_model": 128, "num_layers": 4, "num_heads": 4, "positions": "rotary"},
}  # fmt: skip


def _rows(*more: TaskRow) -> tuple[TaskRow, ...]:
    return more


@dataclass(frozen=True)
class QualityPreset:
    """What suite quality trains under one name.

    Attributes:
        rows: the tasks.
        seeds: trainings of each case, from the grid's seed on.
        budget_s: sampling time of the trained model's latency.
        case_timeout_s: the longest that one training and its measurement may take.
    """

    rows: tuple[TaskRow, ...]
    seeds: int = 3
    budget_s: float = 0.1
    case_timeout_s: float = 3600.0


_RECALL = TaskRow(Arm("recall"), 64, 400, 15.0)
_INDUCTION = TaskRow(Arm("induction"), 64, 400, 15.0)
_COPY = TaskRow(Arm("copy"), 65, 400, 15.0)
_SELECTIVE = TaskRow(Arm("selective_copy"), 64, 600, 20.0)
_NEEDLE = TaskRow(Arm("needle"), 256, 300, 40.0, batch=32)
_TEXT = TaskRow(Arm("language"), 256, **_LANGUAGE, forms=("causal",))

QUALITY_PRESETS: Mapping[str, QualityPreset] = {
    "quick": QualityPreset((_RECALL,)),
    "standard": QualityPreset((_RECALL, _INDUCTION, _COPY, _SELECTIVE, _NEEDLE)),
    "full": QualityPreset((_RECALL, _INDUCTION, _COPY, _SELECTIVE, _NEEDLE, _TEXT)),
}
"""By name; tuned below."""
