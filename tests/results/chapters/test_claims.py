"""What a run's records say of claims: verdicts, the chapter, and records of strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic
import synthetic_quality as made
from helpers_page import unscripted

from results.analysis.analysis import Analysis
from results.chapters.claims.catalogue import CLAIMS
from results.chapters.claims.chapter import claims_part
from results.chapters.claims.verdicts import claims_table, lines_of, rulings
from results.figures.svg import drawn
from results.records.load import Run, load
from results.report import write_report


def run_of(folder: Path, found: Any = None, shown: Any = None) -> Run:
    return load(made.write_quality(folder, made.claim_records(found, shown)))


def row(run: Run, claim: str) -> dict[Any, Any]:
    (found,) = claims_table(run).query("id == @claim").to_dict("records")
    return dict(found)


def test_verdicts_come_from_the_records(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    table = claims_table(run)
    assert list(table["id"]) == [claim.id for claim in CLAIMS]
    held = row(run, "head-dim")
    assert held["verdict"] == "supported"
    assert (held["value"], held["ci_low"], held["ci_high"]) == (1.0, 1.0, 1.0)
    told = "matmul FLOPs, 8 heads / 1 head: 1; time, 8 heads / 1 head: 1 (0.881 to 1.14); "
    assert f"{held['evidence']}; " == told
    failed = row(run, "dropout-place")
    assert failed["verdict"] == "refuted"
    assert failed["ci_low"] > 1e-3
    others = table[~table["id"].isin(["head-dim", "dropout-place"])]
    assert set(others["verdict"]) == {"not_run"}
    assert others["value"].isna().all()
    assert set(others["evidence"]) == {"not tested in this run"}


def test_values_may_lie_below_zero(tmp_path: Path) -> None:
    values = {
        "residual-norm": {"log10_both": [0.6, 0.61, 0.6], "log10_neither": [-19.0, -19.1, -19.0]}
    }
    run = run_of(tmp_path, values)
    assert run.warnings == ()
    assert row(run, "residual-norm")["verdict"] == "supported"


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"head-dim": {"ops_ratio": [1.0], "time_ratio": [1.0]}})
    assert row(run, "head-dim")["verdict"] == "inconclusive"


def test_seeds_far_apart_decide_nothing(tmp_path: Path) -> None:
    values = {"head-dim": {"ops_ratio": [1.0, 1.0], "time_ratio": [0.7, 1.3]}}
    assert row(run_of(tmp_path, values), "head-dim")["verdict"] == "inconclusive"


def test_a_failed_experiment_says_why(tmp_path: Path) -> None:
    records = made.claim_records()
    for record in records:
        record |= {"status": "unsupported", "reason": "threads: got 1", "arms": []}
    run = load(made.write_quality(tmp_path, records))
    found = row(run, "head-dim")
    assert (found["verdict"], found["evidence"]) == ("not_run", "threads: got 1")


def test_exponents_are_those_of_the_runs_own_calls(tmp_path: Path) -> None:
    speed = synthetic.write_run(tmp_path / "speed")
    claims = made.write_quality(tmp_path / "claims", made.claim_records())
    run = load(speed, claims)
    found = {ruling.claim.id: ruling for ruling in rulings(Analysis(run))}
    exponents = [a for a in found["attention-quadratic"].answers if a.question.backend]
    assert all(a.value is not None for a in exponents)
    for answer in exponents:
        assert answer.value is not None
        assert answer.value.value == pytest.approx(2.0, abs=0.1)
    assert claims_table(load(speed)).empty, "speed alone tests no claim"


@pytest.mark.drawn
def test_the_chapter_has_verdicts_grounds_and_a_figure(tmp_path: Path) -> None:
    part = claims_part(Analysis(run_of(tmp_path)))
    assert part is not None
    (section,) = part.sections
    verdicts, grounds = section.tables
    assert len(verdicts.rows) == len(CLAIMS)
    assert len(grounds.rows) == sum(len(claim.questions) for claim in CLAIMS)
    assert (
        part.answers[0].sentences[0] == f"Of {len(CLAIMS)} claims: 1 supported, 1 refuted, "
        f"{len(CLAIMS) - 2} not run."
    )
    assert part.answers[0].sentences[1] == "Refuted: dropout-place."
    assert len(section.drawings) == 1
    pages = write_report([tmp_path], out=tmp_path / "out")
    html = unscripted(pages[0])
    assert "Claims tested" in html
    assert "claims-1" in html
    assert "Claims tested" in pages[1].read_text()


def test_a_run_without_claims_has_no_chapter(tmp_path: Path) -> None:
    run = load(synthetic.write_run(tmp_path))
    assert claims_part(Analysis(run)) is None
    assert rulings(Analysis(run)) == []


def test_lines_are_medians_over_seeds(tmp_path: Path) -> None:
    records = made.claim_records()
    for factor, record in zip((1, 3), records, strict=False):
        record["arms"][0]["claim"]["lines"] = {"fused": [[8, 2.0 * factor], [1, 1.0 * factor]]}
        record["arms"][0] = {**record["arms"][0], "claim": dict(record["arms"][0]["claim"])}
    records[0]["arms"][0]["claim"] = {"axes": ["x", "y"], "lines": {"a": [[8, 2.0], [1, 1.0]]}}
    records[1]["arms"][0]["claim"] = {"axes": ["x", "y"], "lines": {"a": [[8, 6.0], [1, 3.0]]}}
    run = load(made.write_quality(tmp_path, records))
    assert lines_of(run, "head-dim") == (("x", "y"), {"a": [(1, 2.0), (8, 4.0)]})


@pytest.mark.parametrize(
    "shown",
    [
        {"axes": ["x"], "lines": {}},
        {"axes": "xy", "lines": [1, 2]},
        {"lines": {"a": "b", "c": [[1], [1, "2"], [True, {}]]}},
        {"axes": [1, 2], "lines": {"a": [[1, 2, 3]]}},
        {"axes": ["<script>" * 99, "y"], "lines": {"<b>" * 99: [[1, 2.0], [2, 3.0]]}},
        "nothing",
        None,
    ],
)
def test_what_strangers_write_costs_no_report(tmp_path: Path, shown: Any) -> None:
    records = made.claim_records()
    for record in records:
        record["arms"][0]["claim"] = shown
    (section,) = claims_part(Analysis(load(made.write_quality(tmp_path, records)))).sections
    for figure in section.drawings:
        made_of = drawn(figure.draw)
        assert made_of is None or made_of.inline is None or "<b><b>" not in made_of.inline.svg
