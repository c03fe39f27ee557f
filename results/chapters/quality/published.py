"""Published figures of Long Range Arena, beside ours and never among them."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from results.chapters.quality.rows import QualityChapter
from results.chapters.quality.scores import score
from results.page.blocks import Cell, TableView
from results.page.cells import name
from results.records.frames import as_rows
from results.text import numbers
from results.text.labels import name_of

FOLDER = Path(__file__).parents[2] / "published"

LRA_TASKS: tuple[str, ...] = ("listops", "text", "retrieval", "image", "pathfinder")
"""The columns of its accuracies."""

COUNTERPARTS: Mapping[str, tuple[str, ...]] = {
    "Transformer": ("full", "sdpa", "xformers"),
    "BigBird": ("bigbird",),
    "Longformer": ("longformer",),
    "Performer": ("performer",),
    "Linformer": ("linformer",),
}
"""Their method to our backends of the same idea."""

_LENGTH = "4096"
_MOST_OURS = 4


@functools.cache
def rows_of(file: str) -> tuple[dict[str, str], ...]:
    """Return the rows of a published table."""
    with (FOLDER / file).open(newline="") as source:
        return tuple(csv.DictReader(source))


def published_tables(chapters: Sequence[QualityChapter]) -> list[TableView]:
    """Return a table a task of Long Range Arena that was measured here."""
    by_task: dict[str, list[QualityChapter]] = {}
    for chapter in chapters:
        if task := lra_task(chapter):
            by_task.setdefault(task, []).append(chapter)
    return [_beside(task, own) for task, own in by_task.items()]


def lra_task(chapter: QualityChapter) -> str:
    """Return which task of Long Range Arena a chapter is of, "" for none.

    Our own ListOps counts, and a folder in its format (task ``lra``), which says what it holds.
    """
    name = name_of(str(chapter.setting["task"]))
    if name == "lra":
        told = [str(trial.facts.get("format")) for trial in chapter.trials]
        return next((task for task in told if task in LRA_TASKS), "")
    return "listops" if name == "listops" else ""


def _beside(task: str, chapters: Sequence[QualityChapter]) -> TableView:
    trials = [(c, t) for c in chapters for t in c.trials if len(t.good)][:_MOST_OURS]
    speed = {r["model"]: r for r in rows_of("lra_speed_memory.csv") if r["seq_len"] == _LENGTH}
    rows = []
    for line in rows_of("lra_accuracy.csv"):
        fast = speed.get(line["model"], {})
        cells = [
            Cell(line["model"]),
            Cell(f"{line[task]} %"),
            Cell(fast.get("steps_per_s", numbers.NONE)),
            Cell(f"{fast['peak_memory_gb']} GB" if fast else numbers.NONE),
        ]
        for _, trial in trials:
            told = [
                f"{name(r)} {score(r['score'], trial.metric)}"
                for r in as_rows(trial.rows)
                if r["backend"] in COUNTERPARTS.get(line["model"], ()) and r["num_seeds"]
            ]
            cells.append(Cell("; ".join(told[:6]) or numbers.NONE))
        rows.append(cells)
    several = len({c.title for c, _ in trials}) > 1
    ours = [f"ours: {f'{c.title}, ' if several else ''}{t.name}" for c, t in trials]
    head = [
        "method", "LRA: accuracy", "LRA: steps/s, text 4K", "LRA: peak memory, text 4K",
        *ours,
    ]  # fmt: skip
    notes = [
        "LRA: Long Range Arena (Tay et al. 2020, arXiv 2011.04006). Accuracy: from its code's "
        "README, with its own model sizes. Steps per second and peak memory per device: its "
        "Table 2, byte-level text of 4K tokens, batch 32, on 4×4 TPU v3.",
        "Ours: accuracies of this report. Hardware, data, model and training differ, so the two "
        "are not comparable as ratios.",
    ]
    return TableView(f"Published and ours: {task}", head, rows, notes=notes)
