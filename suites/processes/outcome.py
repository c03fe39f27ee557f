"""How a child's request ended: its answer, or what its exit code and its last lines tell."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.schema import canonical

TIMEOUT_CODE = -256
"""asv's exit code of a child that it ended because its time was over."""

TAIL_LINES, TAIL_BYTES = 20, 4096

ANSWER_LIMIT = 32 << 20
"""An answer of more bytes is none: read, it would take many times that."""

OUTPUT_LIMIT = 64 << 20
"""No file of a child grows beyond these bytes: a child that prints for ever fills no disk."""

PLACES = (
    (sys.prefix, "<python>"),
    (str(Path(__file__).resolve().parents[2]), "<attnbench>"),
    (str(Path.home()), "~"),
)
"""Folders that differ from machine to machine, and what stands for them in a record."""


@dataclass(frozen=True)
class Outcome:
    """How a request ended.

    Attributes:
        record: the child's answer; ``None`` if it left none.
        status: without an answer: ``crashed``, ``timeout``, ``out_of_memory`` or ``failed``.
        reason: one line why, without an answer.
        log_tail: the last lines that the child printed; ``None`` if it printed nothing.
        wall_s: seconds from the request to its end, the start of a server not included.
    """

    record: dict[str, Any] | None
    status: str | None
    reason: str | None
    log_tail: str | None
    wall_s: float


def read_outcome(
    answer: Path, out: str, code: int | None, late: bool, timeout_s: float, wall: float
) -> Outcome:
    """Put the end of a child into words.

    Args:
        answer: the file that the child was to write.
        out: what it printed.
        code: its exit code, minus the signal that ended it; ``None`` if the server went away.
        late: the whole process group had to be killed.
        timeout_s: the time limit it had.
        wall: seconds it took.
    """
    printed = tail(out)
    if code == 0:
        try:
            return Outcome(_read_answer(answer), None, None, printed, wall)
        except FileNotFoundError:
            problem = "none was written"
        except OSError as error:  # its text would name a folder of this machine
            problem = error.strerror or type(error).__name__
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problem = f"{type(error).__name__}: {error}"
        return Outcome(None, "failed", scrub(f"no readable result ({problem})"), printed, wall)
    status, reason = _explain(code, out, late, timeout_s)
    return Outcome(None, status, reason, printed, wall)


def _read_answer(answer: Path) -> dict[str, Any]:
    """Return the record in a child's file, which may be anything.

    Raises:
        OSError: if there is none.
        ValueError: if it is no regular file, is too large, or holds what no record can.
        KeyError: if it is JSON of another form; also `TypeError`, `RecursionError`.
    """
    # A pipe or a device in its place would be waited for, or never end.
    descriptor = os.open(answer, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("expected a regular file")
        if status.st_size > ANSWER_LIMIT:
            raise ValueError(f"{status.st_size} bytes; at most {ANSWER_LIMIT} are read")
        record = json.loads(file.read().decode())["record"]
    if not isinstance(record, dict):
        raise TypeError(f"expected an object, got {type(record).__name__}")
    if not isinstance(record.get("reason", ""), str | None):
        raise TypeError(f"reason: expected a string, got {type(record['reason']).__name__}")
    canonical(record)  # no NaN, nothing too deep
    return record


def _explain(code: int | None, out: str, late: bool, timeout_s: float) -> tuple[str, str]:
    """Return status and reason of a child without an answer."""
    if late or code == TIMEOUT_CODE:
        return "timeout", f"killed after {timeout_s:g} s without a result"
    if code is None:
        return "crashed", "the process that starts the cases died with it; a new one was started"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        if -code == signal.SIGVTALRM:  # the child's own guard, inside one long operation
            return "timeout", "one operation took longer than the time limit"
        hint = ", likely the out-of-memory killer" if -code == signal.SIGKILL else ""
        return "crashed", f"killed by signal {-code} ({name}){hint}"
    if len(out) >= OUTPUT_LIMIT - TAIL_BYTES:
        return "failed", f"printed more than {OUTPUT_LIMIT >> 20} MiB"
    lines = [line for line in out.splitlines() if line.strip()]
    if "Traceback (most recent call last)" in out and lines:
        return "failed", scrub(lines[-1].strip())[:500]
    return "crashed", f"exited with code {code} without a result"


PACKAGES = re.compile(r"/[^\s'\"`]*/site-packages")
"""Where an environment's packages lie: it need be neither the home nor the working folder."""


def tail(text: str) -> str | None:
    """Return the last lines of a child's output, at most `TAIL_BYTES` of them."""
    lines = text.rstrip().splitlines()[-TAIL_LINES:]
    last = "\n".join(lines).encode("utf-8", "replace")[-TAIL_BYTES:].decode("utf-8", "ignore")
    return scrub(last) or None


def scrub(text: str) -> str:
    """Take out of a text where this machine keeps its files: records are passed on."""
    for place, name in PLACES:
        if place != "/":  # the home of a user who has none
            text = text.replace(place, name)
    return PACKAGES.sub("site-packages", text)
