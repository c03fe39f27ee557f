"""A chapter from a plug-in's folder: records of a kind that is not ours end in the report."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import synthetic_quality as made
from click.testing import CliRunner
from helpers_page import unscripted

from cli import main
from results.chapters import loading
from results.chapters.loading import PluginError
from results.records.load import NoRunError, load
from results.report import write_report

CHAPTER = """
from matplotlib.figure import Figure

from results.chapters import ReportChapter
from results.page.blocks import Cell, Drawing, Paragraph, Part, Section, TableView
from results.text import numbers

from .words import HEADING


def draw():
    figure = Figure()
    figure.add_subplot().plot([1, 2], [3, 4])
    return figure


def part(analysis):
    frame = analysis.run.frame
    rows = frame[(frame["kind"] == "toy") & (frame["metric"] == "surprise")]
    if rows.empty:
        return None
    cells = [[Cell(b), Cell(numbers.digits(v))] for b, v in zip(rows["backend"], rows["value"])]
    table = TableView("Surprises", ["backend", "surprise"], cells)
    section = Section("All toys", lead="A lead.", tables=[table],
                      drawings=[Drawing("toys", "Toys drawn", "A caption.", draw)])
    return Part("toys", HEADING, [section], [Paragraph("Toys", ["The toys were played with."])])


CHAPTER = ReportChapter(kinds=("toy",), order=35, part=part, method="A toy is played with.")
"""


def plugin(folder: Path, chapter: str = CHAPTER) -> Path:
    """Write a suite's folder whose own package needs what the report must not import."""
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('torch is not for the report')\n")
    (folder / "words.py").write_text("HEADING = 'Toys <of> all'\n")
    (folder / "chapter.py").write_text(chapter)
    return folder


def run_folder(folder: Path, value: float = -1.5) -> Path:
    metrics = {
        "surprise": {"unit": "bit", "samples": [value]}, "laughs": {"unit": "1", "value": 2},
    }  # fmt: skip
    case = made._case("toy", "sdpa", {}, level="attention")
    return made.write_quality(
        folder, [made._record("run", made.MACHINE, case, [{"metrics": metrics}])]
    )


@pytest.mark.drawn
def test_records_of_its_kind_end_in_its_chapter(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    suite = plugin(tmp_path / "toy_suite")
    result = CliRunner().invoke(main, ["report", str(folder), "--plugin", str(suite)])
    assert result.exit_code == 0, result.output
    page, markdown = unscripted(folder / "report.html"), (folder / "report.md").read_text()
    assert "<h2>Toys &lt;of&gt; all</h2>" in page
    assert '<details class="part" id="toys"' in page
    for text in (page, markdown):
        for told in ("Surprises", "-1.50", "The toys were played with.", "A toy is played with.",
                     "A lead.", "A caption."):  # fmt: skip
            assert told in text
        assert "no chapter shows" not in text
    assert "## Toys &lt;of&gt; all" in markdown
    assert (folder / "figures" / "toys-1-light.png").is_file()


def test_without_it_the_report_says_what_it_does_not_show(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    assert load(folder).warnings == ()
    for file in write_report([folder]):
        text = unscripted(file) if file.suffix == ".html" else file.read_text()
        assert "1 record of kind toy stands in the table of every case alone" in text
        assert "--plugin FOLDER" in text
        assert "Cases of other kinds" in text


def test_an_installed_plug_in_is_found_and_a_broken_one_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "site"
    place.mkdir()
    plugin(place / "toys_of_mine")
    plugin(place / "broken_toys", "1 / 0")
    (place / "one_file_suite.py").touch()
    names = ("toys_of_mine", "broken_toys", "one_file_suite", "no_such_toys")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(
        loading, "entry_points",
        lambda group: [EntryPoint(name, name, group) for name in names],
    )  # fmt: skip
    page = unscripted(write_report([run_folder(tmp_path / "run")], ["html"])[0])
    assert "Toys &lt;of&gt; all" in page
    assert "plug-in broken_toys: " in page
    assert "ZeroDivisionError: division by zero; its chapter is left out" in page
    assert "plug-in no_such_toys: no module named no_such_toys" in page
    assert "one_file_suite" not in page
    chapters, _ = loading.every([place / "toys_of_mine"])
    assert sum(chapter.kinds == ("toy",) for chapter in chapters) == 1, "installed and named"


@pytest.mark.parametrize(
    ("chapter", "says"),
    [
        (None, "chapter.py: no such file"),
        ("import nothing_there", "ModuleNotFoundError: No module named 'nothing_there'"),
        ("CHAPTER = 1", "CHAPTER: expected a results.chapters.ReportChapter, got int"),
    ],
)
def test_a_folder_without_a_chapter_is_refused(
    tmp_path: Path, chapter: str | None, says: str
) -> None:
    folder = plugin(tmp_path / "toys", chapter or "")
    if chapter is None:
        (folder / "chapter.py").unlink()
    with pytest.raises(PluginError, match=says):
        loading.every([folder])


def test_every_chapter_has_its_place_and_its_kinds() -> None:
    chapters = loading.built_in()
    assert len({chapter.order for chapter in chapters}) == len(chapters) == 11
    kinds = [kind for chapter in chapters for kind in chapter.kinds]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("kind", ["", "two words", "1st", "x" * 101, "<b>", 3, None])
def test_a_kind_that_is_no_name_is_refused(tmp_path: Path, kind: object) -> None:
    record = made._record("run", made.MACHINE, made._case("toy", "sdpa", {}), [{"metrics": {}}])
    record["case"]["kind"] = kind
    with pytest.raises(NoRunError, match=r"records.jsonl:1: .*kind"):
        load(made.write_quality(tmp_path, [record]))
