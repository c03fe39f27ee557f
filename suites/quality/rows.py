"""The tasks that suites quality and quantized train, and what options change of them. No torch.

The default difficulty is meant to be one that exact attention solves within its budget, ListOps
and text apart, so that failing means something. The approximations get a quarter of exact
attention's keys: at the lengths of the tasks their usual budgets would be exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from results.schema import Arm
from suites.tasks.forms import FORMS
from suites.training.plan import View

SMALL = "small"
"""How ``--model`` names the model of a training: its architecture follows from task and form."""

SHARE = 4
"""An approximation sees one of so many keys."""


def budgets(seq_len: int) -> tuple[Arm, ...]:
    """Return the backends at a length: exact, and approximations at a quarter of its keys.

    Of the exact ones `sdpa` alone: the others compute the same function, and learn as it does.
    """
    return (
        Arm("sdpa"),
        Arm("longformer", {"window": max(1, seq_len // (2 * SHARE))}),
        # Of 32 blocks about 8: a window of 3, the 2 global ones, 2 at random, and more where these
        # lie apart.
        Arm("bigbird", {"block_size": max(1, seq_len // (8 * SHARE)), "num_random_blocks": 2}),
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

    def points(self, view: View) -> Iterator[dict[str, Any]]:
        """Walk the cases of one seed, as fields of `Case`: what the row decides of them."""
        amount = self.seconds if view == "time" else self.steps
        for form in self.forms:
            for pretrain in self.pretrain:
                more = {"pretrain": pretrain} if pretrain else {}
                for arm in self.arms:
                    yield {
                        "arms": (arm,), "task": self.task.label, "is_causal": form == "causal",
                        "model": Arm(architecture_of(self.task, form), self.shape).label,
                        "training": Arm(view, {"amount": amount, "lr": self.lr, **more}).label,
                        "batch": self.batch, "seq_len": self.seq_len, "key_len": self.seq_len,
                    }  # fmt: skip


def architecture_of(task: Arm, form: str) -> str:
    """Return the architecture that a task asks in a form."""
    if task.options.get("objective") == "denoise":
        return "encoder_decoder"
    return "decoder" if form == "causal" else "encoder"


@dataclass(frozen=True)
class QualityPreset:
    """What suite quality trains under one name.

    Attributes:
        rows: the tasks.
        seeds: trainings of each case, from the sweep's seed on.
        budget_s: sampling time of the trained model's latency.
        case_timeout_s: the longest that one training and its measurement may take.
        weights: of suite quantized: what the parameters are kept in.
    """

    rows: tuple[TaskRow, ...]
    seeds: int = 3
    budget_s: float = 0.1
    case_timeout_s: float = 3600.0
    weights: tuple[str, ...] = ()


_PAIRS = Arm("recall", {"num_pairs": 8})
_RECALL = (
    TaskRow(_PAIRS, 32, 500, 12.0, lr=0.002, batch=32, forms=("causal",)),
    TaskRow(_PAIRS, 32, 400, 15.0, forms=("bidirectional",)),
)
_RECALL_FAR = TaskRow(_PAIRS, 64, 600, 20.0, lr=0.002, batch=32, forms=("causal",))
_INDUCTION = TaskRow(Arm("induction"), 32, 400, 15.0)
_COPY = TaskRow(Arm("copy"), 64, 200, 15.0)
_NEEDLE = TaskRow(Arm("needle"), 64, 400, 25.0)
_SELECTIVE = TaskRow(Arm("selective_copy"), 64, 900, 60.0)
TEXT = TaskRow(
    Arm("language"), 256, 400, 90.0, lr=0.002, batch=16, forms=("causal",),
    shape={"d_model": 128, "num_layers": 4, "num_heads": 4},
)  # fmt: skip
_TWO_SIDED = tuple(
    replace(TEXT, task=Arm("language", {"objective": objective}), forms=("bidirectional",))
    for objective in ("masked", "denoise")
)
_LISTOPS = TaskRow(Arm("listops"), 64, 600, 45.0, pretrain=(0.0, 0.5))

_SYNTHETIC = (*_RECALL, _COPY, _NEEDLE, _INDUCTION)

QUALITY_PRESETS: Mapping[str, QualityPreset] = {
    "quick": QualityPreset(_RECALL),
    "standard": QualityPreset((*_SYNTHETIC, _RECALL_FAR)),
    "full": QualityPreset(
        (*_SYNTHETIC, _RECALL_FAR, _SELECTIVE, TEXT, *_TWO_SIDED, _LISTOPS),
        case_timeout_s=14400.0,
    ),
}
"""By name."""

_LRA = replace(_LISTOPS, task=Arm("lra"), seq_len=2000, steps=1500, seconds=300.0, batch=32)

FOR_OTHERS = (*_SYNTHETIC, _SELECTIVE, TEXT, _LISTOPS, _LRA)
"""How a task is trained that is named without its rows: by those of its name."""


@dataclass(frozen=True)
class Chosen:
    """What the command line says of a training, ``None`` or empty where it says nothing.

    Attributes:
        tasks: with their options, in place of a preset's.
        forms: causal, bidirectional.
        amount: of steps or seconds.
        lr: learning rate.
        pretrain: share of self-pretraining.
        shape: values of the model.
        batch: sequences a step.
        seq_len: N, tokens.
        backends: what is compared.
        files: by the name of an option, what a file is called by its content.
    """

    tasks: tuple[Arm, ...] = ()
    forms: tuple[str, ...] = ()
    amount: float | None = None
    lr: float | None = None
    pretrain: float | None = None
    shape: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None
    seq_len: int | None = None
    backends: tuple[Arm, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def rows_for(preset: QualityPreset, chosen: Chosen) -> tuple[TaskRow, ...]:
    """Return the rows of a sweep.

    Raises:
        ValueError: if a file is named that no task reads, or a number is none.
    """
    rows: Sequence[TaskRow] = preset.rows
    if chosen.tasks:
        backends = preset.rows[0].backends  # suite quantized has one for every task
        named = [(t, row) for t in chosen.tasks for row in usual_rows(t.name)]
        rows = [replace(row, task=task, backends=backends) for task, row in named]
        rows = [replace(row, forms=_forms_of(row)) for row in rows]
    rows = _in_forms(_reading(rows, chosen.files), chosen)
    return tuple(_with(row, chosen) for row in rows)


def usual_rows(task: str) -> list[TaskRow]:
    """Return the rows of a task; one that has none, a plug-in's, gets one of 64 tokens."""
    rows = [row for row in FOR_OTHERS if row.task.name == task]
    return rows or [TaskRow(Arm(task), 64, 400, 15.0)]


