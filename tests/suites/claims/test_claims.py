"""Claims: the table, the verdicts, the experiments and the sweep that tests them."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from results.chapters.claims.catalogue import CLAIMS, Question
from results.chapters.claims.verdicts import (
    CLAIMS_TABLE,
    Answer,
    _judged,
    _verdict,
    claims_table,
    in_words,
)
from results.records.load import Run
from results.schema import CLAIM, Arm, Case
from results.statistics.intervals import Estimate
from suites.claims import learning
from suites.claims.experiments import Lab, experiments, slope
from suites.claims.sequential import longest_chain
from suites.claims.suite import EXPERIMENTS, SCALING
from suites.plan import cases, order, plan_sweep
from suites.worker.run import answer

DOCS = Path(__file__).parents[3] / "docs"
BY_ID = {claim.id: claim for claim in CLAIMS}

LAB = Lab(seed=0, device="cpu", threads=1, budget_s=0.005)

# -- the table ---------------------------------------------------------------------------------


def test_every_claim_has_what_its_questions_ask() -> None:
    assert len(BY_ID) == len(CLAIMS)
    assert set(EXPERIMENTS) | set(SCALING) == set(BY_ID)
    assert sorted(EXPERIMENTS) == sorted(experiments())
    for claim in CLAIMS:
        assert any(q.decides for q in claim.questions), claim.id
        assert any(q.name for q in claim.questions) == (claim.id in EXPERIMENTS), claim.id
        asked = {(q.backend, q.is_causal) for q in claim.questions if q.backend}
        measured = {(row.backend, row.is_causal) for row in SCALING.get(claim.id, ())}
        assert asked <= measured, claim.id
        for question in claim.questions:
            assert bool(question.name) != bool(question.backend), claim.id


@pytest.mark.parametrize(
    ("low", "high", "value", "verdict"),
    [
        (1.0, 2.0, (1.5, 1.2, 1.8), "supported"),
        (1.0, 2.0, (1.0, 1.0, 2.0), "supported"),
        (1.0, 2.0, (1.5, 0.9, 1.8), "inconclusive"),
        (1.0, 2.0, (2.5, 1.9, 3.0), "inconclusive"),
        (1.0, 2.0, (2.5, 2.1, 3.0), "refuted"),
        (1.0, 2.0, (0.5, 0.1, 0.9), "refuted"),
        (-math.inf, 2.0, (0.5, -9.0, 0.9), "supported"),
        (1.0, math.inf, (5.0, 4.0, 1e9), "supported"),
        (1.0, 2.0, (1.5, math.nan, math.nan), "inconclusive"),
        (-math.inf, math.inf, (1.5, 1.4, 1.6), "inconclusive"),
    ],
)
def test_a_question_is_answered_by_where_its_interval_lies(
    low: float, high: float, value: tuple[float, float, float], verdict: str
) -> None:
    assert _judged(Question("x", "x", low, high), Estimate(*value)) == verdict


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported", "not_run"], "inconclusive"),
        (["refuted", "supported", "not_run"], "refuted"),
        (["not_run", "not_run"], "not_run"),
    ],
)
def test_a_claim_is_judged_by_its_questions(given: list[Any], verdict: str) -> None:
    told = Answer(Question("told", "told"), "inconclusive", Estimate(1.0, 1.0, 1.0))
    answers = [Answer(Question("x", "x", low=0.0), one, None) for one in given]
    assert _verdict([told, *answers]) == verdict


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Estimate(1.234, 1.2, 1.26), "1.23 (1.2 to 1.26)"),
        (Estimate(2.0, 2.0, 2.0), "2"),
        (Estimate(3e-7, math.nan, math.nan), "3.0e-07"),
        (Estimate(12345.6, 12000.0, 13000.0), "12,346 (12,000 to 13,000)"),
        (None, "not measured"),
    ],
)
def test_values_are_written_with_their_interval(value: Estimate | None, words: str) -> None:
    assert in_words(value) == words


# -- the sweep ---------------------------------------------------------------------------------


def test_an_experiments_launches_are_its_seeds() -> None:
    grid = plan_sweep(None, suite="claims", claims=("sqrt-dk", "low-rank-linear"), launches=2)
    items = order(grid, cases(grid))
    own = [(i.case.seed, i.launch) for i in items if i.case.kind == CLAIM]
    assert sorted(own) == [(0, 0), (1, 0)]
    speed = [i for i in items if i.case.kind == "speed"]
    assert len(speed) == 2 * 4
    assert {i.case.arms[0].name for i in speed} == {"linformer"}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"claims": ("sqrt-dc",)}, r"claim: no claim 'sqrt-dc' \(did you mean 'sqrt-dk'\?\)"),
        ({"preset": "full"}, "preset: expected one of quick, standard in suite claims"),
        ({"backends": (Arm("sdpa"),)}, "backend: an experiment has its own"),
        ({"is_causal": True}, "causal: an experiment has its own"),
        ({"suite": "speed", "claims": ("sqrt-dk",)}, "claim: only with suite claims"),
    ],
)
def test_misuse_is_named(chosen: dict[str, Any], message: str) -> None:
    preset = chosen.pop("preset", None)
    with pytest.raises(ValueError, match=message):
        plan_sweep(preset, **{"suite": "claims", **chosen})


# -- the experiments ---------------------------------------------------------------------------


def case_of(claim: str, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "kind": CLAIM, "level": "attention", "mode": "forward", "arms": (Arm(CLAIM),), "batch": 1,
        "num_heads": 0, "num_kv_heads": 0, "head_dim": 0, "seq_len": 0, "key_len": 0,
        "device": "cpu", "dtype": "float32", "is_causal": False, "threads": 1,
        "allocator": "default", "compile": False, "seed": 0, "task": claim,
    }  # fmt: skip
    return Case(**{**values, **changes})


def ask(case: Case) -> dict[str, Any]:
    request = {"do": "case", "case": case.to_json(), "budget_s": 0.005, "deadline_s": 300.0}
    threads = torch.get_num_threads()
    try:
        found = answer({**request, "memory_limit": None, "plugins": []})["record"]
    finally:
        torch.set_num_threads(threads)
    assert isinstance(found, dict)
    return found


TRAINED = ("long-range", "shared-qk", "sinusoidal", "quantization", "objectives")


@pytest.mark.slow
@pytest.mark.parametrize(
    "claim", [c for c in EXPERIMENTS if c not in (*TRAINED, "rnn-sequential")]
)
def test_experiments_find_what_is_asked(claim: str) -> None:
    found = ask(case_of(claim))
    assert found["status"] == "ok", found["reason"]
    metrics = found["arms"][0]["metrics"]
    asked = {question.name for question in BY_ID[claim].questions if question.name}
    assert asked <= set(metrics)
    shown = found["arms"][0]["claim"]
    assert all(len(point) == 2 for line in shown["lines"].values() for point in line)
    assert bool(shown["lines"]) == bool(shown["axes"][0])


@pytest.mark.slow
@pytest.mark.parametrize("claim", TRAINED)
def test_experiments_that_train_find_what_is_asked(
    claim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shortened: what is learnt by then is no claim's business here."""
    monkeypatch.setattr(learning, "RECALL_STEPS", "steps:amount=5,lr=0.002")
    for name in ("POSITIONS_STEPS", "WEIGHTS_STEPS", "OBJECTIVES_STEPS"):
        monkeypatch.setattr(learning, name, 5)
    found = ask(case_of(claim))
    assert found["status"] in ("ok", "unsupported"), found["reason"]
    if found["status"] == "unsupported":
        assert "torchao" in found["reason"]
        return
    asked = {question.name for question in BY_ID[claim].questions if question.name}
    assert asked <= set(found["arms"][0]["metrics"])


