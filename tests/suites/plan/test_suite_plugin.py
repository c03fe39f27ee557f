"""A third party's suite in a folder: its options, its sweep, its records, and what is misuse."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from helpers_sweep import FAKE_SUITES

import cli
from results.schema import Case, RecordError
from suites import registry
from suites.engine.continuity import PluginFiles
from suites.engine.driver import run_sweep
from suites.engine.session import MisuseError, check_accepted
from suites.plan import cases, plan_sweep
from suites.processes.launcher import LaunchError
from suites.terminal.progress import describe, label

SORTING = Path(__file__).parents[3] / "examples" / "plugins" / "sorting_suite"


pytestmark = pytest.mark.usefixtures("suites_restored")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.main, ["run", *map(str, arguments)], catch_exceptions=False)


def sorting(*arguments: Any) -> Result:
    return run("sorting", "--plugin", SORTING, *arguments)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def copied(folder: Path, **changes: str) -> Path:
    """Copy the suite; in its source, `changes` take the place of what is there."""
    shutil.copytree(SORTING, folder)
    source = (folder / "suite.py").read_text()
    for old, new in changes.items():
        source = source.replace(f'{old} = "sorting"', f'{old} = "{new}"')
    (folder / "suite.py").write_text(source)
    return folder


def test_its_options_are_in_the_help_of_a_command_that_names_it() -> None:
    shown = " ".join(sorting("--help").output.split())
    assert shown.startswith("Usage: attnbench run sorting [OPTIONS] Measure what sorting costs.")
    assert "--order ascending|descending,… Which way. [default: both]" in shown
    assert "limits: few." in shown
    assert "--causal" not in shown
    assert shown.endswith("attnbench run sorting --plugin sorting_suite --order ascending")
    every = run("--plugin", SORTING, "--help").output
    assert "  sorting    what sorting costs" in every


def test_a_command_that_does_not_name_it_has_none_of_its_options() -> None:
    assert "sorting" not in run("--help").output
    assert "--order" not in run("speed", "--help").output
    assert "expected one of speed, peers," in run("sorting").output


@pytest.mark.slow
def test_a_sweep_of_it_has_records_words_and_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(run_sweep.__kwdefaults__, "benchmark_dir", FAKE_SUITES)
    asked = ("--order", "descending", "--threads", "1", "--out", tmp_path / "run")
    done = sorting(*asked)
    assert done.exit_code == 0, done.output
    assert "sort descending N=512  ok  512 µs  0.5 MiB" in done.stderr
    records = [json.loads(line) for line in lines(tmp_path / "run/records.jsonl")]
    own = [r for r in records if r["case"]["kind"] == "sorting"]
    assert {(r["case"]["seq_len"], r["launch"]["index"]) for r in own} == {
        (256, 0), (256, 1), (512, 0), (512, 1)
    }  # fmt: skip
    assert {r["case"]["arms"][0]["options"]["order"] for r in own} == {"descending"}
    assert {r["case"]["kind"] for r in records} == {"sorting", "roof"}
    (environment,) = map(json.loads, lines(tmp_path / "run/environments.jsonl"))
    assert "sorting_suite" in environment["plugins"]
    longer = [r for r in own if r["case"]["seq_len"] == 512]
    assert any(r["launch"]["predicted"]["latency"] for r in longer)
    again = sorting(*asked, "--resume")
    assert "there already" in again.stderr


def test_records_of_a_suite_that_is_not_here_are_told_of_in_general_words() -> None:
    plan = _loaded_plan()
    case = cases(plan)[0]
    assert label(case) == "sort ascending N=256"
    registry._suites.pop("sorting")
    assert label(case) == "sort:order=ascending forward N=256"
    record = {"status": "ok", "case": case.to_json(), "arms": [{"metrics": {}}]}
    assert describe(record) == ""


@pytest.mark.parametrize("kind", ["", "a b", "../x", "x" * 101, 7, None])
def test_a_kind_is_a_name(kind: Any) -> None:
    case = cases(_loaded_plan())[0].to_json()
    assert Case.from_json(case).kind == "sorting"
    with pytest.raises(RecordError, match=r"case\.kind: expected"):
        Case.from_json({**case, "kind": kind})


def _loaded_plan(**chosen: Any) -> Any:
    registry.load_folder(SORTING)
    return plan_sweep(None, suite="sorting", **chosen)


def test_the_one_rule_refuses_what_it_does_not_take() -> None:
    plan = _loaded_plan(seq_lens=(8,))
    assert (plan.seq_lens, plan.orders) == ((8,), ("ascending", "descending"))
    with pytest.raises(ValueError, match="batch: numbers are sorted, nothing attends; got 2"):
        _loaded_plan(batches=(2,))
    with pytest.raises(ValueError, match="order: only with suite sorting; got ascending"):
        plan_sweep(None, orders=("ascending",))
    with pytest.raises(ValueError, match="preset: expected one of few in suite sorting, got 'qui"):
        plan_sweep("quick", suite="sorting")
    with pytest.raises(TypeError, match="orderz: no such option; there are backends"):
        _loaded_plan(orderz=("ascending",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "speed", "kind": "x"}, "there is a suite 'speed' already"),
        ({"kind": "roof"}, "there is a kind 'roof' already"),
        ({"kind": "task"}, "there is a kind 'task' already"),
    ],
)
def test_a_name_that_is_taken_is_misuse(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    done = run("sorting", "--plugin", copied(tmp_path / "x", **changes))
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{tmp_path / 'x' / 'suite.py'}: {said}" in done.stderr


@pytest.mark.parametrize("word", ["--ranks", "--seq-len", "--resume"])
def test_an_option_that_is_taken_is_misuse(tmp_path: Path, word: str) -> None:
    folder = copied(tmp_path / "x")
    source = (folder / "suite.py").read_text().replace('"--order"', f'"{word}"')
    (folder / "suite.py").write_text(source)
    done = run("sorting", f"--plugin={folder}")
    assert done.exit_code == 2
    assert f"there is an option {word} already" in done.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "has no suite.py; expected the folder of a suite, or a file"),
        ("import no_such_module", "failed to import: ModuleNotFoundError: No module named 'no_s"),
        ("1 / 0", "failed to import: ZeroDivisionError"),
        ("x = 1", "expected SUITE, a suites.suite.Suite, got none"),
        ("SUITE = dict", "expected SUITE, a suites.suite.Suite, got type"),
    ],
)
def test_a_folder_without_a_suite_is_misuse(tmp_path: Path, source: str | None, said: str) -> None:
    if source is not None:
        (tmp_path / "suite.py").write_text(source)
    done = run("--plugin", tmp_path, "--out", tmp_path / "run")
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_a_folder_that_changes_ends_the_sweep(tmp_path: Path) -> None:
    folder = copied(tmp_path / "x")
    (folder / "data.txt").write_text("no code")
    files = PluginFiles([folder])
    assert files.paths == [str(folder)]
    (folder / "data.txt").write_text("changed")
    files.check()
    (folder / "kind.py").write_text("KIND = None")
    with pytest.raises(LaunchError, match="x has changed"):
        files.check()
    with pytest.raises(MisuseError, match="--plugin: gone"):
        PluginFiles([tmp_path / "gone"])


def test_a_kind_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    case = cases(_loaded_plan())[0]
    told = {
        "cases": {case.id: {"misuse": "kind: no kind 'sorting'"}},
        "broken": {str(tmp_path): "kind.py failed", str(tmp_path / "x.py"): "no backend's"},
    }
    with pytest.raises(MisuseError, match=r"'sorting'; --plugin: kind.py failed$"):
        check_accepted(told, [case])


def test_an_installed_suite_is_there_and_a_broken_one_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(tmp_path / "their_sorting", name="theirs", kind="theirs")
    (tmp_path / "their_sorting" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("bad", "no_such_package", registry.GROUP),
        EntryPoint("theirs", "their_sorting", registry.GROUP),
    ]
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda *, group: points * (group == registry.GROUP)
    )
    shell = ShellComplete(cli.main, {}, "attnbench", "_ATTNBENCH_COMPLETE")
    assert [one.value for one in shell.get_completions(["run"], "the")] == ["theirs"]
    assert "theirs" not in {suite.name for suite in registry.suites()}  # nothing was loaded
    done = run("theirs", "--order", "ascending", "--batch", "2")
    assert "plug-in bad failed to load: no_such_package.suite failed to import" in done.stderr
    assert "--batch: numbers are sorted" in done.stderr
    with pytest.raises(ValueError, match=r"got 'bad'; the plug-in bad failed: no_such_package"):
        registry.find("bad")


@pytest.mark.slow
def test_it_goes_from_its_options_to_its_chapter(tmp_path: Path) -> None:
    done = sorting("--threads", "1", "--launches", "1", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in lines(tmp_path / "run/records.jsonl")]
    own = [r for r in records if r["case"]["kind"] == "sorting"]
    assert {r["status"] for r in own} == {"ok"}
    assert len(own) == 4
    assert all(r["arms"][0]["metrics"]["latency"]["samples"] for r in own)
    environments = (tmp_path / "run/environments.jsonl").read_text()
    assert "sorting_suite sha256-" in environments
    report = ["report", str(tmp_path / "run"), "--format", "md", "--plugin", str(SORTING)]
    assert CliRunner().invoke(cli.main, report).exit_code == 0
    page = (tmp_path / "run" / "report.md").read_text()
    assert "## What sorting costs" in page
    assert "| order=ascending | 256 |" in page
    assert "A case sorts as many numbers as it says." in page
