"""Rows of documents as a workload: their lengths, the plan, and what a case measures."""

from __future__ import annotations

from typing import Any

import pytest
from helpers_speed import case, record, unchanged_process  # noqa: F401

from results.schema import Arm
from suites.documents import documents_of, parse_documents
from suites.plan import plan_sweep
from suites.worker.preflight import inspect_case

TEXT = "uniform:low=16,high=96"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("512, 300,212", "512+300+212"),
        ("uniform", "uniform:low=64,high=512"),
        ("lognormal:mean=80", "lognormal:mean=80,sigma=1"),
    ],
)
def test_documents_are_read_as_written(text: str, kept: str) -> None:
    assert parse_documents(text) == kept


def test_lengths_fill_the_row_and_follow_the_seed() -> None:
    for text in (TEXT, parse_documents("lognormal:mean=40")):
        lengths = documents_of(text, 1000, 0)
        assert sum(lengths) == 1000
        assert min(lengths) >= 1
        assert lengths == documents_of(text, 1000, 0) != documents_of(text, 1000, 1)
    assert all(16 <= length <= 96 for length in documents_of(TEXT, 1000, 0)[:-1])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("512,0", "each at least 1"), ("gamma", "expected lengths as"),
        ("uniform:low=9,high=8", "low from 1 to high"), ("uniform:mean=9", "has no mean"),
        ("lognormal:sigma=-1", "sigma above 0"),
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse_documents(text)


def test_a_sweep_has_each_case_packed_and_padded() -> None:
    plan: Any = plan_sweep("quick", packed="512+300", modes=("forward",), backends=(Arm("sdpa"),))
    told = {(c.seq_len, c.batch, c.packed, c.padded) for c in plan.suite.cases(plan)}
    assert told == {(812, 1, "512+300", False), (812, 1, "512+300", True)}


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"levels": ("model",)}, "packed: goes with level attention; got model"),
        ({"modes": ("decode",)}, "packed: goes with modes forward and training"),
        ({"batches": (2,)}, "packed: goes with batch 1; got 2"),
        ({"packed": "3+4", "seq_lens": (8,)}, "packed: its documents have 7 tokens"),
    ],
)
def test_what_goes_with_no_documents_is_refused(chosen: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        plan_sweep("quick", **{"packed": TEXT, **chosen})


@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize("name", ["longformer", "sdpa"])
def test_both_are_checked_and_padding_counts_more(name: str, mode: str) -> None:
    arms = []
    for padded in (False, True):
        told = record(case(name, seq_len=200, packed=TEXT, padded=padded, mode=mode))
        assert told["status"] == "ok", told["reason"]
        (arm,) = told["arms"]
        assert arm["gate"]["relative_l2"] <= arm["gate"]["budget"]
        arms.append(arm)
    packed, padded = arms
    assert packed["cost"]["pattern_ops"] < padded["cost"]["pattern_ops"]
    errors = [arm["metrics"]["relative_error"]["value"] for arm in arms]
    assert errors[0] == pytest.approx(errors[1], abs=1e-6)


def test_a_case_that_holds_no_documents_is_misuse() -> None:
    for changes in ({"batch": 2}, {"packed": "", "padded": True}, {"level": "layer"}):
        told = inspect_case(case("sdpa", **{"packed": TEXT, "seq_len": 200, **changes}))
        assert "pack" in str(told), changes
