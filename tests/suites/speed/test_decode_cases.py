"""Mode decode and level model, in this process: what is measured, refused and caught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers_speed import unchanged_process  # noqa: F401

from attention.backends.full import FullAttention
from attention.backends.sdpa import SDPAAttention
from attention.decoding.caches import KeyValueCache
from models import named_config
from results.schema import Arm, Case
from suites.arms import model as whole
from suites.arms.build import draw_inputs, problem_of
from suites.arms.decode import CHUNK, Stepper
from suites.arms.levels import build_light, cost_of
from suites.worker.preflight import inspect_case
from tests.suites.speed.test_speed import case, record, registered  # noqa: F401

SMALL = "num_layers=2,d_model=64,num_heads=2,d_ff=96,vocab_size=101"


def decode(*names: str, **changes: Any) -> Case:
    return case(*names, **{"mode": "decode", "is_causal": True, **changes})


def model(name: str, *names: str, **changes: Any) -> Case:
    return case(
        *names, **{"level": "model", "model": f"{name}:{SMALL}", "num_heads": 0,
                   "num_kv_heads": 0, "head_dim": 0, "seq_len": 96, **changes},
    )  # fmt: skip


# -- decode --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bigbird", "full", "longformer", "performer", "sdpa"])
def test_a_step_of_every_backend_gives_a_record(name: str):
    told = record(decode(name, seq_len=CHUNK + 100))
    assert told["status"] == "ok", told["reason"]
    (arm,) = told["arms"]
    assert arm["gate"]["rows"] == 1
    assert arm["gate"]["relative_l2"] <= arm["gate"]["budget"]
    assert set(arm["metrics"]) == {"latency", "state_bytes"}
    assert arm["cost"] is None
    constant = {"longformer", "performer"}
    assert arm["expected"] == {
        "time": 0.0 if name in {*constant, "bigbird"} else 1.0,
        "memory": 0.0 if name in constant else 1.0,
    }


def test_the_state_is_what_the_context_and_two_tokens_take():
    (arm,) = record(decode("sdpa", seq_len=200, batch=3, num_kv_heads=1))["arms"]
    lengths = 3 * 8  # int64
    assert arm["metrics"]["state_bytes"]["value"] == 2 * 3 * 1 * 202 * 16 * 4 + lengths


@pytest.mark.parametrize(("name", "grows"), [("sdpa", True), ("longformer:window=16", False),
                                             ("performer", False)])  # fmt: skip
def test_states_grow_as_they_are_declared_to(name: str, grows: bool):
    name, _, option = name.partition(":")
    arms = (Arm(name, {"window": 16} if option else {}),)
    sizes = [
        record(decode(arms=arms, seq_len=n))["arms"][0]["metrics"]["state_bytes"]["value"]
        for n in (64, 256)
    ]
    assert (sizes[1] > 3 * sizes[0]) == grows
    assert (sizes[1] == sizes[0]) != grows


@pytest.mark.parametrize("level", ["layer", "block"])
@pytest.mark.parametrize("name", ["sdpa", "performer", "lstm"])
def test_a_layer_and_a_block_decode_beside_their_floor(name: str, level: str):
    told = record(decode(name, "identity", level=level))
    assert told["status"] == "ok", told["reason"]
    own, floor = told["arms"]
    assert floor["gate"] is None
    assert own["gate"]["relative_l2"] <= own["gate"]["budget"]
    assert own["metrics"]["state_bytes"]["value"] > floor["metrics"]["state_bytes"]["value"]


def test_every_sample_is_the_step_after_the_same_context():
    of = decode("sdpa", seq_len=70)
    attention = SDPAAttention(num_heads=2, head_dim=16)
    stepper = Stepper(attention, attention, draw_inputs(of), of)
    outputs = []
    for _ in range(3):
        stepper.prepare()
        assert stepper.state.longest == 71
        stepper.call()
        assert stepper.state.longest == 72
        outputs.append(stepper.output)
    assert torch.equal(outputs[0], outputs[2])
    q, k, v = stepper.inputs.tensors
    assert q.shape[2] == 72
    whole_call = attention(q, k, v, is_causal=True)[:, :, -1:]
    torch.testing.assert_close(outputs[0], whole_call, atol=1e-5, rtol=1e-5)


def test_a_wrong_step_has_no_speed(registered):  # noqa: F811
    class Forgetful(FullAttention):
        def advance(self, chunk: Any, state: KeyValueCache) -> torch.Tensor:
            out = super().advance(chunk, state)
            return out * 1.001 if chunk.size == 1 else out

    name = registered(Forgetful)
    for level, arms in (("attention", (name,)), ("block", (name, "identity"))):
        told = record(decode(*arms, level=level, seq_len=64))
        assert told["status"] == "failed"
        assert "differs from the reference" in told["reason"]


def test_a_step_that_is_not_the_same_twice_has_no_speed(registered):  # noqa: F811
    class Drifting(FullAttention):
        calls = 0

        def advance(self, chunk: Any, state: KeyValueCache) -> torch.Tensor:
            Drifting.calls += 1
            return super().advance(chunk, state) * (1 + 1e-3 * Drifting.calls)

    told = record(decode(registered(Drifting), "identity", level="layer", seq_len=64))
    assert told["status"] == "failed"
    assert "of a repetition differ" in told["reason"]


def test_a_wrong_recurrence_has_no_speed(monkeypatch: pytest.MonkeyPatch):
    from models import LSTMLayer

    right = LSTMLayer.reference_rows
    monkeypatch.setattr(
        LSTMLayer,
        "reference_rows",
        lambda self, x, rows, **how: right(self, x, rows, **how) * 1.01,
    )
    for of in (
        case("lstm", "identity", level="block"),
        decode("lstm", "identity", level="layer"),
    ):
        told = record(of)
        assert told["status"] == "failed"
        assert "lstm: output differs from the reference" in told["reason"]


@pytest.mark.parametrize(
    ("of", "status", "said"),
    [
        (decode("linformer"), "unsupported", "state: linformer has no cache or state"),
        (decode("sdpa", is_causal=False), "failed", "is_causal: mode decode is causal"),
        (decode("sdpa", compile=True), "failed", "compile: not available in mode decode"),
        (case("lstm"), "failed", "lstm replaces a whole layer"),
        (case("sdpa", model="bert-base"), "failed", "model: only at level model"),
        (model("bert-base", "sdpa", "identity", mode="decode"), "unsupported",
         "decode needs a decoder"),
        (replace(model("bert-base", "sdpa", "identity"), model=""), "failed",
         "model: expected a configuration"),
        (replace(model("bert-base", "sdpa", "identity"), model="bert-huge"), "failed",
         "no configuration 'bert-huge'"),
        (replace(model("bert-base", "sdpa", "identity"), model="bert-base:heads=2"), "failed",
         "heads: no such value"),
        (replace(model("bert-base", "sdpa", "identity"), model="bert-base:dropout_p=0.1"),
         "failed", "dropout_p: what is dropped cannot be checked"),
        (model("bert-base", "sdpa", "identity", num_heads=4), "failed",
         "num_heads, is_causal: a model's configuration sets"),
        (model("bert-base", "sdpa", "identity", checkpointing=True), "failed",
         "checkpointing: only at level model, mode training"),
        (model("gpt2-small", "linformer", "identity"), "unsupported",
         "linformer cannot be causal"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_alike_before_and_in_the_case(
    of: Case, status: str, said: str
):
    told = record(of)
    assert told["status"] == status
    assert said in told["reason"]
    before = inspect_case(of)
    if status == "failed":
        assert said in before["misuse"]
    else:
        assert said in "; ".join(before["unsupported"])


# -- whole models --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize("name", ["bert-base", "gpt2-small", "bart-base"])
def test_whole_models_are_measured_with_any_attention(name: str, mode: str):
    for backend in ("sdpa", "longformer", "lstm"):
        told = record(model(name, backend, "identity", mode=mode))
        assert told["status"] == "ok", told["reason"]
        own, floor = told["arms"]
        assert own["gate"]["relative_l2"] <= own["gate"]["budget"]
        assert ("gradient" in own["gate"]) == (mode == "training" and backend != "lstm")
        assert own["cost"]["executed_ops"] > floor["cost"]["executed_ops"] > 0
        assert set(own["metrics"]) == {"latency", "peak_memory"}


def test_a_model_decodes():
    told = record(model("gpt2-small", "performer", "identity", mode="decode"))
    assert told["status"] == "ok", told["reason"]
    assert set(told["arms"][0]["metrics"]) == {"latency", "state_bytes"}


def test_checkpointing_is_measured_as_a_setting():
    told = record(model("bert-base", "sdpa", "identity", mode="training", checkpointing=True))
    assert told["status"] == "ok", told["reason"]
    plain = record(model("bert-base", "sdpa", "identity", mode="training"))
    again, once = (one["arms"][0] for one in (told, plain))
    assert again["cost"]["pattern_ops"] == once["cost"]["pattern_ops"]
    assert again["cost"]["executed_ops"] > 1.2 * once["cost"]["executed_ops"]


@pytest.mark.parametrize("backend", ["sdpa", "lstm"])
def test_a_wrong_backward_pass_of_a_model_has_no_speed(
    backend: str, monkeypatch: pytest.MonkeyPatch
):
    from models import stack

    def wrong(block: Any, x: torch.Tensor, *args: Any, use_reentrant: bool, **how: Any):
        out = block(x, *args, **how)
        out.register_hook(lambda grad: grad * 1.01)
        return out

    monkeypatch.setattr(stack, "checkpoint", wrong)
    told = record(model("bert-base", backend, "identity", mode="training", checkpointing=True))
    assert told["status"] == "failed"
    assert "gradient of the timed call and of a repetition differ" in told["reason"]


def test_a_decoder_is_trained_on_as_many_tokens_as_it_is_asked_for():
    of = model("gpt2-small", "sdpa", mode="training")
    (ids,) = whole.draw_ids(of).tensors
    assert ids.shape == (1, 97)
    (ids,) = whole.draw_ids(replace(of, mode="forward")).tensors
    assert ids.shape == (1, 96)


def test_a_training_step_changes_no_weight_and_steps_every_one():
    of = model("bert-base", "sdpa", mode="training")
    mixer, module = whole.build_model(Arm("sdpa"), of)
    module.train()
    before = [p.detach().clone() for p in module.parameters()]
    runner = whole.WholeModel(mixer, module, whole.draw_ids(of), of)
    losses = []
    for _ in range(2):
        runner.prepare()
        runner.call()
        runner.settle()
        losses.append(float(runner.output))
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    steps = [runner.optimizer.state[p].get("step") for p in module.parameters()]
    assert all(step == 2 for step in steps)


@pytest.mark.parametrize("name", ["bert-base", "gpt2-small", "bart-base"])
@pytest.mark.parametrize("backend", ["full", "identity"])
def test_operations_are_those_that_torch_counts(name: str, backend: str):
    from torch.utils.flop_counter import FlopCounterMode

    of = model(name, backend)
    mixer, module = whole.build_model(Arm(backend), of)
    if name == "bart-base":  # the decoder's fused attention is not counted: what is left is exact
        decoders = sum(
            c.executed_ops
            for c in whole._decoder_costs(
                module.decoder,
                problem_of(whole.layer_case(module.config, of)),
                whole.decoder_len(of),
                "forward",
            )
        )
    else:
        decoders = 0
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module.eval()(*whole.draw_ids(of).tensors)
    counts = counter.get_flop_counts()["Global"]
    products = sum(v for k, v in counts.items() if "attention" not in str(k))
    told = whole.cost_of(mixer, module, of)
    assert told is not None
    counted = told["executed_ops"] - decoders
    if name == "gpt2-small" and backend == "full":  # causal pairs; the products cover all
        config = module.config
        every = 4 * 96 * 96 * config.head_dim * config.num_heads * config.num_layers
        pairs = mixer.cost(problem_of(whole.layer_case(config, of)), "forward").executed_ops
        counted += every - config.num_layers * pairs
    assert counted == products


def test_preflight_builds_a_model_without_its_numbers():
    of = replace(model("bert-base", "sdpa", "identity"), model="bert-base", seq_len=512,
                 key_len=512)  # fmt: skip
    mixer, module = build_light(of.arms[0], of)
    assert {p.device.type for p in module.parameters()} == {"meta"}
    told = inspect_case(of)
    assert told["cost"][0] == cost_of(mixer, module, of)
    config = named_config("bert-base")
    weights = config.num_layers * (4 * 768**2 + 2 * 768 * 3072) + 768**2 + 768 * 30522
    attended = config.num_layers * 4 * 512**2 * 768
    assert told["cost"][0]["pattern_ops"] == 2 * 512 * weights + attended


def test_a_longer_input_has_longer_positions():
    of = model("bert-base", "sdpa", seq_len=700)
    assert whole.config_of(of).max_len == 700
    assert whole.config_of(model("bert-base", "sdpa")).max_len == 512
    assert (
        whole.config_of(model("gpt2-small", "sdpa", mode="decode", seq_len=1024)).max_len == 1026
    )
