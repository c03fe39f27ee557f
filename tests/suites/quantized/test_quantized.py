"""Kind quantized: what the weights become, what that takes and costs, and a sweep of the suite."""

from __future__ import annotations

import copy
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_speed import unchanged_process  # noqa: F401
from torch import nn

from models import TransformerModel
from results.schema import UNITS, Arm, Case, check_record
from suites.engine.driver import run_sweep
from suites.plan import cases, plan_sweep
from suites.quality import kind as task
from suites.quantized import schemes
from suites.quantized.kind import Distance, model_bytes
from suites.quantized.schemes import keep, kernel_of, linears, scheme_of
from suites.quantized.suite import WEIGHTS
from suites.training.plan import training_of
from suites.training.prepare import prepare
from suites.worker.preflight import inspect_case
from tests.suites.speed.test_speed import record

pytestmark = pytest.mark.usefixtures("in_process")

CASE = Case(
    kind="quantized", level="model", mode="training", arms=(Arm("sdpa"),), batch=8, num_heads=0,
    num_kv_heads=0, head_dim=0, seq_len=32, key_len=32, device="cpu", dtype="float32",
    is_causal=True, threads=1, allocator="default", compile=False, seed=0, task="induction",
    model="decoder:d_model=32,num_layers=2,num_heads=2", training="steps:amount=20,lr=0.01",
    weights="float32",
)  # fmt: skip

COMMON = {"parameter_bytes", "output_difference", "accuracy", "loss", "latency", "peak_memory"}

needs_torchao = pytest.mark.usefixtures("torchao")


@pytest.fixture(scope="session")
def torchao() -> None:
    if schemes.torchao_version() is None:
        pytest.skip("torchao is not installed")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # matrices this small only wait for a second one


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


def ask(weights: str, store: Path, **changes: Any) -> dict[str, Any]:
    return record(replace(CASE, weights=weights, **changes), store=str(store))


def model_of(of: Case = CASE) -> TransformerModel:
    return prepare(training_of(of), {}).model.eval()


# -- what the weights become ---------------------------------------------------------------------


@needs_torchao
def test_int8_weights_are_those_of_a_plain_quantiser():
    model = model_of()
    before = {name: layer.weight.detach().numpy().copy() for name, layer in linears(model)}
    keep("int8", model, "cpu")
    for name, layer in linears(model):
        w = before[name]
        scale = np.abs(w).max(axis=1, keepdims=True) / 127.5
        expected = np.clip(np.round(w / scale), -128, 127) * scale
        kept = layer.weight.dequantize().numpy()
        is_off = np.abs(kept - expected) > 1e-6
        assert not is_off[np.abs(w) < np.abs(w).max(axis=1, keepdims=True)].any()
        assert is_off.sum(axis=1).max() <= 1  # the extreme is -127.5 steps: a tie
        assert np.abs(kept - w).max() <= 0.501 * scale.max()
        x = torch.randn(3, w.shape[1])
        torch.testing.assert_close(
            layer(x), nn.functional.linear(x, torch.from_numpy(kept), layer.bias)
        )


