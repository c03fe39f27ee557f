"""Models of transformers as arms: built from a configuration file, measured, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from results.schema import IDENTITY, Arm, Case
from suites.arms.transformers_config import files_given
from suites.arms.transformers_model import build_model
from suites.content_names import hf_config_name
from suites.plan import cases, plan_sweep
from suites.worker.preflight import preflight
from suites.worker.run import answer

BERT: dict[str, Any] = {
    "model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 101,
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 128,
}  # fmt: skip
MISTRAL: dict[str, Any] = {
    "model_type": "mistral", "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
    "sliding_window": 16, "attention_dropout": 0.1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    pytest.importorskip("transformers", reason="needs the extra 'peers'")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def written(folder: Path, config: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def case_of(path: Path, *backends: Arm, **changes: Any) -> tuple[Case, dict[str, str]]:
    name = hf_config_name(path)
    case = Case(
        kind="speed", level="model", mode="forward", arms=(*backends, Arm(IDENTITY)), batch=2,
        num_heads=0, num_kv_heads=0, head_dim=0, seq_len=48, key_len=48, device="cpu",
        dtype="float32", is_causal=False, threads=1, allocator="default", compile=False, seed=0,
        model=name,
    )  # fmt: skip
    return replace(case, **changes), {name: str(path)}


def record(case: Case, files: dict[str, str]) -> dict[str, Any]:
    request = {"do": "case", "case": case.to_json(), "budget_s": 0.01, "deadline_s": 60.0}
    more: dict[str, Any] = {"memory_limit": None, "plugins": [], "files": files}
    found = answer({**request, **more})["record"]
    assert isinstance(found, dict)
    return found


def told(case: Case, files: dict[str, str]) -> dict[str, Any]:
    found = preflight({"cases": [case.to_json()], "plugins": [], "files": files})["cases"][case.id]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize(
    ("config", "arm"),
    [
        (BERT, Arm("longformer", {"window": 4})),
        (BERT, Arm("linformer", {"rank": 8})),
        (BERT, Arm("performer", {"num_features": 16})),
        (MISTRAL, Arm("sdpa")),
        (MISTRAL, Arm("longformer")),
    ],
)
def test_a_model_is_measured_and_its_attention_checked(
    config: dict[str, Any], arm: Arm, mode: str, tmp_path: Path
) -> None:
    case, files = case_of(written(tmp_path, config), arm, mode=mode)
    found = record(case, files)
    assert found["status"] == "ok", found["reason"]
    ours, floor = found["arms"]
    assert ours["gate"]["relative_l2"] <= ours["gate"]["budget"]
    assert floor["gate"] is None
    assert ours["metrics"]["latency"]["samples"]
    assert ours["metrics"]["peak_memory"]["value"] > 0
    windowed = config is MISTRAL or arm.name == "longformer"
    assert ours["kernel"].startswith("tiled_band" if windowed else "")
    assert ours["cost"] is None


def test_wrong_attention_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attention.backends.sdpa import SDPAAttention

    right = SDPAAttention.attend
    monkeypatch.setattr(
        SDPAAttention, "attend", lambda self, *args, **more: right(self, *args, **more) * 1.01
    )
    case, files = case_of(written(tmp_path, BERT), Arm("sdpa"))
    found = record(case, files)
    assert found["status"] == "failed"
    assert "WrongOutputError" in found["reason"]


def test_dropout_is_off_and_weights_are_equal(tmp_path: Path) -> None:
    case, files = case_of(written(tmp_path, MISTRAL), Arm("sdpa"), mode="training")
    with files_given(files):
        _, model = build_model(Arm("sdpa"), case)
        _, floor = build_model(Arm(IDENTITY), case)
    assert model.config.attention_dropout == 0.0  # type: ignore[union-attr]
    pairs = zip(model.state_dict().items(), floor.state_dict().items(), strict=True)
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        (BERT, {"seq_len": 129, "key_len": 129}, "seq_len: max_position_embeddings of the conf"),
        (BERT, {"mode": "decode"}, "mode: transformers' models have forward and training"),
        (BERT, {"compile": True}, "compile: not available for transformers' models"),
        (BERT, {"arms": (Arm("lstm"),)}, "backend: lstm has no place in transformers' models"),
    ],
)
def test_what_is_not_measured_is_unsupported(
    config: dict[str, Any], changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    case, files = case_of(written(tmp_path, config), Arm("sdpa"), **changes)
    assert reason in told(case, files)["unsupported"][0]
    found = record(case, files)
    assert found["status"] == "unsupported"
    assert reason in found["reason"]


@pytest.mark.parametrize(
    ("config", "arm", "reason"),
    [
        (MISTRAL, Arm("linformer"), "is_causal: linformer is bidirectional only"),
        (MISTRAL, Arm("performer"), "sliding_window: the layer sees 15 keys on a side"),
    ],
)
def test_what_a_layer_refuses_is_unsupported(
    config: dict[str, Any], arm: Arm, reason: str, tmp_path: Path
) -> None:
    found = record(*case_of(written(tmp_path, config), arm))
    assert (found["status"], reason in found["reason"]) == ("unsupported", True)


GQA: dict[str, Any] = {**BERT, "architectures": None, "num_key_value_heads": 2, "head_dim": 8}
OWN = "its attention is its own, and takes no function of others"
NO_STACK = "model: expected one stack that reads token ids"


@pytest.mark.parametrize(
    ("config", "what", "reason"),
    [
        ({**BERT, "model_type": "brt"}, "brt", "has none of this name (did you mean 'bert'?)"),
        ({**BERT, "architectures": ["NoSuch"]}, "NoSuch", "has no class NoSuch"),
        (
            {**BERT, "architectures": ["BertForSequenceClassification"]},
            "BertForSequenceClassification", "architectures: expected a class of …ForCausalLM",
        ),
        ({**BERT, "hidden_size": "wide"}, "bert", "refuses the configuration: StrictDataclass"),
        ({**GQA, "model_type": "llama", "num_attention_heads": 0}, "llama", "ZeroDivisionError"),
        ({**BERT, "quantization_config": {"bits": 4}}, "bert", "quantization_config: weights are"),
        ({"model_type": "vit"}, "ViTConfig", NO_STACK),
        ({"model_type": "bart"}, "BartConfig", NO_STACK),
        ({"model_type": "led"}, "LEDConfig", NO_STACK),
        ({"model_type": "t5"}, "T5Config", NO_STACK),
        ({**GQA, "model_type": "gemma2"}, "Gemma2Model", "softcap: the model hands it to"),
        ({**GQA, "model_type": "gpt_oss", "num_local_experts": 2, "num_experts_per_tok": 1},
         "GptOssModel", "s_aux: the model hands it to attention"),
        ({**GQA, "model_type": "longformer", "attention_window": 8}, "LongformerModel",
         "attention_mask: the model computes with its mask"),
        ({**GQA, "model_type": "big_bird"}, "BigBirdModel", "the model computes with its mask"),
        ({**GQA, "model_type": "deberta"}, "DebertaModel", OWN),
        ({"model_type": "gptj", "n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 4},
         "GPTJModel", OWN),
        ({"model_type": "falcon", "hidden_size": 32, "num_hidden_layers": 1,
          "num_attention_heads": 4}, "FalconModel", OWN),
        ({"model_type": "mamba2", "hidden_size": 32, "num_hidden_layers": 1, "num_heads": 8,
          "head_dim": 8, "n_groups": 1}, "Mamba2Model",
         "model: its configuration has no attention heads"),
        (
            {**GQA, "model_type": "deepseek_v3", "num_key_value_heads": 4, "q_lora_rank": 16,
             "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
             "first_k_dense_replace": 2},
            "DeepseekV3Model", "queries are 16 wide and those of values 8",
        ),
        ({"model_type": "xglm", "d_model": 32, "num_layers": 1, "attention_heads": 4,
          "vocab_size": 101}, "XGLMModel", "it cannot be called with token ids and an attention"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_measured_is_unsupported(
    config: dict[str, Any], what: str, reason: str, tmp_path: Path
) -> None:
    case, files = case_of(written(tmp_path, config), Arm("sdpa"))
    found = told(case, files)
    assert found["misuse"] is None
    if not found["unsupported"]:  # its layers tell when they are called
        found = record(case, files)
        assert found["status"] == "unsupported", found["reason"]
        found["unsupported"] = [found["reason"]]
    (said,) = found["unsupported"]
    assert said.startswith(f"config.json, {what}: ")
    assert reason in said
    assert len(said) < 400
    assert said.isprintable()


@pytest.mark.parametrize(
    ("config", "name", "cls"),
    [
        ({"model_type": "gemma3", "text_config": {**GQA, "model_type": "gemma3_text"},
          "architectures": ["Gemma3ForConditionalGeneration"]},
         "hf-gemma3-text-2x32", "Gemma3ForCausalLM"),
        ({"model_type": "mistral3", "text_config": {**GQA, "model_type": "mistral"}},
         "hf-mistral3-text-2x32", "MistralModel"),
        (  # as published: the text model's values beside the rest
            {**GQA, "model_type": "qwen2_vl", "vision_config": {},
             "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]},
             "architectures": ["Qwen2VLForConditionalGeneration"]},
            "hf-qwen2_vl-text-2x32", "Qwen2VLTextModel",
        ),
    ],
)  # fmt: skip
def test_of_several_models_in_a_file_the_text_model_is_measured(
    config: dict[str, Any], name: str, cls: str, tmp_path: Path
) -> None:
    case, files = case_of(written(tmp_path, config), Arm("sdpa"), mode="training")
    assert case.model.rpartition("-")[0] == name
    with files_given(files):
        assert type(build_model(Arm("sdpa"), case)[1]).__name__ == cls
    found = record(case, files)
    assert found["status"] == "ok", found["reason"]


def test_models_are_named_by_type_size_and_content(tmp_path: Path) -> None:
    assert re.fullmatch("hf-bert-2x32-[0-9a-f]{6}", hf_config_name(written(tmp_path, BERT)))
    wide = hf_config_name(written(tmp_path, {**BERT, "vocab_size": 102}))
    same = written(tmp_path, BERT)
    assert wide != hf_config_name(same)
    assert re.fullmatch("hf-gpt2-[0-9a-f]{6}", hf_config_name(
        written(tmp_path, {"model_type": "gpt2", "n_layer": True, "n_embd": "x"})
    ))  # fmt: skip
    same.write_text(f"\ufeff{json.dumps(BERT)}", encoding="utf-8")
    case, files = case_of(same, Arm("sdpa"))
    assert told(case, files)["unsupported"] == []


@pytest.mark.parametrize(
    ("config", "arm", "message"),
    [
        (BERT, Arm("sdpa", {"scale": 2.0}), "scale: it is a property of the model"),
        (BERT, Arm("longformer", {"windw": 2}), "windw"),
    ],
)
def test_misuse_is_named_before_anything_runs(
    config: dict[str, Any], arm: Arm, message: str, tmp_path: Path
) -> None:
    assert message in str(told(*case_of(written(tmp_path, config), arm))["misuse"])


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, BERT)
    case, files = case_of(path, Arm("sdpa"))
    assert "was not given with this command" in told(case, {})["misuse"]
    written(tmp_path, {**BERT, "hidden_size": 64})
    assert "config.json has changed" in told(case, files)["misuse"]


def test_a_sweep_takes_configurations(tmp_path: Path) -> None:
    path = written(tmp_path, BERT)
    grid = plan_sweep(None, hf_configs=(path,), backends=(Arm("sdpa"),), seq_lens=(64,))
    name = hf_config_name(path)
    assert {case.level for case in cases(grid)} == {"model"}
    assert {case.model for case in cases(grid)} == {name}
    assert dict(grid.files) == {name: str(path)}
    both = plan_sweep(None, hf_configs=(path,), models=(Arm("bert-base"),), seq_lens=(64,))
    assert [arm.name for arm in both.models] == ["bert-base", name]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("{", [], "config.json: expected a configuration in JSON"),
        ("[]", [], "a JSON object with a model_type; got list"),
        ("{}", [], "a JSON object with a model_type; got one without"),
        (json.dumps(BERT), ["--level", "block"], "hf-config: only with level model; got block"),
        (json.dumps(BERT), ["error"], "hf-config: only with suite speed"),
    ],
)
def test_the_command_names_what_is_wrong(
    text: str, options: list[str], message: str, tmp_path: Path
) -> None:
    from cli import main

    path = tmp_path / "config.json"
    path.write_text(text)
    found = CliRunner().invoke(
        main, ["run", *options, "--hf-config", str(path), "--out", str(tmp_path / "out")]
    )
    assert found.exit_code == 2
    assert message in " ".join(found.output.split())
    assert not (tmp_path / "out").exists()
