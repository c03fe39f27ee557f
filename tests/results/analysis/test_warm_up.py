"""A time whose warm-up was cut short carries its mark into every table, figure and ranking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic
from click.testing import CliRunner
from helpers_recommend import FOUR, a_run, frame_of

from cli import main
from results.analysis.analysis import Analysis
from results.analysis.series import points
from results.analysis.warm_up import HOLLOW, MARK, NOTE
from results.chapters.speed.figures import error_figure, speedup_figure, time_figure
from results.chapters.speed.rows import chapters
from results.comparison.compare import compare
from results.comparison.sections import sections
from results.comparison.tables import Sides
from results.comparison.words import remark
from results.export.tables import export_table
from results.figures.plot_words import in_words
from results.figures.svg import Drawn, drawn
from results.recommendation.as_json import as_json
from results.recommendation.page_answers import as_data, groups
from results.recommendation.recommend import recommend
from results.recommendation.text import text
from results.records.load import Run, load
from results.report import write_report
from suites.terminal.progress import describe

TIED = "linformer"
"""The fastest at 4,096 tokens, in one launch of three without a whole warm-up."""

ANSWER = "longformer"
"""The one recommended, with such a launch: linformer learns far less."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lengths = (512, 1024, 2048, 4096)
    run = a_run(tmp_path_factory.mktemp("run"), lengths=lengths, roof=synthetic.ROOF)
    return synthetic.cut_short(run, TIED, 4096)


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load(folder)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = a_run(tmp_path_factory.mktemp("run"), lengths=(512, 1024, 2048, 4096))
    return load(synthetic.cut_short(run, ANSWER, 4096))


def test_tables_and_sentences_of_the_report_have_it(folder: Path, tmp_path: Path) -> None:
    (written,) = write_report([folder], ["md"], tmp_path)
    lines = written.read_text().splitlines()
    heads = [line for line in lines if line.startswith("| linformer")]
    marked = [line for line in heads if MARK in line]
    # The methods, the matrix of times, the exponent of time, the crossover, and all cases.
    assert len(marked) == 5
    assert any(f"At 4,096 tokens {TIED} is the fastest: 16.3 ms {MARK}" in li for li in lines)
    assert any(f"Faster than sdpa at every length tried: {TIED} {MARK}" in li for li in lines)
    assert any(f"{TIED} {MARK} 1.00 (" in line for line in lines)
    assert any("warm-up cut short at 4,096 of 4 lengths" in line for line in marked)
    assert f"- {NOTE}" in lines
    top = "\n".join(lines[: lines.index("## Summary in sentences")])
    assert "1 of 48 warm-ups were cut short" in top
    others = [li for li in lines if li.startswith(("| longformer", "| performer"))]
    assert not any(MARK in line for line in others)


def test_one_that_is_slower_says_that_its_place_is_not_sure(folder: Path, tmp_path: Path) -> None:
    copy = synthetic.write_records(a_run(tmp_path / "run"), synthetic.read_records(folder))
    synthetic.cut_short(copy, "sdpa", 4096)
    (written,) = write_report([copy], ["md"], tmp_path / "out")
    assert f"Slower, if their times hold: sdpa {MARK}." in written.read_text()


def hollow(figure: Drawn | None) -> list[tuple[str, float]]:
    """Return the series and length of a figure's hollow marks."""
    assert figure is not None
    assert figure.inline is not None
    return [
        (series["name"], point[0])
        for panel in figure.inline.panels
        for series in panel["series"]
        for point in series["points"]
        if point[7]
    ]


def test_figures_have_hollow_marks(run: Run) -> None:
    (chapter,) = chapters(Analysis(run))
    for draw, count in ((time_figure, 1), (speedup_figure, 1), (error_figure, 1)):
        made = drawn(lambda draw=draw: draw(chapter))
        assert made is not None
        assert made.inline is not None
        shown = [
            (series["name"], point)
            for panel in made.inline.panels
            for series in panel["series"]
            for point in series["points"]
            if point[7]
        ]
        assert [name for name, _ in shown] == [TIED] * count
        assert all("warm-up cut short" in point[4] for _, point in shown)
        assert made.caption("A caption.") == f"A caption. {HOLLOW}"
    figure = time_figure(chapter)
    assert figure is not None
    line = next(ln for ln in figure.axes[0].lines if ln.get_markevery() is not None)
    assert line.get_markevery() == [0, 1, 2]  # the last is drawn hollow
    assert "(warm-up cut short)" in in_words(figure)


