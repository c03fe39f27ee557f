"""The program that measures the reference results: its sweeps, and how it goes on."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import measure_reference
import pytest
from click.testing import CliRunner
from measure_reference import DONE, FILES, SWEEPS, Reference, Sweep, chosen, name_of, seconds_of

from cli import main
from results.schema import MEASUREMENT
from suites.suite import Plan
from suites.terminal.progress import Summary

ROOT = Path(__file__).parents[2]

ATTNBENCH = """
import json, pathlib, sys
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("--out") + 1])
with (folder.parent / "calls").open("a") as calls:
    calls.write(" ".join(words) + "\\n")
folder.mkdir(exist_ok=True)
for name in ("environments", "machines", "records"):
    record = {"run": "20260102T030405Z-abcdef", "measurement": 4}
    (folder / f"{name}.jsonl").write_text(json.dumps(record) + "\\n")
sys.exit(3 if "broken" in words else 0)
"""


@pytest.fixture
def reference(tmp_path: Path) -> Any:
    """Return what makes a reference of sweeps, with a stand-in for attnbench."""
    script = tmp_path / "attnbench.py"
    script.write_text(ATTNBENCH)
    (tmp_path / "runs").mkdir()

    def made(*sweeps: Sweep, **more: Any) -> Reference:
        command = [sys.executable, str(script)]
        return Reference(tmp_path / "runs", tmp_path / "kept", sweeps, command, **more)

    return made


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "runs" / "calls"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep.name)
def test_every_sweep_is_one_that_the_command_takes(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Plan] = []

    def run_sweep(plan: Plan, folder: Path, **_: Any) -> Summary:
        asked.append(plan)
        return Summary(folder, {}, 0, 0.0)  # type: ignore[arg-type]

    monkeypatch.setattr("suites.engine.driver.run_sweep", run_sweep)
    words = ["run", *sweep.arguments, "--no-report", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert len(asked) == 1
    assert (ROOT / "docs" / sweep.page).exists()


def test_a_whole_sweep_is_kept_and_not_run_again(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (Sweep(name, 1, "a.md", ("--preset", name)) for name in ("one", "two"))
    assert reference(one, two).run() == []
    for name in ("one", "two"):
        assert {file.name for file in (tmp_path / "kept" / name).iterdir()} == {*FILES, DONE}
    assert len(calls(tmp_path)) == 2
    assert reference(one, two).run() == []
    assert len(calls(tmp_path)) == 2
    other = Sweep("two", 1, "a.md", ("--preset", "other"))
    assert reference(one, other).left == [other]
    # Where another checkout has no runs of its own, what was kept is done all the same.
    shutil.rmtree(tmp_path / "runs" / "one")
    assert reference(one, two).left == []
    monkeypatch.setattr(measure_reference, "MEASUREMENT", MEASUREMENT + 1)
    assert reference(one, two).left == [one, two]


def test_the_folder_says_how_it_was_measured(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Sweep("one", 1, "a.md", ("--preset", "quick"))
    monkeypatch.setattr(measure_reference, "SWEEPS", (one,))
    reference(one).run()
    row = (tmp_path / "kept" / "README.md").read_text().splitlines()[-1]
    commit = measure_reference.commit()
    assert row == (f"| one | 2026-01-02 | 4 | {commit} | a.md | `attnbench run --preset quick` |")


def test_what_fails_is_said_and_the_rest_is_run(reference: Any, tmp_path: Path) -> None:
    broken, fine = Sweep("broken", 1, "a.md", ("broken",)), Sweep("fine", 1, "a.md", ())
    assert reference(broken, fine).run() == ["broken"]
    assert not (tmp_path / "kept" / "broken").exists()
    assert reference(broken, fine).left == [broken]


def test_a_limit_is_the_budget_of_a_sweep_that_takes_longer(
    reference: Any, tmp_path: Path
) -> None:
    long = Sweep("long", 10, "a.md", ("--seq-len", "64", "--budget", "10m"))
    made = reference(long, within_s=120.0)
    assert made.run() == []
    (call,) = calls(tmp_path)
    assert call.startswith("run --seq-len 64 --budget 1")
    assert call.count("--budget") == 1
    assert made.left == [long]  # it may have ended for want of time
    assert reference(long, within_s=30.0).run() == []
    assert len(calls(tmp_path)) == 1


def test_names_of_machines_and_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of("AMD EPYC, 2 cores, 23.5 GiB, torch: AVX512", 2) == "epyc-2-cores"
    assert name_of("Intel(R) Xeon(R) Processor @ 2.5 GHz", 4) == "xeon-4-cores"
    assert [sweep.name for sweep in chosen("decode,speed")] == ["speed", "decode"]
    with pytest.raises(argparse.ArgumentTypeError, match="no sweep nonesuch"):
        chosen("speed,nonesuch")
    assert seconds_of("1h30m") == 5400.0
    with pytest.raises(argparse.ArgumentTypeError, match="as 90m, 2h"):
        seconds_of("soon")


def test_a_disturbed_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = {"topic": "load", "level": "problem", "text": "3 processes", "advice": "end them"}
    told = [busy, {"topic": "cpu", "level": "fine", "text": "AMD EPYC", "advice": ""}]

    class Done:
        returncode, stdout = 0, json.dumps(told)

    monkeypatch.setattr(measure_reference.subprocess, "run", lambda *_, **__: Done())
    monkeypatch.setattr(measure_reference, "commit", lambda: "0123abcd")
    monkeypatch.setattr(sys, "argv", ["measure_reference"])
    assert measure_reference.main() == 1
    assert "load: 3 processes; end them" in capsys.readouterr().out
