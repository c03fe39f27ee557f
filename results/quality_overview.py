"""All tasks at once: a table of their scores, and what the page's summary says of them."""

from __future__ import annotations

from collections.abc import Sequence

from results import format
from results.quality import QualityChapter, Trial
from results.quality_views import (
    MOST_NAMED,
    compressors,
    name,
    named,
    records,
    score_cell,
)
from results.seeds import SOLVED, is_solved
from results.summary import Paragraph
from results.views import LONG, Cell, TableView

_MOST_LINES = 12


def overview(chapters: Sequence[QualityChapter]) -> list[TableView]:
    """Return the scores of all tasks at one view: a row a task, a column a backend."""
    by_training: dict[tuple[str, str], list[tuple[QualityChapter, Trial]]] = {}
    for chapter in chapters:
        for trial in chapter.trials:
            by_training.setdefault((trial.name, trial.metric), []).append((chapter, trial))
    return [_overview(*key, pairs) for key, pairs in by_training.items() if len(pairs) > 1]


def _overview(
    training: str, metric: str, pairs: Sequence[tuple[QualityChapter, Trial]]
) -> TableView:
    every = dict.fromkeys(name(r) for _, trial in pairs for r in records(trial.rows))
    shown = list(every)[:MOST_NAMED]
    rows = []
    names = [_which(chapter) for chapter, _ in pairs]
    alike = len(set(names)) < len(names)
    for (chapter, trial), named_so in zip(pairs, names, strict=True):
        by_name = {name(r): r for r in records(trial.rows)}
        cells = [Cell(text) for text in named_so]
        cells += [Cell(chapter.title)] if alike else []
        for backend in shown:
            row = by_name.get(backend)
            cells.append(Cell(format.NONE) if row is None else score_cell(row, trial))
        rows.append(cells)
    notes = []
    if len(every) > len(shown):
        notes.append(f"Of {len(every)} backends the first {len(shown)}.")
    what = "Accuracy" if metric == "accuracy" else "Bits per byte"
    title = f"{what} by task, {training}"
    head = ["task", "form", "tokens", *(["where"] if alike else []), *shown]
    return TableView(title, head, rows, 2, notes, is_long=len(rows) > LONG)


def _which(chapter: QualityChapter) -> tuple[str, str, str]:
    setting = chapter.setting
    form = "causal" if setting["is_causal"] else "bidirectional"
    return str(setting["task"]), form, format.tokens(setting["seq_len"])


def answers(chapters: Sequence[QualityChapter]) -> list[Paragraph]:
    """Return what the page's summary says of the tasks: a sentence a trial."""
    said = []
    for chapter in chapters:
        for trial in chapter.trials:
            if told := _in_short(trial):
                said.append(f"{chapter.title}, {trial.name}: {told}.")
    more = len(said) - _MOST_LINES
    said = [*said[:_MOST_LINES], *([f"{more} more below."] if more > 0 else [])]
    return [Paragraph("Tasks", said)] if said else []


def _in_short(trial: Trial) -> str:
    rows = records(trial.good)
    if not rows:
        return ""
    if trial.lower:
        beside = [f"{word} {bits:.3f}" for word, bits in compressors(trial).items()]
        end = f" (beside {format.listing(beside)})" if beside else ""
        return f"bits per byte {named(rows[:4], trial.metric)}{end}"
    solved = [name(r) for r in rows if is_solved(r)]
    lost = [name(r) for r in rows if r["at_chance"] and r["score"] < SOLVED]
    told = [
        f"solved by {format.listing(solved[:MOST_NAMED])}"
        if solved
        else f"not solved, best {named(rows[:1], 'accuracy')}"
    ]
    others = [r for r in rows[bool(not solved) :] if not is_solved(r)]
    if short := [r for r in others if r["score"] >= SOLVED]:
        told.append(f"a seed without result {named(short, 'accuracy')}")
    if rest := [r for r in others if r["score"] < SOLVED and not r["at_chance"]]:
        told.append(f"below it {named(rest, 'accuracy')}")
    if lost:
        told.append(f"not told from chance {format.listing(lost[:MOST_NAMED])}")
    return "; ".join(told)
