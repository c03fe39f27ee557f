"""The tasks' tables as rows of text, and what they say in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.crossovers import BASELINES
from results.analysis.warm_up import marked
from results.chapters.quality.rows import COSTS, QualityChapter, Trial
from results.page.blocks import LONG, Cell, Paragraph, TableView
from results.page.cells import name
from results.records.frames import records
from results.statistics.intervals import is_less
from results.statistics.seeds import FEWEST, SOLVED, is_solved, of_seeds
from results.text import numbers
from results.text.clean import clean
from results.text.labels import name_of, number_of, options_of, written
from results.text.numbers import status_word

Row = Mapping[Hashable, Any]

COST_WORDS: Mapping[str, str] = {
    "latency": "latency",
    "peak_memory": "peak memory",
    "state_bytes": "decoding state",
}

MOST_NAMED = 12
"""Backends in a sentence."""


def score(value: float, metric: str, *, to: numbers.To = "nearest") -> str:
    """Write a score: 99.7 % or 2.104."""
    if not math.isfinite(value):
        return numbers.NONE
    if metric != "accuracy":
        return f"{numbers.rounded(value, 3, to):.3f}"
    text = f"{numbers.rounded(100 * value, 1, to):.1f} %"
    return "> 99.9 %" if text == "100.0 %" and value < 1 else text


def between_seeds(row: Row, metric: str) -> str:
    """Write the smallest and largest of the seeds, "" where they are written alike."""
    low, high = (score(row[c], metric) for c in ("score_low", "score_high"))
    return f"{low.removesuffix(' %')}–{high}" if low != high else ""


def named(rows: Sequence[Row], metric: str) -> str:
    """List backends with their scores, how far their seeds lie apart, and how many have none."""
    told = []
    for row in rows[:MOST_NAMED]:
        apart = between_seeds(row, metric)
        small = ", ".join(s for s in (apart, seeds_of(row)) if s)
        told.append(f"{name(row)} {score(row['score'], metric)}{f' ({small})' if small else ''}")
    more = len(rows) - len(told)
    return numbers.listing([*told, *([f"{more} more"] if more > 0 else [])])


def seeds_of(row: Row) -> str:
    """Say how many seeds a row's score is of where some have none, else ""."""
    return of_seeds(row["num_seeds"], row["num_tried"])


# -- tables --------------------------------------------------------------------------------------


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
        f"Rows of {numbers.listing(pretrained)} have."
        if pretrained
        else "There are none here that have."
    )
    return (
        "Training from random initialisation alone overstates the differences between "
        "architectures (Amos et al. 2023, arXiv 2310.02980); less so those that were trained on "
        f"the task's own inputs first. {told}"
    )


_ARENA = ("listops", "lra")
"""Tasks of Long Range Arena, of our own data and of theirs."""


Columns = Mapping[str, Callable[[Row], Cell]]


def _results(trial: Trial) -> TableView:
    best = {cost: set(trial.frontier(cost)) for cost in COSTS}
    columns: Columns = {
        "backend": lambda r: Cell(name(r)),
        "bits per byte" if trial.lower else "accuracy": lambda r: score_cell(r, trial),
        "95 % of the mean": lambda r: Cell(_interval(r, trial.metric)),
        "seeds": lambda r: Cell((seeds_of(r) or f"{r['num_seeds']}").removesuffix(" seeds")),
        "loss": lambda r: Cell(numbers.digits(r["loss"])),
        "latency": lambda r: _cost_cell(
            r, "latency", best, lambda value: marked(numbers.seconds(value), r)
        ),
        "peak memory": lambda r: _cost_cell(r, "peak_memory", best, numbers.size),
        "state": lambda r: _cost_cell(r, "state_bytes", best, numbers.size),
        "reason": lambda r: Cell(r["reason"]),
    }
    view = _table(f"Results, {trial.name}", trial.rows, columns, 4)
    return replace(view, notes=_notes(trial))


