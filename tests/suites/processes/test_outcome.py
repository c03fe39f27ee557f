"""How the end of a child becomes a status and a reason."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from suites.processes.outcome import (
    ANSWER_LIMIT,
    OUTPUT_LIMIT,
    TIMEOUT_CODE,
    read_outcome,
    scrub,
)

RAISED = "Traceback (most recent call last):\n  x\nValueError: no, in {home}/x\n\n"


@pytest.mark.parametrize(
    ("code", "late", "out", "status", "reason"),
    [
        (TIMEOUT_CODE, False, "", "timeout", "killed after 1.5 s without a result"),
        (-signal.SIGKILL, True, "", "timeout", "killed after 1.5 s without a result"),
        (-signal.SIGVTALRM, False, "", "timeout", "one operation took longer than the time limit"),
        (None, False, "", "crashed", "the process that starts the cases died with it; a new one"),
        (-signal.SIGKILL, False, "", "crashed", "signal 9 (SIGKILL), likely the out-of-memory"),
        (-signal.SIGABRT, False, "", "crashed", "killed by signal 6 (SIGABRT)"),
        (-99, False, "", "crashed", "killed by signal 99 (unknown)"),
        (1, False, "x" * OUTPUT_LIMIT, "failed", "printed more than 64 MiB"),
        (1, False, RAISED.format(home=Path.home()), "failed", "ValueError: no, in ~/x"),
        (7, False, "bye", "crashed", "exited with code 7 without a result"),
    ],
)
def test_an_end_without_an_answer(
    tmp_path: Path, code: int | None, late: bool, out: str, status: str, reason: str
) -> None:
    found = read_outcome(tmp_path / "answer", out, code, late, 1.5, 2.0)
    assert (found.record, found.status, found.wall_s) == (None, status, 2.0)
    assert reason in (found.reason or "")


CONTENTS = {
    "torn": b'{"record": {"status"', "deep": b"[" * 100_000, "bytes": b"\xff\xfe", "other": b"{}",
    "infinite": b'{"record": {"x": Infinity}}', "list": b'{"record": []}',
    "reason": b'{"record": {"reason": 3}}', "huge": bytes(64),
}  # fmt: skip


def put(file: Path, what: str) -> None:
    """Put in the answer's place what is none."""
    if what == "pipe":
        os.mkfifo(file)
    elif what == "link":
        file.symlink_to("/dev/zero")
    else:
        file.write_bytes(CONTENTS[what])
    if what == "huge":
        os.truncate(file, ANSWER_LIMIT + 1)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (None, "none was written"), ("torn", "JSONDecodeError"), ("deep", "RecursionError"),
        ("bytes", "UnicodeDecodeError"), ("infinite", "ValueError"), ("other", "KeyError"),
        ("huge", "bytes; at most 33554432 are read"), ("pipe", "expected a regular file"),
        ("link", "Too many levels"), ("list", "expected an object, got list"),
        ("reason", "reason: expected a string, got int"),
    ],
)  # fmt: skip
def test_what_is_no_answer_fails_the_case(tmp_path: Path, what: str | None, reason: str) -> None:
    answer = tmp_path / "answer"
    if what is not None:
        put(answer, what)
    found = read_outcome(answer, "last words\n", 0, False, 1.5, 2.0)
    assert (found.record, found.status, found.log_tail) == (None, "failed", "last words")
    assert found.reason is not None
    assert found.reason.startswith("no readable result (")
    assert reason in found.reason
    assert str(tmp_path) not in found.reason


def test_an_answer_is_taken_as_it_is(tmp_path: Path) -> None:
    record: dict[str, Any] = {"status": "ok", "reason": None}
    (tmp_path / "answer").write_text('{"record": {"status": "ok", "reason": null}}')
    found = read_outcome(tmp_path / "answer", "", 0, False, 1.5, 2.0)
    assert (found.record, found.status, found.reason, found.log_tail) == (record, None, None, None)


def test_where_packages_lie_is_no_part_of_a_record() -> None:
    text = "function `f` in file `/opt/env/lib/python3.11/site-packages/torch/compiler/x.py`: no"
    assert scrub(text) == "function `f` in file `site-packages/torch/compiler/x.py`: no"
