"""Each fault that a sweep promises to survive, injected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers_faults import MARK, carrying
from helpers_sweep import FAKE_SUITES, case, is_alive, pids_in, processes_of, wait_until

from suites.processes import launcher as launch_module
from suites.processes import memory_guard as guard_module
from suites.processes import reaper
from suites.processes.launcher import Launcher
from suites.processes.memory_guard import reserve
from suites.processes.shared_memory import SharedMemoryJanitor


def request(name, **options):
    return {"do": "case", "case": case(name, options=options).to_json(), "deadline_s": 5}


@pytest.fixture(scope="module")
def launcher():
    with Launcher(FAKE_SUITES) as one:
        yield one
        assert one.ask(request("linear"), timeout_s=20).record["status"] == "ok"


@pytest.fixture(params=["forkserver", "spawn"])
def method(request):
    return request.param


# -- what a case does to itself -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "status", "reason", "last"),
    [
        ("dies", {"signal": 6}, "crashed", "killed by signal 6 (SIGABRT)", "last words"),
        ("exits_content", {}, "failed", "no readable result (none was written)", "thank you"),
        ("interrupts_itself", {}, "failed", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("writes_answer", {"what": "torn"}, "failed", "no readable result (JSONDecodeError", None),
        ("writes_answer", {"what": "pipe"}, "failed", "expected a regular file", None),
    ],
)
def test_an_end_without_an_answer(launcher, method, name, options, status, reason, last):
    outcome = launcher.ask(request(name, **options), timeout_s=20, method=method)
    assert (outcome.record, outcome.status) == (None, status)
    assert reason in outcome.reason
    assert "\n" not in outcome.reason
    assert "attnbench-" not in outcome.reason  # a folder of this machine
    if last:
        assert outcome.log_tail.endswith(last)
    assert outcome.wall_s < 15


def test_an_exit_by_exception_is_no_answer(launcher, method):
    outcome = launcher.ask(request("exits_by_exception"), timeout_s=20, method=method)
    assert (outcome.record, outcome.status) == (None, "failed")


@pytest.mark.parametrize("name", ["closes_streams", "removes_folders", "moves", "leaves_threads"])
def test_a_case_that_spoils_its_surroundings_does_not_spoil_the_next(launcher, method, name):
    outcome = launcher.ask(request(name), timeout_s=20, method=method)
    assert outcome.wall_s < 15
    assert outcome.record is not None or name == "removes_folders"  # its answer went with them
    assert launcher.ask(request("linear"), timeout_s=20, method=method).record["status"] == "ok"


@pytest.mark.parametrize("name", ["hangs_printing", "stops_itself"])
def test_a_case_that_goes_on_for_ever_is_ended(launcher, method, name):
    outcome = launcher.ask(request(name), timeout_s=1.5, method=method)
    assert (outcome.status, outcome.reason) == (
        "timeout", "killed after 1.5 s without a result"
    )  # fmt: skip
    assert outcome.wall_s < 10
    if name == "hangs_printing":
        assert outcome.log_tail.splitlines()[-1].startswith("still here ")


def test_bytes_that_are_no_text_are_kept_as_far_as_they_can_be_read(launcher, method):
    outcome = launcher.ask(request("prints_bytes"), timeout_s=60, method=method)
    assert outcome.record["reason"] == "said enough"
    assert "�" in outcome.log_tail
    assert len(outcome.log_tail.encode()) <= 4096


def test_what_a_case_printed_does_not_stay_in_the_server():
    with Launcher(FAKE_SUITES) as launcher:
        launcher.ask(request("linear"), timeout_s=20)
        before = processes_of(os.getpid())
        launcher.ask(request("prints"), timeout_s=60)
        launcher.ask(request("linear"), timeout_s=20)
        assert len(set(processes_of(os.getpid())) - set(before)) == 1  # another server


# -- processes that a case leaves ----------------------------------------------------------------


def test_a_daemon_is_found_wherever_it_went(launcher, method, tmp_path):
    pids = tmp_path / "pids"
    outcome = launcher.ask(request("leaves_daemon", pids=str(pids)), timeout_s=20, method=method)
    assert outcome.record["status"] == "ok"
    daemon, child = pids_in(pids)
    assert not is_alive(daemon)
    assert not is_alive(child)


def test_nothing_but_the_runs_own_processes_is_killed(launcher):
    other = {**os.environ, reaper.VARIABLE: "another run's"}
    with subprocess.Popen(["sleep", "100"], env=other) as bystander:
        launcher.ask(request("leaves_daemon"), timeout_s=20)
        assert bystander.poll() is None
        assert reaper.marked("another run's") == [bystander.pid]
        assert reaper.kill_marked("another run's", spare=[bystander.pid]) == 0
        assert reaper.kill_marked("another run's") == 1
    assert bystander.returncode == -9
    assert reaper.marked("another run's") == []


def test_a_zombie_is_not_waited_for():
    ended = {**os.environ, reaper.VARIABLE: "ended"}
    with subprocess.Popen(["true"], env=ended) as process:
        wait_until(lambda: not is_alive(process.pid))  # and nobody has asked for its end yet
        started = time.monotonic()
        assert reaper.kill_marked("ended") == 0
        assert time.monotonic() - started < 1


PROGRAM = """
import json, sys
from pathlib import Path
from suites.processes.launcher import Launcher
with Launcher(Path(sys.argv[1])) as launcher:
    launcher.ask(json.loads(sys.argv[2]), timeout_s=100, method=sys.argv[3])
