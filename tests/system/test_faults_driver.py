"""What befalls a running sweep from outside: the disk, the folder, the terminal, the clock."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import Counter

import pytest
from helpers_sweep import FAKE_SUITES, is_alive, processes_of, wait_until

from results.records.load import load

COMMAND = """
import os, resource, sys
from pathlib import Path
import cli
from suites.engine import driver
driver.run_sweep.__kwdefaults__["benchmark_dir"] = Path(sys.argv[1])
if limit := os.environ.get("TEST_FILE_LIMIT"):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
sys.argv = ["attnbench", *sys.argv[2:]]
cli.main()
"""
"""`attnbench` with the stand-in suites."""

LAUNCHES = 2 * (2 * 2 + 1)


def command(folder, *more, slow=0.05):
    """Return the command; case `sleeps` takes `slow` seconds."""
    return [  # `env` becomes the command: one process
        "env", f"TEST_PAUSE={slow}", sys.executable, "-c", COMMAND, str(FAKE_SUITES),
        "run", "--out", str(folder),
        "--backend", "linear", "--backend", "sleeps:seconds=0.01", "--seq-len", "16,32",
        "--mode", "forward", "--launches", "2", "--threads", "1", *more,
    ]  # fmt: skip


def run(folder, *more, slow=0.05, **options):
    return subprocess.run(
        command(folder, *more, slow=slow), capture_output=True, text=True, timeout=120, **options
    )


def speed_launches(folder):
    """Return how often each launch of a backend or roof is there."""
    return Counter((r["case"]["id"], r["launch"]["index"]) for r in load(folder).records)


def goes_on(folder):
    """Resume, and say whether everything is there once."""
    done = run(folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert load(folder).warnings == ()
    pairs = speed_launches(folder)
    return len(pairs) == LAUNCHES and set(pairs.values()) == {1}


def last_line(done):
    return done.stderr.splitlines()[-1]


# -- the disk and the folder ---------------------------------------------------------------------


def test_a_file_that_can_grow_no_more_ends_the_sweep_with_its_name(tmp_path):
    folder = tmp_path / "run"
    done = run(folder, env={**os.environ, "TEST_FILE_LIMIT": "3500"})
    assert done.returncode == 1
    assert last_line(done).startswith("attnbench run: the sweep cannot go on: ")
    assert f"{folder / 'records.jsonl'}: File too large" in last_line(done)
    told = sum(line.startswith("[") for line in done.stderr.splitlines())
    kept = (folder / "records.jsonl").read_bytes().count(b"\n")
    assert 0 < told == kept < LAUNCHES
    assert len(load(folder).records) == kept
    assert goes_on(folder)


@pytest.fixture
def small_disk(tmp_path):
    """Return a file system of 32 KiB, if this user can mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "attnbench-test", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def test_a_full_disk_ends_the_sweep_and_what_is_done_is_kept(small_disk):
    folder = small_disk / "run"
    (small_disk / "others").write_bytes(bytes(12 << 10))
    done = run(folder)
    assert done.returncode == 1
    assert last_line(done).startswith("attnbench run: the sweep cannot go on: ")
    assert f"{folder / 'records.jsonl'}: No space left on device" in last_line(done)
    told = sum(line.startswith("[") for line in done.stderr.splitlines())
    assert 0 < told == len(load(folder).records) < LAUNCHES
    remount(small_disk, "size=1m")
    assert goes_on(folder)


def test_a_disk_that_becomes_read_only_ends_the_sweep(small_disk):
    remount(small_disk, "size=1m")
    folder = small_disk / "run"
    driver = subprocess.Popen(command(folder, slow=0.4), stderr=subprocess.PIPE, text=True)
    for line in driver.stderr:
        if line.startswith("["):
            break
    # A forced remount needs no open files; a lazy umount takes the folder away all the same.
    subprocess.run(["umount", "--lazy", str(small_disk)], check=True)
    rest = driver.stderr.read()
    driver.stderr.close()
    assert driver.wait(60) == 1
    assert "the sweep cannot go on: " in rest.splitlines()[-1]
    assert "removed or replaced" in rest.splitlines()[-1]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,ro", "x", str(small_disk)], check=True)
    done = run(folder)
    assert done.returncode == 2
    assert "--out: " in last_line(done)
    assert "Read-only file system" in last_line(done)


