"""Many notes stand as few, and none is lost."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner
from helpers_recommend import a_run

from cli import main
from results.analysis.analysis import Analysis
from results.chapters.speed.rows import chapters
from results.chapters.speed.sentences import summarise
from results.chapters.speed.tables import tables
from results.records.load import load
from results.report import write_report
from results.schema import RECORDS
from results.text.notes import capped, grouped


def test_notes_that_differ_by_their_line_or_run_are_one() -> None:
    notes = ["a/r:4: torn", "first", "a/r:9: torn", "b/r:9: torn", "run x: busy", "first",
             "run y: busy", "a/r:10: torn", "run x: hot"]  # fmt: skip
    assert grouped(notes) == [
        "a/r:4: torn (2 more lines)", "first (1 more time)", "b/r:9: torn",
        "run x: busy (1 more run)", "run x: hot",
    ]  # fmt: skip


def test_a_list_has_an_end_that_says_how_many_are_left_and_where() -> None:
    assert capped([f"{i}" for i in range(192)], "there")[9:] == ["9", "and 182 more, there"]
    assert capped(["a"] * 10, "there") == ["a"] * 10


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A run with 192 lines that cannot be used, for 16 reasons."""
    folder = a_run(tmp_path / "run")
    with (folder / RECORDS).open("a") as file:
        for index in range(192):
            line = {"schema": 1, "run": "r", "machine": "m", "environment": "e"}
            file.write(json.dumps({**line, "measurement": f"{index % 16}"}) + "\n")
    return folder


def test_the_terminal_is_not_flooded(noisy: Path) -> None:
    said = CliRunner().invoke(main, ["export", str(noisy)]).stderr.splitlines()
    assert len(said) == 11
    assert said[0].endswith("left out (11 more lines)")
    assert said[-1] == "note: and 6 more, at the top of attnbench report"


def test_the_report_folds_them_away_and_keeps_them(noisy: Path, tmp_path: Path) -> None:
    page, text = (f.read_text() for f in write_report([noisy], ["html", "md"], tmp_path))
    for written in (html.unescape(page), text):
        _, _, folded = written.partition("Notes and exclusions (16)")
        assert folded.partition("</details>")[0].count("(11 more lines)") == 16


def test_reasons_below_a_table_and_in_the_summary_have_an_end(tmp_path: Path) -> None:
    lengths = tuple(512 + 64 * i for i in range(14))
    fails: dict[str, Any] = {
        f"mine-{i}": synthetic.Law(
            1e-8, 2.0, fails={n: ("failed", f"reason {i} of {n}") for n in lengths}
        )
        for i in range(14)
    }
    laws = {"sdpa": synthetic.SEVEN["sdpa"], **fails}
    folder = synthetic.write_run(tmp_path, laws, lengths=lengths, launches=1, modes=("forward",))
    (chapter,) = chapters(Analysis(load(folder)))
    view = tables(chapter)[0]
    assert len(view.notes) == 11
    assert view.notes[-1] == "and 186 more, in the table of every case"
    (reach,) = [p for p in summarise(chapter) if p.heading.startswith("How far")]
    assert reach.sentences[-1] == "and 5 more, in the table of every case."


def test_one_reason_of_several_backends_is_one_note(tmp_path: Path) -> None:
    laws = {
        name: synthetic.Law(1e-8, 2.0, fails={4096: ("timeout", "longer than 9 s")})
        for name in ("sdpa", "full", "mine")
    }
    (chapter,) = chapters(Analysis(load(a_run(tmp_path, laws))))
    assert tables(chapter)[0].notes == ["full, sdpa and mine, timeout: longer than 9 s."]
