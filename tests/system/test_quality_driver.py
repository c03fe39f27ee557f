"""Suite quality through the driver: records, resume, interruption in the middle of a training."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from helpers_sweep import is_alive, processes_of
from helpers_sweep import record as written

import cli
from results.records.load import load
from results.schema import Arm, check_record
from suites.engine.driver import run_sweep
from suites.engine.journal import Journal
from suites.engine.session import SUITES, MisuseError
from suites.plan import cases, plan_sweep
from suites.processes import heartbeat
from suites.suite import Plan
from suites.terminal.progress import Summary

pytestmark = pytest.mark.usefixtures("one_server")

ROOT = Path(__file__).parents[2]

OFTEN = f'''
"""The suites, with a checkpoint and a word after each step, and few questions."""
import sys
sys.path.insert(0, {str(ROOT)!r})
from suites import benchmarks
from suites.training import trainer
from suites.training.evaluate import evaluate
trainer.CHECKPOINT_S = trainer.TELL_S = 0.0
evaluate.__kwdefaults__.update(sequences=64, labels=64)
Driven = benchmarks.Driven
'''

SMALL = Arm("small", {"d_model": 16, "num_layers": 1, "num_heads": 2})


class Watch:
    """A progress that keeps what it is told, and may act on what a training says."""

    def __init__(self, act: Callable[[str], None] = lambda _line: None) -> None:
        self.act = act
        self.lines: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.times: list[float | None] = []

    def begin(self, folder: Path, total: int, done: int, notices: Any) -> None:
        self.begun = (total, done, list(notices))

    def starting(self, item: Any) -> None:
        self.now = item

    def working(self, line: str) -> None:
        self.lines.append(line)
        self.act(line)

    def finished(self, record: dict[str, Any], remaining_s: float | None) -> None:
        self.records.append(record)
        self.times.append(remaining_s)


@pytest.fixture
def often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return suites whose trainings keep and tell each step; the driver looks as often."""
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)
    folder = tmp_path / "often_suites"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "benchmarks.py").write_text(OFTEN)
    return folder


def sweep(
    folder: Path, *, watch: Watch | None = None, suites: Path = SUITES, resume: bool = False,
    **chosen: Any,
) -> tuple[Any, Summary, Watch]:  # fmt: skip
    grid = grid_of(**chosen)
    watch = watch or Watch()
    summary = run_sweep(grid, folder, progress=watch, resume=resume, benchmark_dir=suites)
    return grid, summary, watch


def grid_of(*, steps: int = 20, **chosen: Any) -> Plan:
    values: dict[str, Any] = {
        "suite": "quality", "tasks": (Arm("recall"),), "forms": ("causal",), "seq_lens": (16,),
        "backends": (Arm("sdpa"), Arm("performer", {"num_features": 8})), "num_seeds": 1,
        "amount": steps, "lr": 0.01, "batches": (8,), "models": (SMALL,), "threads": (1,),
        "budget_s": 0.01, "case_timeout_s": 60.0,
    }  # fmt: skip
    return plan_sweep("quick", **{**values, **chosen})


def trainings(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["case"]["kind"] == "task"]


def learnt(record: dict[str, Any]) -> Any:
    """Return what no clock decides."""
    assert record["status"] == "ok", record["reason"]
    (arm,) = record["arms"]
    values = {n: arm["metrics"][n]["value"] for n in ("accuracy", "loss", "training_steps")}
    return values, arm["quality"]["curve"]["loss"], arm["quality"]["groups"]


def test_a_sweep_trains_each_case_and_a_resume_skips_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    grid, summary, watch = sweep(run)
    first = trainings(run)
    assert {r["case"]["id"] for r in first} == {case.id for case in cases(grid)}
    assert len(first) == 2
    for record in first:
        check_record(record)
        assert learnt(record)[0]["training_steps"] == 20
        assert record["launch"]["predicted"] == {"latency": None, "peak_memory": None}
    assert set(summary.statuses) == {"ok"}
    assert watch.times[-1] == 0
    kept = sorted(p.name for p in (run / "trained").iterdir() if p.name != "now")
    assert kept == sorted(f"{case.id}.pt" for case in cases(grid))
    for name in kept:
        torch.load(run / "trained" / name, weights_only=True)
        assert str(tmp_path).encode() not in (run / "trained" / name).read_bytes()
    assert str(tmp_path) not in (run / "records.jsonl").read_text()
    total = len(watch.records)
    _, again, second = sweep(run, resume=True)
    assert (second.begun[:2], second.records) == ((total, total), [])
    assert (again.skipped, dict(again.statuses)) == (total, {})
    _, _, more = sweep(run, resume=True, num_seeds=2)
    assert [r["case"]["seed"] for r in more.records if r["case"]["kind"] == "task"] == [1, 1]
    frame = load(run).frame
    assert set(frame[frame["metric"] == "accuracy"]["seed"]) == {0, 1}