def test_a_folder_that_vanishes_ends_the_sweep(tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"
    driver = subprocess.Popen(command(folder, slow=0.4), stderr=subprocess.PIPE, text=True)
    for line in driver.stderr:
        if line.startswith("["):
            break
    folder.rename(moved)
    rest = driver.stderr.read().splitlines()
    driver.stderr.close()
    assert driver.wait(60) == 1
    assert rest[-1].startswith("attnbench run: the sweep cannot go on: ")
    assert f"{folder / 'records.jsonl'}" in rest[-1]
    assert "removed or replaced" in rest[-1]
    moved.rename(folder)
    assert goes_on(folder)


def test_a_temporary_folder_that_cannot_be_used_is_one_line(tmp_path):
    done = run(tmp_path / "run", env={**os.environ, "TMPDIR": "/nowhere", "HOME": str(tmp_path)})
    assert done.returncode == 0  # another one is taken
    program = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/nowhere']\n"
    broken = command(tmp_path / "other")
    broken[4] = program + broken[4]
    done = subprocess.run(broken, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert last_line(done).startswith("attnbench run: the sweep cannot go on: ")
    assert "No usable temporary directory" in last_line(done)


def test_two_runs_into_one_folder(tmp_path):
    folder = tmp_path / "run"
    first = subprocess.Popen(command(folder, slow=1.0), stderr=subprocess.PIPE, text=True)
    for line in first.stderr:
        if line.startswith("["):
            break
    done = run(folder, "--resume")
    assert done.returncode == 2
    assert f"{folder} is in use by process {first.pid}, started 20" in last_line(done)
    first.kill()
    first.stderr.close()
    first.wait()
    # What the dead one left names a process that may be another's by now: here, ours.
    (folder / "lock").write_text(f"process {os.getpid()}, started 2020-01-01T00:00:00Z\n")
    assert goes_on(folder)


# -- signals and the terminal --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_ends_the_command_with_its_code(tmp_path, number, code):
    folder = tmp_path / "run"
    driver = subprocess.Popen(command(folder, slow=0.5), stderr=subprocess.PIPE, text=True)
    for line in driver.stderr:
        if line.startswith("["):
            break
    started = processes_of(driver.pid)
    assert len(started) >= 2
    driver.send_signal(number)
    driver.send_signal(number)  # a second one does not disturb the clean-up
    rest = driver.stderr.read()
    driver.stderr.close()
    assert driver.wait(30) == code
    if number != signal.SIGINT:
        assert f"go on with the same command and --resume --out {folder}" in rest
    wait_until(lambda: not any(map(is_alive, started)), 5)
    assert goes_on(folder)


def in_terminal(arguments, *, ignore_hangup):
    """Start a session on a terminal of its own; return the process and the terminal's far end."""
    far, near = pty.openpty()

    def enter():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignore_hangup else signal.SIG_DFL)

    process = subprocess.Popen(arguments, stdin=near, stdout=near, stderr=near, preexec_fn=enter)
    os.close(near)
    return process, far


@pytest.mark.parametrize("ignore_hangup", [False, True])
def test_a_terminal_that_is_closed(tmp_path, ignore_hangup):
    folder = tmp_path / "run"
    driver, far = in_terminal(command(folder, slow=0.5), ignore_hangup=ignore_hangup)
    shown = b""
    while b"/10]" not in shown and b"] " not in shown:
        shown += os.read(far, 4096)
    started = processes_of(driver.pid)
    os.close(far)
    assert driver.wait(60) == (0 if ignore_hangup else 129)
    wait_until(lambda: not any(map(is_alive, started)), 5)
    if ignore_hangup:  # as under nohup: it went on to its end without anybody to tell
        assert len(speed_launches(folder)) == LAUNCHES
    assert goes_on(folder)


def test_a_pipe_that_nobody_reads_any_more(tmp_path):
    folder = tmp_path / "run"
    driver = subprocess.Popen(
        command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    driver.stderr.readline()
    driver.stderr.close()
    driver.stdout.close()
    assert driver.wait(60) == 0
    assert len(speed_launches(folder)) == LAUNCHES


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>/dev/full"])
def test_streams_that_are_closed_or_full(tmp_path, closed):
    folder = tmp_path / "run"
    words = command(folder, slow=0)
    shell = ["/bin/sh", "-c", f'"$@" {closed}', "sh", *words]
    done = subprocess.run(shell, timeout=60, check=False, capture_output=True)
    assert done.returncode == 0
    assert len(speed_launches(folder)) == LAUNCHES
    assert all(json.loads(x) for x in (folder / "records.jsonl").read_bytes().splitlines())


# -- the clock -----------------------------------------------------------------------------------

JUMPING = """
import random, time, datetime
from datetime import UTC
shift, rng = [0.0], random.Random(0)
real = time.time
def jumping():
    shift[0] += rng.choice([-3600.0, 3600.0, 0.0])
    return real() + shift[0]
time.time = jumping
class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(jumping(), tz)
import suites.engine.run_folder
suites.engine.run_folder.datetime = Jumping
"""


def test_a_clock_that_jumps_changes_nothing_but_the_dates(tmp_path):
    folder = tmp_path / "run"
    words = command(folder, "--resume", slow=0.3)
    words[4] = JUMPING + words[4]
    driver = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    for line in driver.stderr:
        if line.startswith("[3/"):
            break
    driver.kill()
    driver.stderr.close()
    driver.wait()
    started = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    took = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    records = load(folder).records
    assert [r["launch"]["order"] for r in records] == list(range(len(records)))
    assert set(speed_launches(folder).values()) == {1}
    assert len(speed_launches(folder)) == LAUNCHES
    assert all(0 <= r["launch"]["wall_s"] < 10 for r in records)
    dates = [r["launch"]["started"] for r in records]
    assert dates != sorted(dates)  # the clock did jump
    assert " h " not in done.stderr  # no hours are left, or were passed
    assert took < 60


def test_a_signal_in_another_thread_is_left_alone(tmp_path):
    from suites.processes.signals import terminable

    before = signal.getsignal(signal.SIGHUP)
    seen = []

    def enter():
        with terminable():
            seen.append(signal.getsignal(signal.SIGHUP))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
