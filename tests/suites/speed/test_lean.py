"""The launches behind a case's first: what they leave out, and what they hold against it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from helpers_speed import ask, case, record, unchanged_process  # noqa: F401

from attention import registry
from attention.backends.full import FullAttention
from suites.kind import FirstLaunch, Request


def first_of(told: dict[str, Any], launch: int = 0) -> FirstLaunch:
    first = FirstLaunch.of_record({**told, "launch": {"index": launch}})
    assert first is not None
    return first


@pytest.mark.parametrize("mode", ["forward", "training", "decode"])
def test_a_later_launch_compares_with_the_first_and_takes_no_error(mode: str):
    one = case("longformer", mode=mode, is_causal=mode == "decode", seq_len=200)
    told = record(one)
    assert told["status"] == "ok", told["reason"]
    (arm,) = told["arms"]
    parts = {"output", "gradient"} if mode == "training" else {"output"}
    assert set(arm["gate"]["fingerprint"]) == parts
    assert "relative_l2" in arm["gate"]
    (lean,) = record(one, first=first_of(told, launch=2).to_json())["arms"]
    assert set(lean["gate"]) == {"same_as_launch", "difference", "allowed", *parts} - {"output"}
    assert lean["gate"]["same_as_launch"] == 2
    assert lean["gate"]["difference"] <= lean["gate"]["allowed"] == arm["gate"]["budget"]
    assert set(arm["metrics"]) - set(lean["metrics"]) <= {"relative_error"}
    (leaner,) = record(one, first=first_of(told).to_json(), with_memory=False)["arms"]
    assert set(leaner["metrics"]) == {"latency"}
    for name in ("kernel", "cost", "expected", "fixed_size"):
        assert leaner[name] == arm[name]


@pytest.mark.parametrize("level", ["layer", "block"])
def test_a_floor_is_compared_with_nothing(level: str):
    one = case("sdpa", "identity", level=level, mode="training")
    told = record(one)
    lean = record(one, first=first_of(told).to_json())
    assert lean["status"] == "ok", lean["reason"]
    backend, floor = (arm["gate"] for arm in lean["arms"])
    assert backend["difference"] <= backend["allowed"]
    assert backend["gradient"]["difference"] <= backend["gradient"]["allowed"]
    assert floor is None


def test_an_output_that_changed_since_the_first_launch_is_given_no_time(
    monkeypatch: pytest.MonkeyPatch,
):
    class Drifting(FullAttention):
        name = "injected"
        by = 0.0

        def attend(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return super().attend(*args, **kwargs) * (1 + self.by)

    monkeypatch.setitem(registry._registry, "injected", Drifting)
    one = case("injected")
    first = first_of(record(one)).to_json()
    assert record(one, first=first)["status"] == "ok"
    Drifting.by = 1e-5
    told = record(one, first=first)
    assert told["status"] == "failed"
    assert "differs from that of the first process" in told["reason"]
    assert told["arms"] == []


def test_it_warms_up_as_long_as_the_first_had_to():
    one = case("sdpa", seq_len=200)
    first = json.loads(json.dumps(first_of(record(one)).to_json()))
    first["arms"][0]["warm_up_calls"] = 7
    (arm,) = ask(one, first=first)["record"]["arms"]
    latency = arm["metrics"]["latency"]
    assert latency["warm_up"] == {"calls": 7, "converged": True, "needed": 7}
    assert len(latency["sentinel"]) == len(latency["samples"])


def test_a_first_launch_that_never_converged_says_of_no_warm_up_how_long_it_takes():
    told = record(case())
    told["arms"][0]["metrics"]["latency"]["warm_up"]["converged"] = False
    assert [arm.warm_up_calls for arm in first_of(told).arms] == [None]


@pytest.mark.parametrize("warm_up", [None, 3, {}, {"converged": True, "needed": "many"}])
def test_a_plug_ins_kind_may_record_any_warm_up(warm_up: Any):
    told = record(case())
    told["arms"][0]["metrics"]["latency"]["warm_up"] = warm_up
    assert [arm.warm_up_calls for arm in first_of(told).arms] == [None]


@pytest.mark.parametrize("change", [{"status": "failed"}, {"arms": [{"metrics": {}}]}])
def test_what_failed_or_compared_nothing_is_no_first_launch(change: dict[str, Any]):
    told = {"status": "ok", "launch": {"index": 0}, "arms": [], **change}
    assert FirstLaunch.of_record(told) is None


def test_a_request_holds_what_the_first_launch_found_out():
    first = first_of(record(case("sdpa", mode="training")))
    data = json.loads(json.dumps({"first": first.to_json(), "with_memory": False}))
    assert Request.from_json(data) == Request(first=first, with_memory=False)
    assert Request.from_json({"first": None}) == Request()
    with pytest.raises(TypeError, match="first: expected dict or null, got 3"):
        Request.from_json({"first": 3})
