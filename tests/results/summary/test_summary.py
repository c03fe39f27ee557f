"""The first screen: its sentence, its table, where it was measured; for a terminal too."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import synthetic
from matplotlib.figure import Figure
from synthetic import SEVEN, Law

from results.analysis.analysis import Analysis
from results.chapters.loading import every
from results.figures.ends import guides
from results.figures.plot_data import Line, Point, shown
from results.figures.theme import Look
from results.page.cells import ABOVE_PEAK, share_of_peak
from results.recommendation.quality import Evidence, Quality
from results.records.load import load
from results.summary.case import _names
from results.summary.methods import growth
from results.summary.quality_figure import quality_drawing
from results.summary.screen import FirstScreen, first_screen
from results.summary.text import terminal_text
from results.text import numbers

FAST = {name: SEVEN[name] for name in ("full", "sdpa", "xformers", "linformer", "performer")}


def screen(folder: Path, laws: Any = FAST, **settings: Any) -> FirstScreen:
    synthetic.write_run(folder, laws, **{"modes": ("forward",), "noise": 0.01, **settings})
    analysis = Analysis(load(folder))
    parts = [chapter.part(analysis) for chapter in every([])[0]]
    return first_screen(analysis, [part for part in parts if part is not None])


def cells(shown: FirstScreen) -> dict[str, dict[str, str]]:
    """Return a method's cells by their heads, of the first table."""
    table = shown.views[0].table
    return {
        row[0].text: {h.split(" at ")[0]: c.text for h, c in zip(table.head, row, strict=True)}
        for row in table.rows
    }


def test_the_title_says_from_where_on_what_is_faster_and_at_which_cost(tmp_path: Path) -> None:
    """Of those that the evidence that ships is not against."""
    assert screen(tmp_path / "all", SEVEN).title == (
        "Below about 910 tokens take exact attention (sdpa); at 16,384 tokens windows "
        "(longformer, bigbird) are 17–18 × faster, but compute something else"
    )
    assert screen(tmp_path / "poor").title == (
        "At 16,384 tokens only linformer and performer are faster than exact attention (sdpa), "
        "and they learn far less"
    )


@pytest.mark.parametrize(
    ("laws", "settings", "title"),
    [
        (("sdpa", "linformer"), {"lengths": (256, 512)},
         "Up to 512 tokens nothing that was measured is measurably faster than exact attention "),
        (("sdpa", "linformer"), {"lengths": (4096,)},
         "At 4,096 tokens only linformer is faster than exact attention (sdpa), and it learns "),
        (("sdpa", "full"), {"lengths": (4096,)},
         "At 4,096 tokens sdpa is the fastest exact method, 3 × as fast as full"),
        (("linformer", "performer"), {"lengths": (4096,), "noise": 0.0},
         "No exact attention was measured here; at 4,096 tokens linformer is the fastest ("),
        (("longformer", "bigbird"), {"lengths": (4096,), "noise": 0.0},
         "No exact attention was measured here; at 4,096 tokens longformer is the fastest of 2 "),
        (("longformer", "performer"), {"lengths": (4096,), "noise": 0.0},
         "No exact attention was measured here; at 4,096 tokens longformer is the fastest of "),
        (("performer",), {"lengths": (4096,)}, "At 4,096 tokens performer takes "),
    ],
)  # fmt: skip
def test_the_title_claims_no_more_than_was_measured(
    tmp_path: Path, laws: tuple[str, ...], settings: dict[str, Any], title: str
) -> None:
    assert screen(tmp_path, {n: SEVEN[n] for n in laws}, **settings).title.startswith(title)


def test_a_run_without_timed_calls_has_a_title_and_no_views(tmp_path: Path) -> None:
    synthetic.write_peer_run(tmp_path, launches=1)
    analysis = Analysis(load(tmp_path))
    parts = [chapter.part(analysis) for chapter in every([])[0]]
    shown = first_screen(analysis, [part for part in parts if part is not None])
    assert shown.title == "What was measured: other libraries"
    assert shown.views == ()
    assert terminal_text(analysis, 100) == ""


