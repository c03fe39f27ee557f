"""Which questions a run left open, how exactly they are known, and what answering them would take.

The questions, and what more launches would do, are those of a sweep's planner
(`results.statistics.questions`, `results.statistics.allocation`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from results.analysis.series import speed_frame
from results.chapters.speed.rows import Chapter
from results.page.blocks import Paragraph, TableView
from results.page.cells import name
from results.page.columns import table
from results.records.frames import as_rows
from results.schema import IDENTITY
from results.statistics.allocation import allocate, seconds_of_next
from results.statistics.questions import (
    BASELINES,
    PRECISION,
    Curve,
    Point,
    Question,
    Targets,
    questions_of,
)
from results.text import numbers
from results.text.clean import clean

Key = tuple[Hashable, ...]
"""Mode, backend, options and length of a case, within a setting."""


@dataclass(frozen=True, eq=False)
class Answers:
    """How far the questions of a setting are answered.

    Attributes:
        questions: all, answered ones too; none where no case was launched twice.
        precision: that they were to be answered to, as a fraction.
        seconds: predicted for the processes that answer those that are open; ``None``
            = more processes would not.
        resume: the command that goes on with the run; "" = there is none.
    """

    questions: list[Question]
    precision: float
    seconds: float | None
    resume: str

    @property
    def open(self) -> list[Question]:
        """The questions that are open."""
        return [question for question in self.questions if question.is_open]


def answers_of(chapter: Chapter) -> Answers:
    """Return how far the questions of a setting are answered, by what the run was to hold.

    A run that says nothing of its precision is held to `PRECISION`, of several runs each to the
    strictest of theirs.
    """
    begun = chapter.analysis.run.begun
    told = [one for one in begun if one.precision is not None]
    precision = min((one.precision or PRECISION for one in told), default=PRECISION)
    questions = questions_of(_curves(chapter), Targets.at(precision))
    if not any(math.isfinite(question.half_width) for question in questions):
        questions = []
    more = allocate(questions, _costs(chapter))
    seconds = more.seconds if more.is_enough else None
    resume = ""
    if len(told) == len(begun) == 1 and seconds:
        resume = told[0].resume(budget=f"{math.ceil(seconds / 60)}m")
    return Answers(questions, precision, seconds, resume)


def answered(answers: Answers) -> list[Paragraph]:
    """Say how exactly questions are answered, where all are; what is open stands in a table."""
    questions = answers.questions
    if not questions or answers.open:
        return []
    count = f"All {len(questions)} questions are" if len(questions) > 1 else "One question is"
    return [Paragraph("Precision", [f"{count} answered: {_wanted(answers)}."])]


def _wanted(answers: Answers) -> str:
    targets = Targets.at(answers.precision)
    return (
        f"exponents to ±{targets.exponent:.2g}, the fastest two to "
        f"±{numbers.percent(targets.fastest)} or a third of what they differ by, crossovers to "
        f"±{numbers.percent(math.expm1(targets.crossover))}"
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{math.ceil(seconds / 60):,} min"


def open_tables(answers: Answers) -> list[TableView]:
    """Return a table of the open questions, and what answering them takes; none where none is."""
    if not answers.open:
        return []
    columns = {
        "question": lambda one: one.words,
        "known to": lambda one: one.known,
        "wanted": lambda one: one.wanted,
    }
    notes = [f"{len(answers.open)} of {len(answers.questions)} open, of {_wanted(answers)}."]
    if answers.seconds is None:
        notes.append("More processes would not answer them: those of their cases failed.")
    else:
        spent = _span(answers.seconds)
        how = f"Processes of about {spent} would answer them, if they scatter as those so far."
        notes.append(f"{how} To go on: {answers.resume}" if answers.resume else how)
    return [table("Open questions", answers.open, columns, notes=notes)]


def _curves(chapter: Chapter) -> list[Curve]:
    rows = chapter.points
    rows = rows[(rows["metric"] == "latency") & rows["value"].notna()]
    series: dict[Key, dict[int, Point]] = defaultdict(dict)
    first: dict[Key, dict[Any, Any]] = {}
    for row in as_rows(rows[rows["backend"] != IDENTITY]):
        key = (row["mode"], row["backend"], row["options"])
        series[key][row["seq_len"]] = Point((*key, row["seq_len"]), row["cell"])
        first.setdefault(key, row)
    return [
        Curve(
            name(row), row["mode"], row["mode"],
            row["backend"] if row["backend"] in BASELINES else "", series[key],
        )
        for key, row in first.items()
    ]  # fmt: skip


def _costs(chapter: Chapter) -> dict[Hashable, float]:
    """Return the seconds of one more launch of each case of which no launch failed."""
    run = chapter.analysis.run
    walls: dict[tuple[str, str, str], list[tuple[int, float, bool]]] = defaultdict(list)
    for record in run.records:
        launch = record["launch"]
        walls[clean(record["run"]), clean(record["machine"]), record["case"]["id"]].append(
            (launch["index"], float(launch.get("wall_s") or 0.0), record["status"] == "ok")
        )
    frame = speed_frame(run)
    for column, value in chapter.setting.items():
        frame = frame[frame[column] == value]
    costs: dict[Hashable, float] = {}
    columns = ["run", "machine", "case_id", "mode", "backend", "options", "seq_len"]
    for row in as_rows(frame[columns].drop_duplicates()):
        launches = walls[row["run"], row["machine"], row["case_id"]]
        if all(is_ok for _, _, is_ok in launches):
            key = tuple(row[column] for column in columns[3:])
            costs[key] = seconds_of_next((index, wall) for index, wall, _ in launches)
    return costs
