"""`results.recommend`: what qualifies, in which order, from which numbers, and what is unknown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers_recommend import FOUR, LENGTHS, Law, a_run, add_errors, add_recall, frame_of
from synthetic import MACHINE

import results
from results.recommendation.as_json import as_json
from results.recommendation.ranking import Candidate, Ranking, Recommendation
from results.recommendation.relaxations import relaxations
from results.recommendation.text import text
from results.schema import FULL_PRECISION, content_id
from suites.measure.gate import INPUT_SCALE

ASKED: Mapping[str, Any] = {"seq_len": 4096, "mode": "forward", "device": "cpu"}


def ask(frame: pd.DataFrame, **changes: Any) -> Recommendation:
    return results.recommend(frame, **{**ASKED, **changes})


def one(found: Recommendation | Ranking, name: str) -> Candidate:
    """Return the only candidate of that name in the first ranking."""
    ranking = found.ranking if isinstance(found, Recommendation) else found
    assert ranking is not None
    (candidate,) = [c for c in ranking.candidates if c.label == name]
    return candidate


def order(found: Recommendation) -> list[str]:
    assert found.ranking is not None
    return [c.label for c in found.ranking.qualified]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("recommend") / "run", lengths=LENGTHS)


@pytest.fixture(scope="module")
def frame(folder: Path) -> pd.DataFrame:
    return frame_of(folder)


# -- at a length that was measured ---------------------------------------------------------------


def test_at_a_measured_length_the_measured_numbers_decide(frame: pd.DataFrame) -> None:
    found = ask(frame)
    assert order(found) == ["linformer", "longformer", "performer", "sdpa"]
    assert found.winner is one(found, "linformer")
    rows = frame[(frame["backend"] == "sdpa") & (frame["seq_len"] == 4096)]
    for metric, reading in (("latency", one(found, "sdpa").latency),
                            ("peak_memory", one(found, "sdpa").memory),
                            ("relative_error", one(found, "sdpa").error)):  # fmt: skip
        measured = rows[rows["metric"] == metric]["value"]
        assert reading.value == pytest.approx(math.exp(np.log(measured).mean()))
        assert reading.low < reading.value < reading.high or measured.nunique() == 1
        assert reading.between is None
    assert one(found, "sdpa").times.value == pytest.approx(168 / 16.4, rel=0.1)


def test_the_winner_is_that_of_every_other_length_too(frame: pd.DataFrame) -> None:
    """The curves cross at 400 (linformer) and 2,000 tokens (performer)."""
    assert order(ask(frame, seq_len=512))[:2] == ["linformer", "sdpa"]
    assert order(ask(frame, seq_len=2048))[-1] in ("performer", "sdpa")


def test_options_make_another_candidate(tmp_path: Path) -> None:
    wide = Law(5e-5, 1.0, options={"window": 1024}, name="longformer")
    found = ask(frame_of(a_run(tmp_path / "run", {**FOUR, "wide": wide})))
    assert order(found)[-1] == "longformer:window=1024"
    assert one(found, "longformer").latency.value < one(found, "sdpa").latency.value


def test_close_ones_are_not_told_apart(tmp_path: Path) -> None:
    near = replace(FOUR["linformer"], coefficient=4.05e-6)
    laws = {"linformer": FOUR["linformer"], "performer": near, "sdpa": FOUR["sdpa"]}
    found = ask(frame_of(a_run(tmp_path / "run", laws, noise=0.05)))
    assert found.ranking is not None
    (tied,) = found.ranking.not_told_apart
    assert {tied.backend, found.winner.backend} == {"linformer", "performer"}
    assert tied.times.low < 1 < tied.times.high
    said = " ".join(text(found, machines={}, reference=False).split())
    assert f"Not told apart from it: {tied.backend}." in said
    assert f" 2 ~ {tied.backend}" in said
    assert one(found, "sdpa").told_apart


def test_one_launch_tells_nothing_apart(tmp_path: Path) -> None:
    found = ask(frame_of(a_run(tmp_path / "run", launches=1)))
    assert not one(found, "sdpa").told_apart
    assert "one process" in one(found, "sdpa").latency.note
    assert "one launch: no interval" in text(found, machines={}, reference=False)


def test_no_backend_is_compared_with_its_floor(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", floor=Law(1e-9, 1.0))
    assert {c.backend for c in ask(frame_of(run)).ranking.candidates} == set(FOUR)


# -- between two lengths -------------------------------------------------------------------------


def test_between_lengths_a_power_law_is_met(tmp_path: Path) -> None:
    """A power of the length is a line in logarithms, so that the law itself is the second way."""
    found = ask(frame_of(a_run(tmp_path / "run", noise=0.0, sample_noise=0.0)), seq_len=3000)
    for name, law in FOUR.items():
        got = one(found, name)
        assert got.latency.between == (2048, 4096)
        assert got.latency.value == pytest.approx(law.seconds(3000), rel=1e-9)
        assert got.memory.value == pytest.approx(law.memory[0] * 3000, rel=1e-6)
        assert got.error.value == pytest.approx(law.error)


def test_between_lengths_the_interval_is_that_of_the_contrast(frame: pd.DataFrame) -> None:
    """Of two cells with equal errors, in the middle: narrower by the square root of two."""
    middle = one(ask(frame, seq_len=round(2048 * 2**0.5)), "sdpa").latency
    end = one(ask(frame, seq_len=4096), "sdpa").latency
    narrower = math.log(end.high / end.value) / math.sqrt(2)
    assert math.log(middle.high / middle.bend[1] / middle.value) == pytest.approx(
        narrower, rel=1e-3
    )
    assert middle.bend[0] < 1 <= middle.bend[1]
    assert middle.low == pytest.approx(
        middle.value * middle.bend[0] / math.exp(narrower), rel=1e-3
    )
    # Of memory, which has no model of launches, it is at least that of the ends.
    got = one(ask(frame, seq_len=3000), "sdpa").memory
    for n in (2048, 4096):
        end = one(ask(frame, seq_len=n), "sdpa").memory
        assert got.low / got.value <= end.low / end.value
        assert got.high / got.value >= end.high / end.value


@pytest.mark.parametrize("lengths", [LENGTHS, (1024, 2048, 4096), (2048, 4096)])
def test_a_curve_that_bends_lies_in_the_interval(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """A constant beside a square: the line in logarithms is above it."""
    law = Law(1e-9, 2.0, constant=8e-3)
    run = a_run(tmp_path / "run", {"sdpa": law}, noise=0.0, sample_noise=0.0, lengths=lengths)
    got = one(ask(frame_of(run), seq_len=2900), "sdpa").latency
    assert got.low <= law.seconds(2900) < got.value
    assert got.low < 0.9 * got.value  # the ends alone have no width


def test_interpolated_ones_are_told_apart_by_their_contrast(frame: pd.DataFrame) -> None:
    got = one(ask(frame, seq_len=3000), "performer")
    first = one(ask(frame, seq_len=3000), "linformer").latency
    assert got.times.value == pytest.approx(got.latency.value / first.value)
    # Narrower than the ends of both intervals divided, and as far open as both curves may bend.
    least = got.times.value * got.latency.bend[0] / first.bend[1]
    most = got.times.value * got.latency.bend[1] / first.bend[0]
    assert got.latency.low / first.high < got.times.low < least
    assert most < got.times.high < got.latency.high / first.low
    assert got.told_apart


def test_a_latency_measured_and_one_interpolated_stand_in_one_ranking(tmp_path: Path) -> None:
    a_run(tmp_path / "a", {"sdpa": FOUR["sdpa"]}, lengths=(1024, 2048, 4096))
    a_run(tmp_path / "b", {"linformer": FOUR["linformer"]}, lengths=(1024, 4096))
    found = ask(frame_of(tmp_path / "a", tmp_path / "b"), seq_len=2048)
    assert order(found) == ["linformer", "sdpa"]
    assert found.winner.latency.between == (1024, 4096)
    assert one(found, "sdpa").latency.between is None
    assert math.isfinite(one(found, "sdpa").times.low)


# -- what was not measured -----------------------------------------------------------------------


@pytest.mark.parametrize(("seq_len", "said"), [(8192, "the longest measured is 4,096"),
                                               (4097, "the longest measured is 4,096"),
                                               (511, "the shortest measured is 512")])  # fmt: skip
def test_outside_the_lengths_nothing_qualifies(
    frame: pd.DataFrame, seq_len: int, said: str
) -> None:
    found = ask(frame, seq_len=seq_len)
    assert found.winner is None
    assert found.python == ""
    assert said in one(found, "sdpa").reasons["latency"]
    assert math.isnan(one(found, "sdpa").latency.value)
    assert "What would have to give: the length" in text(found, machines={}, reference=False)


@pytest.mark.parametrize(
    ("status", "words"),
    [("out_of_memory", "out of memory"), ("failed", "failed"), ("not_run", "not run"),
     ("unsupported", "unsupported"), ("timeout", "timeout"), ("crashed", "crashed")],
)  # fmt: skip
def test_what_failed_at_the_length_is_listed_with_its_reason(
    tmp_path: Path, status: str, words: str
) -> None:
    law = replace(FOUR["linformer"], fails={4096: (status, "9 GiB \x1b[31mtoo few")})
    found = ask(frame_of(a_run(tmp_path / "run", {**FOUR, "linformer": law})))
    assert order(found)[0] == "longformer"
    assert one(found, "linformer").reasons["latency"].startswith(f"{words}: 9 GiB")
    shown = text(found, machines={}, reference=False)
    assert f"linformer: {words}: 9 GiB" in shown
    assert "\x1b" not in shown


def test_beside_a_length_that_failed_nothing_is_interpolated(tmp_path: Path) -> None:
    law = replace(FOUR["linformer"], fails={2048: ("timeout", "after 60 s")})
    run = frame_of(a_run(tmp_path / "run", {**FOUR, "linformer": law}, lengths=LENGTHS))
    for seq_len in (1500, 3000):
        said = one(ask(run, seq_len=seq_len), "linformer").reasons["latency"]
        assert "never measured at" in said
        assert "at 2,048 timeout: after 60 s" in said
    assert one(ask(run, seq_len=4096), "linformer").qualifies


def test_some_launches_that_failed_are_told_of(tmp_path: Path) -> None:
    a_run(tmp_path / "a", run="a")
    law = {"sdpa": replace(FOUR["sdpa"], fails={4096: ("crashed", "SIGSEGV")})}
    a_run(tmp_path / "b", law, run="b", launches=1)
    found = ask(frame_of(tmp_path / "a", tmp_path / "b"))
    assert one(found, "sdpa").qualifies
    assert "1 of 4 processes: crashed (SIGSEGV)" in text(found, machines={}, reference=False)


def test_another_mode_device_or_causality_is_no_evidence(frame: pd.DataFrame) -> None:
    for other in ({"mode": "training"}, {"mode": "decode"}, {"device": "cuda"},
                  {"is_causal": True}):  # fmt: skip
        found = ask(frame, **other)
        assert (found.rankings, found.winner) == ((), None)
        assert found.held == (
            "forward on cpu, not causal, float32, batch 1, 8 × 64, 2 threads, default allocator: "
            "4 backends, 512 to 4,096 tokens",
        )
        assert "nothing is recommended" in " ".join(
            text(found, machines={}, reference=False).split()
        )


def test_cross_attention_and_other_levels_are_no_evidence(tmp_path: Path) -> None:
    for index, case in enumerate(({"key_len": 77}, {"level": "layer"}, {"kind": "peer"})):
        run = a_run(tmp_path / str(index), case=case)
        assert ask(frame_of(run)).rankings == ()


def test_an_empty_frame_recommends_nothing(frame: pd.DataFrame) -> None:
    found = ask(frame.iloc[:0], max_error=0.1, min_recall=0.5)
    assert (found.rankings, found.held) == ((), ())
    assert "hold no attention" in text(found, machines={}, reference=True)


# -- error ---------------------------------------------------------------------------------------


def test_the_largest_error_that_is_allowed(frame: pd.DataFrame) -> None:
    assert order(ask(frame, max_error=0.3)) == ["longformer", "performer", "sdpa"]
    assert order(ask(frame, max_error=0.1)) == ["performer", "sdpa"]
    found = ask(frame, max_error=0.01)
    assert order(found) == ["sdpa"]
    said = one(found, "performer").reasons["max_error"]
    assert said == "error 0.050 on gaussian:scale=0.3 (kind speed) is above 0.01"


def test_the_inputs_of_kind_speed_are_those_that_are_named() -> None:
    from results.recommendation.evidence import SPEED_INPUTS, SPEED_SCALE

    assert SPEED_SCALE == INPUT_SCALE
    assert f"gaussian:scale={INPUT_SCALE}" == SPEED_INPUTS


def test_exact_ones_need_the_measured_value_too(tmp_path: Path) -> None:
    only = {"latency": {"unit": "s", "samples": [1e-3] * 5}}
    law = replace(FOUR["sdpa"], extra={"metrics": only})
    found = ask(frame_of(a_run(tmp_path / "run", {**FOUR, "sdpa": law})), max_error=0.1)
    assert one(found, "sdpa").reasons == {"max_error": "error: never measured"}
    assert one(found, "sdpa").latency.known


def test_inputs_of_kind_error_can_be_chosen(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_errors(run, {"performer": 0.8, "longformer": 0.02, "sdpa": 1e-7})
    found = ask(frame_of(run), max_error=0.1, error_inputs="gaussian:scale=1")
    assert order(found) == ["longformer", "sdpa"]
    assert "gaussian:scale=1 (kind error) is above" in one(found, "performer").reasons["max_error"]
    assert one(found, "linformer").reasons["max_error"] == "error: never measured"
    unknown = ask(frame_of(run), max_error=0.1, error_inputs="trained")
    assert unknown.winner is None


def test_where_kind_speed_has_no_error_the_nearest_gaussian_inputs_count(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", modes=("decode",), case={"is_causal": True})
    for scale, error in ((4, 0.9), (0.5, 0.04), (0.05, 0.001)):
        add_errors(run, {"performer": error}, inputs=f"gaussian:scale={scale}", is_causal=True)
    add_errors(run, {"performer": 1e-3}, inputs="heavy_tailed:df=3", is_causal=True)
    add_errors(run, {"sdpa": 0.5}, is_causal=False)
    found = ask(frame_of(run), mode="decode", max_error=0.1)
    assert order(found) == ["performer"]
    assert found.winner.error.on == "gaussian:scale=0.5 (kind error)"
    assert one(found, "sdpa").reasons["max_error"] == "error: never measured"


def test_errors_on_other_inputs_are_told_beside(tmp_path: Path) -> None:
    """Kind speed's inputs are gentle: what is small there may be large elsewhere."""
    run = a_run(tmp_path / "run")
    add_errors(run, {"linformer": 0.9}, inputs="peaked:keys=4")
    add_errors(run, {"linformer": 0.7}, inputs="gaussian:scale=2")
    add_errors(run, {"linformer": 0.5}, inputs="gaussian:scale=0.3")  # kind speed's own
    found = ask(frame_of(run))
    assert found.winner.error.value == 0.5
    assert {n: r.value for n, r in found.winner.errors.items()} == {
        "gaussian:scale=2": 0.7, "peaked:keys=4": 0.9,
    }  # fmt: skip
    said = " ".join(text(found, machines={}, reference=False).split())
    assert "linformer's error on other inputs: gaussian:scale=2 0.70, peaked:keys=4 0.90" in said
    told = json.loads(as_json(found, machines={}, reference=False, folders=()))
    first, second = told["rankings"][0]["candidates"][:2]
    assert first["errors"]["peaked:keys=4"]["value"] == 0.9
    assert second["errors"] == {}
    chosen = ask(frame_of(run), error_inputs="peaked:keys=4")
    assert set(one(chosen, "linformer").errors) == {"gaussian:scale=0.3", "gaussian:scale=2"}


