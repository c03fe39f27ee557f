"""Sweeps with a precision: the driver asks the planner, and says what is open."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from helpers_sweep import FAKE_SUITES

from results.records.load import load
from suites.engine.driver import run_sweep
from suites.engine.session import Session
from suites.parsing import parse_backend
from suites.plan import plan_sweep
from suites.suite import BASE_ROUNDS

LENGTHS = (512, 1024, 2048)
BACKENDS = ("linear", "quadratic:seconds=1e-8")
BASE = BASE_ROUNDS * len(LENGTHS) * len(BACKENDS)


class Watch:
    """A progress that keeps what it was told, and may stop the sweep."""

    def __init__(self, stop_after=math.inf):
        self.standings, self.records, self.more, self.stop_after = [], [], 0, stop_after

    def begin(self, folder, total, done, notices):
        self.total, self.done = total, done

    def planned(self, count, standing, remaining_s):
        self.more += count
        self.standings.append((standing, remaining_s))

    def starting(self, item):
        if len(self.records) >= self.stop_after:
            raise KeyboardInterrupt

    def finished(self, record, remaining_s):
        self.records.append(record)


@pytest.fixture
def noisy(in_process, monkeypatch):
    """Let the stand-ins' times scatter, by as much as is set."""
    fake = importlib.import_module("fake_suites.benchmarks")
    rng, arm, scatter = np.random.default_rng(0), fake._arm, {"sd": 0.1}

    def scattered(of, case):
        made = arm(of, case)
        latency = made["metrics"]["latency"]
        factor = math.exp(rng.normal(0, scatter["sd"]))
        latency["samples"] = [factor * one for one in latency["samples"]]
        return made

    monkeypatch.setattr(fake, "_arm", scattered)
    return scatter


def sweep(
    folder, *, progress=None, resume=False, within_s=None, usual_s=None, backends=BACKENDS,
    **chosen,
):  # fmt: skip
    chosen = {"seq_lens": LENGTHS, "modes": ("forward",), "threads": (1,), **chosen}
    plan = plan_sweep("quick", backends=tuple(map(parse_backend, backends)), **chosen)
    plan = replace(plan, within_s=usual_s or plan.within_s)
    watch = progress or Watch()
    summary = run_sweep(
        plan, folder, progress=watch, resume=resume, within_s=within_s,
        command=("attnbench", "run"), benchmark_dir=FAKE_SUITES,
    )  # fmt: skip
    return summary, watch


def timed(folder):
    """Return (case id, launch) of the speed cases in a run, in their order."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [
        (r["case"]["id"], r["launch"]["index"])
        for r in map(json.loads, lines) if r["case"]["kind"] == "speed"
    ]  # fmt: skip


def test_a_sweep_launches_on_until_its_questions_are_answered(tmp_path, noisy):
    summary, watch = sweep(tmp_path, precision=0.1)
    launches = timed(tmp_path)
    assert len(launches) == len(set(launches)) > BASE
    assert summary.standing.open == ()
    assert summary.standing.num_questions >= 3
    assert summary.statuses.total() == watch.total + watch.more
    first, second, *_, last = (standing for standing, _ in watch.standings)
    assert first.num_questions == 0  # none is asked in the first rounds
    assert second.open
    assert last == summary.standing
    # The plan holds the base rounds: nothing is missing, and the precision is known.
    assert load(tmp_path).unfinished == ()
    plan = json.loads((tmp_path / "plans.jsonl").read_text())
    assert sum(len(case["launches"]) for case in plan["cases"]) == watch.total
    assert plan["precision"] == 0.1


def test_presets_have_a_precision_and_a_budget_and_launches_have_neither(tmp_path, noisy):
    summary, _ = sweep(tmp_path / "a")
    assert (summary.standing.budget_s, summary.standing.open) == (240, ())
    summary, watch = sweep(tmp_path / "b", launches=2)
    assert summary.standing is None
    assert watch.standings == []
    assert len(timed(tmp_path / "b")) == BASE * 2 // BASE_ROUNDS


def test_what_the_budget_leaves_open_is_said(tmp_path, noisy, monkeypatch):
    noisy["sd"] = 0.3
    count = iter(range(10_000))
    too_long = lambda self, items: 1e9 if next(count) > 4 * BASE else 0.0  # noqa: E731
    monkeypatch.setattr(Session, "remaining", too_long)
    summary, _ = sweep(tmp_path, precision=0.1, within_s=60.0)
    assert summary.standing.open
    assert summary.standing.remaining_s > 0
    assert summary.left_out == 0  # the first rounds are whole
    assert load(tmp_path).unfinished == ()


def test_the_budget_of_a_preset_never_cuts_the_first_rounds_short(tmp_path, noisy):
    summary, _ = sweep(tmp_path / "a", usual_s=1e-9)
    assert len(timed(tmp_path / "a")) == BASE
    assert summary.left_out == 0
    assert summary.standing.open
    summary, watch = sweep(tmp_path / "b", usual_s=600.0, within_s=1e-9)
    assert timed(tmp_path / "b") == []
    assert summary.left_out == watch.total


def test_resume_goes_on_with_what_is_open(tmp_path, noisy):
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, precision=0.1, progress=Watch(stop_after=BASE + 5))
    before = timed(tmp_path)
    summary, _ = sweep(tmp_path, precision=0.1, resume=True)
    launches = timed(tmp_path)
    assert launches[: len(before)] == before
    assert len(launches) == len(set(launches)) > len(before)
    assert summary.standing.open == ()
    again, _ = sweep(tmp_path, precision=0.1, resume=True)
    assert again.statuses == {}
    assert again.standing.open == ()
    # A stricter precision asks for more of the same run.
    summary, _ = sweep(tmp_path, precision=0.05, resume=True)
    assert summary.standing.open == ()
    assert len(timed(tmp_path)) > len(launches)


def test_a_case_that_fails_gets_its_first_rounds_alone(tmp_path, noisy):
    summary, _ = sweep(tmp_path, backends=("linear", "raises"), precision=0.05)
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    names = [json.loads(line)["case"]["arms"][0]["name"] for line in lines]
    assert names.count("raises") == BASE_ROUNDS * len(LENGTHS)
    assert names.count("linear") > BASE_ROUNDS * len(LENGTHS)
    assert summary.standing.open == ()
