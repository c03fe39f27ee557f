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
from suites.parameters import FILE, Number, Parsed, Several, one_of
from suites.parsing import LARGEST_LIMIT_S, parse_backend
from suites.quality.rows import QUALITY_PRESETS, SMALL, Chosen, QualityPreset, TaskRow, rows_for
from suites.suite import SHARED, Key, Plan, Suite, by_preset
from suites.tasks.forms import FORMS
from suites.training.plan import VIEWS, View, training_of
from suites.words import measured, seconds

APART_FROM_TRAINING_S = 30.0
"""Seconds of a case of kind task beyond its training's own, at least: to build and to measure."""

_WHICH = "Of suites quality and quantized"

_NAMING: Mapping[str, Callable[[Path], str]] = {"corpus": corpus_name, "lra_data": folder_name}
"""Options that name what is read, to what names it by its content."""

TRAINING_OPTIONS = (
    Option(
        ["--task", "tasks"],
        shell_complete=one_of(task_names),
        multiple=True,
        type=Parsed("NAME[:key=value,…]", parse_backend),
        help=f"{_WHICH}: what is learnt, in place of the preset's tasks. Repeatable; "
        "`attnbench list --tasks` names them.",
    ),
    Option(
        ["--form", "forms"],
        type=Several(click.Choice(FORMS)),
        help=f"{_WHICH}: what a model sees. Default: both, as far as a task has them.",
    ),
    Option(
        ["--equal", "view"],
        type=click.Choice(VIEWS),
        help=f"{_WHICH}: what all trainings of a task have the same of; operations are those of "
        "exact attention in as many steps. Default: steps.",
    ),
    Option(
        ["--amount"],
        type=Number(0, 1e9, min_open=True),
        metavar="N",
        help=f"{_WHICH}: steps of a training (or seconds, with --equal time). Default: a task's "
        "own.",
    ),
    Option(
        ["--lr"],
        type=Number(0, 10, min_open=True),
        metavar="RATE",
        help=f"{_WHICH}: the highest learning rate. Default: a task's own.",
    ),
    Option(
        ["--pretrain"],
        type=Number(0, 1, max_open=True),
        metavar="SHARE",
        help=f"{_WHICH}: share of a training that is spent on the task's own inputs first. "
        "Default: 0; of listops and lra 0 and 0.5.",
    ),
    Option(
        ["--seeds", "num_seeds"],
        type=click.IntRange(1, 1000),
        metavar="N",
        help=f"{_WHICH}: trainings of each case, from --seed on. Default: {{defaults}}.",
    ),
    Option(
        ["--corpus"],
        type=FILE,
        metavar="FILE",
        help="The text of task language. Default: the Python standard library's sources.",
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


def training_defaults(suite: str, presets: Mapping[str, QualityPreset]) -> dict[str, str]:
    """Return what the help of options says of the presets of a suite that trains."""
    batches = sorted({row.batch for one in presets.values() for row in one.rows})
    return {
        "num_seeds": f"{suite} {by_preset(presets, 'seeds')}",
        "batches": f"with {suite} a task's own, {' or '.join(map(str, batches))}",
        "launches": f"with {suite}: {TrainingPlan.launches}",
        "budget_s": f"with {suite}: {by_preset(presets, 'budget_s')}",
        "case_timeout_s": f"with {suite}: {by_preset(presets, 'case_timeout_s')}",
    }


class QualitySuite(TrainingSuite):
    """What a small model learns with each backend."""

    name = "quality"
    kind = "task"
    summary = "what a small model learns with each backend, on several tasks"
    presets = QUALITY_PRESETS
    defaults: Mapping[str, str] = {
        "preset": f"with quality {', '.join(QUALITY_PRESETS)}, with tasks of their own",
        "models": SMALL,
        **training_defaults(name, presets),
    }


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