def test_the_table_has_a_row_for_each_method_that_ran(tmp_path: Path) -> None:
    shown = screen(tmp_path)
    rows = cells(shown)
    assert list(rows) == ["sdpa", "full", "linformer", "performer"]  # exact ones, then by time
    assert rows["full"]["time"] == "out of memory"
    assert rows["full"]["faster than sdpa from"] == "not up to 16,384"
    assert {name: row["scaling"] for name, row in rows.items()} == {
        "sdpa": "N²", "full": "N²", "linformer": "N", "performer": "N",
    }  # fmt: skip
    assert rows["sdpa"]["quality"] == "exact"
    assert "bits/byte" in rows["performer"]["quality"]
    (view,) = shown.views
    assert view.not_run == "Did not run here: xformers (xformers needs CUDA)."
    assert [row[0].small for row in view.table.rows] == ["exact"] * 2 + ["approximate"] * 2


def test_a_method_of_unknown_quality_comes_with_the_command_that_measures_it(
    tmp_path: Path,
) -> None:
    shown = screen(tmp_path, {"sdpa": SEVEN["sdpa"], "mine": Law(1e-6, 1.0, error=0.5)})
    assert cells(shown)["mine"]["quality"].startswith("error 0.50 on random")
    notes = " ".join(shown.views[0].table.notes)
    assert "attnbench run error --inputs trained --backend mine" in notes


def test_quality_has_a_tab_where_two_methods_have_evidence_of_one_kind(tmp_path: Path) -> None:
    (view,) = screen(tmp_path).views  # linformer and performer: what ships says what they learn
    quality = view.figures["quality"]
    assert "bits per byte: fewer is better" in quality.caption
    figure = quality.draw()
    assert figure is not None
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["linformer", "performer"]
    assert {text.get_text() for text in ax.texts} == {"3.92", "3.49"}
    laws = {"sdpa": SEVEN["sdpa"], "mine": Law(1e-6, 1.0, error=0.5)}
    (other,) = screen(tmp_path / "mine", laws).views
    assert "quality" not in other.figures


def test_the_figure_of_quality_shows_one_kind_and_names_what_has_none_of_it(
    tmp_path: Path,
) -> None:
    laws = {**FAST, "mine": Law(1e-6, 1.0, error=0.5)}
    (view,) = screen(tmp_path, laws).views
    caption = view.figures["quality"].caption
    assert "a method may come out ahead" in caption
    assert caption.endswith("Of another kind or not known: mine.")
    best = {
        ("a", ""): Evidence("learnt", "bits_per_byte", 2.0, on="language:objective=masked"),
        ("b", ""): Evidence("learnt", "bits_per_byte", 3.0, on="language"),
        ("c", ""): Evidence("learnt", "bits_per_byte", 2.5, on="language:objective=masked"),
    }
    found = {key: Quality("own", (one,)) for key, one in best.items()}
    chapter, comparison = SimpleNamespace(), SimpleNamespace(methods=[
        SimpleNamespace(key=key, label=key[0]) for key in best
    ])  # fmt: skip
    made = quality_drawing("q", chapter, comparison, found)  # type: ignore[arg-type]
    assert made is not None
    assert made.caption.endswith("Of another kind or not known: b.")


def test_a_settings_name_in_the_panel_leaves_out_what_all_share() -> None:
    modes = [
        {"mode": "forward", "setting": "EPYC: float32, 1 thread"},
        {"mode": "forward", "setting": "EPYC: float32, 2 threads"},
        {"mode": "training", "setting": "EPYC: float32, 2 threads"},
    ]
    assert _names(modes) == ["forward, 1 thread", "forward, 2 threads", "training"]


def test_a_guides_words_stand_clear_of_the_lines() -> None:
    """A line that ends where the guide of N does: its words move down the guide."""
    ax = Figure().add_subplot()
    ax.set_xscale("log")
    ax.set_yscale("log")
    rows = pd.DataFrame({"seq_len": [512, 8192], "value": [1.0, 11.2]})
    ax.set_xlim(400, 10_000)
    ax.set_ylim(0.5, 1000)
    points = [Point(512, 3.0), Point(8192, 11.2)]  # 0.7 · 16 at its end
    shown(ax).lines.append(Line("mine", "mine", Look("#000000", "o", ""), points))
    guides(ax, rows)
    (n, squared) = shown(ax).paths
    assert n.place is not None
    assert n.place[0] < 8192
    assert squared.place == squared.points[1]  # nothing is near