_FORM_OF = {"next": "causal", "masked": "bidirectional", "denoise": "bidirectional"}


def _forms_of(row: TaskRow) -> tuple[str, ...]:
    """Return the forms that a row's objective has: it may have but one."""
    objective = str(row.task.options.get("objective"))
    return (_FORM_OF[objective],) if objective in _FORM_OF else row.forms


def _in_forms(rows: Sequence[TaskRow], chosen: Chosen) -> Sequence[TaskRow]:
    """Leave of each task the rows in the forms asked for; where it has none, ask it for them.

    Of a preset a task is all rows of its name, else those with its options.
    """
    if not chosen.forms:
        return rows

    def task_of(row: TaskRow) -> str:
        return row.task.label if chosen.tasks else row.task.name

    in_form = [
        replace(row, forms=common)
        for row in rows
        if (common := tuple(form for form in row.forms if form in chosen.forms))
    ]
    with_rows = {task_of(row) for row in in_form}
    return [
        *in_form,
        *(replace(row, forms=chosen.forms) for row in rows if task_of(row) not in with_rows),
    ]


def _reading(rows: Sequence[TaskRow], files: Mapping[str, str]) -> Sequence[TaskRow]:
    """Tell the tasks that read a file which one."""
    readers = {"corpus": ("language", "corpus"), "lra_data": ("lra", "data")}
    for option, name in files.items():
        task, argument = readers[option]
        if not any(row.task.name == task for row in rows):
            raise ValueError(
                f"{option.replace('_', '-')}: no task here reads it; add --task {task}"
            )
        rows = [
            replace(row, task=Arm(task, {**row.task.options, argument: name}))
            if row.task.name == task else row
            for row in rows
        ]  # fmt: skip
    if any(row.task.name == "lra" and "data" not in row.task.options for row in rows):
        raise ValueError("lra-data: task lra reads a folder in LRA's TSV format; got none")
    return rows


def _with(row: TaskRow, chosen: Chosen) -> TaskRow:
    changes: dict[str, Any] = {}
    for name in ("amount", "lr", "pretrain"):
        value = getattr(chosen, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name}: expected a number, got {value}")
    if chosen.amount is not None:
        steps = int(chosen.amount) if chosen.amount == int(chosen.amount) else chosen.amount
        changes |= {"steps": steps, "seconds": chosen.amount}
    for name in ("lr", "batch", "seq_len"):
        if getattr(chosen, name) is not None:
            changes[name] = getattr(chosen, name)
    if chosen.pretrain is not None:
        changes["pretrain"] = (chosen.pretrain,)
    if chosen.shape:
        changes["shape"] = {**row.shape, **chosen.shape}
    if chosen.backends:
        changes["backends"] = chosen.backends
    return replace(row, **changes)
