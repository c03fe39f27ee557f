"""What the models learnt: records of kind task as scores over seeds, groups and curves.

A setting is what must be equal before two scores are compared, and a trial is one view of it:
what a training was allowed to spend. Seeds are the unit: a backend's score is the mean over its
seeds, shown with their smallest and largest and, from three seeds on, with an interval of the mean
(`seeds.spread`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.series import outcome, set_cells
from results.analysis.warm_up import converged
from results.chapters.titles import PLACE, joined, place_words, task_name, titled
from results.figures.theme import Look, looks
from results.metrics import METRICS, of_role
from results.records.case_columns import RESOURCES
from results.records.frames import as_rows, rows_by
from results.records.load import Run
from results.statistics.pareto import frontier
from results.statistics.seeds import Spread, labels_of, spread
from results.text.clean import clean
from results.text.labels import rank, training_name

SETTING = (*PLACE, "task", "is_causal", "model", "seq_len")

COSTS = of_role("cost")
"""What a score stands against: of the trained model's forward, and of its decoding state."""

SPENT = of_role("training")

_NEAR = 0.05
"""Of the way from chance to 1, where the number of labels is not known."""


@dataclass(frozen=True)
class Trial:
    """One view of a setting: the same to spend for every backend.

    Attributes:
        training: as the case spells it.
        name: the same in words.
        metric: ``accuracy`` or ``bits_per_byte``.
        rows: a row a backend with its options, see `scores`.
        groups: a row a backend, seed and group: value, correct, count.
        group: what the groups are: ``distance``, ``depth`` or "".
        curves: a row a backend, seed and point: step, time, loss.
        chance: accuracy of a guess; NaN where there is none.
        facts: of the task's data; empty where none are told.
        task: the task's options in force.
    """

    training: str
    name: str
    metric: str
    rows: pd.DataFrame
    groups: pd.DataFrame
    group: str
    curves: pd.DataFrame
    chance: float
    facts: Mapping[str, Any]
    task: Mapping[str, Any]

    @property
    def lower(self) -> bool:
        """Whether less is better."""
        return not METRICS[self.metric].higher_is_better

    @property
    def good(self) -> pd.DataFrame:
        """The rows that have a score, the best first."""
        rows = self.rows[self.rows["score"].notna()]
        return rows.sort_values("score", ascending=self.lower, kind="stable")

    def frontier(self, cost: str) -> list[tuple[str, str]]:
        """Return backend and options of those that none beats in score and `cost`."""
        rows = self.rows[self.rows["score"].notna() & (self.rows[cost] > 0)]
        kept = frontier(list(rows[cost]), list(rows["score"]), lower=self.lower)
        return [(rows["backend"].iloc[i], rows["options"].iloc[i]) for i in kept]


@dataclass(frozen=True)
class QualityChapter:
    """One task at one length in one place.

    Attributes:
        title: task, form and length, and what else tells it from other chapters.
        place: model, batch and machine's setting, in words.
        setting: values of `SETTING`.
        trials: its views.
        looks: (backend, options) to colour and marker, the same in every chapter.
    """

    title: str
    place: str
    setting: Mapping[str, Any]
    trials: list[Trial]
    looks: Mapping[tuple[str, str], Look]


def at_chance(found: Spread, chance: float, num_labels: float) -> bool:
    """Say whether an accuracy is not told from chance.

    That is so where no seed is beyond chance by more than three standard errors of its number of
    labels (where that is not known, by `_NEAR` of the way to 1), or where the interval of the mean
    holds chance and no seed is twice `_NEAR` of the way.
    """
    if not math.isfinite(chance):
        return False
    margin = _NEAR * (1 - chance)
    if num_labels > 0:
        margin = 3 * math.sqrt(chance * (1 - chance) / num_labels)
    if found.high <= chance + margin:
        return True
    return found.ci_low <= chance and found.high <= chance + 2 * _NEAR * (1 - chance)


def chapters_of_tasks(run: Run) -> list[QualityChapter]:
    """Return the tasks of a run by setting: by machine, task, form and length."""
    frame = run.of("task")
    if frame.empty:
        return []
    told = details(run, "task")
    drawn = looks(zip(frame["backend"], frame["options"], strict=True))
    groups = rows_by(frame, SETTING)
    order = {task: i for i, task in enumerate(dict.fromkeys(frame["task"]))}
    place = {m: i for i, m in enumerate(dict.fromkeys(frame["machine"]))}
    groups.sort(
        key=lambda g: (place[g[0]["machine"]], order[g[0]["task"]], not g[0]["is_causal"],
                       g[0]["seq_len"])
    )  # fmt: skip
    titles = titled([setting for setting, _ in groups], run, (*PLACE, "model"), task_name)
    return [
        QualityChapter(
            title,
            place_words(setting),
            setting,
            [_trial(str(key), rows, told) for key, rows in part.groupby("training", sort=False)],
            drawn,
        )
        for title, (setting, part) in zip(titles, groups, strict=True)
    ]


TASK_TABLE = (
    "task", "is_causal", "seq_len", "training", "model", "backend", "options", "metric", "score",
    "score_low", "score_high", "ci_low", "ci_high", "num_seeds", "num_tried", "chance",
    "at_chance", "loss", *SPENT, *COSTS, "converged", "parameters", "device", "dtype", "batch",
    *RESOURCES, "checkpointing", "status", "reason", "machine", "environment",
)  # fmt: skip
"""The columns of the table `tasks`; times in s, memory in B, scores as shares or bit/B."""


