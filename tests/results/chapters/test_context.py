"""What a run's records say of one sequence over several ranks: numbers, tables, the chapter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import synthetic
import synthetic_quality as made
from helpers_page import unscripted

from results.analysis.analysis import Analysis
from results.analysis.series import points
from results.chapters.context_parallel.chapter import HEADING, context_part
from results.chapters.context_parallel.rows import (
    context_chapters,
    context_table,
    speed_up,
    weak_efficiency,
)
from results.export.asv import export_asv
from results.page.blocks import Part
from results.records.load import Run, load
from results.report import write_report

LAWS: dict[str, Any] = {
    "sdpa": lambda ranks, n: (1e-9 * n * n / ranks + 1e-3, (ranks - 1) * n * 4096),
    "performer": lambda ranks, n: (1e-6 * n / ranks + 1e-3, (ranks - 1) * ranks * 540_672),
}


def run_of(folder: Path, laws: Any = None, **more: Any) -> Run:
    records = made.context_records(LAWS if laws is None else laws, **more)
    return load(made.write_quality(folder, records))


def part_of(run: Run) -> Part:
    part = context_part(Analysis(run))
    assert part is not None
    return part


def cells(run: Run, title: str) -> dict[tuple[str, ...], list[Any]]:
    (section,) = part_of(run).sections
    (view,) = (v for v in section.tables if v.title.startswith(title))
    width = 3 if title == "Bytes" else 2
    return {tuple(c.text for c in row[:width]): row[width:] for row in view.rows}


def test_numbers_are_those_of_the_records(tmp_path: Path) -> None:
    (chapter,) = context_chapters(run_of(tmp_path))
    row = chapter.at("sdpa", "", 4, 4096)
    assert row is not None
    mean = (1.01 * 1.02) ** (1 / 3)  # geometric, of launches that take 1, 1.01 and 1.02
    assert row["latency"] == pytest.approx((1e-9 * 4096**2 / 4 + 1e-3) * mean)
    assert (row["forward"], row["formula"], row["exchanged"]) == (
        3 * 4096 * 4096, 3 * 4096 * 4096, 6 * 4096 * 4096
    )  # fmt: skip
    assert row["memory"] == 4096 * 4096 // 4
    faster = speed_up(chapter, row)
    assert faster is not None
    assert faster.value == pytest.approx((1e-9 * 4096**2 + 1e-3) / (1e-9 * 4096**2 / 4 + 1e-3))
    assert faster.low < faster.value < faster.high
    share = weak_efficiency(chapter, row)
    assert share is not None
    assert share.value == pytest.approx((1e-9 * 1024**2 + 1e-3) / (1e-9 * 4096**2 / 4 + 1e-3))
    assert chapter.at("sdpa", "", 8, 4096) is None


def test_tables_show_both_scalings_and_the_bytes(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    strong = cells(run, "Strong")["sdpa", "4,096"]
    assert [c.text for c in strong] == ["18.0 ms", "9.48 ms", "5.25 ms", "16.0 MiB", "4.00 MiB"]
    assert strong[0].small == ""
    assert strong[2].small.startswith("3.42 ×")
    weak = cells(run, "Weak")["performer", "1,024"]
    assert [c.text for c in weak] == ["2.04 ms"] * 3
    assert [c.small for c in weak] == ["", "100 %", "100 %"]
    sent = cells(run, "Bytes")["performer", "4", "1,024"]
    assert [c.text for c in sent[:4]] == ["6.19 KiB", "6.19 KiB", "12.4 KiB", "12.4 MiB"]


def test_sentences_hold_the_count_against_the_formula(tmp_path: Path) -> None:
    (answer,) = part_of(run_of(tmp_path / "a")).answers
    assert answer.sentences[0].startswith("Bytes exchanged per token, in a training step on 4,096")
    assert answer.sentences[0].index("performer") < answer.sentences[0].index("sdpa")
    assert "match the formula in all 12 cases" in answer.sentences[1]
    (other,) = part_of(run_of(tmp_path / "b", formula=0.5)).answers
    assert "In 12 of 12 cases" in other.sentences[1]
    assert "differ from the formula" in other.sentences[1]


def test_what_failed_has_its_status_and_reason(tmp_path: Path) -> None:
    why = "attention: bigbird cannot be cut over ranks"
    run = run_of(tmp_path, fails={"bigbird": ("unsupported", why)})
    assert [c.is_status for c in cells(run, "Strong")["bigbird", "1,024"][:3]] == [True] * 3
    assert cells(run, "Bytes")["bigbird", "2", "1,024"][-1].text == why
    alone = run_of(tmp_path / "alone", {"sdpa": LAWS["sdpa"]}, ranks=(1,))
    assert part_of(alone).sections[0].drawings[0].draw() is None
    nothing = run_of(tmp_path / "x", {}, fails={"bigbird": ("unsupported", why)})
    (section,) = part_of(nothing).sections
    assert section.drawings[0].draw() is None
    assert part_of(nothing).answers == []


@pytest.mark.drawn
def test_the_report_has_the_chapter_and_says_that_cores_are_shared(tmp_path: Path) -> None:
    run_of(tmp_path)
    page, markdown = (p.read_text() for p in write_report([tmp_path], out=tmp_path / "out"))
    for text in (unscripted(page), markdown):
        assert HEADING in text
        assert "the ranks share cores" in text
        assert "Weak scaling: constant tokens per rank" in text
    assert (tmp_path / "out" / "figures" / "ranks-1-light.png").exists()


def test_speed_chapters_know_nothing_of_it(tmp_path: Path) -> None:
    alone = synthetic.write_run(tmp_path / "speed")
    both = load(alone, made.write_quality(tmp_path / "ranks", made.context_records(LAWS)))
    columns = ["backend", "mode", "seq_len", "metric", "value"]
    expected = points(load(alone))[columns]
    assert points(both)[columns].equals(expected)
    assert set(expected["mode"]) == {"forward", "training"}


def test_the_table_is_tidy(tmp_path: Path) -> None:
    table = context_table(run_of(tmp_path))
    assert len(table) == 2 * 3 * 3
    row = table.query("backend == 'performer' and ranks == 2 and seq_len == 2048").iloc[0]
    assert (row["forward"], row["device"], row["num_heads"]) == (2 * 540_672, "cpu", 8)
    assert math.isfinite(row["low"])
    assert context_table(load(synthetic.write_run(tmp_path / "none"))).empty


def test_asv_gets_what_is_of_kind_speed_alone(tmp_path: Path) -> None:
    synthetic.write_run(tmp_path / "run")
    folder = made.write_quality(tmp_path / "ranks", made.context_records(LAWS))
    export_asv(load(tmp_path / "run", folder), tmp_path / "out")
    assert "context_parallel" not in "".join(
        f.read_text() for f in (tmp_path / "out").rglob("*.json")
    )
