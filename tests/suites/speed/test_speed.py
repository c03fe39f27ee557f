from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_speed import CASE, ask, case, record, told_of, unchanged_process  # noqa: F401
from torch import Tensor

from attention import registry
from attention.backends.full import FullAttention
from results.form import checked
from results.records.validation import Profile
from results.schema import (
    CONDITIONS,
    PROFILE_PARTS,
    STOPS,
    Arm,
    Case,
)
from suites.arms.arm import ArmRunner
from suites.arms.build import build_attention, draw_inputs, problem_of
from suites.measure.gate import INPUT_SCALE
from suites.measure.process import TimeLimitError
from suites.speed import kind as speed
from suites.worker.run import answer, is_out_of_memory


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch):
    def add(cls: type[FullAttention]) -> str:
        cls.name = "injected"
        monkeypatch.setitem(registry._registry, "injected", cls)
        return "injected"

    return add


# -- what is measured ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["forward", "training"])
def test_memory_alone_is_measured_without_times(mode: str):
    answered = ask(case("linformer", mode=mode, seq_len=512), with_latency=False)
    assert answered["samples"] == [0.0]
    assert answered["record"]["status"] == "ok"
    assert answered["record"].get("conditions") is None
    (arm,) = answered["record"]["arms"]
    assert set(arm["metrics"]) == {"peak_memory"}
    assert arm["gate"]["relative_l2"] <= arm["gate"]["budget"]
    assert arm["expected"]["memory"] == 1.0
    (timed,) = record(case("linformer", mode=mode, seq_len=512))["arms"]
    ours, theirs = (one["metrics"]["peak_memory"]["value"] for one in (arm, timed))
    assert abs(ours - theirs) <= 2 * 2**20


@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize(
    "name", ["bigbird", "full", "linformer", "longformer", "performer", "sdpa"]
)
def test_every_backend_gives_a_record(name: str, mode: str):
    answered = ask(case(name, mode=mode, seq_len=200))
    assert answered["record"]["status"] == "ok", answered["record"]["reason"]
    (arm,) = answered["record"]["arms"]
    assert arm["kernel"]
    assert arm["gate"]["relative_l2"] <= arm["gate"]["budget"]
    assert ("gradient" in arm["gate"]) == (mode == "training")
    assert set(arm["metrics"]) == {"latency", "peak_memory", "relative_error"}
    assert arm["metrics"]["latency"]["samples"] == answered["samples"]
    assert min(answered["samples"]) > 0
    assert arm["metrics"]["latency"]["cache"] == "warm"
    assert arm["cost"]["pattern_ops"] > 0
    assert arm["expected"]["time"] in (1.0, 2.0)
    fixed = {"bigbird": {"pattern": 512}, "linformer": {"rank": 256},
             "longformer": {"window": 513}, "performer": {"features": 256}}  # fmt: skip
    assert arm["fixed_size"] == fixed.get(name, {})
    assert arm["compiled"] is None


@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize("level", ["layer", "block"])
def test_layer_and_block_have_a_floor(level: str, mode: str):
    told = record(case("sdpa", "identity", level=level, mode=mode, num_kv_heads=1, is_causal=True))
    assert told["status"] == "ok", told["reason"]
    backend, floor = told["arms"]
    assert floor["gate"] is None
    assert backend["gate"]["rows"] == 64
    assert ("gradient" in backend["gate"]) == (mode == "training")
    assert backend["cost"]["pattern_ops"] > floor["cost"]["pattern_ops"] > 0
    assert floor["cost"]["exponentials"] == 0
    assert "relative_error" not in backend["metrics"]
    lengths = [len(arm["metrics"]["latency"]["samples"]) for arm in told["arms"]]
    assert max(lengths) - min(lengths) < 8  # by what their warm-ups differ


def test_cost_of_the_surroundings():
    layer, block = (record(case("identity", level=at))["arms"][0] for at in ("layer", "block"))
    width, tokens = 32, 128
    assert layer["cost"]["pattern_ops"] == 2 * tokens * 4 * width**2
    assert block["cost"]["pattern_ops"] == 2 * tokens * 12 * width**2
    assert layer["cost"]["bytes"] == 4 * (2 * tokens * width + 4 * width**2)
    training = record(case("identity", level="layer", mode="training"))["arms"][0]
    assert training["cost"]["pattern_ops"] == 3 * layer["cost"]["pattern_ops"]


