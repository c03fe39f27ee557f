"""`results.recommend`: both answers, from which times, within which limits, what is unknown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers_recommend import FOUR, LENGTHS, Law, a_run, add_errors, add_recall, frame_of
from synthetic import MACHINE

import results
from results.recommendation.as_json import as_json
from results.recommendation.interpolation import Reading
from results.recommendation.ranking import Candidate, Ranking, Recommendation
from results.recommendation.ranking_text import latency_text, memory_text
from results.recommendation.relaxations import relaxations
from results.recommendation.text import text
from results.records.load import load
from results.schema import FULL_PRECISION, content_id
from results.text import numbers

ASKED: Mapping[str, Any] = {"seq_len": 4096, "mode": "forward", "device": "cpu"}


def ask(frame: pd.DataFrame, **changes: Any) -> Recommendation:
    """Ask a frame alone; what ships with attnbench is not among its evidence."""
    return results.recommend(frame, **{**ASKED, "shipped": False, **changes})


def one(found: Recommendation | Ranking, name: str) -> Candidate:
    """Return the only candidate of that name in the first ranking."""
    ranking = found.ranking if isinstance(found, Recommendation) else found
    assert ranking is not None
    (candidate,) = [c for c in ranking.candidates if c.label == name]
    return candidate


def order(found: Recommendation) -> list[str]:
    assert found.ranking is not None
    return [c.label for c in found.ranking.candidates if c.latency.known]


def answers(found: Recommendation) -> list[str]:
    assert found.ranking is not None
    return [c.label for c in found.ranking.answers]


def qualified(found: Recommendation) -> set[str]:
    assert found.ranking is not None
    return {c.label for c in found.ranking.qualified}


def said(found: Recommendation, **more: Any) -> str:
    """Return the answer as text, its lines as one."""
    return " ".join(text(found, **{"machines": {}, "reference": False, **more}).split())


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
    rows = frame[(frame["backend"] == "sdpa") & (frame["seq_len"] == 4096)]
    for metric, reading in (("latency", one(found, "sdpa").latency),
                            ("peak_memory", one(found, "sdpa").memory)):  # fmt: skip
        measured = rows[rows["metric"] == metric]["value"]
        assert reading.value == pytest.approx(math.exp(np.log(measured).mean()))
        assert reading.low < reading.value < reading.high or measured.nunique() == 1
        assert reading.basis == "measured"
    assert one(found, "linformer").speedup.value == pytest.approx(168 / 16.4, rel=0.1)
    assert one(found, "sdpa").speedup[:3] == (1.0, 1.0, 1.0)


def test_the_winner_is_that_of_every_other_length_too(frame: pd.DataFrame) -> None:
    """The curves cross at 400 (linformer) and 2,000 tokens (performer)."""
    assert order(ask(frame, seq_len=512))[:2] == ["linformer", "sdpa"]
    assert order(ask(frame, seq_len=2048))[-1] in ("performer", "sdpa")


def test_options_make_another_candidate(tmp_path: Path) -> None:
    wide = Law(5e-5, 1.0, options={"window": 1024}, name="longformer")
    found = ask(frame_of(a_run(tmp_path / "run", {**FOUR, "wide": wide})))
    assert order(found)[-1] == "longformer:window=1024"
    assert one(found, "longformer").latency.value < one(found, "sdpa").latency.value


def test_those_that_are_statistically_tied_stand_beside_the_answer(tmp_path: Path) -> None:
    near = replace(FOUR["longformer"], coefficient=1.01e-5)
    laws = {"longformer": FOUR["longformer"], "performer": near, "sdpa": FOUR["sdpa"]}
    found = ask(frame_of(a_run(tmp_path / "run", laws, noise=0.05)), max_error=0.5)
    assert found.ranking is not None
    assert found.other is not None
    (tied,) = found.ranking.tied(found.other)
    assert {tied.backend, found.other.backend} == {"longformer", "performer"}
    assert f"(statistically tied: {tied.backend})" in said(found)


def test_of_exact_ones_that_are_tied_sdpa_is_the_answer(tmp_path: Path) -> None:
    laws = {"sdpa": FOUR["sdpa"], "full": replace(FOUR["sdpa"], coefficient=0.99e-8)}
    tied = ask(frame_of(a_run(tmp_path / "a", laws, noise=0.05)))
    assert answers(tied) == ["sdpa"]
    laws["full"] = replace(FOUR["sdpa"], coefficient=0.5e-8)
    assert answers(ask(frame_of(a_run(tmp_path / "b", laws)))) == ["full"]


def test_one_launch_tells_nothing_apart(tmp_path: Path) -> None:
    found = ask(frame_of(a_run(tmp_path / "run", launches=1)), max_error=0.5)
    assert "one process" in one(found, "sdpa").latency.note
    assert "statistically tied" in said(found)


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


def test_a_speed_up_between_lengths_is_a_contrast(frame: pd.DataFrame) -> None:
    found = ask(frame, seq_len=3000)
    got, base = one(found, "linformer"), one(found, "sdpa").latency
    assert got.speedup.value == pytest.approx(base.value / got.latency.value)
    # Narrower than the ends of both intervals divided, and as far open as both curves may bend.
    least = got.speedup.value * base.bend[0] / got.latency.bend[1]
    most = got.speedup.value * base.bend[1] / got.latency.bend[0]
    assert base.low / got.latency.high < got.speedup.low < least
    assert most < got.speedup.high < base.high / got.latency.low


def test_a_latency_measured_and_one_interpolated_stand_in_one_ranking(tmp_path: Path) -> None:
    a_run(tmp_path / "a", {"sdpa": FOUR["sdpa"]}, lengths=(1024, 2048, 4096))
    a_run(tmp_path / "b", {"linformer": FOUR["linformer"]}, lengths=(1024, 4096))
    found = ask(frame_of(tmp_path / "a", tmp_path / "b"), seq_len=2048)
    assert order(found) == ["linformer", "sdpa"]
    assert one(found, "linformer").latency.between == (1024, 4096)
    assert one(found, "sdpa").latency.basis == "measured"
    assert math.isfinite(one(found, "linformer").speedup.low)


# -- what was not measured -----------------------------------------------------------------------


@pytest.mark.parametrize("seq_len", [16, 8192, 65_536])
def test_the_exact_baseline_is_there_at_every_length(frame: pd.DataFrame, seq_len: int) -> None:
    found = ask(frame, seq_len=seq_len)
    assert answers(found) == ["sdpa"]
    got = one(found, "sdpa").latency
    assert got.basis == "predicted"
    assert got.low < FOUR["sdpa"].seconds(seq_len) < got.high
    assert got.fitted == ((512, 1024, 2048) if seq_len < 512 else (1024, 2048, 4096))
    assert "predicted from" in said(found)


def test_the_others_are_predicted_too_but_not_far_below(frame: pd.DataFrame) -> None:
    for seq_len in (256, 8192, 32768):
        got = one(ask(frame, seq_len=seq_len), "linformer")
        assert got.latency.low < FOUR["linformer"].seconds(seq_len) < got.latency.high
        assert got.speedup.low < got.speedup.value < got.speedup.high
    got = one(ask(frame, seq_len=255), "linformer")
    assert "the shortest measured is 512" in got.reasons["latency"]
    assert math.isnan(got.latency.value)


def test_a_prediction_too_wide_to_be_of_use_is_none(tmp_path: Path) -> None:
    two = frame_of(a_run(tmp_path, lengths=(128, 256), noise=0.1))
    assert one(ask(two, seq_len=512), "sdpa").latency.known
    got = one(ask(two, seq_len=65536), "sdpa")
    assert got.reasons["latency"] == "too far from what was measured, 128 to 256 tokens"
    assert math.isnan(got.latency.value)
    single = frame_of(a_run(tmp_path / "one", launches=1))
    assert one(ask(single, seq_len=8192), "sdpa").latency.known
    assert not one(ask(single, seq_len=65536), "sdpa").latency.known  # it has no interval


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_pattern_that_covers_the_input_is_exact_there(tmp_path: Path, is_causal: bool) -> None:
    fast = replace(FOUR["longformer"], coefficient=1e-6)
    short, long = ({**FOUR, "longformer": replace(fast, error=e)} for e in (1e-7, 0.3))
    case = {"is_causal": is_causal}
    run = a_run(tmp_path / "short", short, lengths=(128, 256), case=case)
    long = a_run(tmp_path / "long", long, lengths=(512, 1024), case=case)
    both = frame_of(run, long)
    for seq_len, kind in ((128, "exact"), (200, "exact"), (256, "exact"), (512, "sparse")):
        assert one(ask(both, seq_len=seq_len, is_causal=is_causal), "longformer").type == kind
    assert "at this length, which its pattern covers whole" in " ".join(
        said(ask(both, seq_len=256, is_causal=is_causal)).split()
    )


def test_what_fails_at_a_length_is_not_said_to_run_beyond(tmp_path: Path) -> None:
    for status, answer in (("out_of_memory", []), ("timeout", ["sdpa"])):
        law = replace(FOUR["sdpa"], fails={4096: (status, "too long")})
        run = a_run(tmp_path / status, {"sdpa": law}, lengths=LENGTHS)
        for seq_len in (4096, 8192):
            assert answers(ask(frame_of(run), seq_len=seq_len)) == answer
    found = ask(frame_of(tmp_path / "timeout"))
    assert "measuring it ended with timeout: too long" in said(found)


def test_a_causal_call_is_predicted_from_a_bidirectional_one(frame: pd.DataFrame) -> None:
    found = ask(frame, is_causal=True)
    assert order(found) == ["longformer", "sdpa"]  # of the others it is not known
    got, whole = one(found, "sdpa").latency, one(ask(frame), "sdpa").latency
    assert (got.low, got.high) == pytest.approx((whole.low / 2, whole.high))
    assert got.basis == "predicted"
    speedup = one(found, "longformer").speedup
    assert speedup.value == pytest.approx(one(ask(frame), "longformer").speedup.value)
    assert speedup.high > 3.9 * speedup.low
    assert "is_causal=True" in found.ranking.python(found.exact)
    assert "time of a bidirectional call" in said(found)


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
    assert f"linformer ({words}: 9 GiB" in shown
    assert "\x1b" not in shown


def test_beside_a_length_that_failed_nothing_is_interpolated(tmp_path: Path) -> None:
    law = replace(FOUR["linformer"], fails={2048: ("timeout", "after 60 s")})
    run = frame_of(a_run(tmp_path / "run", {**FOUR, "linformer": law}, lengths=LENGTHS))
    for seq_len in (1500, 3000):
        assert one(ask(run, seq_len=seq_len), "linformer").latency.basis == "predicted"


def test_some_launches_that_failed_are_told_of(tmp_path: Path) -> None:
    a_run(tmp_path / "a", run="a")
    law = {"sdpa": replace(FOUR["sdpa"], fails={4096: ("crashed", "SIGSEGV")})}
    a_run(tmp_path / "b", law, run="b", launches=1)
    found = ask(frame_of(tmp_path / "a", tmp_path / "b"))
    assert "1 of 4 processes: crashed (SIGSEGV)" in said(found)


def test_another_mode_or_device_is_no_evidence(frame: pd.DataFrame) -> None:
    for other in ({"mode": "training"}, {"mode": "decode"}, {"device": "cuda"}):
        found = ask(frame, **other)
        assert (found.rankings, found.exact, found.other) == ((), None, None)
        assert found.held == (
            "forward on cpu, bidirectional, float32, batch 1, 8 × 64, 2 threads, "
            "default allocator: 4 backends, 512 to 4,096 tokens",
        )
        assert "nothing is recommended" in said(found)


def test_cross_attention_and_other_levels_are_no_evidence(tmp_path: Path) -> None:
    for index, case in enumerate(({"key_len": 77}, {"level": "layer"}, {"kind": "peer"})):
        run = a_run(tmp_path / str(index), case=case)
        assert ask(frame_of(run)).rankings == ()


def test_an_empty_frame_recommends_nothing(frame: pd.DataFrame) -> None:
    found = ask(frame.iloc[:0], max_error=0.1, min_recall=0.5)
    assert (found.rankings, found.held) == ((), ())
    assert "hold no speed of attention" in text(found, machines={}, reference=True)


# -- quality -------------------------------------------------------------------------------------


def test_without_evidence_of_quality_there_is_one_answer(frame: pd.DataFrame) -> None:
    found = ask(frame)
    assert answers(found) == ["sdpa"]
    assert found.ranking.untested is one(found, "linformer")
    assert "fastest of those whose quality is not measured: linformer" in said(found)
    command = "attnbench run error --inputs trained --seq-len 1024 --backend linformer"
    assert f"{command} --out runs/quality" in said(found)


def test_the_largest_error_that_is_allowed(frame: pd.DataFrame) -> None:
    """Linformer's projections were never trained: its error of 0.5 says nothing."""
    assert qualified(ask(frame, max_error=0.3)) == {"longformer", "performer", "sdpa"}
    assert answers(ask(frame, max_error=0.3)) == ["sdpa", "longformer"]
    found = ask(frame, max_error=0.01)
    assert answers(found) == ["sdpa"]
    assert one(found, "performer").reasons["max_error"].endswith("is above 0.01")
    assert "not trained: says nothing" in one(found, "linformer").reasons["max_error"]
    assert "linformer" in qualified(ask(frame, max_error=2.0))  # asked for