def test_a_run_of_whole_warm_ups_has_none(tmp_path: Path) -> None:
    (written,) = write_report([a_run(tmp_path)], ["md"], tmp_path)
    assert MARK not in written.read_text()
    assert HOLLOW not in written.read_text()


def test_a_recommendation_says_it_beside_the_time(answered: Run) -> None:
    found = recommend(answered.frame, seq_len=4096, max_error=3.0)
    said = " ".join(text(found, machines={}, reference=False).split())
    assert f"Answer, not exact: {ANSWER}, 41 ms (" in said
    assert said.count(f" {MARK}, ") == 1
    assert NOTE in said
    told = json.loads(as_json(found, machines={}, reference=False, folders=()))
    (ranking,) = told["rankings"]
    by_name = {c["backend"]: c["latency"]["converged"] for c in ranking["candidates"]}
    assert by_name == {**dict.fromkeys(FOUR, True), ANSWER: False}


def test_what_is_not_measured_but_rests_on_such_a_time_has_it_too(answered: Run) -> None:
    for seq_len, told in ((3000, False), (1500, True), (8192, False)):
        found = recommend(answered.frame, seq_len=seq_len, max_error=3.0)
        assert found.other is not None
        assert found.other.latency.converged is told


def test_the_page_answers_with_it(tmp_path: Path) -> None:
    cut = load(synthetic.cut_short(a_run(tmp_path, lengths=(1024, 2048, 4096)), "sdpa", 4096))
    (mode,) = as_data(groups(cut, points(cut)))["modes"]
    first = {point["n"]: point["candidates"][0] for point in mode["points"]}
    assert {point["name"] for point in first.values()} == {"sdpa"}
    assert first[4096]["time"].endswith(f" {MARK}")
    assert MARK not in first[1024]["time"]


@pytest.mark.parametrize("table", ["cases", "scaling", "crossover"])
def test_exports_have_a_column(run: Run, table: str) -> None:
    rows = json.loads(str(export_table(run, table, "json")))
    of_time = [r for r in rows if r["metric"] in ("latency", "throughput")]
    cut = [r for r in of_time if r["converged"] is False]
    assert {r["backend"] for r in cut} == {TIED}
    assert len(cut) == {"cases": 2, "scaling": 1, "crossover": 1}[table]
    known = [r for r in of_time if r not in cut and r.get("seq_len", 0) is not None]
    assert {r["converged"] for r in known} == {True}
    assert all(r["converged"] is None for r in rows if r["metric"] == "peak_memory")


def test_asvs_files_cannot_mark_it_and_the_command_says_so(folder: Path, tmp_path: Path) -> None:
    words = ["export", str(folder), "--format", "asv", "--out", str(tmp_path)]
    assert "warm-up cut short in 1 of 48 measurements" in CliRunner().invoke(main, words).stderr


def test_a_comparison_says_it_of_each_case(folder: Path, tmp_path: Path) -> None:
    whole = a_run(tmp_path, lengths=(512, 1024, 2048, 4096), seed=1, run="other")
    found = compare(load(whole), load(folder))
    said = {change.name: remark(change) for change in found.changes}
    own = said.pop(f"{TIED} forward N=4096")
    assert "new: warm-up cut short in 1 of 3 processes" in own
    assert not any("cut short" in text for text in said.values())
    (section,) = sections(load(whole), load(folder), [found], Sides())
    marked = [
        view.title for view in section.tables
        if any(f"16.3 ms {MARK}" == cell.text for cells in view.rows for cell in cells)
    ]  # fmt: skip
    assert marked == ["The fastest at each length", "Time: every case"]
    figures = [drawn(drawing.draw) for drawing in section.drawings]
    assert [(name, x) for figure in figures for name, x in hollow(figure)] == [
        (TIED, 4096), (f"{TIED}, new", 4096)
    ]  # fmt: skip


def test_the_terminal_says_it_while_it_measures(folder: Path) -> None:
    said = [
        describe(record)
        for record in synthetic.read_records(folder)
        if record["case"]["arms"][0]["name"] == TIED and record["case"]["seq_len"] == 4096
    ]
    assert ["ms (warm-up cut short)  " in line for line in said] == [False, True, False]


def test_records_from_before_the_field_have_no_mark(tmp_path: Path) -> None:
    assert set(frame_of(a_run(tmp_path))["converged"]) == {None}
