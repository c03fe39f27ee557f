"""What the page's *your case* picks from: the answers of the command, at every length."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from helpers_recommend import FOUR, LENGTHS, Law, a_run

from results.analysis.series import points
from results.recommendation.commands import plugins_of
from results.recommendation.page_answers import as_data, grid, groups, tables
from results.recommendation.recommend import recommend
from results.records.load import Run, load


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    laws = {**FOUR, "bigbird": Law(3e-5, 1.0, error=0.2, memory=(3000.0, 1.0)),
            "mine": Law(1e-6, 1.0, error=0.4, memory=(3000.0, 1.0))}  # fmt: skip
    return load(a_run(tmp_path_factory.mktemp("page"), laws, lengths=LENGTHS))


@pytest.fixture(scope="module")
def mode(run: Run) -> dict[str, Any]:
    data = as_data(groups(run, points(run)))
    (mode,) = json.loads(json.dumps(data, allow_nan=False))["modes"]
    return dict(mode)


def test_the_grid_has_eight_lengths_a_doubling_and_goes_a_little_beyond() -> None:
    got = grid([512, 1536, 4096])
    assert (got[0], got[-1], len(got)) == (256, 8192, 5 * 8 + 4)
    assert {512, 1536, 4096} <= set(got)
    assert max(b / a for a, b in itertools.pairwise(got)) < 1.13


def test_a_candidate_has_all_that_the_page_shows(mode: dict[str, Any]) -> None:
    assert (mode["mode"], mode["device"], mode["causal"]) == ("forward", "cpu", False)
    assert mode["setting"].endswith("float32, batch 1, 8 heads × 64, 2 threads")
    (point,) = (p for p in mode["points"] if p["n"] == 4096)
    by_name = {c["name"]: c for c in point["candidates"]}
    got = by_name["longformer"]
    assert list(got) == [
        "name", "options", "type", "uses", "seconds", "time", "memory_bytes", "memory", "speedup",
        "warning", "quality", "brief", "basis", "code",
    ]  # fmt: skip
    assert (got["type"], got["uses"]) == ("sparse", ["swap", "finetune", "scratch"])
    assert got["speedup"].endswith(") as fast as sdpa")
    assert got["quality"].startswith("masked text 1.97 bits/byte, sdpa 2.08 (256 tokens, window=")
    assert len(got["code"].splitlines()) == 6
    assert by_name["sdpa"]["speedup"] == ""
    assert by_name["mine"]["uses"] == []  # faster, but its quality was not measured
    assert list(by_name)[-1] == "mine"
    assert "linformer" not in by_name  # its quality is poor
    assert point["other"] == "known to learn far less: linformer and performer"
    assert point["exact"] == ""


@pytest.mark.parametrize("use", ["swap", "finetune", "scratch"])
@pytest.mark.parametrize("most", [None, 13_000_000])
def test_the_script_picks_what_the_command_answers(
    run: Run, mode: dict[str, Any], use: str, most: int | None
) -> None:
    for point in mode["points"][:: len(mode["points"]) // 4]:
        fits = [
            c for c in point["candidates"]
            if use in c["uses"] and (most is None or c["memory_bytes"] <= most)
        ]  # fmt: skip
        picked = [
            next((c["name"] for c in fits if (c["type"] == "exact") == exact), None)
            for exact in (True, False)
        ]
        found = recommend(run.frame, seq_len=point["n"], use=use, max_memory=most)
        assert picked == [a.backend if a else None for a in (found.exact, found.other)]


def test_without_scripts_there_is_a_table_of_measured_lengths(run: Run) -> None:
    (view,) = tables(groups(run, points(run)))
    assert len(view.rows) == len(LENGTHS)
    assert [cell.text for cell in view.rows[-1]][2:5:2] == ["sdpa", "longformer"]


def test_the_files_of_plug_ins_are_those_that_the_runs_named() -> None:
    ran = [("attnbench", "run", "--plugin", "a.py", "--plugin", "b"), ("run", "--plugin", "a.py")]
    assert plugins_of(ran) == (Path("a.py"), Path("b"))
    assert plugins_of([()]) == ()