def test_ctrl_c_in_a_training_and_a_resume_that_goes_on(tmp_path: Path, often: Path) -> None:
    reached = []

    def interrupt(line: str) -> None:
        step = int(line.split()[1].rstrip(","))
        if step >= 20 and not reached:
            reached.append(step)
            os.kill(os.getpid(), signal.SIGINT)

    run, chosen = tmp_path / "run", {"suites": often, "steps": 120, "backends": (Arm("sdpa"),)}
    with pytest.raises(KeyboardInterrupt):
        sweep(run, watch=Watch(interrupt), **chosen)
    assert trainings(run) == []  # what was not finished is no result
    (file,) = (run / "trained").glob("*.pt")
    kept = torch.load(file, weights_only=True)
    assert reached[0] - 1 <= kept["spent"]["steps"] < 120  # told of a step, then it is kept
    _, summary, watch = sweep(run, resume=True, **chosen)
    assert set(summary.statuses) == {"ok"}
    assert int(watch.lines[0].split()[1].rstrip(",")) > kept["spent"]["steps"]
    (resumed,) = trainings(run)
    sweep(tmp_path / "whole", **chosen)
    (whole,) = trainings(tmp_path / "whole")
    assert learnt(resumed) == learnt(whole)
    assert list((run / "trained").glob("*.part")) == []


def test_a_training_that_is_killed_is_recorded_and_the_next_is_run(
    tmp_path: Path, often: Path
) -> None:
    killed: list[int] = []

    def kill(_line: str) -> None:
        servers = processes_of(os.getpid())
        children = [pid for server in servers for pid in processes_of(server)]
        if not killed and children:
            killed.extend(children)
            for pid in children:
                os.kill(pid, signal.SIGKILL)

    _, summary, _ = sweep(tmp_path / "run", watch=Watch(kill), suites=often, steps=120)
    ends = [r["status"] for r in trainings(tmp_path / "run")]
    assert ends == ["crashed", "ok"]
    crashed = trainings(tmp_path / "run")[0]
    assert "SIGKILL" in crashed["reason"]
    assert summary.statuses["crashed"] == 1
    assert not any(map(is_alive, killed))


def test_a_resume_goes_on_with_a_training_that_ran_out_of_time(
    tmp_path: Path, often: Path
) -> None:
    reached: list[str] = []

    def interrupt(line: str) -> None:
        if int(line.split()[1].rstrip(",")) >= 20 and not reached:
            reached.append(line)
            os.kill(os.getpid(), signal.SIGINT)

    run, chosen = tmp_path / "run", {"suites": often, "steps": 120, "backends": (Arm("sdpa"),)}
    with pytest.raises(KeyboardInterrupt):
        sweep(run, watch=Watch(interrupt), **chosen)
    (case,) = cases(grid_of(steps=120, backends=(Arm("sdpa"),)))
    with Journal(run, resume=True) as journal:
        ended = {"status": "timeout", "reason": "exceeded 3 s while training", "arms": []}
        journal.append(written(case, **ended))
    (file,) = (run / "trained").glob("*.pt")
    steps = torch.load(file, weights_only=True)["spent"]["steps"]
    _, summary, watch = sweep(run, resume=True, **chosen)
    assert set(summary.statuses) == {"ok"}
    said = "--resume: 1 unfinished training will continue from its checkpoint"
    assert sum(notice.startswith(said) for notice in watch.begun[2]) == 1
    assert int(watch.lines[0].split()[1].rstrip(",")) > steps
    (done,) = trainings(run)
    assert learnt(done)[0]["training_steps"] == 120
    assert {r["status"] for r in load(run).records} == {"ok"}
    assert not any("another record" in warning for warning in load(run).warnings)
    _, again, third = sweep(run, resume=True, **chosen)
    assert again.statuses == {}
    assert not any("unfinished training" in notice for notice in third.begun[2])


def test_a_timeout_without_a_checkpoint_is_not_run_again(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"steps": 10**6, "case_timeout_s": 2.0, "backends": (Arm("sdpa"),)}
    begun = time.monotonic()
    sweep(tmp_path / "run", **chosen)
    assert time.monotonic() - begun < 60  # it was ended from inside, at its deadline
    (record,) = trainings(tmp_path / "run")
    assert (record["status"], record["arms"]) == ("timeout", [])
    assert record["reason"].endswith("while training")
    assert list((tmp_path / "run" / "trained").glob("*.pt")) == []
    _, summary, watch = sweep(tmp_path / "run", resume=True, **chosen)
    assert (summary.statuses, watch.begun[2]) == ({}, [])


def test_misuse_is_told_before_anything_is_made(tmp_path: Path) -> None:
    for task, said in (
        ("recal", "did you mean 'recall'"),
        ("recall:num_pairs=40,vocab_size=32", "num_pairs"),
    ):
        arguments = ["run", "quality", "--task", task, "--out", str(tmp_path / "run")]
        result = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
    with pytest.raises(MisuseError, match="steps"):
        sweep(tmp_path / "run", amount=1.5)
    with pytest.raises(MisuseError, match="d_model: expected a multiple of num_heads=3"):
        sweep(tmp_path / "run", models=(Arm("small", {"d_model": 16, "num_heads": 3}),))
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_too_large_ends_its_own_case_alone(tmp_path: Path) -> None:
    """Preflight does not fill the memory with it; the case's limit ends the case."""
    huge = Arm("small", {"d_model": 1 << 20, "num_layers": 2, "num_heads": 2})
    sweep(tmp_path / "run", models=(huge,), backends=(Arm("sdpa"),))
    (record,) = trainings(tmp_path / "run")
    assert record["status"] == "out_of_memory", record["reason"]
    assert "while building" in record["reason"]
