"""Records that are contributed: sound, and naming nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner

from cli import main
from results.records.publishable import faults
from results.records.reference_runs import REFERENCE
from results.schema import MACHINES, RECORDS

HOME = "/".join(("", "home", "ada"))
"""Put together: no file of the project names a place of any machine."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = synthetic.write_run(tmp_path / "mine")
    records = synthetic.read_records(made)
    synthetic.write_records(made, [*records, *synthetic.sentinels([1e-3, 1e-3])])
    return made


def change(folder: Path, file: str, **values: Any) -> None:
    lines = (folder / file).read_text().splitlines()
    first = {**json.loads(lines[0]), **values}
    (folder / file).write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")


@pytest.mark.parametrize(
    "reference",
    sorted(file.parent for file in REFERENCE.glob("*/*/records.jsonl")),
    ids=lambda folder: f"{folder.parent.name}/{folder.name}",
)
def test_the_shipped_records_are_sound_and_name_nobody(reference: Path) -> None:
    assert faults(reference) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"cannot open {HOME}/data/x.bin", f"a path: '{HOME}/data/x.bin'"),
        (f"from file://{HOME}/x", f"a path: '{HOME}/x'"),
        ("in /usr/lib:/scratch/ada/lib", "a path: '/scratch/ada/lib'"),
        ("in ~/data", "a path: '~/data'"),
        ("at C:\\Users\\ada\\x", "a path: 'C:\\\\Users"),
        ("from 192.168.2.7 port 22", "an address: '192.168.2.7'"),
        ("by ada.lovelace@example.org", "an address: 'ada.lovelace@example.org'"),
    ],
)
def test_what_names_a_place_or_a_person_is_found(folder: Path, text: str, what: str) -> None:
    change(folder, RECORDS, log_tail=text)
    assert any(what in fault for fault in faults(folder)), faults(folder)


def test_this_user_and_this_machine_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "results.records.publishable.socket.gethostname", lambda: "analytical-engine"
    )
    change(folder, RECORDS, log_tail="on analytical-engine it went wrong")
    assert "'analytical-engine'" in " ".join(faults(folder))


def test_what_no_reader_could_believe_is_found(folder: Path) -> None:
    (folder / "notes.txt").write_text("hello")
    (folder / MACHINES).unlink()
    found = " ".join(faults(folder))
    assert "notes.txt: expected only" in found
    assert "machines.jsonl: it is missing" in found
    assert "is not described" in found


def test_failed_cases_and_missing_sentinels_are_found(tmp_path: Path) -> None:
    made = synthetic.write_run(tmp_path)
    change(made, RECORDS, status="failed", reason="WrongOutputError: off", arms=[])
    found = " ".join(faults(made))
    assert "a defect: WrongOutputError: off" in found
    assert "no control benchmark: whether the machine's speed changed is unknown" in found


def test_a_torn_line_and_an_empty_folder_are_named(folder: Path, tmp_path: Path) -> None:
    with (folder / RECORDS).open("a") as file:
        file.write('{"torn": ')
    assert any("line" in fault for fault in faults(folder))
    (tmp_path / "empty").mkdir()
    assert any("missing" in fault for fault in faults(tmp_path / "empty"))


def test_the_command_checks_a_folder(folder: Path) -> None:
    found = CliRunner().invoke(main, ["check", str(folder)])
    assert (found.exit_code, found.output) == (0, "0 faults\n")
    (folder / "notes.txt").write_text("hello")
    found = CliRunner().invoke(main, ["check", str(folder)])
    assert found.exit_code == 1
    assert "notes.txt" in found.output
    assert found.output.endswith("1 fault\n")