def test_several_backends_in_one_case():
    told = record(case("sdpa", "full", "longformer", seq_len=96))
    assert [arm["cost"] for arm in told["arms"]]
    errors = [arm["metrics"]["relative_error"]["value"] for arm in told["arms"]]
    assert max(errors[:2]) < 1e-6


def test_error_is_taken_at_the_stated_scale():
    (arm,) = record(case(arms=(Arm("longformer", {"window": 2}),)))["arms"]
    metric = arm["metrics"]["relative_error"]
    q, k, v = (x.double() * INPUT_SCALE for x in draw_inputs(CASE).tensors)
    exact = torch.softmax(q @ k.transpose(-2, -1) / 4, -1) @ v
    windowed = registry.build("longformer", num_heads=2, head_dim=16, window=2)(q, k, v)
    expected = float((windowed - exact).norm() / exact.norm())
    assert metric["value"] == pytest.approx(expected, rel=1e-5)
    assert (metric["input_scale"], metric["rows"]) == (0.3, 128)


@pytest.mark.serial
def test_peak_memory_of_materialised_softmax():
    told = record(case("full", seq_len=2048))
    scores = 2 * 2048 * 2048 * 4
    peak = told["arms"][0]["metrics"]["peak_memory"]["value"]
    assert scores < peak < 3.2 * scores
    fused = record(case("sdpa", seq_len=2048))["arms"][0]["metrics"]["peak_memory"]["value"]
    assert fused < scores / 4