"""


@pytest.fixture
def temporary():
    """Return a temporary folder whose name is short: a socket's path lies in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_killing_the_driver_ends_daemons_and_removes_its_files(tmp_path, temporary, method):
    pids = tmp_path / "pids"
    ask = json.dumps(request("hangs_with_daemon", pids=str(pids)))
    command = [sys.executable, "-c", PROGRAM, str(FAKE_SUITES), ask, method]
    driver = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)})
    daemon, child = pids_in(pids)
    started = processes_of(driver.pid)
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(map(is_alive, (daemon, child, *started))), 5)
    wait_until(lambda: list(temporary.glob("a*")) == [], 5)  # attnbench-…, asv-forkserver-…


def test_the_reaper_costs_little_and_ends_with_the_launcher():
    with Launcher(FAKE_SUITES) as launcher:
        launcher.ask(request("linear"), timeout_s=20)
        process = launcher._reaper
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        assert int(resident.split()[1]) < 16 << 10  # KiB
        assert os.getsid(process.pid) == process.pid
    assert process.returncode == 0


def test_a_reaper_that_was_killed_stops_nobody():
    with Launcher(FAKE_SUITES) as launcher:
        launcher.ask(request("linear"), timeout_s=20)
        launcher._reaper.kill()
        launcher._reaper.wait()
        assert launcher.ask(request("linear"), timeout_s=20).record["status"] == "ok"


# -- memory and files that a case leaves ---------------------------------------------------------


def shared_bytes(name):
    try:
        return Path(f"/dev/shm/{name}").stat().st_size
    except FileNotFoundError:
        return 0


def test_a_case_that_takes_the_last_memory_is_ended(launcher, method, monkeypatch, tmp_path):
    name = f"attnbench-test-{tmp_path.name}-{os.getpid()}"
    monkeypatch.setattr(guard_module, "total_memory", lambda: 1 << 30)
    monkeypatch.setattr(
        guard_module, "free_memory", lambda: (40 << 20) - shared_bytes(name)
    )  # of which 2 MiB are kept
    ask = request("fills_shared_memory", segment=name)
    try:
        outcome = launcher.ask(ask, timeout_s=60, method=method)
        assert (outcome.record, outcome.status) == (None, "out_of_memory")
        assert "stopped to protect the machine's memory" in outcome.reason
        assert "2 MiB are kept free" in outcome.reason
        assert outcome.wall_s < 30
        assert shared_bytes(name) == 0  # it was seen with it: removed
        assert launcher.ask(request("linear"), timeout_s=20).record["status"] == "ok"
    finally:
        Path(f"/dev/shm/{name}").unlink(missing_ok=True)


def test_the_reserve_fits_the_machine_and_what_is_free():
    gib = 1 << 30
    assert reserve(128 * gib, 100 * gib) == int(0.03 * 128 * gib)
    assert reserve(8 * gib, 7 * gib) == 256 << 20
    assert reserve(16 * gib, 12 * gib) == int(0.03 * 16 * gib)
    assert reserve(gib, gib) == pytest.approx(0.05 * gib)  # its own limit leaves a tenth
    assert reserve(128 * gib, gib) == pytest.approx(0.05 * gib)


def test_shared_memory_is_removed_if_it_is_surely_the_cases(launcher, tmp_path):
    name = f"attnbench-test-{tmp_path.name}-{os.getpid()}"
    try:
        launcher.ask(request("leaves_shared_memory", segment=name), timeout_s=20)
        assert list(Path("/dev/shm").glob(f"torch_*_{name}")) == []
        assert shared_bytes(name) == 4096  # it may be another's
    finally:
        for path in Path("/dev/shm").glob(f"*{name}"):
            path.unlink()


def test_shared_memory_in_use_or_older_stays(tmp_path):
    (tmp_path / "torch_1_old").touch()
    shared = SharedMemoryJanitor(tmp_path)
    shared.meet(os.getpid(), itself=True)
    for name in (f"torch_{os.getpid()}_a", f"torch_{os.getpid()}_b", "torch_1_c"):
        (tmp_path / name).touch()
    with (tmp_path / f"torch_{os.getpid()}_b").open():
        assert shared.clear() == ["torch_1_c"]
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == sorted(["torch_1_c", "torch_1_old", f"torch_{os.getpid()}_b"])


def test_files_of_a_case_go_with_it(launcher, method, tmp_path):
    where = tmp_path / "where"
    outcome = launcher.ask(request("leaves_files", where=str(where)), timeout_s=20, method=method)
    assert outcome.record["status"] == "ok"
    assert not Path(where.read_text()).exists()
    assert list(Path(launcher._scratch.name).glob("*/cwd")) == []


def test_a_full_temporary_folder_is_no_cases_fault(launcher, monkeypatch):
    monkeypatch.setattr(launch_module, "ROOM_BYTES", 1 << 62)
    assert launcher.ask(request("linear"), timeout_s=20).record["status"] == "ok"
    with pytest.raises(OSError, match=r"No space left on device: '.*attnbench-"):
        launcher.ask(request("is_killed"), timeout_s=20)


@pytest.mark.gpu
def test_what_a_case_holds_on_a_gpu_is_free_for_the_next(launcher, tmp_path):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    ask = request("fills_gpu", bytes=4 << 30, where=str(tmp_path / "held"))
    free = []
    for _ in range(3):  # each leaves a process that holds 4 GiB
        outcome = launcher.ask(ask, timeout_s=120, method="spawn")
        free.append(outcome.record["arms"][0]["metrics"]["peak_memory"]["value"])
    assert max(free) - min(free) < 256 << 20


# -- the driver killed: `test_verification`, promise `faults` -------------------------------------


def test_the_check_for_orphans_would_find_one():
    with subprocess.Popen(["sleep", "100"], env={**os.environ, MARK: "seen"}) as process:
        assert carrying("seen") == [process.pid]
        process.kill()
