"""The tasks' tables as rows of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from results.chapters.quality.rows import COSTS, QualityChapter, Trial
from results.chapters.quality.scores import between_seeds, is_number, score, seeds_of
from results.metrics import METRICS
from results.page.blocks import Cell, TableView
from results.page.cells import name, status_cell, time
from results.page.columns import Row, Writer, of, table
from results.records.frames import records
from results.statistics.seeds import FEWEST
from results.text import numbers
from results.text.clean import clean
from results.text.labels import name_of, number_of, options_of, written
from results.text.written import writer


def quality_tables(chapter: QualityChapter) -> list[TableView]:
    """Return two tables a trial: what each backend reached at which cost, what learning took."""
    views = []
    said: set[str] = set()
    for trial in chapter.trials:
        results = _results(trial)
        # What holds for all trials is said below the first.
        views += [replace(results, notes=[n for n in results.notes if n not in said])]
        said |= set(results.notes)
        views.append(_spent(trial))
    if views and (overstated := _from_scratch(chapter)):
        views[0] = replace(views[0], notes=[*views[0].notes, overstated])
    return [view for view in views if view.rows]


def _from_scratch(chapter: QualityChapter) -> str:
    """Say, of Long Range Arena's tasks, what a comparison from random initialisation is worth."""
    if name_of(str(chapter.setting["task"])) not in _ARENA:
        return ""
    pretrained = [
        trial.name
        for trial in chapter.trials
        if number_of(options_of(trial.training).get("pretrain", "")) > 0 and len(trial.good)
    ]
    told = (
        f"Here that holds for: {numbers.listing(pretrained)}."
        if pretrained
        else "Here no model was pretrained so."
    )
    return (
        "Training from random initialisation overstates differences between architectures (Amos "
        "et al. 2023, arXiv 2310.02980); pretraining on the task's own inputs reduces that. "
        f"{told}"
    )


_ARENA = ("listops", "lra")
"""Tasks of Long Range Arena, of our own data and of theirs."""


def _results(trial: Trial) -> TableView:
    best = {cost: set(trial.frontier(cost)) for cost in COSTS}

    def cost(metric: str) -> Callable[[Row], Cell]:
        def write(row: Row) -> Cell:
            on = (row["backend"], row["options"]) in best[metric] and row[metric] > 0
            text = time(row, metric) if metric == "latency" else writer(metric)(row[metric])
            return Cell(text, "frontier" if on else "")

        return write

    columns: dict[str, Writer[Row]] = {
        "backend": name,
        METRICS[trial.metric].words: lambda row: score_cell(row, trial),
        "95 % interval": lambda row: _interval(row, trial.metric),
        "seeds": lambda row: (seeds_of(row) or f"{row['num_seeds']}").removesuffix(" seeds"),
        "loss": of("loss", numbers.digits),
        "latency": cost("latency"),
        "peak memory": cost("peak_memory"),
        "KV cache or state": cost("state_bytes"),
        "reason": of("reason"),
    }
    return table(
        f"Results, {trial.name}", records(trial.rows), columns, notes=_notes(trial),
        optional=list(columns)[4:],
    )  # fmt: skip


def _spent(trial: Trial) -> TableView:
    columns: dict[str, Writer[Row]] = {
        "backend": name,
        "time": of("training_time", numbers.seconds),
        "steps": of("training_steps", numbers.tokens),
        "FLOPs": lambda row: _rate(row["training_ops"], "FLOP"),
        "tokens/s": lambda row: numbers.digits(row["throughput"], 2),
        "parameters": lambda row: _rate(row["parameters"], ""),
    }
    view = table(
        f"Training cost, {trial.name}", records(trial.rows[trial.rows["score"].notna()]),
        columns, notes=["Medians over seeds."], optional=list(columns)[1:], is_long=True,
    )  # fmt: skip
    return view if len(view.head) > 1 else replace(view, rows=[])


def score_cell(row: Row, trial: Trial) -> Cell:
    """Return the cell of a score with what is small behind it, or of a status."""
    if not math.isfinite(row["score"]):
        return status_cell(row) if row["status"] != "ok" else Cell(numbers.NONE)
    small = [between_seeds(row, trial.metric), "chance" if row["at_chance"] else "",
             seeds_of(row)]  # fmt: skip
    return Cell(score(row["score"], trial.metric), ", ".join(s for s in small if s))


def _interval(row: Row, metric: str) -> str:
    if not math.isfinite(row["ci_low"]):
        return numbers.NONE
    low, high = score(row["ci_low"], metric, to="down"), score(row["ci_high"], metric, to="up")
    return f"{low.removesuffix(' %')}–{high}"


def _rate(value: float, unit: str) -> str:
    return f"{numbers.rate(value)}{unit}".strip() if math.isfinite(value) else numbers.NONE


def _notes(trial: Trial) -> list[str]:
    notes = []
    if trial.task:
        every = {clean(k)[:60]: numbers.clean_option(v) for k, v in trial.task.items()}
        notes.append(f"The task: {written(every)}.")
    if math.isfinite(trial.chance):
        notes.append(
            f"Chance: {score(trial.chance, 'accuracy')}, the best guess without looking at the "
            "sequence."
        )
    if (trial.rows["num_seeds"] > 1).any():
        notes.append(
            "Mean over seeds, below it their range. 95 % interval of the mean: Student's, from "
            f"{FEWEST} seeds on; of an accuracy at least as wide as Wilson's of one seed."
        )
    if trial.rows[list(COSTS)].notna().any(axis=None):
        notes.append(
            "Latency and peak memory: the trained model's forward pass on one sequence. KV cache "
            "or state: what it keeps of the sequence for decoding. Frontier: Pareto-optimal, no "
            "other is as good and as cheap, and better in one of the two."
        )
    if corpus := _corpus(trial.facts):
        notes.append(corpus)
    return notes


def _corpus(facts: Mapping[str, Any]) -> str:
    named_as = facts.get("corpus") or facts.get("data")
    if not named_as:
        return ""
    told = [clean(named_as)[:80]]
    told += [f"{numbers.tokens(facts[k])} bytes" for k in ("bytes",) if is_number(facts.get(k))]
    if isinstance(facts.get("sha256"), str):
        told.append(f"SHA-256 {clean(facts['sha256'])[:64]}")
    return f"Data: {', '.join(told)}."
