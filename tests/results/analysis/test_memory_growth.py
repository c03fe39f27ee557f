"""How memory grows: the verdicts, the lengths that count, and what is said of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from results.analysis.analysis import Analysis
from results.analysis.memory_growth import judge
from results.analysis.series import points
from results.chapters.speed.memory_growth import memory_growth, memory_table
from results.chapters.speed.rows import chapters
from results.chapters.speed.sentences import summarise
from results.chapters.speed.tables import tables
from results.export.tables import cases
from results.recommendation.recommend import recommend
from results.records.load import load
from results.text.memory_growth import sentences

QUICK = (1024, 2048, 4096, 8192)
REFERENCE = Path(__file__).parents[3] / "results" / "reference"


def curve(constant: float, exponent: float) -> list[float]:
    return [2**20 * (constant + (n / QUICK[0]) ** exponent) for n in QUICK]


@pytest.mark.parametrize("expected", [1.0, 2.0])
@pytest.mark.parametrize("truth", [1.0, 2.0])
@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_linear_and_quadratic_are_told_apart(
    expected: float, truth: float, constant: float
) -> None:
    off = np.array([1.01, 0.99, 1.01, 0.99])
    growth = judge(QUICK, list(off * curve(constant, truth)), expected)
    assert growth.growth == ("declared" if truth == expected else "otherwise")
    least = growth.miss if truth == expected else growth.other_miss
    assert least < 0.011
    assert growth.other == 3 - expected


def test_what_is_declared_not_to_grow_stands_against_what_grows() -> None:
    assert judge(QUICK, [2.0**20] * 4, 0.0).growth == "declared"
    growth = judge(QUICK, curve(0.0, 1.0), 0.0)
    assert (growth.growth, growth.other) == ("otherwise", 1.0)


def test_peaks_off_every_curve_are_irregular() -> None:
    growth = judge(QUICK, [2e6, 9e6, 6e6, 2.2e7], 1.0)
    assert growth.growth == "irregular"
    assert math.isnan(growth.ci_low)
    assert "wider than ±0.25" in growth.reason
    hidden = judge(QUICK, curve(300.0, 2.0), 1.0)  # all but a constant: either curve fits
    assert hidden.growth == "irregular"
    assert hidden.other_miss < 0.05


def test_a_growth_between_two_forms_is_neither() -> None:
    assert judge(QUICK, curve(0.0, 1.4), 1.0).growth == "irregular"


@pytest.mark.parametrize("lengths", [(1024,), (1024, 8192), (1024, 2048, 4096)])
def test_too_few_lengths_are_not_judged(lengths: tuple[int, ...]) -> None:
    growth = judge(lengths, [float(n) for n in lengths], 1.0)
    assert growth.growth == ""
    assert "length" in growth.reason


def test_lengths_that_count(tmp_path: Path) -> None:
    laws = {
        "sdpa": synthetic.Law(1e-9, 2.0, memory=(2048.0, 1.0)),  # 1 MiB at 512, 2 MiB at 1024
        "longformer": synthetic.Law(1e-6, 1.0, extra={"fixed_size": {"window": 513}}),
    }
    analysis = Analysis(load(synthetic.write_run(tmp_path, laws)))
    fits = analysis.fits[analysis.fits["metric"] == "peak_memory"].set_index(["backend", "mode"])
    assert fits.loc[("sdpa", "forward"), "seq_len_min"] == 2048
    assert fits.loc[("longformer", "forward"), "seq_len_min"] == 1024
    assert set(fits["growth"]) == {"declared"}


def test_what_is_said() -> None:
    rows = [
        ("sdpa", vars(judge(QUICK, curve(1.0, 1.0), 1.0))),
        ("full", vars(judge(QUICK, curve(1.0, 2.0), 2.0))),
        ("odd", vars(judge(QUICK, curve(1.0, 2.0), 1.0))),
        ("rough", vars(judge(QUICK, [2e6, 9e6, 6e6, 2.2e7], 1.0))),
        ("short", vars(judge(QUICK[:2], [1e6, 2e6], 1.0))),
        ("flat", vars(judge(QUICK, [2.0**20] * 4, 0.0))),
    ]
    told = sentences(rows)
    assert len(told) == 4, "rough and short stand in the table alone"
    assert told[0] == "Memory is constant, as declared within 0.1 %: flat."
    assert told[1] == "Memory grows as declared, a + c·N within 0.1 %: sdpa."
    assert told[2] == "Memory grows as declared, a + c·N² within 0.1 %: full."
    assert told[3].startswith("Memory does not grow as declared: odd as a + c·N², largest")


@pytest.mark.parametrize(
    ("folder", "irregular"),
    [
        ("epyc-2-cores/speed", set()),
        ("epyc-2-cores/scaling", set()),
        ("epyc-2-cores/million", set()),
        ("epyc-2-cores/decode", set()),
    ],
)
def test_what_the_shipped_runs_say(folder: str, irregular: set[tuple[str, str]]) -> None:
    fits = Analysis(load(REFERENCE / folder)).fits
    memory = fits[fits["metric"].isin(["peak_memory", "state_bytes"]) & fits["exponent"].notna()]
    memory = memory[memory["growth"] != ""]  # of fewer lengths than a verdict takes
    verdicts = memory.groupby("growth")
    assert set(memory["growth"]) <= {"declared", "irregular"}
    rough = memory[memory["growth"] == "irregular"]
    assert set(zip(rough["backend"], rough["mode"], strict=True)) == irregular
    assert len(verdicts.get_group("declared")) >= 5


def test_in_powers_of_two_every_method_is_as_declared() -> None:
    """The lengths that the presets measure: what 1,536 tokens blur is told there."""
    table = points(load(REFERENCE / "epyc-2-cores/speed"))
    peaks = table[(table["metric"] == "peak_memory") & table["seq_len"].isin(QUICK)]
    series = peaks[peaks["value"].notna()].groupby(["backend", "mode"])
    assert len(series) == 12
    for _, part in series:
        growth = judge(
            [int(n) for n in part["seq_len"]], list(part["value"]),
            float(part["expected_memory"].iloc[0]),
        )  # fmt: skip
        assert growth.growth == "declared"


def test_table_and_sentences_of_a_chapter(tmp_path: Path) -> None:
    (chapter,) = chapters(Analysis(load(synthetic.write_run(tmp_path))))
    told = memory_growth(chapter, "forward")
    assert [s.split(":")[0] for s in told] == [
        "Memory grows as declared, a + c·N within 0.1 %",
        "Memory grows as declared, a + c·N² within 0.1 %",
    ]
    view = memory_table(chapter)
    cells = [[getattr(cell, "text", cell) for cell in row] for row in view.rows]
    own = next(row for row in cells if row[:2] == ["full", "forward"])
    assert own[2:6] == ["a + c·N²", "as declared", "0.1 %", "a + c·N"]


@pytest.fixture
def longer(tmp_path: Path) -> Path:
    """A run whose longest length has memory alone, of one launch."""
    folder = synthetic.write_run(tmp_path / "run", lengths=(512, 1024, 2048, 4096, 8192))
    file = folder / "records.jsonl"
    kept = []
    for record in map(json.loads, file.read_text().splitlines()):
        if record["case"]["kind"] == "speed" and record["case"]["seq_len"] == 8192:
            if record["launch"]["index"] or record["case"]["arms"][0]["name"] in (
                "full", "xformers",
            ):  # fmt: skip
                continue
            for arm in record["arms"]:
                arm["metrics"] = {"peak_memory": arm["metrics"]["peak_memory"]}
        kept.append(json.dumps(record))
    file.write_text("\n".join(kept) + "\n")
    return folder


def test_a_length_with_memory_alone_has_no_time_and_did_not_fail(longer: Path) -> None:
    (chapter,) = chapters(Analysis(load(longer)))
    rows = chapter.points[chapter.points["seq_len"] == 8192]
    rows = rows[rows["backend"] == "linformer"]
    assert set(rows["metric"]) == {"peak_memory"}
    assert set(rows["status"]) == {"ok"}
    reach = chapter.feasible.set_index(["backend", "mode"]).loc[("linformer", "forward")]
    assert reach["seq_len"] == 4096
    assert pd.isna(reach["next_len"])
    fits = chapter.fits.set_index(["backend", "mode", "metric"])
    assert fits.loc[("linformer", "forward", "latency"), "seq_len_max"] == 4096
    assert fits.loc[("linformer", "forward", "peak_memory"), "seq_len_max"] == 8192


def test_tables_and_answers_where_memory_alone_was_measured(longer: Path) -> None:
    analysis = Analysis(load(longer))
    (chapter,) = chapters(analysis)
    by_title = {view.title: view for view in tables(chapter)}
    assert "8,192" not in by_title["Time per call, forward"].head
    assert "8,192" in by_title["Peak memory above the inputs, forward"].head
    text = " ".join(s for paragraph in summarise(chapter) for s in paragraph.sentences)
    assert "Least memory at 4,096 tokens" in text  # full has none at 8192
    export = cases(analysis.run)
    long = export[(export["seq_len"] == 8192) & (export["backend"] == "linformer")]
    assert set(long["metric"]) == {"peak_memory"}
    answer = recommend(analysis.run.frame, seq_len=8192, mode="forward", device="cpu")
    assert {c.latency.basis for c in answer.ranking.candidates if c.latency.known} == {"predicted"}
    assert max(answer.ranking.lengths) == 4096
