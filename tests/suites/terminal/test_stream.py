"""What is told of a sweep, to a terminal that is narrow, gone or not there."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_sweep import case, record

from suites.plan import Item
from suites.terminal.progress import Console, printable
from suites.terminal.stream import Stream


class Failing(io.StringIO):
    """A terminal whose writes fail."""

    def __init__(self, error):
        super().__init__()
        self.error, self.tries = error, 0

    def isatty(self):
        return True

    def write(self, text):
        self.tries += 1
        raise self.error


def tell(stream, name="linear"):
    console = Console(stream)
    console.begin(Path("runs/x"), 2, 0, ["a note"])
    for _ in range(2):
        console.starting(Item(case(name), 0))
        console.finished(record(case(name)), 1.0)
    console.end()


@pytest.mark.parametrize("code", ["EPIPE", "EIO", "EBADF", "ENOSPC"])
def test_a_stream_that_is_gone_is_written_to_once(code):
    number = getattr(errno, code)
    stream = Failing(OSError(number, os.strerror(number)))
    tell(stream)
    assert stream.tries == 1


def test_any_other_error_is_not_swallowed():
    with pytest.raises(PermissionError):
        tell(Failing(PermissionError(errno.EPERM, "no")))


def test_a_stream_that_is_busy_loses_a_line_and_goes_on():
    stream = Failing(BlockingIOError(errno.EAGAIN, "busy"))
    tell(stream)
    assert stream.tries > 3


def test_no_stream_and_a_closed_one():
    closed = io.StringIO()
    closed.close()
    tell(closed)
    Stream(None).write("x")
    assert not Stream(None).is_terminal()


def test_what_the_encoding_lacks_is_written_in_its_code():
    raw = io.BytesIO()
    text = io.TextIOWrapper(raw, encoding="ascii")
    tell(text, name="größe")
    assert rb"gr\xf6\xdfe forward" in raw.getvalue()


def test_a_dead_pipe_leaves_no_noise_at_the_end():
    program = (
        "import os, sys; from suites.terminal.stream import Stream\n"
        "read, write = os.pipe(); os.dup2(write, 1); os.close(write); os.close(read)\n"
        "Stream(sys.stdout).write('x' * 100_000)\n"
        "Stream(sys.stdout).write('y')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [1, 2, 20, 39, 80])
@pytest.mark.parametrize("name", ["linear", "注意" * 30, "a\u0301" * 40, "\x1b[2J\r\n\x07x"])
def test_the_bar_is_never_wider_than_the_terminal(monkeypatch, columns, name):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    tell(stream, name)
    bars = re.findall(r"[█░][^\r\n]*", stream.getvalue())
    assert bars
    for bar in bars:
        wide = sum(c in "注意" for c in bar)
        marks = bar.count("\u0301")
        assert len(bar) + wide - marks <= columns
        assert bar.isprintable()


def test_names_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\rc\nd\u202ee\ud800") == "a�[2Jb�c�d�e�"
    stream = Terminal()
    tell(stream, "x\x1b[31my\nz")
    assert "x�[31my�z forward" in stream.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    tell(stream)
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 4
