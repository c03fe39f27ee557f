"""The chapter of peers, on records whose ratios are known."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers_page import unscripted
from synthetic import PAIRS, Beside, write_peer_run, write_run

from results.chapters.peers.figures import peer_figure
from results.chapters.peers.rows import PEER_TABLE, comparisons, peer_chapters
from results.chapters.peers.tables import peer_tables
from results.export.tables import export_table
from results.records.load import load
from results.report import write_report
from results.schema import RECORDS


def rows(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    table = comparisons(load(folder))
    return {(r["peer"], r["mode"], r["allocator"]): r for r in table.to_dict("records")}


def test_ratios_of_a_launch_share_its_noise(tmp_path: Path):
    """Launches differ by half, their ratios do not: the interval is that of the ratios."""
    found = rows(write_peer_run(tmp_path, noise=0.5))
    assert len(found) == 2 * 2 * len(PAIRS)
    row = found["transformers-longformer", "forward", "default"]
    for value in ("ratio", "ratio_low", "ratio_high"):
        assert row[value] == pytest.approx(3.0)
    for value in ("attention_ratio", "attention_low", "attention_high"):
        assert row[value] == pytest.approx(0.25 / 0.05)
    assert row["memory_ratio"] == 16
    assert (row["num_launches"], row["status"], row["reason"]) == (3, "ok", "")


def test_one_launch_gives_no_interval(tmp_path: Path):
    row = rows(write_peer_run(tmp_path, launches=1))["torch-sdpa", "forward", "default"]
    assert row["ratio"] == pytest.approx(1.0)
    assert math.isnan(row["ratio_low"])
    assert math.isnan(row["attention_ratio"])  # nothing to subtract


def test_what_the_peer_claims_is_told(tmp_path: Path):
    found = rows(write_peer_run(tmp_path))
    same = found["torch-sdpa", "forward", "retained"]
    assert (same["same_function"], same["allowed_difference"]) == (True, 7.6e-6)
    other = found["local-attention", "forward", "retained"]
    assert (other["same_function"], other["difference"]) == (False, "sees whole blocks")
    assert other["output_difference"] == 0.5
    assert math.isnan(other["allowed_difference"])
    assert other["library"] == "local-attention 1.0: function"


def test_unsupported_case_has_its_reason_and_no_number(tmp_path: Path):
    row = rows(write_peer_run(tmp_path))["local-attention", "training", "default"]
    assert (row["status"], row["reason"]) == ("unsupported", "no | backward *pass*")
    assert math.isnan(row["ratio"])
    assert row["num_launches"] == 0


def test_projections_as_slow_as_the_layer_leave_no_ratio(tmp_path: Path):
    pair = Beside("longformer", (0.1, 1024), (0.3, 1024), projections=0.1)
    row = rows(write_peer_run(tmp_path, {"x": pair}, noise=0.0))["x", "forward", "default"]
    assert row["ratio"] == pytest.approx(3.0)
    assert math.isnan(row["attention_ratio"])
    assert "the projections took as long as a whole" in row["reason"]


def test_a_strangers_claims_break_nothing(tmp_path: Path):
    write_peer_run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / RECORDS).read_text().splitlines()]
    for line, claim in zip(lines, ["yes", 3, {"same_function": "no"}, {}, None], strict=False):
        line["arms"][1]["peer"] = claim
    (tmp_path / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(comparisons(load(tmp_path))) == 4 * len(PAIRS)
    write_report([tmp_path])


def test_tables_say_what_stands_against_what(tmp_path: Path):
    (chapter,) = peer_chapters(load(write_peer_run(tmp_path)))
    assert chapter.title == "on cpu, float32, batch 1, 8 heads × 64, 2 threads"
    views = {view.title: view for view in peer_tables(chapter)}
    assert set(views) == {
        "sdpa and torch-sdpa",
        "longformer and transformers-longformer, with projections",
        "longformer and local-attention",
        "performer and performer-pytorch, causal",
    }
    local = views["longformer and local-attention"]
    assert "Theirs: local-attention 1.0: function." in local.notes
    assert "They compute different functions: sees whole blocks." in local.notes
    assert "Output difference: relative L2, for inputs of scale 0.3." in local.notes
    assert "training, unsupported: no | backward *pass*." in local.notes
    assert all(len(row) == len(local.head) for row in local.rows)
    layer = views["longformer and transformers-longformer, with projections"]
    assert {row[layer.head.index("attention alone")].text for row in layer.rows} == {"5.00 ×"}


def test_two_precisions_of_products_are_two_chapters(tmp_path: Path):
    slower = {"torch-sdpa": replace(PAIRS["torch-sdpa"], theirs=(0.6, 1 << 23))}
    plain = write_peer_run(tmp_path / "1", {"torch-sdpa": PAIRS["torch-sdpa"]})
    medium = write_peer_run(tmp_path / "2", slower, case={"matmul_precision": "medium"})
    ratios = {
        f"on cpu, float32, matmul precision {name}, batch 1, 8 heads × 64, 2 threads": ratio
        for name, ratio in (("highest", 1.0), ("medium", 3.0))
    }
    found = {c.title: c.rows for c in peer_chapters(load(plain, medium))}
    assert found.keys() == ratios.keys()
    for title, rows in found.items():
        assert len(rows) == 4  # mode by allocator
        assert list(rows["ratio"]) == [pytest.approx(ratios[title])] * 4
        assert rows["matmul_precision"].nunique() == 1


@pytest.mark.drawn
def test_report_has_the_chapter_in_both_forms(tmp_path: Path):
    files = write_report([write_peer_run(tmp_path)])
    page, text = unscripted(files[0]), files[1].read_text()
    assert '<details class="part" id="peers"' in page
    assert page.count("<svg") == 1
    assert "transformers-longformer" in page
    assert "## Other libraries" in text
    assert "no \\| backward \\*pass\\*" in text
    files = re.findall(r"figures/peers-1-(?:dark|light)\.png", text)
    assert len(files) == 2
    assert all((tmp_path / file).stat().st_size > 1000 for file in files)
    assert "## Tables" not in text
    assert 'id="tables"' not in page
    assert 'href="#tables"' not in page


def test_report_without_peers_has_no_such_chapter(tmp_path: Path):
    page, text = (p.read_text() for p in write_report([write_run(tmp_path, launches=1)]))
    assert 'id="peers"' not in page
    assert "## Peers" not in text
    assert "## Tables" in text


def test_peers_and_speed_cases_of_one_report_do_not_mix(tmp_path: Path):
    speed = write_run(tmp_path / "speed", launches=2)
    both = load(speed, write_peer_run(tmp_path / "peers"))
    assert export_table(load(speed), "cases", "csv") == export_table(both, "cases", "csv")
    assert len(comparisons(both)) == 4 * len(PAIRS)


def test_figure_has_a_dot_per_case_and_a_dotted_line_at_one(tmp_path: Path):
    (chapter,) = peer_chapters(load(write_peer_run(tmp_path)))
    figure = peer_figure(chapter)
    assert figure is not None
    forward, training = figure.axes
    assert forward.get_xscale() == "log"
    labels = [t.get_text() for t in forward.get_yticklabels()]
    assert "longformer | transformers-longformer\nattention alone" in labels
    assert "performer | performer-pytorch causal" in labels
    dots = [line for line in forward.lines if line.get_marker() in ("o", "D")]
    assert len(dots) == 2 * (len(PAIRS) + 1)
    ones = [line for line in training.lines if set(line.get_xdata()) == {1.0}]
    assert len(ones) >= 1
    low, high = forward.get_xlim()
    assert low < 1 < 28 < high


@pytest.mark.drawn
def test_nothing_measured_nothing_drawn(tmp_path: Path):
    failed = dict.fromkeys(("forward", "training"), ("failed", "a reason"))
    pairs = {name: replace(pair, fails=failed) for name, pair in PAIRS.items()}
    (chapter,) = peer_chapters(load(write_peer_run(tmp_path, pairs)))
    assert peer_figure(chapter) is None
    assert "## Other libraries" in write_report([tmp_path], formats=["md"])[0].read_text()


def test_export_has_the_documented_columns(tmp_path: Path):
    text = export_table(load(write_peer_run(tmp_path)), "peers", "json")
    assert text is not None
    told = json.loads(text)
    assert list(told[0]) == [*PEER_TABLE, "machine", "environment"]
    assert {row["peer"] for row in told} == set(PAIRS)
    assert all(row["ratio"] is None for row in told if row["status"] != "ok")
