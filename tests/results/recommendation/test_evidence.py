"""Quality: which evidence counts, in which words, what it is good for; the answers that ship."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers_recommend import a_run, add_errors, add_recall, frame_of
from synthetic import MACHINE

import results
from results.recommendation.candidates import shipped_evidence
from results.recommendation.evidence import Evidences
from results.recommendation.quality import SPEED_INPUTS, Evidence, Quality, serves
from results.recommendation.ranking import Recommendation
from results.records.load import load
from results.records.reference_runs import reference_folders
from results.text.method_types import is_rounding, method_type, needs_training
from suites.measure.gate import INPUT_SCALE

GOOD, WEAK = (0.99, 1.0, 0.98), (0.31, 0.35, 0.28)


def quality(run: Path, backend: str, options: str = "", **asked: Any) -> Quality:
    return Evidences(frame_of(run)).quality(backend, options, **{"is_causal": False, **asked})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return a_run(tmp_path / "run")


# -- types ---------------------------------------------------------------------------------------


def test_ours_are_known_by_name_and_a_plug_in_by_its_error() -> None:
    assert [method_type(n, "") for n in ("full", "sdpa", "longformer", "performer", "lstm")] == [
        "exact", "exact", "sparse", "approximate", "own",
    ]  # fmt: skip
    assert method_type("sdpa", "kernel=flash,sink=true") == "approximate"  # no drop-in
    assert (method_type("mine", ""), method_type("mine", "", is_exact=True)) == ("own", "exact")
    # An approximation may be near: above the rounding of float32, below that of bfloat16.
    assert [is_rounding(5e-4, dtype) for dtype in ("float32", "float16", "bfloat16")] == [
        False, True, True,
    ]  # fmt: skip
    assert not is_rounding(math.nan, "float32")


def test_projections_that_are_learnt_say_nothing_before() -> None:
    assert needs_training("linformer", "rank=64")
    assert not needs_training("linformer", "method=mean_pool,rank=64")
    assert not needs_training("performer", "")


# -- which evidence counts -----------------------------------------------------------------------


def test_the_inputs_of_kind_speed_are_those_that_are_named() -> None:
    assert f"gaussian:scale={INPUT_SCALE}" == SPEED_INPUTS


def test_what_was_learnt_comes_first_and_random_inputs_last(run: Path) -> None:
    add_errors(run, {"longformer": 0.2}, inputs="trained", lengths=(1024,), head_dim=32,
               num_heads=4, num_kv_heads=4)  # fmt: skip
    add_recall(run, {"sdpa": GOOD, "longformer": WEAK})
    got = quality(run, "longformer")
    assert [e.source for e in got.evidence] == ["learnt", "trained inputs", "random inputs"]
    assert (
        got.text
        == "recall 31 %, sdpa 99 % (64 tokens); error 0.20 on trained inputs (1,024 tokens)"
    )
    assert got.verdict == "poor"  # a recall of less than half of sdpa's decides


def test_trained_inputs_of_another_shape_are_evidence(run: Path) -> None:
    add_errors(run, {"longformer": 0.2, "performer": 1.2}, inputs="trained", lengths=(1024,),
               head_dim=32, dtype="bfloat16")  # fmt: skip
    assert quality(run, "longformer").verdict == "good"
    assert quality(run, "performer").verdict == "poor"
    assert quality(run, "performer").text == (
        "error 1.2 on trained inputs, as far off as zeros would be (1,024 tokens)"
    )
    add_errors(run, {"linformer": 0.7}, inputs="trained", lengths=(1024,))
    assert "error 0.70 on trained inputs, not trained: says nothing" in (
        quality(run, "linformer").text
    )


def test_random_inputs_decide_nothing_and_are_marked(run: Path) -> None:
    got = quality(run, "performer")
    assert got.verdict == "unknown"
    assert (
        got.text == "error 0.050 on random (gaussian:scale=0.3) inputs, says little (4,096 tokens)"
    )


def test_an_error_is_of_the_same_options_at_the_nearest_length(run: Path) -> None:
    add_errors(run, {"longformer": 0.9}, inputs="trained", options={"window": 8}, lengths=(1024,))
    assert quality(run, "longformer").find("relative_error", "trained inputs") is None
    for length, error in ((512, 0.1), (4096, 0.4)):
        add_errors(run, {"longformer": error}, inputs="trained", lengths=(length,))
    for asked, error in ((600, 0.1), (9000, 0.4)):
        assert quality(run, "longformer", seq_len=asked).best.value == error
    assert quality(run, "longformer", "window=8").best.value == 0.9


def test_the_same_form_comes_first_and_another_is_named(run: Path) -> None:
    add_errors(run, {"longformer": 0.3}, inputs="trained", lengths=(1024,))
    assert quality(run, "longformer", is_causal=True).best.setting == "1,024 tokens, bidirectional"
    add_errors(run, {"longformer": 0.1}, inputs="trained", lengths=(512,), is_causal=True)
    got = quality(run, "longformer", is_causal=True, seq_len=1024).best
    assert (got.value, got.setting) == (0.1, "512 tokens")


def test_what_was_learnt_may_be_of_other_options_that_are_named(run: Path) -> None:
    add_recall(run, {"longformer": GOOD}, options={"window": 16})
    add_recall(run, {"sdpa": GOOD})
    assert quality(run, "longformer").short == "recall 99 %, sdpa 99 %"
    assert quality(run, "longformer").best.setting == "64 tokens, window=16"
    add_recall(run, {"longformer": WEAK})
    assert quality(run, "longformer").best.setting == "64 tokens"


def test_a_score_stands_beside_that_of_the_same_training(run: Path) -> None:
    add_recall(run, {"sdpa": GOOD}, seq_len=128)
    add_recall(run, {"performer": GOOD}, task="recall:num_pairs=2")
    assert math.isnan(quality(run, "performer").best.exact)
    add_recall(run, {"performer": WEAK, "sdpa": (0.9,) * 3})
    got = quality(run, "performer").best
    assert (got.on, got.exact) == ("recall:num_pairs=4", pytest.approx(0.9))
    half = 4.30265 * float(np.std(WEAK, ddof=1)) / math.sqrt(3)
    assert got.low == pytest.approx(np.mean(WEAK) - half, rel=1e-4)


def test_steps_count_before_time_and_a_task_of_another_name_does_not(run: Path) -> None:
    add_recall(run, {"sdpa": WEAK}, training="time:amount=60,lr=0.002")
    add_recall(run, {"sdpa": GOOD})
    add_recall(run, {"sdpa": (0.1,) * 3}, task="recall_backwards")
    assert quality(run, "sdpa").evidence[0].value == pytest.approx(0.99)
    asked = Evidences(frame_of(run), recall_task="recall_backwards")
    assert asked.quality("sdpa", "", is_causal=False).evidence[0].value == pytest.approx(0.1)


def test_a_quality_is_no_machines(run: Path) -> None:
    add_recall(run, {"sdpa": GOOD}, machine={**MACHINE, "cpu": "Another"})
    assert quality(run, "sdpa").evidence[0].value == pytest.approx(0.99)


def test_a_runs_own_evidence_counts_before_what_ships(run: Path) -> None:
    both = frame_of(add_errors(run, {"longformer": 0.7}, inputs="trained", lengths=(1024,)))
    got = Evidences(both, shipped_evidence()).quality("longformer", "", is_causal=False)
    assert got.find("relative_error", "trained inputs").value == 0.7
    assert got.evidence[0].metric == "bits_per_byte"


# -- what a quality is good for ------------------------------------------------------------------


def test_each_use_asks_for_something_else() -> None:
    near = Evidence("trained inputs", "relative_error", 0.1)
    text = Evidence("learnt", "bits_per_byte", 2.0, exact=2.0)

    def served(backend: str, quality: Quality, mode: str = "forward") -> set[str]:
        return {use for use, why in serves(backend, quality, mode).items() if not why}

    assert served("sdpa", Quality("exact"), "decode") == {"swap", "finetune", "scratch", "decode"}
    assert served("sdpa", Quality("exact")) == {"swap", "finetune", "scratch"}
    assert served("longformer", Quality("sparse", (text, near))) == {"swap", "finetune", "scratch"}
    assert served("bigbird", Quality("sparse", (text, near))) == {"finetune", "scratch"}
    assert served("mine", Quality("own", (text,)), "decode") == {"scratch", "decode"}
    assert served("mine", Quality("own")) == set()


# -- the answers that ship -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    return load(*reference_folders()).frame


@pytest.mark.parametrize(
    ("asked", "exact", "bits"),
    [({}, "sdpa", (1.97, 2.08)), ({"mode": "training"}, "sdpa", (1.97, 2.08)),
     ({"is_causal": True}, "sdpa", (2.13, 2.16)), ({"use": "decode"}, "sdpa", (2.13, 2.16))],
    ids=["encoder", "training", "decoder", "decode"],
)  # fmt: skip
def test_the_answers_agree_with_what_was_learnt(
    shipped: pd.DataFrame, asked: dict[str, Any], exact: str, bits: tuple[float, float]
) -> None:
    """By speed alone it would be linformer, which learns text hardly better than no attention."""
    found = results.recommend(shipped, seq_len="16k", **asked)
    assert (found.exact.label, found.other.label) == (exact, "longformer")
    learnt = found.other.quality.best
    assert (round(learnt.value, 2), round(learnt.exact, 2)) == bits
    assert found.other.quality.find("relative_error").value == pytest.approx(0.11, abs=0.005)
    assert found.other.speedup.low > 10
    recall = found.other.quality.find("accuracy")
    assert recall.chance < recall.value < 0.2 < 0.95 < recall.exact


def test_the_evidence_that_ships_is_what_the_docs_say(shipped: pd.DataFrame) -> None:
    found = results.recommend(shipped, seq_len=16_384)
    by_name = {c.backend: c.quality for c in found.ranking.candidates}
    for name, error, bits in (("longformer", 0.11, 1.97), ("bigbird", 0.085, 1.98),
                              ("performer", 1.1, 3.495), ("linformer", 2.2, 3.92)):  # fmt: skip
        got = by_name[name]
        trained = got.find("relative_error", "trained inputs")
        assert trained.value == pytest.approx(error, rel=0.06)
        assert trained.counts == (error < 1)
        assert got.find("bits_per_byte").value == pytest.approx(bits, abs=0.006)
        assert got.verdict == ("good" if error < 1 else "poor")


def _other(found: Recommendation) -> str | None:
    return found.other.label if found.other else None


def test_limits_and_uses_of_what_ships(shipped: pd.DataFrame) -> None:
    def ask(**asked: Any) -> Recommendation:
        return results.recommend(shipped, seq_len=16_384, **asked)

    assert _other(ask(max_error=0.1)) == "bigbird"  # of longformer the error is 0.11
    assert [_other(ask(use=use)) for use in ("swap", "finetune", "scratch")] == ["longformer"] * 3
    assert _other(ask(max_error=1.5)) == "longformer"  # performer meets it, but learns far less
    assert _other(ask(min_recall=0.9)) is None
    assert _other(ask(max_error=1e-6)) is None
    assert all(ask(max_error=e).exact.label == "sdpa" for e in (0.1, 1e-6, 1e-12))