def test_exact_ones_meet_every_limit_on_the_error(tmp_path: Path) -> None:
    only = {"latency": {"unit": "s", "samples": [1e-3] * 5}}
    law = replace(FOUR["sdpa"], extra={"metrics": only})
    found = ask(frame_of(a_run(tmp_path / "run", {**FOUR, "sdpa": law})), max_error=1e-9)
    assert answers(found) == ["sdpa"]


def test_inputs_of_kind_error_can_be_chosen(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_errors(run, {"performer": 0.8, "longformer": 0.02, "sdpa": 1e-7})
    found = ask(frame_of(run), max_error=0.1, error_inputs="gaussian:scale=1")
    assert qualified(found) == {"longformer", "sdpa"}
    assert "random (gaussian:scale=1) inputs" in one(found, "performer").reasons["max_error"]
    assert one(found, "linformer").reasons["max_error"] == "error: not measured"


GOOD, WEAK = (0.99, 1.0, 0.98), (0.31, 0.35, 0.28)


def test_the_least_recall(tmp_path: Path) -> None:
    run = add_recall(a_run(tmp_path / "run"), {"sdpa": GOOD, "performer": GOOD, "linformer": WEAK})
    found = ask(frame_of(run), min_recall=0.9)
    assert answers(found) == ["sdpa", "performer"]
    why = one(found, "linformer").reasons["min_recall"]
    assert why == "recall 31 %, sdpa 99 % (64 tokens) is below 90 %"
    assert one(found, "longformer").reasons["min_recall"] == "recall: not measured"


def test_the_lower_end_of_recall_decides(tmp_path: Path) -> None:
    run = frame_of(add_recall(a_run(tmp_path / "run"), {"sdpa": (0.99, 0.95, 0.91)}))
    why = one(ask(run, min_recall=0.9), "sdpa").reasons["min_recall"]
    assert "the lower end of its interval, 85 %" in why
    assert one(ask(run, min_recall=0.85), "sdpa").qualifies


def test_one_seed_has_no_interval_and_its_value_decides(tmp_path: Path) -> None:
    run = frame_of(add_recall(a_run(tmp_path / "run"), {"sdpa": (0.95,)}))
    assert answers(ask(run, min_recall=0.95)) == ["sdpa"]


def test_a_seed_that_failed_meets_no_least_recall(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    add_recall(run, {"sdpa": (1.0, 1.0), "performer": GOOD})
    add_recall(run, {"sdpa": (0.0,)}, status="failed", first_seed=2)
    found = ask(frame_of(run), min_recall=0.5)
    assert answers(found) == ["performer"]
    assert "2 of 3 seeds" in one(found, "sdpa").reasons["min_recall"]
    given = {r.candidate.label: r for r in relaxations(ask(frame_of(run), min_recall=1.0).ranking)}
    assert given["sdpa"].limits == {"min_recall": None}


# -- memory --------------------------------------------------------------------------------------


def test_memory_has_a_limit_in_bytes_or_words(frame: pd.DataFrame) -> None:
    for limit in (17_000_000, "17MB", "17 MB", "16.3MiB"):
        found = ask(frame, max_memory=limit)
        assert answers(found) == ["sdpa"]
        assert "max_memory" not in one(found, "linformer").reasons
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
    why = one(ask(run, max_memory=between), "sdpa").reasons["max_memory"]
    assert "the upper end of its interval" in why
    assert one(ask(run, max_memory=math.ceil(memory.high)), "sdpa").qualifies
    assert laws["sdpa"].memory == (2000.0, 1.0)


def test_in_decode_memory_is_the_state(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", modes=("decode",), case={"is_causal": True})
    found = ask(frame_of(run), mode="decode", max_memory="17MB")
    assert "max_memory" in one(found, "performer").reasons
    assert one(found, "linformer").memory.value == 4000 * 4096
    told = json.loads(as_json(found, machines={}, reference=False, folders=()))
    assert told["rankings"][0]["candidates"][0]["memory"]["metric"] == "state_bytes"


def test_beside_decoding_the_prompt_is_answered(tmp_path: Path) -> None:
    """The prompt that a model reads first is a causal forward pass."""
    run = a_run(tmp_path / "run", modes=("decode", "forward"), case={"is_causal": True})
    found = ask(frame_of(run), use="decode", mode=None)
    prompt = ask(frame_of(run), mode="forward", is_causal=True)
    told = said(found, prompt=prompt)
    assert "The prompt before it, at 4,096 tokens, forward pass, causal, cpu: exact: sdpa," in told
    assert "not exact: " in told.partition("The prompt before it")[2]
    json_told = json.loads(as_json(found, machines={}, reference=False, folders=(), prompt=prompt))
    assert json_told["prompt"]["exact"]["backend"] == "sdpa"
    alone = frame_of(a_run(tmp_path / "alone", modes=("decode",), case={"is_causal": True}))
    none = ask(alone, mode="forward", is_causal=True)
    told = said(ask(alone, use="decode", mode=None), prompt=none)
    assert "not measured here. To measure it, and answer: attnbench recommend" in told


def test_the_first_lines_say_which_runs_answer_and_when_they_were_measured(
    tmp_path: Path,
) -> None:
    run = load(a_run(tmp_path / "run"))
    found = ask(run.frame)
    told = said(found, machines=run.machines, folders=(Path("runs/mine"),), days=run.days)
    assert f"Results: runs/mine, Example CPU 2.5 GHz, 2 cores, {run.days}; " in told
    assert run.days == "2026-01-05"
    shipped = said(found, machines=run.machines, reference=True, days=run.days)
    assert f"times hold there), {run.days}; " in shipped


def test_a_value_has_the_digits_that_its_interval_supports() -> None:
    wide = Reading(0.9131, low=0.813, high=1.026)
    narrow = Reading(0.9131, low=0.909, high=0.917)
    one = SimpleNamespace(latency=wide)
    assert latency_text(one) == "910 ms (813 ms–1.03 s)"  # type: ignore[arg-type]
    one.latency = narrow
    assert latency_text(one) == "913 ms (909–917 ms)"  # type: ignore[arg-type]
    assert memory_text(Reading(20.49 * 2**20, low=18 * 2**20, high=23 * 2**20)) == "20 MiB"
    row = {"seq_len": 653.2, "ci_low": 540.0, "ci_high": 757.0}
    assert numbers.from_tokens(row) == "660"
    assert numbers.from_tokens({**row, "ci_low": 650.0, "ci_high": 656.0}) == "654"
    assert numbers.from_tokens({**row, "ci_low": math.nan, "ci_high": math.nan}) == "654"


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
    assert "Other settings in these results: --dtype bfloat16." in said(found)
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
    known = [c.latency for r in found.rankings for c in r.candidates if c.latency.known]
    assert {r.basis for r in known} == {"predicted"}


# -- what would have to give ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [{"max_error": 1e-9, "max_memory": "5MB"}, {"min_recall": 0.999, "max_memory": 1000}],
)  # fmt: skip
def test_with_what_is_said_to_suffice_it_qualifies(tmp_path: Path, limits: dict[str, Any]) -> None:
    run = a_run(tmp_path / "run", lengths=(4096,), launches=2)
    known = frame_of(add_recall(run, {"sdpa": GOOD, "performer": WEAK}))
    found = ask(known, **limits)
    assert answers(found) == []
    needed = relaxations(found.ranking)
    assert "sdpa" in {need.candidate.label for need in needed}
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
        (
            {"seq_len": "16q"},
            ValueError,
            "seq_len: expected tokens as 16384, 16k or 1m, got '16q'",
        ),
        ({"use": "play"}, ValueError, "use: expected one of swap, finetune, scratch, decode"),
        ({"use": "decode"}, ValueError, "use: decode goes with mode decode, got mode forward"),
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
    assert answers(found) == ["sdpa", "performer"]


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
        "question", "reference", "folders", "incomplete", "exact", "other", "prompt", "rankings",
        "held",
    ]  # fmt: skip
    assert told["question"]["max_error"] == 0.1
    assert (told["exact"]["backend"], told["other"]["backend"]) == ("sdpa", "performer")
    assert told["other"]["python"] == found.ranking.python(found.other)
    assert told["folders"] == [str(run)]
    (ranking,) = told["rankings"]
    assert ranking["machine"] == "Example CPU 2.5 GHz, 2 cores"
    assert ranking["setting"]["matmul_precision"] == FULL_PRECISION
    assert ranking["baseline"] == {"backend": "sdpa", "options": ""}
    first = ranking["candidates"][0]
    assert (first["backend"], first["type"], first["qualifies"]) == (
        "linformer", "approximate", False,
    )  # fmt: skip
    assert (first["latency"]["basis"], first["latency"]["lengths"]) == (
        "interpolated", [2048, 4096],
    )  # fmt: skip
    assert first["quality"]["verdict"] == "unknown"
    assert first["quality"]["evidence"][0]["counts"] is False
    assert set(first["reasons"]) == {"max_error"}


def test_the_text_is_read_in_ten_seconds(tmp_path: Path) -> None:
    """The question, both answers with what they cost, before anything else."""
    run = add_recall(a_run(tmp_path / "run"), dict.fromkeys(FOUR, GOOD))
    found = ask(frame_of(run), seq_len=3000, max_error=0.4, min_recall=0.9, max_memory="1GB")
    shown = said(found, machines={content_id(MACHINE): MACHINE})
    number = r"[\d.]+"
    assert re.match(
        "Question: at 3,000 tokens, forward pass, bidirectional, cpu, error at most 0.4, recall "
        r"at least 90 %, memory at most 1GB \(954 MiB\). "
        r"Results: Example CPU 2.5 GHz, 2 cores; float32, batch 1, 8 heads × 64, 2 threads. "
        rf"Answer, exact: sdpa, {number} ms \({number}–{number} ms\), 5.7 MiB above its inputs. "
        "same result as softmax attention; fits any model; interpolated between 2,048 and 4,096 "
        rf"tokens Answer, not exact: longformer, {number} ms \({number}–{number} ms\), {number} × "
        rf"\({number}–{number}\) as fast as sdpa, 14 MiB above its inputs. "
        "sparse: computes something else; a model must be trained with it; interpolated between "
        r"2,048 and 4,096 tokens quality: recall 99 %, sdpa 99 % \(64 tokens\) error 0.30 on",
        shown,
    ), shown
    assert 'attention.build("longformer", num_heads=8, head_dim=64, window=256)' in shown
    assert "shipped" not in shown


def test_a_stranger_cannot_paint_the_terminal(tmp_path: Path) -> None:
    law = replace(FOUR["sdpa"], name="sd\x1b[2Jpa", options={"a\nb": 'x"); import os #'})
    other = {"cpu": "CPU\x1b[31m\nsecond line", "cores": "many", "ram_bytes": 1e308, "gpu": 5}
    run = a_run(tmp_path / "run", {"one": law}, machine=other)
    found = ask(frame_of(run))
    shown = text(found, machines={content_id(other): other}, reference=False)
    assert "\x1b" not in shown
    python = found.ranking.python(found.ranking.candidates[0])
    assert python.startswith("# ")
    assert len(python.splitlines()) == 1


def test_results_recommend_is_there_and_nothing_else() -> None:
    assert results.recommend.__module__ == "results.recommendation.recommend"
    with pytest.raises(AttributeError, match="no attribute 'recomend'"):
        results.recomend  # noqa: B018