def task_table(run: Run) -> pd.DataFrame:
    """Return a row per setting, training and backend: `TASK_TABLE`."""
    parts = [
        trial.rows.assign(
            **chapter.setting, training=trial.training, metric=trial.metric, chance=trial.chance
        )
        for chapter in chapters_of_tasks(run)
        for trial in chapter.trials
    ]
    return joined(parts, TASK_TABLE)


# -- one trial -----------------------------------------------------------------------------------

_Told = Mapping[tuple[str, str, str], list[dict[str, Any]]]


def details(run: Run, kind: str) -> _Told:
    """Return by machine, run and case what its launches say of their `quality`."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in run.records:
        if record["case"]["kind"] != kind or record["status"] != "ok":
            continue
        said = record["arms"][0].get("quality")
        if isinstance(said, dict):
            key = clean(record["machine"]), clean(record["run"]), record["case"]["id"]
            found.setdefault(key, []).append(said)
    return found


def _trial(training: str, part: pd.DataFrame, told: _Told) -> Trial:
    said = [
        (row, detail)
        for row in as_rows(part.drop_duplicates(["run", "case_id"]))
        for detail in told.get((row["machine"], row["run"], row["case_id"]), [])
    ]
    metric = "accuracy"
    if (part["metric"] == "bits_per_byte").any():
        metric = "bits_per_byte"
    chances = [d["chance"] for _, d in said if d.get("chance") is not None]
    chance = float(np.median(chances)) if chances and metric == "accuracy" else math.nan
    groups, curves = _groups(said), _curves(said)
    names = [d["groups"]["name"] for _, d in said if d.get("groups")]
    return Trial(
        training=training,
        name=training_name(training) if training else "one training",
        metric=metric,
        rows=scores(part, said, metric, chance),
        groups=groups,
        group=clean(names[0])[:40] if names else "",
        curves=curves,
        chance=chance,
        facts=next((d["facts"] for _, d in said if d.get("facts")), {}),
        task=next((d["task"] for _, d in said if d.get("task")), {}),
    )


_Said = list[tuple[dict[Any, Any], dict[str, Any]]]


def scores(part: pd.DataFrame, said: _Said, metric: str, chance: float) -> pd.DataFrame:
    """Return a row a backend with its options: what it reached and what it cost, over seeds.

    Columns: backend, options, score, score_low, score_high, ci_low, ci_high, num_seeds
    (those with a score), num_tried, at_chance, loss, the medians of `COSTS` and `SPENT`, of the
    latency its value by the model of launches and its cell, launches (the latency of each seed),
    parameters, status, reason. NaN where nothing succeeded; launches of one seed count as one, by
    their mean.
    """
    rows: list[dict[str, Any]] = []
    for (backend, options), own in part.groupby(["backend", "options"], sort=False):
        status, reason = outcome(own)
        seeds = _by_seed(own, metric)
        top = 1.0 if metric == "accuracy" else math.inf
        of_metric = own[(own["metric"] == metric) & (own["status"] == "ok")]
        found = Spread(*[math.nan] * 5)
        if seeds:
            asked = labels_of(of_metric) if metric == "accuracy" else math.nan
            found = spread(seeds, low=0.0, high=top, num_labels=asked)
        told = [d for row, d in said if (row["backend"], row["options"]) == (backend, options)]
        labels = [sum(d["groups"]["count"]) for d in told if d.get("groups")]
        parameters = [d["parameters"] for d in told if d.get("parameters") is not None]
        rows.append(
            {
                "backend": backend, "options": options, "score": found.mean,
                "score_low": found.low, "score_high": found.high,
                "ci_low": found.ci_low, "ci_high": found.ci_high, "num_seeds": len(seeds),
                "num_tried": int(own["seed"].nunique()),
                "at_chance": bool(seeds)
                and at_chance(found, chance, min(labels, default=math.nan)),
                "loss": _mean(_by_seed(own, "loss")),
                **{c: _median(_by_seed(own, c)) for c in (*COSTS, *SPENT)},
                "launches": tuple(_by_seed(own, "latency")),
                "sentinels": tuple(_by_seed(own, "latency", "sentinel")),
                "converged": converged(own["converged"]),
                "parameters": _median(parameters), "status": status, "reason": reason,
            }
        )  # fmt: skip
    set_cells(rows, ("backend", "options"))
    for row in rows:
        row["latency"] = math.nan if row["cell"] is None else row["cell"].value
    rows.sort(key=lambda row: (rank(row["backend"]), row["options"]))
    return pd.DataFrame.from_records(rows)


def _by_seed(own: pd.DataFrame, metric: str, column: str = "value") -> list[float]:
    rows = own[(own["metric"] == metric) & (own["status"] == "ok")]
    return [float(v) for v in rows.groupby("seed")[column].mean()]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _groups(said: _Said) -> pd.DataFrame:
    return pd.DataFrame.from_records(
        list(_group_rows(said)),
        columns=["backend", "options", "seed", "value", "correct", "count"],
    )


def _group_rows(said: _Said) -> Iterator[tuple[Any, ...]]:
    for row, detail in said:
        groups = detail.get("groups") or {"values": [], "correct": [], "count": []}
        for entry in zip(groups["values"], groups["correct"], groups["count"], strict=True):
            if entry[2]:
                yield (row["backend"], row["options"], row["seed"], *map(float, entry))


def _curves(said: _Said) -> pd.DataFrame:
    found = []
    for row, detail in said:
        curve = detail.get("curve") or {"step": [], "time": [], "loss": []}
        points = zip(curve["step"], curve["time"], curve["loss"], strict=True)
        found += [(row["backend"], row["options"], row["seed"], *map(float, p)) for p in points]
    columns = ["backend", "options", "seed", "step", "time", "loss"]
    return pd.DataFrame.from_records(found, columns=columns)
