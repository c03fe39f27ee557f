"""The report says which questions a run left open, and what answering them would take."""

from __future__ import annotations

import json
import shlex

import pytest
import synthetic
from synthetic import Law

from results.analysis.analysis import Analysis
from results.chapters.speed.open_questions import answered, answers_of, open_tables
from results.chapters.speed.rows import chapters
from results.records.load import load
from results.schema import PLANS

LAWS = {"sdpa": Law(1e-9, 2.0), "linformer": Law(2e-6, 1.0), "performer": Law(2.3e-6, 1.0)}
COMMAND = ["attnbench", "run", "--budget", "4m", "--precision", "5%"]


def answers_in(folder, *, precision=None, wall_s=30.0, command=COMMAND, **settings):
    """Return the answers of a synthetic run whose launches took so long, the first thrice."""
    settings = {"lengths": (512, 1024, 2048, 4096), "modes": ("forward",), **settings}
    synthetic.write_run(folder, LAWS, **settings)
    records = synthetic.read_records(folder)
    for record in records:
        record["launch"]["wall_s"] = wall_s * (1 if record["launch"]["index"] else 3)
    synthetic.write_records(folder, records)
    if precision is not None:
        plan = {"run": "run-1", "command": command, "cases": [], "precision": precision}
        (folder / PLANS).write_text(json.dumps(plan) + "\n")
    (chapter,) = chapters(Analysis(load(folder)))
    return answers_of(chapter)


def test_what_is_answered_is_said_in_one_sentence(tmp_path):
    answers = answers_in(tmp_path, noise=0.01)
    (paragraph,) = answered(answers)
    assert paragraph.sentences == [
        f"All {len(answers.questions)} questions are answered: exponents to ±0.1, the fastest two "
        "to ±8.5 % or a third of what they differ by, crossovers to ±15 %."
    ]
    assert open_tables(answers) == []


def test_open_questions_are_named_with_the_seconds_that_they_would_take(tmp_path):
    answers = answers_in(tmp_path, noise=0.4, precision=0.1)
    assert answered(answers) == []
    (table,) = open_tables(answers)
    (exponent, *_) = answers.open
    assert exponent.words == "the exponent of sdpa, forward"
    first = [cell.text for cell in table.rows[0]]
    assert first == ["the exponent of sdpa, forward", exponent.known, "±0.10"]
    minutes = -(-answers.seconds // 60)
    how = table.notes[1]
    assert f"Processes of about {minutes:,.0f} min would answer them" in how
    # The command's budget gives way to what it would take.
    words = shlex.split(how.partition("To go on: ")[2])
    assert words == [
        "attnbench", "run", "--precision", "5%", "--budget", f"{minutes:.0f}m", "--resume",
        "--out", str(tmp_path),
    ]  # fmt: skip
    # The first launch of a case checks more: what later ones took counts.
    assert answers.seconds % 30 == pytest.approx(0)


def test_the_precision_is_that_of_the_run(tmp_path):
    usual = answers_in(tmp_path / "a", noise=0.08)
    strict = answers_in(tmp_path / "b", noise=0.08, precision=0.02)
    assert (usual.precision, strict.precision) == (0.1, 0.02)
    assert len(strict.open) > len(usual.open)
    assert usual.resume == ""
    (table,) = open_tables(strict)
    assert len(table.rows) == len(strict.open)


def test_nothing_is_said_where_no_case_was_launched_twice(tmp_path):
    answers = answers_in(tmp_path, launches=1)
    assert answered(answers) == []
    assert open_tables(answers) == []


def test_cases_that_failed_get_no_more_launches(tmp_path):
    laws = {**LAWS, "performer": Law(2.3e-6, 1.0, fails={4096: ("crashed", "signal 9")})}
    synthetic.write_run(tmp_path, laws, lengths=(512, 4096), noise=0.3, modes=("forward",))
    (chapter,) = chapters(Analysis(load(tmp_path)))
    answers = answers_of(chapter)
    assert "the fastest two at 4,096 tokens, forward: linformer and sdpa" in {
        question.words for question in answers.questions
    }


@pytest.mark.parametrize("precision", [0, -0.1, 2, "10%"])
def test_a_precision_of_another_form_costs_its_line_alone(tmp_path, precision):
    answers = answers_in(tmp_path, precision=precision)
    assert answers.precision == 0.1
    (warning,) = load(tmp_path).warnings
    assert "plans.jsonl" in warning
    assert "precision" in warning
