"""A run that lacks launches it was to have says so wherever it is read."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner
from helpers_recommend import a_run

import cli
from results.records.load import load
from results.records.merge import merge
from results.records.publishable import faults
from results.report import write_report
from results.schema import PLANS
from suites.engine.measuring import without_place

COMMAND = ["attnbench", "run", "--backend", "longformer:window=64", "--seq-len", "2048,4096"]


def planned(folder: Path, kept: int, run: str = "run-1", command: Any = COMMAND) -> Path:
    """Write a run with a plan of all its launches, and keep the first of them alone."""
    a_run(folder, run=run, seed=len(run))
    records = synthetic.read_records(folder)
    cases: dict[str, dict[str, Any]] = {}
    for record in records:
        case = record["case"]
        name = f"{case['arms'][0]['name']} N={case['seq_len']}"
        one = cases.setdefault(case["id"], {"id": case["id"], "name": name, "launches": []})
        one["launches"].append(record["launch"]["index"])
    plan = {"run": run, "command": command, "cases": list(cases.values())}
    (folder / PLANS).write_text(json.dumps(plan) + "\n")
    return synthetic.write_records(folder, records[:kept])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return planned(tmp_path / "my run", 17)


def test_the_top_of_the_report_says_what_is_missing_and_how_to_go_on(
    folder: Path, tmp_path: Path
) -> None:
    (lacking,) = load(folder).unfinished
    assert (lacking.launches, lacking.cases) == ((17, 24), (1, 8))
    assert shlex.split(lacking.resume()) == [*COMMAND, "--resume", "--out", str(folder)]
    files = write_report([folder], ["html", "md"], tmp_path)
    for file in files:
        text = file.read_text()
        top = text[: text.index("Summary in sentences")]
        assert "incomplete run" in top
        assert "This run is incomplete: 17 of 24 processes were measured, 1 of 8 cases" in top
        assert "Missing: sdpa N=4096 (1), longformer N=2048 (1)," in top
        assert "and 2 more. To continue: attnbench run" in top
    markdown = files[1].read_text()
    first = markdown[markdown.index("Notes and exclusions") :].split("\n- ")[1]
    assert first.startswith("This run is incomplete")


def invoke(*words: object) -> Any:
    return CliRunner().invoke(cli.main, list(map(str, words)))


def test_the_commands_say_it(folder: Path, tmp_path: Path) -> None:
    said = "incomplete: 17 of 24 processes"
    asked = ["--seq-len", 4096, "--mode", "forward", "--device", "cpu"]
    assert said in invoke("recommend", folder, *asked).stdout.partition("\n")[0]
    assert (
        said in json.loads(invoke("recommend", folder, *asked, "--json").stdout)["incomplete"][0]
    )
    whole = a_run(tmp_path / "whole", run="other")
    assert f"NEW: This run is {said}" in invoke("compare", whole, folder, "--markdown").stdout
    assert said in invoke("report", folder, "--format", "md").stderr
    assert said in invoke("export", folder).stderr


def test_several_runs_are_named_and_a_merged_one_keeps_its_plans(tmp_path: Path) -> None:
    one, two = planned(tmp_path / "1", 20), planned(tmp_path / "2", 24, run="run-2")
    merged = merge([one, two], tmp_path / "both").folder
    for run in (load(one, two), load(merged)):
        (said,) = run.incomplete
        assert said.startswith("run run-1 is incomplete: 20 of 24 processes")
    assert len((merged / PLANS).read_text().splitlines()) == 2


def test_a_whole_run_and_one_without_a_plan_say_nothing(tmp_path: Path) -> None:
    assert load(planned(tmp_path / "1", 24)).incomplete == ()
    assert load(a_run(tmp_path / "2")).incomplete == ()


def test_the_last_plan_of_a_run_counts(folder: Path) -> None:
    smaller = {"run": "run-1", "command": COMMAND, "cases": []}
    with (folder / PLANS).open("a") as file:
        file.write(json.dumps(smaller) + "\n")
    assert load(folder).unfinished == ()


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"run": 1}', '{"run": "a", "command": "b", "cases": []}',
     '{"run": "a", "command": [], "cases": [{"id": "a", "name": "b", "launches": ["c"]}]}'],
)  # fmt: skip
def test_a_plan_that_cannot_be_read_costs_its_line(folder: Path, line: str) -> None:
    with (folder / PLANS).open("a") as file:
        file.write(f"{line}\n")
    run = load(folder)
    assert len(run.unfinished) == 1
    assert any(f"{PLANS}:2: " in warning for warning in run.warnings)


def test_an_unfinished_run_is_no_reference(folder: Path) -> None:
    assert any("is incomplete" in fault for fault in faults(folder))


def test_a_command_line_loses_its_place_alone() -> None:
    words = ["run", "--out", "a b", "--seq-len", "512", "--resume", "--out=c", "--outer"]
    assert list(without_place(words)) == ["run", "--seq-len", "512", "--outer"]
