"""What a chapter's trials say in sentences."""

from __future__ import annotations

import numpy as np

from results.analysis.warm_up import marked
from results.chapters.quality.rows import COSTS, QualityChapter, Trial
from results.chapters.quality.scores import MOST_NAMED, compressors, named, score
from results.metrics import METRICS
from results.page.blocks import Paragraph
from results.page.cells import name
from results.records.frames import records
from results.statistics.launches import is_less
from results.statistics.questions import BASELINES
from results.statistics.seeds import SOLVED, is_solved
from results.text import numbers
from results.text.numbers import status_word
from results.text.written import writer


def quality_paragraphs(chapter: QualityChapter) -> list[Paragraph]:
    """Return what a chapter's trials say, one paragraph a trial."""
    paragraphs = []
    for trial in chapter.trials:
        say = _of_text if trial.lower else _of_accuracy
        sentences = [*say(trial), *_cheapest(trial), *_failures(trial)]
        paragraphs.append(Paragraph(f"{trial.name[:1].upper()}{trial.name[1:]}", sentences))
    return [p for p in paragraphs if p.sentences]


def _of_accuracy(trial: Trial) -> list[str]:
    rows = records(trial.good)
    if not rows:
        return []
    solved = [r for r in rows if is_solved(r)]
    short = [r for r in rows if r["score"] >= SOLVED and not is_solved(r)]
    lost = [r for r in rows if r["at_chance"] and r["score"] < SOLVED]
    rest = [r for r in rows if r not in solved and r not in lost and r not in short]
    sentences = []
    at = f"a mean of {SOLVED:.0%} or more".replace("%", " %")
    if solved:
        sentences.append(f"Solved ({at}): {named(solved, 'accuracy')}.")
    elif short:
        sentences.append(f"No backend reaches {at} with all of its seeds.")
    else:
        sentences.append(f"No backend reaches {at}; the best is {named(rows[:1], 'accuracy')}.")
        rest = [r for r in rest if r is not rows[0]]
    if short:
        sentences.append(f"Not counted as solved, as a seed failed: {named(short, 'accuracy')}.")
    exact = [r for r in rows if r["backend"] in BASELINES]
    if exact and not any(r in solved for r in exact):
        sentences.append(
            f"Exact attention does not solve it either ({named(exact, 'accuracy')}), so the task "
            "does not tell methods apart with this model and training."
        )
    if rest:
        sentences.append(f"Above chance: {named(rest, 'accuracy')}.")
    if lost:
        chance = score(trial.chance, "accuracy")
        sentences.append(f"At chance ({chance}): {named(lost, 'accuracy')}.")
    return sentences


def _of_text(trial: Trial) -> list[str]:
    rows = records(trial.good)
    if not rows:
        return []
    sentences = [f"Fewest bits per byte: {named(rows[:1], trial.metric)}."]
    if rows[1:]:
        sentences.append(f"Then {named(rows[1:], trial.metric)}.")
    for word, bits in compressors(trial).items():
        beaten = [name(r) for r in rows if r["score"] < bits]
        mark = f"{word} ({bits:.3f} on the same test split)"
        if not beaten:
            sentences.append(f"No backend beats {mark}.")
        elif len(beaten) == len(rows) > 1:
            sentences.append(f"All beat {mark}.")
        else:
            sentences.append(f"Better than {mark}: {numbers.listing(beaten[:MOST_NAMED])}.")
    return sentences


def _cheapest(trial: Trial) -> list[str]:
    """Say which of those that solve it takes least; of text there is no such line."""
    solved = trial.good.iloc[:0]
    if not trial.lower:
        solved = trial.good.loc[
            np.asarray([is_solved(r) for r in records(trial.good)], dtype=bool)
        ]
    least_of = []
    for cost in COSTS:
        rows = solved[solved[cost] > 0].sort_values(cost, kind="stable")
        if len(rows) > 1:
            least = float(rows[cost].iloc[0])
            first = records(rows)[0]["cell"]
            who = [
                marked(name(r), r) if cost == "latency" else name(r)
                for r in records(rows)
                if (not is_less(first, r["cell"]) if cost == "latency" else r[cost] == least)
            ]
            once = cost == "latency" and min(map(len, rows["launches"])) == 1
            least_of.append(
                f"{METRICS[cost].words} {writer(cost)(least)} ({numbers.listing(who)}"
                f"{', one process each' if once else ''})"
            )
    return [f"Cheapest that solves it: {numbers.listing(least_of)}."] if least_of else []


def _failures(trial: Trial) -> list[str]:
    failed = records(trial.rows[trial.rows["score"].isna()])
    names = [f"{name(r)} ({status_word(r['status'])})" for r in failed[:MOST_NAMED]]
    more = len(failed) - len(names)
    names += [f"{more} more"] if more else []
    return [f"No result: {numbers.listing(names)}; reasons are in the table."] if names else []
