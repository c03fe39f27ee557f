"""The commands on a terminal, and in a pipe: what a person sees and what a program reads."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from click.testing import CliRunner

import cli
from results.comparison.compare import compare
from results.comparison.text import text
from results.records.load import load

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "[red]\x1b[31m\u202e"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two runs; in the second one performer takes three times as long."""
    folder = tmp_path_factory.mktemp("two")
    laws = {name: synthetic.SEVEN[name] for name in ("sdpa", "performer", "linformer", "bigbird")}
    slower = replace(laws["performer"], coefficient=3 * laws["performer"].coefficient)
    shape = {"lengths": (512, 1024, 2048, 4096), "launches": 6, "noise": 0.01}
    return (
        synthetic.write_run(folder / "a", laws, **shape),
        synthetic.write_run(folder / "b", {**laws, "performer": slower}, seed=1, **shape),
    )


def on_terminal(*arguments: object, columns: int = 80, **variables: str) -> str:
    """Run the command on a terminal of its own; return what is written there."""
    ours, theirs = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, arguments)], stdout=theirs,
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=Path(cli.__file__).parent,
        env={**kept, "TERM": "xterm", "COLUMNS": str(columns), **variables},
    )  # fmt: skip
    os.close(theirs)
    said, end = b"", time.monotonic() + 120
    try:
        while time.monotonic() < end and select.select([ours], [], [], 120)[0]:
            said += os.read(ours, 65536)
    except OSError:  # how Linux tells that the other side is closed
        pass
    finally:
        os.close(ours)
        _, errors = process.communicate(timeout=20)
    assert b"Traceback" not in errors, errors
    return said.decode().replace("\r\n", "\n")


def in_pipe(*arguments: object) -> str:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments]).stdout


@pytest.mark.slow
def test_a_comparison_is_a_table_of_the_terminals_width(two: tuple[Path, Path]) -> None:
    shown = on_terminal("compare", *two, columns=70)
    plain = COLOUR.sub("", shown)
    assert all(len(line) <= 70 for line in plain.splitlines()), plain
    backends, cases = (line for line in plain.splitlines() if "verdict" in line)
    assert backends.split()[:3] == ["verdict", "backend", "cases"]
    assert cases.split()[:5] == ["verdict", "case", "base", "→", "new"]
    assert "─" * 20 in plain
    slower = [line for line in shown.splitlines() if "slower" in line and " performer" in line]
    slower = [line for line in slower if "×" in line]
    assert len(slower) == 9, "the backend and its cases"
    assert all("\x1b[31m" in line for line in slower), "red"
    same = [line for line in shown.splitlines() if "no change" in line]
    assert same
    assert all("\x1b[31m" not in line for line in same)


@pytest.mark.slow
def test_without_colours_and_letters_the_table_stays(two: tuple[Path, Path]) -> None:
    shown = on_terminal("compare", *two, columns=60, NO_COLOR="1")
    assert "\x1b" not in shown
    assert "─" * 20 in shown
    ascii_only = on_terminal("compare", *two, PYTHONIOENCODING="ascii")
    assert COLOUR.sub("", ascii_only).isascii()
    assert "-----" in ascii_only
    assert "base \\u2192 new" in ascii_only
    dumb = on_terminal("compare", *two, TERM="dumb")
    assert dumb == in_pipe("compare", *two)


def test_in_a_pipe_nothing_is_dressed(two: tuple[Path, Path]) -> None:
    assert in_pipe("compare", *two) == text(compare(load(two[0]), load(two[1])))
    for arguments in (("compare", *two), ("list",), ("list", "--claims"), ("list", "--models")):
        said = in_pipe(*arguments)
        assert said
        assert "\x1b" not in said
        assert "─" not in said


@pytest.mark.slow
def test_json_on_a_terminal_is_json(two: tuple[Path, Path]) -> None:
    shown = on_terminal("compare", *two, "--json")
    assert json.loads(shown)["regression"] is True


@pytest.mark.slow
def test_a_list_is_broken_between_words(two: tuple[Path, Path]) -> None:
    shown = on_terminal("list", "--claims", columns=50)
    plain = COLOUR.sub("", shown)
    assert all(len(line) <= 50 for line in plain.splitlines())
    assert "\x1b[1m" in shown
    said = in_pipe("list", "--claims")
    assert re.sub(r"\s+", " ", plain) == re.sub(r"\s+", " ", said)


@pytest.mark.slow
def test_a_recommendation_has_its_answer_in_bold(two: tuple[Path, Path]) -> None:
    asked = ("recommend", two[0], "--seq-len", 2048, "--mode", "forward")
    shown = on_terminal(*asked)
    found = [line for line in shown.splitlines() if "Answer, " in line]
    assert len(found) == 2
    assert all(line.startswith("\x1b[1m") for line in found)
    assert COLOUR.sub("", shown) == in_pipe(*asked)


@pytest.mark.slow
def test_a_strangers_name_is_a_text_and_no_instruction(tmp_path: Path) -> None:
    laws = {HOSTILE: synthetic.SEVEN["sdpa"]}
    folders = [
        synthetic.write_run(tmp_path / name, laws, lengths=(512,), launches=2, seed=i)
        for i, name in enumerate("ab")
    ]
    shown = on_terminal("compare", *folders, NO_COLOR="1")
    assert "[red]" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.slow
def test_check_and_doctor_have_json() -> None:
    checked = CliRunner().invoke(cli.main, ["check", "linformer", "--no-timing", "--json"])
    findings = json.loads(checked.stdout)
    assert checked.exit_code == 0
    assert {one["status"] for one in findings} <= {"passed", "skipped"}
    assert {"backend", "check", "status", "message", "how"} == set(findings[0])
    looked = json.loads(in_pipe("doctor", "--json"))
    assert {"versions", "cpu", "threads"} <= {one["topic"] for one in looked}
    assert {one["level"] for one in looked} <= {"fine", "note", "problem"}


def test_check_of_a_folder_has_json(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path / "run", lengths=(512,), launches=1)
    found = CliRunner().invoke(cli.main, ["check", str(folder), "--json"])
    told = json.loads(found.stdout)
    assert found.exit_code == (1 if told["faults"] else 0)
    said = in_pipe("check", folder).splitlines()
    assert said[:-1] == told["faults"]


def test_every_command_that_prints_a_table_has_json() -> None:
    with_json = {
        name for name, command in cli.main.commands.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }  # fmt: skip
    # export has --format json; run, merge and report print where something lies.
    assert set(cli.main.commands) - with_json == {"export", "run", "merge", "report"}