def test_one_thread_cannot_test_what_compares_threads() -> None:
    found = ask(case_of("rnn-sequential"))
    assert found["status"] == "unsupported"
    assert found["reason"] == "threads: it compares one thread with several; got 1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "name", "verdict"),
    [
        ("causal-mask", "largest_change", "supported"),
        ("dropout-eval", "largest_change_eval", "supported"),
        ("dropout-place", "row_sums_deviation_fused", "refuted"),
        ("order-blind", "change_without_positions", "supported"),
        ("layernorm-batch", "batch_norm_change", "supported"),
        ("ffn-nonlinear", "with_feed_forward_error", "supported"),
        ("sequential-depth", "lstm_exponent", "supported"),
        ("sequential-depth", "attention_exponent", "supported"),
        ("sparse-nlogn", "longformer_to_nlogn", "refuted"),
        ("sqrt-dk", "gradient_ratio", "supported"),
        ("head-dim", "ops_ratio", "supported"),
        ("dropout-eval", "smallest_change_training", "supported"),
        ("residual-norm", "log10_both", "supported"),
        ("residual-norm", "log10_neither", "supported"),
        ("rnn-vanishing", "log10_apart", "supported"),
        ("decode-state", "longformer_bytes_ratio", "supported"),
        ("decode-state", "performer_bytes_ratio", "supported"),
    ],
)
def test_what_theory_knows_is_found(claim: str, name: str, verdict: str) -> None:
    """These depend on no clock: a defect of an experiment would show as another verdict."""
    question = next(q for q in BY_ID[claim].questions if q.name == name)
    values = [experiments()[claim](Lab(seed, "cpu", 1, 0.005)).values[name] for seed in (0, 1)]
    both = Estimate(values[0], min(values), max(values))
    assert _judged(question, both) == verdict


@pytest.mark.slow
def test_the_same_seed_finds_the_same() -> None:
    for claim in ("sqrt-dk", "rnn-vanishing", "causal-mask", "dropout-place"):
        one, two = (experiments()[claim](LAB).values for _ in range(2))
        assert one == two, claim
    other = Lab(seed=1, device="cpu", threads=1, budget_s=0.005)
    assert experiments()["sqrt-dk"](LAB).values != experiments()["sqrt-dk"](other).values


def test_slopes_are_exponents() -> None:
    assert slope([(x, 3.0 * x**1.7) for x in (1, 4, 16)]) == pytest.approx(1.7)


def test_the_longest_chain_of_a_graph() -> None:
    x = torch.ones(2, requires_grad=True)
    assert longest_chain(x * 2) == 2  # the product, and where x's gradient is added up
    y = x * 2
    assert longest_chain(y + (y * 3) * 4) == 5
    long = x
    for _ in range(2000):
        long = long * 1.0
    assert longest_chain(long) == 2001


# -- the records -------------------------------------------------------------------------------


def run_of(rows: list[dict[str, Any]]) -> Run:
    columns = ["kind", "task", "status", "reason", "metric", "value"]
    return Run(pd.DataFrame(rows, columns=columns), (), {}, {})


def test_no_claims_no_rows() -> None:
    assert claims_table(run_of([])).empty
    assert list(claims_table(run_of([])).columns) == list(CLAIMS_TABLE)


@pytest.mark.slow
def test_the_pages_are_those_of_the_reference_records() -> None:
    spec = importlib.util.spec_from_file_location("build_claims", DOCS / "build_claims.py")
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    for page, text in builder.pages().items():
        assert page.read_text() == text, "run: python docs/build_claims.py"