def _spent(trial: Trial) -> TableView:
    columns: Columns = {
        "backend": lambda r: Cell(name(r)),
        "time": lambda r: Cell(numbers.seconds(r["training_time"])),
        "steps": lambda r: Cell(numbers.tokens(r["training_steps"])),
        "operations": lambda r: Cell(_rate(r["training_ops"], "op")),
        "tokens/s": lambda r: Cell(numbers.digits(r["throughput"], 2)),
        "parameters": lambda r: Cell(_rate(r["parameters"], "")),
    }
    rows = trial.rows[trial.rows["score"].notna()]
    view = _table(f"What learning took, {trial.name}", rows, columns, 1)
    shown = len(view.head) > 1
    return replace(view, is_long=True, rows=view.rows if shown else [],
                   notes=["Medians over seeds."])  # fmt: skip


def _table(title: str, rows: pd.DataFrame, columns: Columns, least: int) -> TableView:
    """Return a table of the first `least` columns, and of the others that say anything."""
    cells = [[write(r) for write in columns.values()] for r in records(rows)]
    kept = [
        i
        for i in range(len(columns))
        if i < least or any(row[i].text not in ("", numbers.NONE) for row in cells)
    ]
    heads = list(columns)
    shown = [[row[i] for i in kept] for row in cells]
    return TableView(title, [heads[i] for i in kept], shown, is_long=len(cells) > LONG)


def score_cell(row: Row, trial: Trial) -> Cell:
    """Return the cell of a score with what is small behind it, or of a status."""
    if not math.isfinite(row["score"]):
        word = status_word(row["status"]) if row["status"] != "ok" else numbers.NONE
        return Cell(word, is_status=row["status"] != "ok")
    small = [between_seeds(row, trial.metric), "chance" if row["at_chance"] else "",
             seeds_of(row)]  # fmt: skip
    return Cell(score(row["score"], trial.metric), ", ".join(s for s in small if s))


def _interval(row: Row, metric: str) -> str:
    if not math.isfinite(row["ci_low"]):
        return numbers.NONE
    low, high = score(row["ci_low"], metric, to="down"), score(row["ci_high"], metric, to="up")
    return f"{low.removesuffix(' %')}–{high}"


def _cost_cell(row: Row, cost: str, best: Mapping[str, set[Any]], write: Any) -> Cell:
    on = (row["backend"], row["options"]) in best[cost] and row[cost] > 0
    return Cell(write(row[cost]), "frontier" if on else "")


def _rate(value: float, unit: str) -> str:
    return f"{numbers.rate(value)}{unit}".strip() if math.isfinite(value) else numbers.NONE


def _notes(trial: Trial) -> list[str]:
    notes = []
    if trial.task:
        every = {clean(k)[:60]: numbers.clean_option(v) for k, v in trial.task.items()}
        notes.append(f"The task: {written(every)}.")
    if math.isfinite(trial.chance):
        notes.append(
            f"Chance is {score(trial.chance, 'accuracy')}: a guess that knows the task and not "
            "the sequence."
        )
    if (trial.rows["num_seeds"] > 1).any():
        notes.append(
            "Mean over seeds, below it the smallest and largest of them; 95 % of the mean: "
            f"Student's interval, from {FEWEST} seeds on; of an accuracy at least Wilson's, of "
            "the labels of one seed."
        )
    if trial.rows[list(COSTS)].notna().any(axis=None):
        notes.append(
            "Latency and peak memory: the trained model's forward on one sequence. State: what it "
            "keeps of the sequence to decode on. Frontier: no other is at least as good at no "
            "more cost, and better in one of the two."
        )
    if corpus := _corpus(trial.facts):
        notes.append(corpus)
    return notes


def _corpus(facts: Mapping[str, Any]) -> str:
    named_as = facts.get("corpus") or facts.get("data")
    if not named_as:
        return ""
    told = [clean(named_as)[:80]]
    told += [f"{numbers.tokens(facts[k])} bytes" for k in ("bytes",) if _is_number(facts.get(k))]
    if isinstance(facts.get("sha256"), str):
        told.append(f"SHA-256 {clean(facts['sha256'])[:64]}")
    return f"Data: {', '.join(told)}."


