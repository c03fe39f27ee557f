"""All tasks at once: a table of their scores, and what the page's summary says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from results.chapters.quality.rows import QualityChapter, Trial
from results.chapters.quality.scores import MOST_NAMED, compressors, named
from results.chapters.quality.tables import score_cell
from results.metrics import METRICS
from results.page.blocks import Cell, Paragraph, TableView
from results.page.cells import name
from results.page.columns import Columns, Row, table
from results.records.frames import records
from results.statistics.seeds import SOLVED, is_solved
from results.text import numbers
from results.text.labels import budget_name, view_name

_MOST_LINES = 12

DEFAULTS = "its defaults"


def overview(chapters: Sequence[QualityChapter]) -> list[TableView]:
    """Return the scores of all tasks at one view: a row a task, a column a backend."""
    by_view: dict[tuple[str, str], list[tuple[QualityChapter, Trial]]] = {}
    for chapter in chapters:
        for trial in chapter.trials:
            by_view.setdefault((view_name(trial.training), trial.metric), []).append(
                (chapter, trial)
            )
    return [_overview(*key, pairs) for key, pairs in by_view.items() if len(pairs) > 1]


def _overview(view: str, metric: str, pairs: Sequence[tuple[QualityChapter, Trial]]) -> TableView:
    trainings = list(dict.fromkeys(trial.name for _, trial in pairs))
    several = len(trainings) > 1
    tables = [records(trial.rows) for _, trial in pairs]
    one_each = all(len({r["backend"] for r in rows}) == len(rows) for rows in tables)
    variants = _variants(pairs)
    # A backend whose options follow the length has one column; the notes have the options.
    follows = {b for b, options in variants.items() if one_each and len(options) > 1}

    def column(row: Row) -> str:
        return str(row["backend"]) if row["backend"] in follows else name(row)

    every = dict.fromkeys(column(r) for r in chain(*tables))
    shown = list(every)[:MOST_NAMED]
    places = [(*_which(chapter), trial.name) for chapter, trial in pairs]
    alike = len(set(places)) < len(places)
    rows: list[_Task] = [
        (chapter, trial, {column(row): row for row in found})
        for (chapter, trial), found in zip(pairs, tables, strict=True)
    ]

    def score(backend: str) -> Callable[[_Task], Cell | str]:
        return lambda t: score_cell(t[2][backend], t[1]) if backend in t[2] else numbers.NONE

    columns: Columns[_Task] = [
        ("task", lambda t: _which(t[0])[0]),
        ("form", lambda t: _which(t[0])[1]),
        ("tokens", lambda t: _which(t[0])[2]),
        *([("trained", lambda t: budget_name(t[1].training))] if several else []),
        *([("where", lambda t: t[0].title)] if alike else []),
        *((backend, score(backend)) for backend in shown),
    ]
    notes = [
        f"{backend}: {'; '.join(f'{o or DEFAULTS} at {at} tokens' for o, at in told.items())}."
        for backend, told in variants.items()
        if backend in follows and backend in shown
    ]
    if len(every) > len(shown):
        notes.append(f"The first {len(shown)} of {len(every)} backends.")
    what = METRICS[metric].title
    title = f"{what} by task, {view if several else trainings[0]}"
    return table(title, rows, columns, text_columns=2, notes=notes)


_Task = tuple[QualityChapter, Trial, dict[str, Row]]
"""A task's chapter and trial, and its rows by column."""


def _variants(pairs: Sequence[tuple[QualityChapter, Trial]]) -> dict[str, dict[str, str]]:
    """Return backend to its options, each with the lengths they were used at."""
    lengths: dict[str, dict[str, dict[str, None]]] = {}
    for chapter, trial in pairs:
        for row in records(trial.rows):
            used = lengths.setdefault(row["backend"], {}).setdefault(row["options"], {})
            used[numbers.tokens(chapter.setting["seq_len"])] = None
    return {
        backend: {options: numbers.listing(list(at)) for options, at in of.items()}
        for backend, of in lengths.items()
    }


def _which(chapter: QualityChapter) -> tuple[str, str, str]:
    setting = chapter.setting
    form = "causal" if setting["is_causal"] else "bidirectional"
    return str(setting["task"]), form, numbers.tokens(setting["seq_len"])


def answers(chapters: Sequence[QualityChapter]) -> list[Paragraph]:
    """Return what the page's summary says of the tasks: a sentence a trial."""
    sentences = []
    for chapter in chapters:
        for trial in chapter.trials:
            if answer := _in_short(trial):
                sentences.append(f"{chapter.title}, {trial.name}: {answer}.")
    more = len(sentences) - _MOST_LINES
    sentences = [*sentences[:_MOST_LINES], *([f"{more} more below."] if more > 0 else [])]
    return [Paragraph("Tasks", sentences)] if sentences else []


def _in_short(trial: Trial) -> str:
    rows = records(trial.good)
    if not rows:
        return ""
    if trial.lower:
        beside = [f"{word} {bits:.3f}" for word, bits in compressors(trial).items()]
        end = f" (for comparison: {numbers.listing(beside)})" if beside else ""
        return f"bits per byte {named(rows[:4], trial.metric)}{end}"
    solved = [name(r) for r in rows if is_solved(r)]
    lost = [name(r) for r in rows if r["at_chance"] and r["score"] < SOLVED]
    parts = [
        f"solved by {numbers.listing(solved[:MOST_NAMED])}"
        if solved
        else f"not solved, best: {named(rows[:1], 'accuracy')}"
    ]
    others = [r for r in rows[bool(not solved) :] if not is_solved(r)]
    if short := [r for r in others if r["score"] >= SOLVED]:
        parts.append(f"a seed failed: {named(short, 'accuracy')}")
    if rest := [r for r in others if r["score"] < SOLVED and not r["at_chance"]]:
        parts.append(f"above chance: {named(rest, 'accuracy')}")
    if lost:
        parts.append(f"at chance: {numbers.listing(lost[:MOST_NAMED])}")
    return "; ".join(parts)