def test_inputs_depend_on_the_seed_alone():
    first, again, other = (draw_inputs(case(seed=seed)).tensors[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_threads_are_those_of_the_case():
    record(case(threads=2))
    assert torch.get_num_threads() == 2


def test_precision_of_products_is_that_of_the_case():
    told = record(case("performer", mode="training", matmul_precision="medium"))
    assert told["status"] == "ok", told["reason"]
    assert torch.get_float32_matmul_precision() == "medium"
    gate = told["arms"][0]["gate"]
    assert {gate["precision"], gate["gradient"]["precision"]} <= {"full", "reduced"}
    assert "precision" not in record(case())["arms"][0]["gate"]
    assert torch.get_float32_matmul_precision() == "highest"


def test_options_are_what_a_fixed_size_follows():
    (arm,) = record(case(arms=(Arm("longformer", {"window": 4}),)))["arms"]
    assert arm["fixed_size"] == {"window": 9}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, at import
@pytest.mark.parametrize(("level", "mode"), [("attention", "forward"), ("layer", "training")])
def test_compiled_backend(level: str, mode: str):
    before = own_children()  # servers of others' sweeps
    told = record(case("full", compile=True, level=level, mode=mode))
    assert told["status"] == "ok", told["reason"]
    assert told["arms"][0]["kernel"]
    compiled = told["arms"][0]["compiled"]
    assert compiled["graphs"] >= 1
    assert compiled["recompiles"] == 0
    assert 0 < compiled["compile_time"] < compiled["first_call"]
    assert len(compiled["break_reasons"]) <= compiled["breaks"]
    assert multiprocessing.active_children() == []
    assert own_children() <= before  # no pool of compiler processes goes on


def own_children() -> set[str]:
    """Return the processes that this one has started and that are there."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_record_says_what_the_machine_did_and_why_sampling_stopped():
    told = record(case())
    assert set(told["conditions"]) == {*CONDITIONS, "gpu_throttled"}
    assert told["conditions"]["switches"] >= 0
    assert told["conditions"]["gpu_users"] is None
    latency = told["arms"][0]["metrics"]["latency"]
    assert latency["stopped"] in STOPS
    assert latency["every"] >= 1


@pytest.mark.serial
def test_roofs():
    answered = ask(case("roof", kind="roof", seq_len=0, threads=2))
    metrics = answered["record"]["arms"][0]["metrics"]
    assert {name: metric["unit"] for name, metric in metrics.items()} == {
        "matmul_rate": "op/s",
        "torch_matmul_rate": "op/s",
        "exp_rate": "op/s",
        "bandwidth": "B/s",
        "empty_latency": "s",
    }
    assert answered["samples"] == [0.0]


@pytest.mark.serial
@pytest.mark.parametrize("mode", ["forward", "training"])
def test_overhead_of_a_case_is_below_half_a_second(mode: str, monkeypatch: pytest.MonkeyPatch):
    of = case("sdpa", num_heads=8, num_kv_heads=8, head_dim=64, seq_len=4096, mode=mode, threads=2)
    calls: list[float] = []

    def timed(runner: ArmRunner, call: Any = ArmRunner.call) -> None:
        began = time.thread_time()
        call(runner)
        calls.append(time.thread_time() - began)

    monkeypatch.setattr(ArmRunner, "call", timed)

    def overhead() -> float:
        """In processor time of this thread: what else runs here does not count."""
        calls.clear()
        began = time.thread_time()
        assert record(of, budget_s=0.0)["status"] == "ok"
        return time.thread_time() - began - sum(calls)

    assert min(overhead() for _ in range(3)) < 0.5
    assert 5 <= len(calls) < 10  # warm-up until it has converged, sample, last call


# -- how a case ends -----------------------------------------------------------------------------


def test_unsupported_says_why():
    told = record(case("linformer", is_causal=True))
    assert told["status"] == "unsupported"
    assert "bidirectional only" in told["reason"]
    assert told["arms"] == []


def test_dropout_in_training_cannot_be_checked():
    arms = (Arm("full", {"dropout_p": 0.1}),)
    told = record(case(arms=arms, mode="training"))
    assert (told["status"], told["reason"][:9]) == ("unsupported", "dropout_p")
    assert record(case(arms=arms))["status"] == "ok"


def test_out_of_memory_by_whoever_says_so():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_time_limit_is_told(registered):
    class Slow(FullAttention):
        def attend(self, *args: Any, **kwargs: Any) -> Tensor:
            time.sleep(30)
            return super().attend(*args, **kwargs)

    told = record(case(registered(Slow)), deadline_s=0.3)
    assert told["status"] == "timeout"
    assert told["reason"] == "exceeded the time limit of 0.3 s while timing"


def test_wrong_output_fails_and_has_no_latency(registered, capfd: pytest.CaptureFixture[str]):
    class Wrong(FullAttention):
        def attend(self, *args: Any, **kwargs: Any) -> Tensor:
            return super().attend(*args, **kwargs) * 1.001

    answered = ask(case(registered(Wrong)))
    assert answered["record"]["status"] == "failed"
    assert answered["record"]["reason"].startswith("WrongOutputError: reference check: injected: ")
    assert answered["record"]["arms"] == []
    assert answered["samples"] == [0.0]
    assert "Traceback" in capfd.readouterr().err
    alone = record(case(registered(Wrong)), with_latency=False)
    assert alone["status"] == "failed"
    assert alone["reason"].startswith("WrongOutputError: reference check: injected: ")


@pytest.mark.parametrize("level", ["attention", "layer", "block"])
def test_wrong_gradient_fails_at_every_level(registered, level: str):
    class WrongGradient(FullAttention):
        def attend(self, q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Tensor:
            out = super().attend(q, k, v, **kwargs)
            return out + 0.01 * (q - q.detach())

    name = registered(WrongGradient)
    assert record(case(name, level=level))["status"] == "ok"
    told = record(case(name, level=level, mode="training"))
    assert told["status"] == "failed"
    assert "dq differs" in told["reason"]


def test_output_that_changes_from_call_to_call_fails(registered):
    class Restless(FullAttention):
        def attend(self, *args: Any, **kwargs: Any) -> Tensor:
            self.calls = getattr(self, "calls", 0.0) + 0.01
            return super().attend(*args, **kwargs) * (1 + self.calls)

    told = record(case(registered(Restless), level="layer"))
    assert told["status"] == "failed"
    assert "of the timed call and of a repetition differ" in told["reason"]


def test_exception_fails_with_its_type(registered, capfd: pytest.CaptureFixture[str]):
    class Broken(FullAttention):
        def attend(self, *args: Any, **kwargs: Any) -> Tensor:
            raise KeyError("a\nb")

    told = record(case(registered(Broken)))
    assert told["status"] == "failed"
    assert told["reason"].startswith("KeyError: ")
    assert "in attend" in capfd.readouterr().err


def test_unknown_request_is_refused():
    with pytest.raises(ValueError, match="do: expected case or preflight, got 'tea'"):
        answer({"do": "tea"})


# -- preflight -----------------------------------------------------------------------------------


def test_preflight_foretells_the_cost_that_the_case_reports():
    cases = [
        case("performer", mode="training"),
        case("bigbird"),
        case("linformer", "identity", level="block"),
    ]
    told = told_of(*cases)["cases"]
    for one in cases:
        assert told[one.id]["cost"] == [arm["cost"] for arm in record(one)["arms"]]
        assert told[one.id]["misuse"] is None
        assert told[one.id]["time_exponent"] == 1.0


def test_preflight_allocates_nothing_large():
    long = case("linformer", num_heads=8, num_kv_heads=8, head_dim=64, seq_len=2**27)
    told = told_of(long)["cases"][long.id]
    assert told["misuse"] is None
    assert told["cost"][0]["pattern_ops"] > 2**40


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (case("performr"), "did you mean 'performer'"),
        (case(arms=(Arm("linformer", {"rank": -1}),)), "rank: expected at least 1, got -1"),
        (case(arms=(Arm("sdpa", {"windw": 1}),)), "windw: sdpa has no such option"),
        (case(arms=(Arm("sdpa", {"num_heads": 4}),)), "num_heads: a property of the case"),
        (case("identity"), "identity is the baseline of levels layer, block"),
        (case("sdpa", num_kv_heads=3), "num_kv_heads: expected a divisor of the 2 heads, got 3"),
        (case("sdpa", level="layer", key_len=64), "key_len: level layer"),
        (
            case("sdpa", dtype="bfloat16", matmul_precision="high"),
            "matmul_precision: for bfloat16",
        ),
        (case("sdpa", seq_len=0), "seq_len: expected at least 1, got 0"),
    ],
)
def test_preflight_names_misuse_in_one_line(of: Case, says: str):
    told = told_of(of)["cases"][of.id]
    assert says in told["misuse"]
    assert "\n" not in told["misuse"]


def test_preflight_gives_the_reasons_of_unsupported_cases():
    causal, on_gpu = case("linformer", is_causal=True), case("xformers")
    told = told_of(causal, on_gpu)["cases"]
    assert "bidirectional only" in told[causal.id]["unsupported"][0]
    assert told[on_gpu.id]["unsupported"]
    assert told[on_gpu.id]["misuse"] is None


def test_preflight_of_a_roof():
    of = case("roof", kind="roof", seq_len=0)
    told = told_of(of)["cases"][of.id]
    assert told == {
        "misuse": None, "unsupported": [], "cost": [None], "time_exponent": 0.0,
        "memory_exponent": 0.0,
    }  # fmt: skip


def test_preflight_tells_machine_environment_and_names():
    told = told_of()
    assert told["machine"]["cores"] >= 1
    assert told["environment"]["torch"] == torch.__version__
    assert told["names"] == sorted(told["names"])
    assert {"full", "sdpa", "performer"} <= set(told["names"])


def test_preflight_survives_a_backend_that_breaks(registered):
    class Broken(FullAttention):
        def __init__(self, **options: Any) -> None:
            raise RuntimeError("broken")

        @classmethod
        def options(cls) -> dict[str, Any]:
            return FullAttention.options()

    of = case(registered(Broken))
    told = told_of(of, CASE)["cases"]
    assert told[of.id]["cost"] == [None]
    assert told[CASE.id]["cost"][0]["pattern_ops"] > 0


def test_backend_that_needs_real_numbers_to_be_built(registered):
    class Draws(FullAttention):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.drawn = float(torch.rand(()))  # refused on the meta device

        @classmethod
        def options(cls) -> dict[str, Any]:
            return FullAttention.options()

    of = case(registered(Draws))
    told = told_of(of)["cases"][of.id]
    assert told["misuse"] is None
    assert told["cost"][0]["pattern_ops"] > 0


# -- where the time goes -------------------------------------------------------------------------


def profiles(of: Case) -> list[dict[str, Any]]:
    told = record(of, profile=True)
    assert told["status"] == "ok", told["reason"]
    for arm in told["arms"]:
        checked(arm["profile"], Profile)
    return [arm["profile"] for arm in told["arms"]]


@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize("name", ["bigbird", "full", "linformer", "longformer", "performer"])
def test_profiled_products_are_those_that_the_backend_declares(name: str, mode: str):
    of = case(name, mode=mode, seq_len=1024)
    (profile,) = profiles(of)
    parts = profile["parts"]
    assert set(parts) == set(PROFILE_PARTS)
    attention = build_attention(of.arms[0], of)
    cost = attention.cost(problem_of(of), of.mode)
    if not parts["fused"]["calls"]:  # its products are not counted
        assert parts["products"]["operations"] == cost.executed_ops
        assert parts["exponentials"]["operations"] >= cost.exponentials
    listed = sum(product["operations"] for product in profile["products"])
    assert 0 < listed <= parts["products"]["operations"]
    assert all(product["alone"] > 0 for product in profile["products"])


def test_fused_attention_is_a_part_of_its_own():
    (profile,) = profiles(case("sdpa", mode="training"))
    assert profile["parts"]["fused"]["calls"] == 2  # forward and backward
    assert profile["parts"]["products"]["calls"] == 0
    assert profile["products"] == []


def test_the_floor_is_profiled_too():
    backend, floor = profiles(case("full", "identity", level="layer"))
    assert backend["parts"]["exponentials"]["calls"] == 1
    assert floor["parts"]["exponentials"]["calls"] == 0
    assert floor["parts"]["products"]["operations"] == 2 * 128 * 4 * 32 * 32


def test_nothing_is_profiled_unasked():
    assert "profile" not in record(case("sdpa"))["arms"][0]


@pytest.mark.parametrize(
    "error", [RuntimeError("the profiler\nis broken"), TimeLimitError("exceeded the time limit")]
)
def test_a_profiler_that_fails_says_so_and_costs_nothing_else(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch.profiler, "profile", fail)
    told = record(case("full", "identity", level="layer"), profile=True)
    assert told["status"] == "ok"
    for arm in told["arms"]:
        assert set(arm["metrics"]) == {"latency", "peak_memory"}
        assert arm["profile"] == {
            "failed": f"{type(error).__name__}: {' '.join(str(error).split())}"
        }


def test_what_was_timed_is_profiled(monkeypatch: pytest.MonkeyPatch):
    """The inputs have the scale of the samples again, not that of the error's call."""
    seen: list[float] = []

    def look(runner: ArmRunner, *_: Any, **__: Any) -> dict[str, Any]:
        seen.append(float(runner.inputs.tensors[0].std()))
        return {"failed": "only looking"}

    monkeypatch.setattr(speed, "profiled", look)
    record(case("sdpa"), profile=True)
    assert seen == [pytest.approx(1.0, abs=0.05)]


def test_a_call_that_the_time_limit_does_not_hold_is_not_profiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "seconds_left", lambda: 1e-9)
    told = record(case("sdpa"), profile=True)
    assert told["status"] == "ok"
    failed = told["arms"][0]["profile"]["failed"]
    assert failed.startswith("TimeLimitError: 3 calls under the profiler may take ")


def test_a_profile_keeps_a_trace_and_a_table_of_operators(tmp_path: Path):
    of = case("longformer", seq_len=128, is_causal=True, mode="training")
    found = record(of, profile=True, traces=str(tmp_path / "traces"))
    assert "failed" not in found["arms"][0]["profile"]
    (table, trace) = sorted((tmp_path / "traces").iterdir(), key=lambda f: f.suffix, reverse=True)
    assert trace.name == f"longformer-training-causal-128-{of.id}.json.gz"
    assert table.name == f"longformer-training-causal-128-{of.id}.txt"
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    assert any(event.get("name") == "aten::bmm" for event in events)
    assert "aten::bmm" in table.read_text()


@pytest.mark.parametrize("profile", [False, True])
def test_nothing_is_kept_unasked(profile: bool, tmp_path: Path):
    more: dict[str, Any] = {} if profile else {"traces": str(tmp_path / "traces")}
    record(case(), profile=profile, **more)
    assert not list(tmp_path.iterdir())
