from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from helpers_sweep import FAKE_SUITES, case, is_alive, pids_in, processes_of, wait_until

from suites.processes import interpreter as interpreter_module
from suites.processes import outcome as outcome_module
from suites.processes import server as server_module
from suites.processes.launcher import Launcher
from suites.processes.outcome import TAIL_BYTES, TAIL_LINES
from suites.processes.server import LaunchError

pytestmark = pytest.mark.slow


def request(name, **options):
    return {"do": "case", "case": case(name, options=options).to_json(), "deadline_s": 5}


@pytest.fixture(scope="module")
def launcher():
    with Launcher(FAKE_SUITES) as one:
        yield one


@pytest.fixture(params=["forkserver", "spawn"])
def method(request):
    return request.param


def test_answer_comes_back_whole(launcher, method):
    outcome = launcher.ask(request("linear"), timeout_s=20, method=method)
    assert outcome.record["status"] == "ok"
    assert outcome.record["arms"][0]["metrics"]["latency"]["samples"] == [64e-6] * 3
    assert (outcome.status, outcome.reason, outcome.log_tail) == (None, None, None)
    assert 0 < outcome.wall_s < 20


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("raises", "failed", "RuntimeError: no luck at 64, in ~"),
        ("segfaults", "crashed", "killed by signal 11 (SIGSEGV)"),
        ("is_killed", "crashed", "killed by signal 9 (SIGKILL), likely the out-of-memory killer"),
        ("exits", "crashed", "exited with code 7 without a result"),
    ],
)
def test_a_case_that_breaks_gets_status_and_reason(launcher, method, name, status, reason):
    outcome = launcher.ask(request(name), timeout_s=20, method=method)
    assert (outcome.record, outcome.status, outcome.reason) == (None, status, reason)


def test_log_tail_holds_what_was_printed_last_without_the_users_home(launcher):
    outcome = launcher.ask(request("raises"), timeout_s=20)
    assert outcome.log_tail.endswith("RuntimeError: no luck at 64, in ~")
    assert len(outcome.log_tail.splitlines()) > 3
    assert "about to read address 0" in launcher.ask(request("segfaults"), timeout_s=20).log_tail


def test_megabytes_of_output_are_cut_to_the_tail(launcher, method):
    outcome = launcher.ask(request("prints"), timeout_s=60, method=method)
    assert outcome.record["reason"] == "said enough"
    kept = outcome.log_tail.splitlines()
    assert kept[-1] == "line 199999 of a case that talks a lot"
    assert len(kept) == TAIL_LINES
    assert len(outcome.log_tail) <= TAIL_BYTES


def test_endless_output_fills_no_disk(monkeypatch, method):
    for module in (interpreter_module, outcome_module):
        monkeypatch.setattr(module, "OUTPUT_LIMIT", 1 << 20)
    with Launcher(FAKE_SUITES) as launcher:
        outcome = launcher.ask(request("prints_for_ever"), timeout_s=60, method=method)
    assert outcome.record is None
    assert outcome.status in ("failed", "crashed")
    assert outcome.wall_s < 50


def test_a_hanging_case_is_killed_with_its_children(launcher, method, tmp_path):
    pids = tmp_path / "pids"
    outcome = launcher.ask(request("hangs", pids=str(pids)), timeout_s=1.5, method=method)
    assert outcome.status == "timeout"
    assert outcome.reason == "killed after 1.5 s without a result"
    assert outcome.wall_s < 10
    wait_until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))
    assert launcher.ask(request("linear"), timeout_s=20).record["status"] == "ok"


def test_a_server_that_dies_is_started_again():
    with Launcher(FAKE_SUITES) as launcher:
        outcome = launcher.ask(request("kills_server"), timeout_s=20)
        assert outcome.status == "crashed"
        assert "a new one" in outcome.reason
        assert launcher.ask(request("linear"), timeout_s=20).record["status"] == "ok"