def test_another_option_or_precision_is_another_error(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_errors(run, {"longformer": 0.001}, options={"window": 2048})
    found = ask(frame_of(run), error_inputs="gaussian:scale=1", max_error=0.1)
    assert one(found, "longformer").reasons["max_error"] == "error: never measured"


def test_in_decode_the_error_is_that_of_the_causal_forward_pass(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", modes=("forward", "decode"), case={"is_causal": True})
    found = ask(frame_of(run), mode="decode", max_error=0.1)
    assert order(found) == ["performer", "sdpa"]
    assert found.question.is_causal


# -- memory --------------------------------------------------------------------------------------


def test_memory_has_a_limit_in_bytes_or_words(frame: pd.DataFrame) -> None:
    for limit in (17_000_000, "17MB", "17 MB", "16.3MiB"):
        found = ask(frame, max_memory=limit)
        assert order(found) == ["linformer", "sdpa"]
        assert "is above" in one(found, "performer").reasons["max_memory"]


def test_the_worse_end_of_an_interval_decides(tmp_path: Path) -> None:
    laws = {"sdpa": FOUR["sdpa"]}
    for seed in range(3):
        law = replace(FOUR["sdpa"], memory=(2000.0 + 60 * seed, 1.0))
        a_run(tmp_path / str(seed), {"sdpa": law}, run=f"r{seed}", launches=1)
    run = frame_of(*(tmp_path / str(seed) for seed in range(3)))
    memory = one(ask(run), "sdpa").memory
    assert memory.value == pytest.approx((2000 * 2060 * 2120) ** (1 / 3) * 4096)
    between = int((memory.value + memory.high) / 2)
    said = one(ask(run, max_memory=between), "sdpa").reasons["max_memory"]
    assert "the upper end of its interval" in said
    assert one(ask(run, max_memory=math.ceil(memory.high)), "sdpa").qualifies
    assert laws["sdpa"].memory == (2000.0, 1.0)


def test_in_decode_memory_is_the_state(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", modes=("decode",), case={"is_causal": True})
    found = ask(frame_of(run), mode="decode", max_memory="17MB")
    assert order(found) == ["linformer", "sdpa"]
    assert found.winner.memory.value == 4000 * 4096
    told = json.loads(as_json(found, machines={}, reference=False, folders=()))
    assert told["rankings"][0]["candidates"][0]["memory"]["metric"] == "state_bytes"


# -- recall --------------------------------------------------------------------------------------

GOOD, WEAK = (0.99, 1.0, 0.98), (0.31, 0.35, 0.28)


def test_the_least_recall(tmp_path: Path) -> None:
    run = add_recall(a_run(tmp_path / "run"), {"sdpa": GOOD, "performer": GOOD, "linformer": WEAK})
    found = ask(frame_of(run), min_recall=0.9)
    assert order(found) == ["performer", "sdpa"]
    recall = found.winner.recall
    assert recall.value == pytest.approx(0.99)
    # Student's t of two degrees of freedom times the standard error, within 0 and 1.
    half = 4.30265 * float(np.std(GOOD, ddof=1)) / math.sqrt(3)
    assert recall.low == pytest.approx(0.99 - half, rel=1e-4)
    assert recall.high == 1.0
    assert recall.on == "recall:num_pairs=4 at 64 tokens, steps:amount=400,lr=0.002"
    assert "31 % on recall:num_pairs=4" in one(found, "linformer").reasons["min_recall"]
    assert one(found, "longformer").reasons["min_recall"] == "recall: never measured"


def test_the_lower_end_of_recall_decides(tmp_path: Path) -> None:
    run = frame_of(add_recall(a_run(tmp_path / "run"), {"sdpa": (0.99, 0.95, 0.91)}))
    assert one(ask(run), "sdpa").recall.value == pytest.approx(0.95)
    assert "the lower end of its interval, 85 %" in one(ask(run, min_recall=0.9), "sdpa").reasons[
        "min_recall"
    ]  # fmt: skip
    assert one(ask(run, min_recall=0.85), "sdpa").qualifies


def test_one_seed_has_no_interval_and_its_value_decides(tmp_path: Path) -> None:
    run = frame_of(add_recall(a_run(tmp_path / "run"), {"sdpa": (0.95,)}))
    recall = one(ask(run, min_recall=0.95), "sdpa").recall
    assert (recall.note, recall.has_interval) == ("one seed: no interval", False)
    assert order(ask(run, min_recall=0.95)) == ["sdpa"]


def test_without_records_of_recall_it_is_never_measured(frame: pd.DataFrame) -> None:
    found = ask(frame)
    assert found.ranking.never_measured == ("recall",)
    assert "recall: attnbench run --suite quality --task recall" in text(
        found, machines={}, reference=False
    )
    refused = ask(frame, min_recall=0.5)
    assert refused.winner is None
    assert "without --min-recall (never measured)" in text(refused, machines={}, reference=False)


def test_recall_is_of_the_same_options_and_causality(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_recall(run, {"longformer": GOOD}, options={"window": 16})
    add_recall(run, {"performer": GOOD}, is_causal=True)
    add_recall(run, {"sdpa": GOOD}, task="copy")
    found = ask(frame_of(run), min_recall=0.5)
    said = {c.backend: c.reasons["min_recall"] for c in found.ranking.rejected}
    assert said.pop("longformer") == "recall: never measured; only with window=16"
    assert set(said.values()) == {"recall: never measured"}


def test_an_answer_to_another_question_is_said_to_be_one(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_recall(run, {"sdpa": GOOD, "performer": GOOD}, task="recall:num_pairs=8")
    add_recall(run, {"longformer": GOOD}, task="recall:num_pairs=2")
    add_recall(run, {"longformer": GOOD}, options={"window": 16})
    found = ask(frame_of(run), min_recall=0.5)
    assert one(found, "longformer").reasons["min_recall"] == (
        "recall: never measured by the question that counts, only by another"
    )


def test_all_are_asked_the_same_question(tmp_path: Path) -> None:
    """Of several tasks the one most were asked; then the nearest length; then equal steps."""
    run = a_run(tmp_path / "run")
    add_recall(run, {"sdpa": GOOD, "performer": WEAK}, task="recall:num_pairs=8")
    add_recall(run, {"performer": GOOD}, task="recall:num_pairs=2")
    found = ask(frame_of(run), min_recall=0.9)
    assert order(found) == ["sdpa"]
    add_recall(run, {"sdpa": WEAK, "performer": GOOD}, task="recall:num_pairs=8", seq_len=256)
    add_recall(
        run, {"sdpa": GOOD, "performer": GOOD}, task="recall:num_pairs=8", seq_len=256,
        training="time:amount=60,lr=0.002",
    )  # fmt: skip
    assert order(ask(frame_of(run), min_recall=0.9)) == ["performer"]
    chosen = ask(frame_of(run), min_recall=0.9, recall_task="recall:num_pairs=2")
    assert order(chosen) == ["performer"]
    assert one(chosen, "sdpa").reasons["min_recall"] == "recall: never measured"


def test_a_training_that_failed_is_said(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_recall(run, {"sdpa": GOOD})
    add_recall(run, {"performer": (0.0, 0.0)}, status="timeout")
    said = one(ask(frame_of(run), min_recall=0.5), "performer").reasons["min_recall"]
    assert said.endswith("timeout: what went wrong")


def test_a_seed_that_failed_meets_no_least_recall(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_recall(run, {"sdpa": (1.0, 1.0), "performer": GOOD})
    add_recall(run, {"sdpa": (0.0,)}, status="failed", first_seed=2)
    found = ask(frame_of(run), min_recall=0.5)
    assert order(found) == ["performer"]
    assert (
        one(found, "sdpa")
        .reasons["min_recall"]
        .endswith("is of 2 of 3 seeds, failed: what went wrong")
    )
    assert "100 % (2 of 3 seeds)" in text(ask(frame_of(run)), machines={}, reference=False)
    given = {r.candidate.label: r for r in relaxations(ask(frame_of(run), min_recall=1.0).ranking)}
    assert given["sdpa"].limits == {"min_recall": None}


def test_seeds_without_a_fault_claim_no_certainty(tmp_path: Path) -> None:
    run = add_recall(a_run(tmp_path / "run"), {"sdpa": (1.0,) * 3}, num_labels=100)
    recall = one(ask(frame_of(run)), "sdpa").recall
    assert (recall.value, recall.high) == (1.0, 1.0)
    assert recall.low == pytest.approx(1 / (1 + 1.959964**2 / 100))
    assert one(ask(frame_of(run), min_recall=0.99), "sdpa").reasons
    assert one(ask(frame_of(run), min_recall=0.96), "sdpa").qualifies


def test_recall_is_the_task_of_that_name_alone(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_recall(run, {"sdpa": GOOD}, task="recall_backwards:num_pairs=4")
    assert not one(ask(frame_of(run)), "sdpa").recall.known
    add_recall(run, {"sdpa": GOOD}, task="recall")
    assert one(ask(frame_of(run)), "sdpa").recall.known


@pytest.mark.parametrize("other", [{"matmul_precision": "medium"}, {"compile": True}])
def test_an_error_is_of_the_same_precision_and_compilation(
    tmp_path: Path, other: Mapping[str, Any]
) -> None:
    run = a_run(tmp_path / "run")
    add_errors(run, {"sdpa": 0.2}, **other)
    asked = {"error_inputs": "gaussian:scale=1"}
    assert not one(ask(frame_of(run), **asked), "sdpa").error.known
    add_errors(run, {"sdpa": 0.1})
    assert one(ask(frame_of(run), **asked), "sdpa").error.value == 0.1


def test_recall_of_the_same_machine_comes_first(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_recall(run, {"sdpa": GOOD}, machine={**MACHINE, "cpu": "Another"})
    assert one(ask(frame_of(run)), "sdpa").recall.value > 0.9
    add_recall(run, {"sdpa": WEAK})
    assert one(ask(frame_of(run)), "sdpa").recall.value < 0.4


# -- several settings and machines ---------------------------------------------------------------


def test_settings_are_never_mixed(tmp_path: Path) -> None:
    """The second setting is faster in all, and less covered: it stands by itself."""
    fast = {
        n: replace(FOUR[n], coefficient=FOUR[n].coefficient / 9) for n in ("sdpa", "performer")
    }
    a_run(tmp_path / "a")
    a_run(tmp_path / "b", fast, case={"dtype": "bfloat16"}, run="b")
    run = frame_of(tmp_path / "a", tmp_path / "b")
    found = ask(run)
    assert [r.setting["dtype"] for r in found.rankings] == ["float32", "bfloat16"]
    assert order(found) == ["linformer", "longformer", "performer", "sdpa"]
    shown = text(found, machines={}, reference=False)
    assert "bfloat16: 2 backends, performer first (--dtype bfloat16)" in shown
    chosen = ask(run, dtype="bfloat16")
    assert len(chosen.rankings) == 1
    assert one(chosen, "sdpa").latency.value == pytest.approx(
        FOUR["sdpa"].seconds(4096) / 9, rel=0.1
    )


def test_the_setting_with_the_most_evidence_at_the_length_comes_first(tmp_path: Path) -> None:
    a_run(tmp_path / "a", lengths=(512, 1024))
    a_run(tmp_path / "b", {"sdpa": FOUR["sdpa"]}, case={"threads": 1}, run="b")
    found = ask(frame_of(tmp_path / "a", tmp_path / "b"))
    assert found.ranking.setting["threads"] == 1
    assert order(found) == ["sdpa"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 4), ("num_heads", 4), ("num_kv_heads", 2), ("head_dim", 32), ("threads", 1),
     ("allocator", "retained"), ("matmul_precision", "medium"), ("compile", True)],
)  # fmt: skip
def test_every_setting_can_be_chosen(tmp_path: Path, name: str, value: Any) -> None:
    case = {name: value, **({"num_kv_heads": 4} if name == "num_heads" else {})}
    a_run(tmp_path / "a", lengths=(4096,), launches=1)
    a_run(tmp_path / "b", lengths=(4096,), launches=1, case=case, run="b")
    found = ask(frame_of(tmp_path / "a", tmp_path / "b"), **{name: value})
    assert [r.setting[name] for r in found.rankings] == [value]


def test_every_machine_has_a_ranking_of_its_own(tmp_path: Path) -> None:
    other = {**MACHINE, "cpu": "Faster CPU", "cores": 64}
    a_run(tmp_path / "a")
    a_run(tmp_path / "b", {"sdpa": Law(1e-9, 2.0)}, machine=other, run="b")
    found = ask(frame_of(tmp_path / "a", tmp_path / "b"))
    assert [len(r.candidates) for r in found.rankings] == [4, 1]
    assert found.winner.label == "linformer"
    machines = {content_id(MACHINE): MACHINE, content_id(other): other}
    shown = text(found, machines=machines, reference=False)
    assert shown.index("Example CPU") < shown.index("Faster CPU, 64 cores")
    assert shown.count(" in Python:") == 2


def test_points_of_two_environments_are_not_pooled(tmp_path: Path) -> None:
    from synthetic import ENVIRONMENT

    a_run(tmp_path / "a", lengths=(1024, 2048))
    a_run(tmp_path / "b", lengths=(4096,), environment={**ENVIRONMENT, "torch": "2.14"}, run="b")
    found = ask(frame_of(tmp_path / "a", tmp_path / "b"), seq_len=3000)
    assert len(found.rankings) == 2
    assert found.winner is None


# -- what would have to give ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [{"max_error": 1e-9}, {"max_memory": 1000}, {"max_error": 1e-9, "max_memory": "5MB"},
     {"min_recall": 0.999, "max_memory": 1000}],
)  # fmt: skip
def test_with_what_is_said_to_suffice_it_qualifies(tmp_path: Path, limits: dict[str, Any]) -> None:
    run = a_run(tmp_path / "run", lengths=(4096,), launches=2)
    known = frame_of(add_recall(run, {"sdpa": GOOD, "performer": WEAK}))
    found = ask(known, **limits)
    assert found.winner is None
    needed = relaxations(found.ranking)
    assert len(needed) == 4
    for need in needed:
        changed = {**limits, **need.limits, **dict.fromkeys(need.unmeasured)}
        again = ask(known, **changed)
        assert one(again, need.candidate.label).qualifies
        assert need.limits or need.unmeasured


# -- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"seq_len": 0}, ValueError, "seq_len: expected 1 to"),
        ({"seq_len": 4096.0}, TypeError, "seq_len: expected a whole number, got 4096.0"),
        ({"seq_len": True}, TypeError, "seq_len: expected a whole number"),
        ({"mode": "train"}, ValueError, "mode: expected one of forward, training, decode"),
        ({"device": "tpu"}, ValueError, "device: expected one of cpu, cuda, got 'tpu'"),
        ({"is_causal": 1}, TypeError, "is_causal: expected true or false, got 1"),
        ({"max_error": 0}, ValueError, "max_error: expected a finite number above 0, got 0"),
        ({"max_error": math.nan}, ValueError, "max_error: expected a finite number above 0"),
        ({"max_error": math.inf}, ValueError, "max_error: expected a finite number"),
        ({"max_error": "0.1"}, TypeError, "max_error: expected a number, got '0.1'"),
        ({"min_recall": 1.1}, ValueError, "min_recall: expected a finite number above 0 up to 1"),
        ({"min_recall": -0.1}, ValueError, "min_recall: expected"),
        ({"max_memory": "4 gigs"}, ValueError, "max_memory: expected an amount above 0 such as"),
        ({"max_memory": 0}, ValueError, "max_memory: expected 1 to"),
        ({"max_memory": 1.5}, TypeError, "max_memory: expected a whole number"),
        ({"error_inputs": ""}, ValueError, "error_inputs: expected a name"),
        ({"recall_task": 3}, TypeError, "recall_task: expected text or None, got 3"),
        ({"dtype": "int8"}, ValueError, "dtype: expected one of float32"),
        ({"threads": 0}, ValueError, "threads: expected 1 to"),
        ({"compile": "on"}, TypeError, "compile: expected true or false, got 'on'"),
    ],
)
def test_misuse_names_the_argument(
    frame: pd.DataFrame, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        ask(frame, **changes)
    assert said in str(caught.value)


def test_numpy_numbers_are_numbers(frame: pd.DataFrame) -> None:
    found = ask(frame, seq_len=np.int64(4096), max_error=np.float64(0.1), batch=np.int32(1))
    assert order(found) == ["performer", "sdpa"]


def test_what_is_no_frame_of_load_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(TypeError, match="frame: expected the frame of"):
        ask([1, 2])
    with pytest.raises(ValueError, match=r"missing: samples"):
        ask(frame.drop(columns="samples"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
def test_times_that_nothing_takes_are_refused(frame: pd.DataFrame, value: float) -> None:
    broken = frame.copy()
    row = broken.index[(broken["metric"] == "latency") & (broken["backend"] == "sdpa")][0]
    broken.loc[row, "value"] = value
    with pytest.raises(ValueError, match=r"frame: latency of sdpa at 512 tokens: expected a fin"):
        ask(broken)


def test_numbers_at_the_ends_of_what_a_record_may_hold(tmp_path: Path) -> None:
    laws = {"sdpa": Law(1e-12, 0.0), "full": Law(9e8, 0.0, memory=(0.0, 1.0)),
            "performer": Law(1e-12, 3.0, error=1e29)}  # fmt: skip
    a_run(tmp_path / "a", laws, lengths=(511, 512), noise=0.0, sample_noise=0.0, launches=2)
    a_run(tmp_path / "b", {"sdpa": Law(9e8, 0.0)}, lengths=(514,), launches=2, run="b")
    run = frame_of(tmp_path / "a", tmp_path / "b")
    for seq_len in (511, 513):
        for limits in ({}, {"max_error": 1e-3, "max_memory": 1, "min_recall": 1.0}):
            found = ask(run, seq_len=seq_len, **limits)
            assert text(found, machines={}, reference=True)
            json.loads(as_json(found, machines={}, reference=True, folders=()))


# -- forms ---------------------------------------------------------------------------------------


def test_json_has_the_numbers_and_no_nan(tmp_path: Path) -> None:
    run = add_recall(a_run(tmp_path / "run"), {"sdpa": GOOD})
    found = ask(frame_of(run), seq_len=3000, max_error=0.1)
    told = json.loads(
        as_json(found, machines={content_id(MACHINE): MACHINE}, reference=False, folders=(run,)),
        parse_constant=pytest.fail,
    )
    assert list(told) == [
        "question",
        "reference",
        "folders",
        "incomplete",
        "winner",
        "python",
        "rankings",
        "held",
    ]
    assert told["question"]["max_error"] == 0.1
    assert told["winner"] == {"backend": "performer", "options": ""}
    assert told["folders"] == [str(run)]
    (ranking,) = told["rankings"]
    assert ranking["machine"].startswith("Example CPU 2.5 GHz, 2 cores, 24.0 GiB")
    assert ranking["setting"]["matmul_precision"] == FULL_PRECISION
    assert ranking["setting"]["threads"] == 2
    first, second, third, _ = ranking["candidates"]
    assert (first["rank"], second["rank"], third["rank"]) == (1, 2, None)
    assert first["latency"]["interpolated_between"] == [2048, 4096]
    assert first["recall"]["value"] is None
    assert second["recall"]["launches"] == 3
    assert set(third["reasons"]) == {"max_error"}
    assert told["python"] == found.python


def test_the_text_says_what_every_number_is(tmp_path: Path) -> None:
    run = add_recall(a_run(tmp_path / "run"), dict.fromkeys(FOUR, GOOD))
    found = ask(frame_of(run), seq_len=3000, max_error=0.4, min_recall=0.9, max_memory="1GB")
    shown = text(found, machines={content_id(MACHINE): MACHINE}, reference=False)
    said = " ".join(shown.split())
    assert said.startswith(
        "Question: at 3,000 tokens, forward pass, cpu, not causal, error at most 0.4, recall at "
        "least 90 %, memory at most 1GB (954 MiB). Answer: longformer, "
    )
    assert re.search(
        r"Answer: longformer, (29|30)\.\d ms \([\d.]+–[\d.]+ ms\), interpolated\.", said
    )
    for part in (
        "Measured on: Example CPU 2.5 GHz, 2 cores, 24.0 GiB of memory, Linux.",
        "Setting: attention level, cpu, float32, batch 1, 8 heads × 64, 2 threads",
        "interpolated between 2,048 and 4,096",
        "Interpolated: on the line through both lengths, in logarithms.",
        "Time per call: mean over launches",
        "Memory: peak above the inputs.",
        "Error: relative L2 distance from exact softmax attention, on gaussian:scale=0.3",
        "Recall: accuracy, mean over seeds, on recall:num_pairs=4 at 64 tokens, steps:amount=400",
        "Limits: the worse end of an interval has to meet them",
        "linformer: error 0.50 on gaussian:scale=0.3 (kind speed) is above 0.4",
        'attention.build("longformer", num_heads=8, head_dim=64)',
    ):
        assert part in said
    assert "reference" not in said


def test_a_stranger_cannot_paint_the_terminal(tmp_path: Path) -> None:
    law = replace(FOUR["sdpa"], name="sd\x1b[2Jpa", options={"a\nb": 'x"); import os #'})
    other = {"cpu": "CPU\x1b[31m\nsecond line", "cores": "many", "ram_bytes": 1e308, "gpu": 5}
    run = a_run(tmp_path / "run", {"one": law}, machine=other)
    found = ask(frame_of(run))
    shown = text(found, machines={content_id(other): other}, reference=False)
    assert "\x1b" not in shown
    assert "cannot be written as Python" in shown
    assert found.python.startswith("# ")
    assert len(found.python.splitlines()) == 1


def test_results_recommend_is_there_and_nothing_else() -> None:
    assert results.recommend.__module__ == "results.recommendation.recommend"
    with pytest.raises(AttributeError, match="no attribute 'recomend'"):
        results.recomend  # noqa: B018