def compressors(trial: Trial) -> dict[str, float]:
    """Return the bits per byte of zlib and xz on the test split, those that are told."""
    return {
        word: float(trial.facts[word])
        for word in ("zlib", "xz")
        if _is_number(trial.facts.get(word)) and trial.facts[word] > 0
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- sentences -----------------------------------------------------------------------------------


def quality_paragraphs(chapter: QualityChapter) -> list[Paragraph]:
    """Return what a chapter's trials say, one paragraph a trial."""
    found = []
    for trial in chapter.trials:
        say = _of_text if trial.lower else _of_accuracy
        sentences = [*say(trial), *_cheapest(trial), *_failures(trial)]
        found.append(Paragraph(f"{trial.name[:1].upper()}{trial.name[1:]}", sentences))
    return [p for p in found if p.sentences]


def _of_accuracy(trial: Trial) -> list[str]:
    rows = records(trial.good)
    if not rows:
        return []
    solved = [r for r in rows if is_solved(r)]
    short = [r for r in rows if r["score"] >= SOLVED and not is_solved(r)]
    lost = [r for r in rows if r["at_chance"] and r["score"] < SOLVED]
    rest = [r for r in rows if r not in solved and r not in lost and r not in short]
    said = []
    at = f"a mean of {SOLVED:.0%} or more".replace("%", " %")
    if solved:
        said.append(f"Solved, by {at}: {named(solved, 'accuracy')}.")
    elif short:
        said.append(f"No backend reaches {at} with all of its seeds.")
    else:
        said.append(f"No backend reaches {at}; the best is {named(rows[:1], 'accuracy')}.")
        rest = [r for r in rest if r is not rows[0]]
    if short:
        said.append(
            f"Not counted as solved, for a seed has no result: {named(short, 'accuracy')}."
        )
    exact = [r for r in rows if r["backend"] in BASELINES]
    if exact and not any(r in solved for r in exact):
        said.append(
            f"Exact attention ({named(exact, 'accuracy')}) does not solve it either: here a "
            "failure of another says nothing of its attention alone."
        )
    if rest:
        said.append(f"Between chance and that: {named(rest, 'accuracy')}.")
    if lost:
        chance = score(trial.chance, "accuracy")
        said.append(f"Not told from chance ({chance}): {named(lost, 'accuracy')}.")
    return said


def _of_text(trial: Trial) -> list[str]:
    rows = records(trial.good)
    if not rows:
        return []
    said = [f"Fewest bits per byte: {named(rows[:1], trial.metric)}."]
    if rows[1:]:
        said.append(f"Then {named(rows[1:], trial.metric)}.")
    for word, bits in compressors(trial).items():
        beaten = [name(r) for r in rows if r["score"] < bits]
        mark = f"{word}'s {bits:.3f} bits per byte of the same test split"
        if not beaten:
            said.append(f"No backend gets below {mark}.")
        elif len(beaten) == len(rows) > 1:
            said.append(f"All get below {mark}.")
        else:
            said.append(f"Below {mark}: {numbers.listing(beaten[:MOST_NAMED])}.")
    return said


def _cheapest(trial: Trial) -> list[str]:
    """Say which of those that solve it takes least; of text there is no such line."""
    solved = trial.good.iloc[:0]
    if not trial.lower:
        solved = trial.good.loc[
            np.asarray([is_solved(r) for r in records(trial.good)], dtype=bool)
        ]
    said = []
    for cost, write in (
        ("latency", numbers.seconds), ("peak_memory", numbers.size), ("state_bytes", numbers.size),
    ):  # fmt: skip
        rows = solved[solved[cost] > 0].sort_values(cost, kind="stable")
        if len(rows) > 1:
            least = float(rows[cost].iloc[0])
            first = records(rows)[0]["latencies"]
            who = [
                marked(name(r), r) if cost == "latency" else name(r)
                for r in records(rows)
                if (not is_less(first, r["latencies"]) if cost == "latency" else r[cost] == least)
            ]
            once = cost == "latency" and min(map(len, rows["latencies"])) == 1
            said.append(
                f"{COST_WORDS[cost]} {write(least)} ({numbers.listing(who)}"
                f"{', one launch each' if once else ''})"
            )
    return [f"Least of those that solve it: {numbers.listing(said)}."] if said else []


def _failures(trial: Trial) -> list[str]:
    failed = records(trial.rows[trial.rows["score"].isna()])
    told = [f"{name(r)} ({status_word(r['status'])})" for r in failed[:MOST_NAMED]]
    more = len(failed) - len(told)
    told += [f"{more} more"] if more else []
    return [f"No result: {numbers.listing(told)}; the table has the reasons."] if told else []