def test_a_server_that_stops_answering_is_killed(monkeypatch):
    monkeypatch.setattr(server_module, "WATCHDOG_S", 0.5)
    with Launcher(FAKE_SUITES) as launcher:
        outcome = launcher.ask(request("stops_server"), timeout_s=0.5)
        assert outcome.status == "timeout"
        assert outcome.wall_s < 10
        assert launcher.ask(request("linear"), timeout_s=20).record["status"] == "ok"


def test_a_forked_case_costs_milliseconds(launcher):
    launcher.ask(request("linear"), timeout_s=20)
    walls = [launcher.ask(request("linear"), timeout_s=20).wall_s for _ in range(5)]
    assert min(walls) < 0.25


# -- the child's surroundings -------------------------------------------------------------------


def surroundings(launcher, method="forkserver", allocator="default"):
    ask = {"do": "environment"}
    return launcher.ask(ask, timeout_s=20, method=method, allocator=allocator).record


def test_allocator_is_set_before_the_process_starts(launcher, method, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # the user's own must not leak into a case
    size = str(8 << 30)
    assert surroundings(launcher, method, "default")["malloc"] == {}
    assert surroundings(launcher, method, "retained")["malloc"] == {
        "MALLOC_MMAP_THRESHOLD_": size,
        "MALLOC_TRIM_THRESHOLD_": size,
    }


def test_a_users_own_models_package_is_not_imported(tmp_path, monkeypatch, method):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise SystemExit('the wrong models')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    root = tmp_path / "elsewhere"
    root.mkdir()
    shutil.copytree(FAKE_SUITES, root / "suites")
    (root / "models.py").write_text("")
    with Launcher(root / "suites") as launcher:
        seen = surroundings(launcher, method)
    assert seen["models"] == str(root / "models.py")
    assert seen["path"][0] == str(root)
    assert "" not in seen["path"]
    assert not seen["cwd"].startswith(str(tmp_path))


def test_suites_that_cannot_be_imported_are_an_error_with_the_reason(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "__init__.py").write_text("")
    (broken / "benchmarks.py").write_text("raise RuntimeError('not today')")
    with Launcher(broken) as launcher:
        outcome = launcher.ask(request("linear"), timeout_s=20)
    assert outcome.status == "failed"
    assert outcome.reason == "RuntimeError: not today"


def test_an_interpreter_that_does_not_start_is_an_error():
    launcher = Launcher(FAKE_SUITES, python="/bin/false")
    with launcher, pytest.raises(LaunchError, match="did not start"):
        launcher.ask(request("linear"), timeout_s=20)


# -- nothing stays ------------------------------------------------------------------------------


def test_closing_leaves_no_process_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(processes_of(os.getpid()))
    with Launcher(FAKE_SUITES) as launcher:
        for allocator in ("default", "retained"):
            launcher.ask(request("linear"), timeout_s=20, allocator=allocator)
        assert len(set(processes_of(os.getpid())) - before) == 3  # and the reaper
    assert set(processes_of(os.getpid())) <= before
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import json, sys
from pathlib import Path
from suites.processes.launcher import Launcher
with Launcher(Path(sys.argv[1])) as launcher:
    launcher.ask(json.loads(sys.argv[2]), timeout_s=100, method=sys.argv[3])
"""


def test_a_driver_killed_while_the_server_starts_leaves_none(tmp_path):
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "__init__.py").write_text(
        f"import os, time, pathlib\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(f'{{os.getpid()}} 1')\n"
        f"time.sleep(1000)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", PROGRAM, str(slow), "{}", "forkserver"])
    server = pids_in(tmp_path / "pid")[0]
    driver.kill()
    driver.wait()
    wait_until(lambda: not is_alive(server))


def test_a_server_imports_what_its_cases_need_before_the_first_that_is_measured():
    with Launcher(FAKE_SUITES, early=("json.tool", "sympy.nothing")) as launcher:
        for kind, imported in ((None, False), ("speed", True), (None, True)):
            request = {"do": "environment"} | ({"case": {"kind": kind}} if kind else {})
            told = launcher.ask(request, timeout_s=30.0).record
            assert told is not None
            assert told["early"] is imported
