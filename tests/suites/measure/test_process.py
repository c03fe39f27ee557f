from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from suites.measure.process import (
    OVERDUE_SIGNAL,
    TimeLimitError,
    deadline,
    hold_lock,
    memory_limit,
    seconds_left,
    status_bytes,
)

ROOT = Path(__file__).parents[3]


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_child_dies_with_its_parent():
    parent = start(
        """
        import os, subprocess, sys, time
        child = "import os, time; from suites.measure.process import die_with_parent;"
        child += "die_with_parent(os.getppid()); print(os.getpid(), flush=True); time.sleep(60)"
        subprocess.Popen([sys.executable, "-c", child])
        time.sleep(60)
        """
    )
    assert parent.stdout is not None
    with parent:
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
        parent.wait()
        until = time.monotonic() + 5
        while alive(child) and time.monotonic() < until:
            time.sleep(0.01)
        assert not alive(child)


def test_child_whose_parent_is_gone_ends_at_once():
    code = "import os; from suites.measure.process import die_with_parent; "
    code += "die_with_parent(os.getppid() + 1); print('still here')"
    with start(code) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "still here" not in out


def test_child_goes_before_the_driver():
    code = "from pathlib import Path; from suites.measure.process import offer_to_oom_killer; "
    code += "offer_to_oom_killer(); print(Path('/proc/self/oom_score_adj').read_text())"
    with start(code) as process:
        out, _ = process.communicate(timeout=60)
    assert int(out) == 1000


def test_lock_is_shared_by_children_and_closed_to_a_driver(tmp_path: Path):
    path = tmp_path / "lock.child"
    first, second = hold_lock(str(path)), hold_lock(str(path))
    driver = os.open(path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(driver, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(first)
    os.close(second)
    fcntl.flock(driver, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(RuntimeError, match=r"another run holds lock\.child"):
        hold_lock(str(path))
    os.close(driver)


@pytest.mark.slow
def test_memory_limit_refuses_what_exceeds_it_and_is_lifted():
    # In a process of its own: a refused allocation moves glibc's main thread to another arena.
    code = """
        import torch
        from suites.measure.process import memory_limit
        torch.ones(2**16).add_(1)
        with memory_limit(2**28):
            torch.ones(2**24)  # 64 MiB
            try:
                torch.empty(2**27)  # 512 MiB
            except RuntimeError as error:
                print(error)
        torch.empty(2**27)
        print("lifted")
        """
    with start(code) as process:
        out, _ = process.communicate(timeout=60)
    assert "can't allocate memory" in out
    assert out.endswith("lifted\n")


def test_no_memory_limit():
    with memory_limit(None):
        torch.empty(2**27)


def test_status_names_what_it_lacks():
    assert status_bytes("VmRSS") > 2**20
    with pytest.raises(RuntimeError, match="no field VmNothing"):
        status_bytes("VmNothing")


def spin() -> None:
    while True:
        try:
            time.sleep(1)
        except Exception:  # what a careless backend does
            continue


def test_deadline_interrupts_python_whatever_it_swallows():
    start_s = time.monotonic()
    with pytest.raises(TimeLimitError, match=r"time limit of 0.2 s"), deadline(0.2):
        spin()
    assert time.monotonic() - start_s < 2


def test_deadline_that_is_kept_leaves_nothing_behind():
    before = signal.getsignal(signal.SIGALRM)
    with deadline(0.1):
        pass
    time.sleep(0.2)
    assert signal.getsignal(signal.SIGALRM) is before


def test_single_operation_beyond_the_deadline_ends_the_process():
    code = """
        import hashlib
        from suites.measure.process import deadline
        with deadline(0.2, grace=0.3):
            hashlib.pbkdf2_hmac("sha256", b"one", b"call", 2_000_000_000)
        """
    with start(code) as process:
        process.wait(timeout=60)
    assert process.returncode == -OVERDUE_SIGNAL


def test_the_seconds_left_are_that_of_the_deadline():
    before = seconds_left()
    with deadline(50.0):
        assert 0 < seconds_left() <= 50
    assert seconds_left() <= before
