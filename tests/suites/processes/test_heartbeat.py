"""What a case that takes long says of itself, written and read."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from helpers_sweep import wait_until

from suites.processes import heartbeat
from suites.processes.heartbeat import HeartbeatReader, HeartbeatWriter


def test_a_line_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "now.part").symlink_to("/dev/full")
    write = HeartbeatWriter(tmp_path / "now")
    write("step 1")
    assert not (tmp_path / "now").exists()
    (tmp_path / "now.part").unlink()
    write("step 2")
    assert (tmp_path / "now").read_text().splitlines()[1:] == ["step 2"]
    HeartbeatWriter(None)("step 3")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.005)


@pytest.mark.usefixtures("often")
def test_each_line_is_read_once_and_not_what_was_written_before(tmp_path: Path) -> None:
    now = tmp_path / "now"
    now.write_text("1\nof an earlier case\n")
    lines: list[str] = []
    with HeartbeatReader(now, lines.append):
        time.sleep(0.05)
        for number in (1, 2):
            (tmp_path / "part").write_text(f"{number}\nstep {number}\n")
            (tmp_path / "part").replace(now)
            wait_until(lambda number=number: len(lines) == number, 5)
        time.sleep(0.03)
    assert lines == ["step 1", "step 2"]
    now.write_text("9\nstep 9\n")
    time.sleep(0.03)
    assert lines == ["step 1", "step 2"]


@pytest.mark.usefixtures("often")
def test_the_reader_survives_what_is_not_there_or_no_text(tmp_path: Path) -> None:
    lines: list[str] = []
    with HeartbeatReader(tmp_path / "nowhere" / "now", lines.append):
        time.sleep(0.02)
    now = tmp_path / "now"
    with HeartbeatReader(now, lines.append):
        now.mkdir()
        time.sleep(0.02)
        now.rmdir()
        now.write_bytes(b"1\n\xff\xfe step\n")
        wait_until(lambda: len(lines) == 1, 5)
        now.unlink()
        time.sleep(0.02)
        now.write_bytes(b"x" * 10_000)
        wait_until(lambda: len(lines) == 2, 5)
    assert lines[0].endswith(" step")
    assert len(lines[1]) <= heartbeat.LONGEST


def test_the_reader_ends_at_once_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    done = threading.Event()

    def listen() -> None:
        with HeartbeatReader(tmp_path / "now", print):
            pass
        done.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert done.wait(heartbeat.LOOK_S / 2)  # it does not sleep until its next look
    thread.join()
    assert threading.active_count() == before
