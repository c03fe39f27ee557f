"""Suite quality: what a small model learns with each backend. No torch.

Suite quantized trains the same tasks, and is of the same making (`TrainingSuite`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
from click import Option

from results.schema import Case
from suites.content_names import corpus_name, folder_name
from suites.names import tasks as task_names
from suites.parameters import FILE, Number, Parsed, Several, any_of, flattened
from suites.parsing import LARGEST_LIMIT_S, parse_backends
from suites.quality.rows import QUALITY_PRESETS, SMALL, Chosen, QualityPreset, TaskRow, rows_for
from suites.suite import SHARED, Key, Plan, Suite, by_preset
from suites.tasks.forms import FORMS
from suites.training.plan import VIEWS, View, training_of
from suites.words import measured, seconds

APART_FROM_TRAINING_S = 30.0
"""Seconds of a case of kind task beyond its training's own, at least: to build and to measure."""

_NAMING: Mapping[str, Callable[[Path], str]] = {"corpus": corpus_name, "lra_data": folder_name}
"""Options that name what is read, to what names it by its content."""

TRAINING_OPTIONS = (
    Option(
        ["--task", "tasks"],
        multiple=True,
        type=Parsed("NAME[:key=value,…]", parse_backends),
        shell_complete=any_of(task_names),
        callback=flattened,
        show_default="the preset's",
        help="What is learnt; see `attnbench list --tasks`. Repeatable.",
    ),
    Option(
        ["--form", "forms"],
        type=Several(click.Choice(FORMS)),
        metavar="FORM,…",
        show_default="both",
        help=f"What a model sees: {' or '.join(FORMS)}.",
    ),
    Option(
        ["--equal", "view"],
        type=click.Choice(VIEWS),
        metavar="WHAT",
        show_default="steps",
        help="What is equal among a task's trainings: steps, time or operations.",
    ),
    Option(
        ["--amount"],
        type=Number(0, 1e9, min_open=True),
        metavar="N",
        show_default="a task's own",
        help="Steps of a training, or seconds with --equal time.",
    ),
    Option(
        ["--lr"],
        type=Number(0, 10, min_open=True),
        metavar="RATE",
        show_default="a task's own",
        help="The highest learning rate.",
    ),
    Option(
        ["--pretrain"],
        type=Number(0, 1, max_open=True),
        metavar="SHARE",
        show_default="0; of listops and lra 0 and 0.5",
        help="Share of a training spent on the task's inputs first.",
    ),
    Option(
        ["--seeds", "num_seeds"],
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Trainings of each case, from --seed on.",
    ),
    Option(
        ["--corpus"],
        type=FILE,
        metavar="FILE",
        show_default="the Python standard library's sources",
        help="The text of task language.",
    ),
    Option(
        ["--lra-data"],
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="A folder in Long Range Arena's TSV format, for task lra.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """A sweep of a suite that trains; its `launches` are of one case, its seeds are cases.

    Attributes:
        tasks: what is trained, on what budget.
        view: what is equal among the trainings.
        num_seeds: trainings of each case, from `seed` on.
        weights: of suite quantized: what the parameters are kept in, each a case.
    """

    tasks: tuple[TaskRow, ...]
    view: View = "steps"
    num_seeds: int = 3
    weights: tuple[str, ...] = ("",)


class TrainingSuite(Suite[TrainingPlan]):
    """A suite whose cases train a small model."""

    presets: Mapping[str, QualityPreset]
    foretold_by: Literal["likes"] = "likes"
    reports_progress = True
    takes = frozenset({"backends", "seq_lens", "batches", "models", "dtypes"})
    refusal = "a training has none of its own; see --model, --form"
    helps: Mapping[str, str] = {
        "models": f"The shape of the model that is trained: {SMALL}:d_model=…",
        "seq_lens": "Length in tokens, one.",
        "batches": "Sequences of a training step, one number.",
        "case_timeout_s": "Longest time of one training; --equal time asks for more.",
    }
    options: Sequence[Option] = TRAINING_OPTIONS

    def plan(self, preset: str | None, chosen: Mapping[str, Any]) -> TrainingPlan:
        """Return the sweep of a preset and options."""
        taken: QualityPreset = self.preset(preset)
        fields = dict(chosen)
        one = {name: _only_one(name, fields.pop(name, ())) for name in ONE_EACH}
        paths = {name: fields.pop(name) for name in _NAMING if name in fields}
        names = {}
        for option, path in paths.items():
            try:
                names[option] = _NAMING[option](path)
            except ValueError as error:
                raise ValueError(f"{option.replace('_', '-')}: {error}") from None
        model = one["models"]
        if model is not None and model.name != SMALL:
            raise ValueError(
                f"model: with suite {self.name} expected {SMALL}:…, got {model.label}"
            )
        of_rows = ("tasks", "forms", "amount", "lr", "pretrain", "backends")
        rows = rows_for(
            taken,
            Chosen(
                shape=model.options if model is not None else {},
                batch=one["batches"], seq_len=one["seq_lens"], files=names,
                **{name: fields.pop(name) for name in of_rows if name in fields},
            ),
        )  # fmt: skip
        fields["case_timeout_s"] = _limit_s(
            chosen.get("case_timeout_s"),
            taken.case_timeout_s,
            rows if chosen.get("view") == "time" else (),
        )
        usual = {
            "num_seeds": taken.seeds, "budget_s": taken.budget_s,
            "weights": taken.weights or ("",),
        }  # fmt: skip
        files = {names[option]: str(path.resolve()) for option, path in paths.items()}
        return TrainingPlan(suite=self, tasks=rows, files=files, **{**usual, **fields})

    def cases(self, plan: TrainingPlan) -> list[Case]:
        """Return a case per task, form, arm, seed and kind of weights; seeds of one together."""
        no_heads = {"num_heads": 0, "num_kv_heads": 0, "head_dim": 0}
        return [
            Case(
                kind=self.kind, level="model", mode="training",
                **{**point, **no_heads, **fields, "seed": seed, "weights": weights},
            )
            for point in plan.points((1,))
            for row in plan.tasks
            for fields in row.points(plan.view)
            for seed in range(plan.seed, plan.seed + plan.num_seeds)
            for weights in plan.weights
        ]  # fmt: skip

    def builds_models(self, plan: TrainingPlan) -> bool:
        """Say that every case does."""
        return True

    def label(self, case: Case) -> str:
        """Name a training by its task and seed."""
        form = "causal" if case.is_causal else "bidirectional"
        arm = f"{case.arms[0].label}{f' in {case.weights}' if case.weights else ''}"
        return f"{arm} {case.task} {form} N={case.seq_len} seed {case.seed}"

    def describe(self, record: Mapping[str, Any]) -> str:
        """Write what was learnt, what the training took, and what the model costs."""
        metrics = record["arms"][0]["metrics"]
        parts = []
        if "bits_per_byte" in metrics:
            parts.append(f"{metrics['bits_per_byte']['value']:.3f} bits/byte")
        elif "accuracy" in metrics:
            parts.append(f"{100 * metrics['accuracy']['value']:.1f} % right")
        if "training_time" in metrics:
            steps, time_s = (metrics[f"training_{what}"]["value"] for what in ("steps", "time"))
            parts.append(f"{steps:.0f} steps in {seconds(time_s)}")
        return "  ".join([*parts, measured(metrics)])

    def checkpoint(self, case: Case) -> str | None:
        """Name the file in which a training leaves what it has."""
        return f"{training_of(case).id}.pt"

    def compared_by(self, case: Case) -> tuple[Key, int]:
        """Return the key of a task: two of its cases may be of one model, kept on a machine."""
        return ("trained", case.task), 0


def training_defaults(presets: Mapping[str, QualityPreset]) -> dict[str, str]:
    """Return what the help of options says of the presets of a suite that trains."""
    batches = sorted({row.batch for one in presets.values() for row in one.rows})
    return {
        "backends": "a task's own",
        "seq_lens": "a task's own",
        "models": SMALL,
        "num_seeds": by_preset(presets, "seeds"),
        "batches": f"a task's own, {' or '.join(map(str, batches))}",
        "launches": f"{TrainingPlan.launches}",
        "budget_s": by_preset(presets, "budget_s"),
        "case_timeout_s": by_preset(presets, "case_timeout_s"),
    }


class QualitySuite(TrainingSuite):
    """What a small model learns with each backend."""

    name = "quality"
    kind = "task"
    summary = "what a small model learns with each backend, on several tasks"
    examples = (
        "attnbench run quality --out runs/quality",
        "attnbench run quality --task language --equal time --amount 600 --seeds 1",
    )
    presets = QUALITY_PRESETS
    defaults: Mapping[str, str] = training_defaults(presets)


ONE_EACH = ("batches", "seq_lens", "models")
"""Axes of which a training has one value."""


def _only_one(name: str, values: Sequence[Any]) -> Any:
    """Return the only value of an axis, ``None`` if it has none.

    Raises:
        ValueError: if there are several.
    """
    if len(values) > 1:
        raise ValueError(f"{SHARED[name]}: a training has one; got {len(values)}")
    return values[0] if values else None


def _limit_s(given: float | None, usual: float, timed: Sequence[TaskRow]) -> float:
    """Return the longest that a case may take, in seconds: enough for the longest training.

    Args:
        given: by an option.
        usual: the preset's.
        timed: rows whose trainings take their seconds, whatever the machine.

    Raises:
        ValueError: if a training could not end within what is given, or within any limit.
    """
    longest = max((row.seconds for row in timed), default=0.0)
    needed = longest + APART_FROM_TRAINING_S if timed else 0.0
    if needed > LARGEST_LIMIT_S:
        raise ValueError(
            f"amount: {longest:g} s of training are beyond any --case-timeout, which is at most "
            f"{LARGEST_LIMIT_S:g}; expected at most {LARGEST_LIMIT_S - APART_FROM_TRAINING_S:g}"
        )
    if given is None:
        generous = 1.5 * longest + 120.0 if timed else 0.0
        return min(LARGEST_LIMIT_S, max(usual, generous))
    if given < needed:
        raise ValueError(
            f"case-timeout: {given:g} s are too few for {longest:g} s of training (--amount) and "
            f"what is measured then; expected at least {needed:g}, or a smaller --amount"
        )
    return given


SUITE = QualitySuite()