@needs_torchao
def test_int4_weights_are_those_of_a_plain_quantiser():
    model = model_of()
    before = {
        name: layer.weight.detach().bfloat16().float().numpy() for name, layer in linears(model)
    }
    keep("int4", model, "cpu")
    for name, layer in linears(model):
        rows, width = before[name].shape
        w = before[name].reshape(rows, width // 32, 32)
        low, high = w.min(axis=2, keepdims=True), w.max(axis=2, keepdims=True)
        scale = (high - low) / 15
        expected = np.clip(np.round((w - low) / scale), 0, 15) * scale + low
        layer.bias = None
        kept = layer(torch.eye(width, dtype=torch.bfloat16)).float().T.numpy()
        kept = kept.reshape(w.shape)
        for row in kept.reshape(-1, 32):
            assert len(np.unique(row)) <= 16
        # Scale, zero and the quotient are bfloat16: a 2⁻⁸th of 15 steps beside half a step.
        assert (np.abs(kept - w) <= 0.65 * scale).all()
        assert np.mean(np.abs(kept - expected) < 0.2 * scale) > 0.95


@needs_torchao
@pytest.mark.parametrize("weights", WEIGHTS)
def test_bytes_are_those_of_the_shapes(weights: str):
    model = model_of()
    shapes = [layer.weight.shape for _, layer in linears(model)]
    assert len(shapes) == 2 * 6
    other = model_bytes(model) - 4 * sum(rows * width for rows, width in shapes)
    scheme = keep(weights, model, "cpu")
    zero = getattr(next(iter(linears(model)))[1].weight, "zero_point", None)
    per_row = 4 if zero is None else 5  # since torchao 0.17 an int8 that is 0 beside the scale
    expected = {
        "float32": sum(4 * rows * width for rows, width in shapes),
        "bfloat16": sum(2 * rows * width for rows, width in shapes),
        "int8": sum(rows * width + per_row * rows for rows, width in shapes),
        "int4": sum(rows * width // 2 + 4 * rows * (width // 32) for rows, width in shapes),
    }[weights]
    assert schemes.held_bytes(layer.weight for _, layer in linears(model)) == expected
    half = 2 if scheme.products == torch.bfloat16 else 1
    assert model_bytes(model) == expected + other // half


def test_shared_and_partly_used_memory_counts_once_and_whole():
    shared = torch.zeros(10, 4)
    assert schemes.held_bytes([shared, shared[2:4], shared.T, torch.zeros(3)]) == 160 + 12


@needs_torchao
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_only_the_blocks_linear_layers_are_quantised(weights: str):
    model = model_of()
    precision = torch.get_float32_matmul_precision()
    scheme = keep(weights, model, "cpu")
    kinds = {name: type(p).__name__ for name, p in model.named_parameters()}
    within = {f"{name}.weight" for name, _ in linears(model)}
    assert {name for name, kind in kinds.items() if kind == scheme.tensor} == within
    assert all(kinds[name] == "Parameter" for name in kinds.keys() - within)
    assert all(p.dtype == scheme.products for p in model.parameters())
    assert {"tokens.weight", "logits.proj.weight"} <= kinds.keys() - within
    assert torch.get_float32_matmul_precision() == precision  # torchao would lower it


@needs_torchao
def test_groups_are_the_largest_that_divide_every_row():
    wide = replace(CASE, model="decoder:d_model=128,num_layers=1,num_heads=2")
    narrow = replace(CASE, model="decoder:d_model=64,d_ff=256,num_layers=1,num_heads=2")
    for of, size in ((wide, 128), (narrow, 64), (CASE, 32)):
        model = model_of(of)
        keep("int4", model, "cpu")
        assert {layer.weight.block_size[1] for _, layer in linears(model)} == {size}


# -- no silent fallback --------------------------------------------------------------------------


@needs_torchao
def test_a_layer_that_was_left_as_it_is_fails_the_case(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    config = schemes._config
    monkeypatch.setattr(schemes, "_config", lambda w, d, _size: config(w, d, 128))
    answered = ask("int4", tmp_path)
    assert answered["status"] == "failed"
    assert "its weight in int4 is a Parameter, not a Int4OpaqueTensor" in answered["reason"]


def test_another_operator_than_the_schemes_fails_the_case():
    model = model_of()
    ids = torch.zeros(1, 32, dtype=torch.int64)
    scheme = keep("bfloat16", model, "cpu")
    assert kernel_of(scheme, model, [ids]) == "aten.linear bfloat16"
    with pytest.raises(RuntimeError, match=r"aten\.bmm ran 0 times in 12 calls of linear layers"):
        kernel_of(replace(scheme, operator="aten.bmm"), model, [ids])


# -- what is unsupported -------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_without_torchao_integers_are_unsupported_before_anything_is_trained(
    weights: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setitem(sys.modules, "torchao", None)
    reason = f"weights: {weights} needs torchao, which is not installed: pip install torchao"
    assert inspect_case(replace(CASE, weights=weights))["unsupported"] == [reason]
    answered = ask(weights, tmp_path)
    assert (answered["status"], answered["reason"]) == ("unsupported", reason)
    assert not list(tmp_path.iterdir())
    assert inspect_case(replace(CASE, weights="bfloat16"))["unsupported"] == []


def test_a_torchao_that_cannot_be_imported_is_no_missing_one(monkeypatch: pytest.MonkeyPatch):
    def broken(_name: str) -> None:
        raise ModuleNotFoundError("No module named 'lost'", name="lost")

    monkeypatch.setattr(schemes.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="lost"):
        schemes.torchao_version()


@needs_torchao
def test_a_torchao_without_int4_for_cpus_says_so(monkeypatch: pytest.MonkeyPatch):
    absent = (("torchao.no_such", "Config"), ("torchao", "NoSuchConfig"))
    monkeypatch.setattr(schemes, "CPU_INT4", absent)
    (reason,) = inspect_case(replace(CASE, weights="int4"))["unsupported"]
    assert reason.endswith("has no int4 for CPUs")
    assert inspect_case(replace(CASE, weights="int8"))["unsupported"] == []


@needs_torchao
@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("d_model=48,num_heads=2", "decoder.blocks.0.attention.qkv.q_proj has rows of 48"),
        ("d_model=64,num_heads=8,num_kv_heads=1",
         "multiples of 16 rows; decoder.blocks.0.attention.qkv.k_proj has 8"),
    ],
)  # fmt: skip
def test_shapes_that_int4_has_no_kernel_for(shape: str, reason: str):
    of = replace(CASE, model=f"decoder:{shape}", weights="int4")
    (told,) = inspect_case(of)["unsupported"]
    assert reason in told
    assert inspect_case(replace(of, weights="int8"))["unsupported"] == []


def test_unknown_weights_are_misuse():
    told = inspect_case(replace(CASE, weights="int3"))
    assert told["misuse"] == ("weights: expected one of float32, bfloat16, int8, int4, got 'int3'")
    assert "steps" in inspect_case(replace(CASE, training="epochs:amount=3"))["misuse"]


# -- what is measured ----------------------------------------------------------------------------


@pytest.mark.slow
@needs_torchao
def test_fewer_bits_are_further_from_float32(store: Path):
    found = {weights: ask(weights, store) for weights in WEIGHTS}
    assert {w: r["status"] for w, r in found.items()} == dict.fromkeys(WEIGHTS, "ok")
    arms = {weights: answered["arms"][0] for weights, answered in found.items()}
    for arm in arms.values():
        assert set(arm["metrics"]) == COMMON
        assert all(metric["unit"] == UNITS[name] for name, metric in arm["metrics"].items())
        assert arm["gate"]["relative_l2"] <= arm["gate"]["budget"]
    difference = {w: a["metrics"]["output_difference"]["value"] for w, a in arms.items()}
    assert difference["float32"] == 0 < difference["int8"] < difference["int4"] < 0.5
    assert 1e-4 < difference["bfloat16"] < 2**-6
    size = {w: a["metrics"]["parameter_bytes"]["value"] for w, a in arms.items()}
    assert size["float32"] == 2 * size["bfloat16"] > 2 * size["int4"] < 2 * size["int8"]
    kernels = {
        w: a["kernel"].removesuffix(", attention flash").partition(" (")[0]
        for w, a in arms.items()
    }
    assert kernels == {
        "float32": "aten.linear float32", "bfloat16": "aten.linear bfloat16",
        "int8": "aten.mm float32 of Int8Tensor, cast at each call",
        "int4": "aten._weight_int4pack_mm_for_cpu bfloat16 of Int4OpaqueTensor, groups of 32",
    }  # fmt: skip
    assert all(a["kernel"].endswith(", attention flash") for a in arms.values())
    quality = {json.dumps(a["quality"]["curve"]) for a in arms.values()}
    assert len(quality) == 1
    assert {a["quality"]["parameters"] for a in arms.values()} == {
        sum(p.numel() for p in model_of().parameters())
    }


@pytest.mark.slow
def test_the_model_is_that_of_the_same_case_of_kind_task(store: Path):
    trained = training_of(CASE)
    first = ask("float32", store)["arms"][0]
    file = store / f"{trained.id}.pt"
    assert list(store.iterdir()) == [file]
    held = file.stat()
    learnt = record(trained, store=str(store))["arms"][0]
    ask("bfloat16", store)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (held.st_mtime_ns, held.st_ino)
    for name in ("accuracy", "loss"):
        assert first["metrics"][name] == learnt["metrics"][name]
    same = {**learnt["quality"]}
    assert {name: first["quality"][name] for name in same} == same


@pytest.mark.slow
@needs_torchao
@pytest.mark.parametrize(
    ("objective", "architecture"), [("next", "decoder"), ("denoise", "encoder_decoder")]
)
def test_text_has_bits_per_byte(objective: str, architecture: str, store: Path):
    answered = ask(
        "int4", store, task=f"language:objective={objective}", is_causal=objective == "next",
        model=f"{architecture}:d_model=32,num_layers=1,num_heads=2",
        training="steps:amount=2,lr=0.01",
    )  # fmt: skip
    assert answered["status"] == "ok", answered["reason"]
    metrics = answered["arms"][0]["metrics"]
    assert set(metrics) == COMMON | {"bits_per_byte"}
    loss = metrics["loss"]["value"]
    assert metrics["bits_per_byte"]["value"] == pytest.approx(loss / math.log(2))


@pytest.mark.slow
@needs_torchao
@pytest.mark.parametrize("backend", [Arm("longformer", {"window": 8}), Arm("lstm")])
def test_layers_that_no_call_reaches_are_quantised_and_not_missed(backend: Arm, store: Path):
    model = f"{CASE.model},positions=sinusoidal"  # an LSTM has no queries to turn
    changes = {"arms": (backend,), "model": model, "training": "steps:amount=1,lr=0.01"}
    answered = ask("int8", store, **changes)
    assert answered["status"] == "ok", answered["reason"]
    linear = answered["arms"][0]["quality"]["linear_parameters"]
    blocks = 2 * 2 * 32 * 128  # feed-forward layers
    attention = 2 * (4 + 3) * 32 * 32  # Longformer's, with its global projections, unused here
    assert linear == blocks + (attention if backend.name == "longformer" else 0)


def test_the_distance_is_over_all_logits_of_all_calls():
    model = model_of()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.logits.proj.weight.mul_(1.25)
    ids = torch.randint(0, 8, (2, 32))
    with torch.inference_mode(), Distance(other, model) as distance:
        other(ids)
        other(ids[:1])
    other(ids[:, :5])  # outside: not watched
    assert distance.relative_l2 == pytest.approx(0.25, rel=1e-5)


def test_kind_task_keeps_what_it_measures():
    answered = record(training_of(CASE))
    assert set(answered["arms"][0]["metrics"]) >= {"latency", "peak_memory", "state_bytes"}
    call = task.as_call(training_of(CASE), prepare(training_of(CASE), {}).task)
    assert (call.batch, call.mode) == (1, "forward")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
@needs_torchao
@pytest.mark.parametrize("weights", WEIGHTS)
def test_on_a_gpu(weights: str, store: Path):
    answered = ask(weights, store, device="cuda")
    assert answered["status"] == "ok", answered["reason"]
    arm = answered["arms"][0]
    scheme = scheme_of(weights, "cuda")
    assert arm["kernel"].startswith(scheme.operator)
    assert scheme.tensor in arm["kernel"]
    difference = arm["metrics"]["output_difference"]["value"]
    assert difference < {"float32": 1e-6, "bfloat16": 2**-6, "int8": 0.05, "int4": 0.5}[weights]


# -- a sweep -------------------------------------------------------------------------------------


class Quiet:
    """A progress that says nothing."""

    def begin(self, folder, total, done, notices):
        pass

    def starting(self, item):
        pass

    def working(self, words):
        pass

    def finished(self, record, remaining_s):
        pass


@pytest.mark.slow
@needs_torchao
def test_a_sweep_trains_once_for_two_schemes(tmp_path: Path):
    grid = plan_sweep(
        "quick", suite="quantized", weights=("float32", "int8"), tasks=(Arm("induction"),),
        forms=("causal",), seq_lens=(32,), amount=5, threads=(1,), budget_s=0.01, batches=(8,),
        models=(Arm("small", {"d_model": 32, "num_layers": 1, "num_heads": 2}),),
    )  # fmt: skip
    asked = cases(grid)
    run_sweep(grid, tmp_path, progress=Quiet())
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    ours = [check_record(json.loads(line)) for line in lines]
    ours = [told for told in ours if told["case"]["kind"] == "quantized"]
    assert len(ours) == 2  # of one backend, whatever the task
    found = {told["case"]["weights"]: told["status"] for told in ours}
    assert found == {"float32": "ok", "int8": "ok"}
    (file,) = (tmp_path / "trained").iterdir()
    assert file.stem in {training_of(of).id for of in asked if of.kind == "quantized"}
    curves = [told["arms"][0]["quality"]["curve"] for told in ours]
    assert curves[0] == curves[1]  # with the times of its steps: one training
