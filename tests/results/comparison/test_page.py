"""The page of a comparison: before and after, and two machines side by side."""

from __future__ import annotations

import base64
import gzip
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic
from click.testing import CliRunner, Result
from helpers_page import unscripted
from matplotlib.colors import to_hex

import cli
from results.comparison.compare import compare
from results.comparison.figures import beside_figure, ratio_figure
from results.comparison.sections import case_table, every_metric, name_sides, sections, summary
from results.figures.theme import INK, looks
from results.page.blocks import TableView
from results.records.load import Run, load

LAWS = {n: synthetic.SEVEN[n] for n in ("full", "sdpa", "longformer", "performer")}
SLOWER = {**LAWS, "longformer": replace(LAWS["longformer"], coefficient=3e-5)}
SMALL: dict[str, Any] = {"lengths": (512, 1024, 2048), "launches": 5, "roof": None}
OTHER = {**synthetic.MACHINE, "cpu": "Another CPU 5 GHz"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs; in the later one longformer takes 2.5 times as long and full fails at 2,048."""
    folder = tmp_path_factory.mktemp("two")
    broken = {**SLOWER, "full": replace(LAWS["full"], fails={2048: ("out_of_memory", "17 GB")})}
    return (
        synthetic.write_run(folder / "a", LAWS, **SMALL, seed=1),
        synthetic.write_run(folder / "b", broken, **SMALL, seed=2, run="r2", commit="f" * 40),
    )


@pytest.fixture(scope="module")
def runs(folders: tuple[Path, Path]) -> tuple[Run, Run]:
    return load(folders[0]), load(folders[1])


@pytest.fixture(scope="module")
def page(folders: tuple[Path, Path]) -> str:
    target = folders[0].parent / "page.html"
    done = invoke("compare", *folders, "--html", target)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == f"The page lies in {target}"
    return target.read_text()


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


def view(runs: tuple[Run, Run], title: str) -> TableView:
    every = every_metric(*runs, compare(*runs))
    (section,) = sections(*runs, every, name_sides(*runs))
    (found,) = [table for table in section.tables if table.title == title]
    return found


def test_the_summary_counts_and_names_what_changed(runs: tuple[Run, Run]) -> None:
    told = summary(compare(*runs), name_sides(*runs))
    assert told.heading == "Time"
    first, *named, last = told.sentences
    assert first.startswith("6 slower, 0 faster")
    assert first.endswith(
        "2 fails; longformer slower, of 24 cases (latency, changes of at least 3.0 %)."
    )
    undecided, fails, slower = named
    assert undecided.startswith("Undecided: ")
    assert fails.startswith("Fails: full forward N=2048, out_of_memory: 17 GB; full training")
    assert slower.startswith("Slower: longformer ")
    assert slower.endswith("; and 1 more.")
    middle = r"Over 22 cases, new takes [\d.]+ × the time of base \(median; range "
    assert re.match(middle + r"[\d.]+ × to 2\.\d+ ×\)\.", last)


def test_every_metric_that_both_have_is_compared(runs: tuple[Run, Run]) -> None:
    found = compare(*runs, threshold=0.5)
    every = every_metric(*runs, found)
    assert [c.metric for c in every] == ["latency", "peak_memory"]  # nothing decoded
    assert {c.threshold for c in every} == {0.5}
    assert every[0] is found


def test_a_choice_of_cases_and_thresholds_holds_for_every_metric(tmp_path: Path) -> None:
    decoding = {**SMALL, "modes": ("forward", "decode")}
    base = synthetic.write_run(tmp_path / "a", LAWS, **decoding)
    new = synthetic.write_run(tmp_path / "b", SLOWER, **decoding, run="r2")
    target = tmp_path / "page.html"
    chosen = ("--only", "mode=forward", "--only", "backend=full,sdpa", "--threshold", "full=50")
    done = invoke("compare", base, new, *chosen, "--html", target)
    assert done.exit_code == 0
    text = re.sub(r"<[^>]+>", " ", unscripted(target))
    assert "of 6 cases (latency, changes of at least 3.0 %, of full 50 %)" in text
    assert "(peak memory, changes of at least 3.0 %, of full 50 %)" in text
    assert "State" not in text.partition("How far to trust")[0]
    assert text.count("Undecided: ") == 1, "the headline is not said again"
    tables = text.partition("Tables")[2].partition("How far to trust")[0]
    assert "longformer" not in tables
    assert "Time: whole backends" in tables


def test_the_table_of_cases_has_both_values_ratio_and_verdict(runs: tuple[Run, Run]) -> None:
    table = view(runs, "Time: every case")
    assert len(table.rows) == 24
    cells = {
        tuple(c.text for c in row[:3]): dict(zip(table.head, row, strict=True))
        for row in table.rows
    }
    slower = cells["longformer", "forward", "1,024"]
    assert slower["verdict"].text == "slower"
    assert slower["verdict"].is_status
    ratio, (low, high) = slower["new / base"], map(float, slower["new / base"].small.split("–"))
    assert low < float(ratio.text.removesuffix(" ×")) < high
    assert ratio.text.startswith("2.")
    failed = cells["full", "forward", "2,048"]
    assert (failed["new"].text, failed["verdict"].text) == ("out of memory", "fails")
    assert failed["base"].text.endswith("ms")
    same = cells["sdpa", "forward", "512"]
    assert same["verdict"].text in ("no change", "inconclusive")
    assert not same["verdict"].is_status


def test_the_fastest_and_the_crossovers_stand_side_by_side(runs: tuple[Run, Run]) -> None:
    fastest = view(runs, "The fastest at each length")
    assert [row[1].text for row in fastest.rows] == ["512", "1,024", "2,048"] * 2
    table = view(runs, "From which length on a backend is faster")
    (row,) = [
        dict(zip(table.head, (c.text for c in row), strict=True)) for row in table.rows
        if [c.text for c in row[:3]] == ["longformer", "forward", "sdpa"]
    ]  # fmt: skip
    before, after = (row[f"from tokens: {side}"] for side in ("base", "new"))
    # 1.32e-8 N² = 1.2e-5 N at N = 909; with 3e-5 N only at 2,273.
    assert float(before.replace(",", "")) == pytest.approx(909, rel=0.05)
    assert after == "–"
    assert row["remark"].startswith("new: not reached, tried 512 to 2048")


def test_another_winner_is_remarked_where_it_is_sure(tmp_path: Path) -> None:
    three = {name: LAWS[name] for name in ("full", "sdpa", "performer")}
    faster = {**three, "performer": replace(LAWS["performer"], coefficient=2e-6)}
    pair = (
        load(synthetic.write_run(tmp_path / "a", three, **SMALL)),
        load(synthetic.write_run(tmp_path / "b", faster, **SMALL, run="r2")),
    )
    table = view(pair, "The fastest at each length")
    rows = [[c.text for c in row] for row in table.rows if row[0].text == "forward"]
    assert [row[4] for row in rows] == ["performer"] * 3
    assert [(row[2], row[6]) for row in rows] == [
        ("sdpa", "changed"), ("performer", ""), ("performer", ""),
    ]  # fmt: skip
    assert [c.text for c in view((pair[0], pair[0]), table.title).rows[0]][6] == ""


def test_ratios_have_a_panel_a_mode_and_rings(runs: tuple[Run, Run]) -> None:
    table = case_table(compare(*runs), runs[1])
    drawn = looks(zip(table["backend"], table["options"], strict=True))
    figure = ratio_figure(table, drawn, ("base", "new"), "time")
    assert figure is not None
    assert [ax.get_title() for ax in figure.axes] == ["forward", "training"]
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert low < 1 < 2.5 < high
        assert sum(low <= t <= high for t in ax.get_yticks()) >= 3
        (rings,) = [x for x in ax.lines if x.get_markersize() == 12 and len(x.get_xdata())]
        assert list(rings.get_xdata()) == [512, 1024, 2048]
        assert all(2 < y < 3 for y in rings.get_ydata())


def test_times_have_a_panel_a_backend_with_both_runs(runs: tuple[Run, Run]) -> None:
    table = case_table(compare(*runs), runs[1])
    drawn = looks(zip(table["backend"], table["options"], strict=True))
    part = table[table["mode"] == "forward"]
    figure = beside_figure(part, drawn, ("base", "new"))
    assert figure is not None
    assert [ax.get_title() for ax in figure.axes] == list(LAWS)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    for ax, name in zip(figure.axes, LAWS, strict=True):
        before, after = (line for line in ax.lines if len(line.get_xdata()))
        assert to_hex(before.get_color()) == INK
        assert to_hex(after.get_color()) == drawn[name, ""].light
        assert len(before.get_xdata()) == 3
        assert len(after.get_xdata()) == (2 if name == "full" else 3)


def test_the_page_says_what_changed_and_between_what(page: str) -> None:
    text = re.sub(r"<[^>]+>", " ", unscripted(page))
    assert "What changed" in text
    assert "8 cases became worse" in text
    assert re.search(
        r"Base: Example CPU 2.5 GHz, commit 1234567890ab,\s+120\s+processes measured", text
    )
    assert re.search(r"New: Example CPU 2.5 GHz, commit f{12},", text)
    for title in ("Time: new over base", "Time, forward: base and new", "Peak memory: every case",
                  "How far to trust these numbers", "Environment"):  # fmt: skip
        assert title in text, title
    assert "Peak memory: new over base" not in text  # no case's peak changed
    ids = re.findall(r'\bid="([^"]*)"', unscripted(page))
    assert len(ids) == len(set(ids))


def test_the_data_of_both_runs_can_be_had(page: str, runs: tuple[Run, Run]) -> None:
    found = re.search(r'href="data:application/gzip;base64,([\w+/=]*)"', page)
    assert found
    table = pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(found[1]))), dtype=str)
    assert dict(table["side"].value_counts()) == {
        "base": len(runs[0].frame), "new": len(runs[1].frame),
    }  # fmt: skip


def test_two_machines_go_by_their_names(tmp_path: Path) -> None:
    base = synthetic.write_run(tmp_path / "a", LAWS, **SMALL)
    other = synthetic.write_run(tmp_path / "b", SLOWER, **SMALL, machine=OTHER, run="r2")
    target = tmp_path / "deep" / "machines.html"
    done = invoke("compare", base, other, "--html", target, "--json")
    assert done.exit_code == 1
    assert done.stdout.startswith("{")
    text = re.sub(r"<[^>]+>", " ", unscripted(target))
    assert "Two machines, side by side" in text
    assert "Time, forward: Example CPU 2.5 GHz and Another CPU 5 GHz" in text
    assert "a ratio is between them, not between commits" in text
    assert "fastest: Another CPU 5 GHz" in text


@pytest.mark.parametrize("name", ["page.txt", "page", "folder.html"])
def test_a_page_needs_a_name_that_ends_in_html(folders: tuple[Path, Path], name: str) -> None:
    target = folders[0].parent / name
    if name == "folder.html":
        target.mkdir(exist_ok=True)
    done = invoke("compare", *folders, "--html", target)
    assert done.exit_code == 2
    assert f"--html: expected a file that ends in .html, got {target}" in done.stderr


def test_what_cannot_be_written_is_exit_code_3(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = invoke("compare", *folders, "--html", tmp_path / "file" / "page.html")
    assert done.exit_code == 3
    assert "file" in done.stderr
    assert "Traceback" not in done.stderr