def test_the_grey_line_says_where_it_was_measured(tmp_path: Path) -> None:
    assert list(screen(tmp_path).measured) == [
        "CPU Example CPU 2.5 GHz, 2 cores", "attnbench 0.1.0", "torch 2.13.0",
        "float32, batch 1, 8 heads × 64, 2 threads, bidirectional", "forward",
        "3 processes per point", "2026-01-05",
    ]  # fmt: skip


def test_a_noisy_machine_is_said(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, FAST, lengths=(512, 1024))
    records = synthetic.read_records(folder) + synthetic.sentinels([1.0, 1.0, 1.5, 1.5])
    synthetic.write_records(folder, records)
    analysis = Analysis(load(folder))
    parts = [part for c in every([])[0] if (part := c.part(analysis)) is not None]
    assert first_screen(analysis, parts).chips == ["noisy machine"]


def test_warm_ups_that_were_cut_short_are_no_noise(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, FAST, lengths=(512, 1024))
    synthetic.cut_short(folder, "sdpa", 512)
    analysis = Analysis(load(folder))
    parts = [part for c in every([])[0] if (part := c.part(analysis)) is not None]
    assert first_screen(analysis, parts).chips == ["warm-ups cut short"]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_terminal_gets_the_table_in_its_width(tmp_path: Path, width: int) -> None:
    synthetic.write_run(tmp_path, FAST, modes=("forward",))
    text = terminal_text(Analysis(load(tmp_path)), width)
    lines = text.splitlines()
    assert text.count("linformer") >= 2
    assert all(len(line) <= max(width, 78) for line in lines if "Did not" not in line)
    (head,) = [line for line in lines if line.startswith("method")]
    assert ("scaling" in head, "memory" in head) == (width == 160, width == 160)


def fit(exponent: float, half: float = 0.1, **last: float) -> dict[str, float]:
    bounds = {"ci_low": exponent - half, "ci_high": exponent + half}
    unknown = {"local": math.nan, "local_low": math.nan, "local_high": math.nan}
    return {"exponent": exponent, **bounds, **unknown, **last}


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (None, "unresolved"), (fit(1.98), "N²"), (fit(1.06), "N"), (fit(0.03), "constant"),
        (fit(1.5), "N^1.5"), (fit(1.5, 0.3), "unresolved"), (fit(1.0, math.nan), "unresolved"),
        (fit(1.5, local=1.95, local_low=1.9, local_high=2.0), "N²"),
    ],
)  # fmt: skip
def test_growth_is_called_as_its_interval_allows(row: Any, word: str) -> None:
    assert growth(row) == word


@pytest.mark.parametrize(
    ("low", "high", "digits"), [(0.995, 1.005, 3), (0.9, 1.1, 2), (0.4, 2.5, 1), (math.nan, 1, 3)]
)
def test_a_value_has_the_digits_that_its_interval_supports(
    low: float, high: float, digits: int
) -> None:
    assert numbers.supported(1.0, low, high) == digits


def test_no_share_above_all_of_the_peak_is_printed() -> None:
    assert share_of_peak(0.42) == "42 %"
    assert share_of_peak(1.001) == "100 %"
    assert share_of_peak(1.2) == ABOVE_PEAK


@pytest.mark.parametrize(("probe", "raised"), [(0.8, True), (0.5, False)])
def test_a_disturbed_probe_is_raised_to_what_a_case_reached(
    tmp_path: Path, probe: float, raised: bool
) -> None:
    law = Law(1e-8, 2.0, ops=1000.0)  # 1e11 a second
    roof = {**synthetic.ROOF, "matmul_rate": probe * 1e11}
    synthetic.write_run(tmp_path, {"sdpa": law}, noise=0.0, sample_noise=0.0, roof=roof)
    (setting,) = Analysis(load(tmp_path)).settings
    expected = 1e11 if raised else probe * 1e11
    assert setting.peaks["matmul_rate"] == pytest.approx(expected, rel=0.01)
