"""Our backends inside models of transformers, built from configurations, with random weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_covering import covering
from helpers_lazy import transformers
from helpers_transformers import (
    BATCH,
    CONFIGS,
    LENGTH,
    LOCAL,
    TEXT,
    VOCAB,
    build,
    config_of,
    hidden,
    inputs,
    pair,
    real,
)
from torch import Tensor, nn

import attention
from attention.checks import UnsupportedError
from attention.integrations import transformers as ours

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def registered() -> None:
    pytest.importorskip("transformers", reason="needs the extra 'peers'")
    ours.register(linformer={"seq_len": 64, "rank": 16}, longformer={"window": 5})


@covering(("padded", ["", "left", "right"]), ("backend", ["full", "sdpa"]), ("kind", CONFIGS))
def test_exact_backends_give_what_sdpa_gives(kind: str, backend: str, padded: str) -> None:
    theirs, mine = pair(kind, f"attnbench_{backend}")
    given = inputs(padded)
    with torch.no_grad():
        expected, actual = hidden(theirs, given), hidden(mine, given)
    torch.testing.assert_close(real(actual, given), real(expected, given), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("padded", ["", "left", "right"])
@pytest.mark.parametrize("kind", ["Mistral", "ModernBert"])
def test_longformer_keeps_a_models_own_window(kind: str, padded: str) -> None:
    changes = {"global_attn_every_n_layers": 3} if kind == "ModernBert" else {}
    theirs, mine = pair(kind, "attnbench_longformer", **changes)
    if kind == "ModernBert":  # its first layer sees all: there longformer has a window of its own
        ours.register(longformer={"window": LENGTH})
        theirs, mine = pair(kind, "attnbench_longformer", **changes)
    given = inputs(padded)
    with torch.no_grad():
        expected, actual = hidden(theirs, given), hidden(mine, given)
    torch.testing.assert_close(real(actual, given), real(expected, given), atol=1e-4, rtol=1e-4)
    full = build(kind, "sdpa", **{**changes, **wide(kind)})
    full.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        other = hidden(full, given)
    assert (real(other, given) - real(expected, given)).abs().max() > 1e-2, "the window matters"


@pytest.mark.parametrize("kind", ["Mistral", "ModernBert"])
def test_a_window_beyond_the_sequence_is_still_the_models(kind: str) -> None:
    """Longformer's own option, 5, is for layers without a window."""
    changes: dict[str, Any] = {"sliding_window": LENGTH + 7}
    if kind == "ModernBert":
        changes = {"local_attention": 4 * LENGTH, "global_attn_every_n_layers": 1}
        ours.register(longformer={"window": LENGTH})
    theirs, mine = pair(kind, "attnbench_longformer", **changes)
    given = inputs("right")
    with torch.no_grad():
        expected, actual = hidden(theirs, given), hidden(mine, given)
    torch.testing.assert_close(real(actual, given), real(expected, given), atol=1e-4, rtol=1e-4)


def test_a_model_with_an_attention_of_its_own_is_refused() -> None:
    config = transformers.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=1, n_head=4)
    model = transformers.BloomModel._from_config(config, attn_implementation="attnbench_full")
    with pytest.raises(UnsupportedError, match="it has an attention of its own"):
        model(**inputs())


def test_backends_that_are_not_named_keep_their_options() -> None:
    model = build("Bert", "attnbench_longformer")
    ours.register(performer={"num_features": 32})
    with torch.no_grad():
        hidden(model, inputs())
    assert [backend.window for backend in ours.backends(model)] == [5, 5]


def test_a_model_takes_other_options_when_it_is_prepared() -> None:
    model = ours.prepare(build("Bert", "attnbench_linformer"), **inputs())
    ours.register(linformer={"seq_len": 64, "rank": 8})
    hidden(model, inputs())
    assert [backend.rank for backend in ours.backends(model)] == [16, 16]
    ours.prepare(model)
    hidden(model, inputs())
    assert [backend.rank for backend in ours.backends(model)] == [8, 8]


def wide(kind: str) -> dict[str, Any]:
    return {"local_attention": 512} if kind == "ModernBert" else {"sliding_window": None}


def test_vit_gives_what_sdpa_gives() -> None:
    models = []
    for implementation in ("sdpa", "attnbench_full", "attnbench_sdpa", "attnbench_performer"):
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            image_size=32, patch_size=8, initializer_range=0.2,
        )  # fmt: skip
        torch.manual_seed(0)
        models.append(
            transformers.ViTModel._from_config(config, attn_implementation=implementation)
        )
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outs = [model.eval()(pixels).last_hidden_state for model in models]
    torch.testing.assert_close(outs[1], outs[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outs[2], outs[0], atol=1e-4, rtol=1e-4)
    assert (outs[3] - outs[0]).abs().max() > 1e-3, "an approximation is one"


@pytest.mark.parametrize(
    ("kind", "backend", "options"),
    [
        ("Bert", "longformer", {"window": 5}),
        ("Bert", "bigbird", {"block_size": 8, "num_random_blocks": 1}),
        ("Bert", "performer", {"num_features": 32}),
        ("Bert", "linformer", {"seq_len": 64, "rank": 16}),
        ("GPT2", "longformer", {"window": 5}),
        ("GPT2", "bigbird", {"block_size": 8, "num_random_blocks": 1}),
        ("Llama", "performer", {"num_features": 32}),
        ("Llama", "longformer", {"window": 5}),
    ],
)
@pytest.mark.parametrize("padded", ["", "right"])
def test_others_compute_their_own_modules(
    kind: str, backend: str, options: dict[str, Any], padded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer's output is that of a module built here, called on the layer's own q, k and v."""
    ours.register(**{backend: options})
    model = build(kind, f"attnbench_{backend}")
    given = inputs(padded)
    if backend == "linformer":
        ours.prepare(model, **given)
    calls = []
    cls = attention.get(backend)
    forward = cls.forward

    def watched(self: nn.Module, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        out = forward(self, q, k, v, **more)
        calls.append((q, k, v, more, out, self))
        return out

    monkeypatch.setattr(cls, "forward", watched)
    with torch.no_grad():
        hidden(model, given)
    assert len(calls) == 2
    mask = given["attention_mask"].bool()
    for q, k, v, more, out, layer in calls:
        assert q.shape == (BATCH, 4, LENGTH, 8)
        assert k.shape[1] == (2 if kind == "Llama" else 4)
        assert more["is_causal"] == (kind != "Bert")
        assert (more["key_padding_mask"] is None) == (not padded)
        drawn = {"seed": layer.seed} if backend == "bigbird" else {}
        fresh = attention.build(backend, num_heads=4, head_dim=8, **options, **drawn)
        fresh.load_state_dict(layer.state_dict())
        expected = fresh.reference(
            q, k, v, is_causal=kind != "Bert", key_padding_mask=mask if padded else None
        )
        per_token = (x.transpose(1, 2)[mask] for x in (out, expected))
        torch.testing.assert_close(*per_token, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["sdpa", "full", "longformer", "performer"])
@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_a_cache_gives_what_the_whole_sequence_gives(kind: str, backend: str) -> None:
    model = build(kind, f"attnbench_{backend}")
    given = inputs("left")
    with torch.no_grad():
        expected = hidden(model, given)
        first = {name: x[:, :30] for name, x in given.items()}
        out = model(**first, use_cache=True)
        parts, cache = [out.last_hidden_state], out.past_key_values
        for start, stop in ((30, 41), *((at, at + 1) for at in range(41, LENGTH))):
            out = model(
                input_ids=given["input_ids"][:, start:stop],
                attention_mask=given["attention_mask"][:, :stop],
                past_key_values=cache,
                use_cache=True,
            )
            parts.append(out.last_hidden_state)
    actual = torch.cat(parts, dim=1)
    torch.testing.assert_close(real(actual, given), real(expected, given), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Gemma3Text"])
def test_generation_writes_what_sdpa_writes(kind: str, cache: str) -> None:
    made = []
    for implementation in ("sdpa", "attnbench_sdpa"):
        torch.manual_seed(0)
        name = "Gemma3ForCausalLM" if kind == "Gemma3Text" else f"{kind}ForCausalLM"
        config = config_of(kind, eos_token_id=None)
        model = getattr(transformers, name)._from_config(
            config, attn_implementation=implementation
        )
        given = {name: x[:, :20] for name, x in inputs("left").items()}
        more = (
            {"cache_implementation": "static", "disable_compile": True}
            if cache == "static"
            else {}
        )
        made.append(model.eval().generate(**given, max_new_tokens=24, do_sample=False, **more))
    assert made[0].shape == (BATCH, 44)
    assert torch.equal(made[0], made[1])


@pytest.mark.parametrize("backend", ["sdpa", "longformer"])
def test_a_window_trains_as_theirs_does(backend: str) -> None:
    theirs, mine = pair("Mistral", f"attnbench_{backend}")
    given = inputs("right")
    grads = []
    for model in (theirs, mine):
        out = real(hidden(model.train(), given), given)
        out.square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) > 10
    for got, want in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-3)


def test_no_mask_of_all_pairs_is_made() -> None:
    length = 4096
    model = build("Mistral", "attnbench_sdpa", max_position_embeddings=length)
    ids = torch.randint(1, VOCAB, (1, length), generator=torch.Generator().manual_seed(0))
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else (out,):
                if isinstance(x, Tensor):
                    largest = max(largest, x.numel())
            return out

    with torch.no_grad(), Watch():
        hidden(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert length * 32 <= largest <= length * 1024 < length * length


def test_linformer_needs_its_parameters_first() -> None:
    model = build("Bert", "attnbench_linformer")
    bare = build("Bert", "sdpa")
    bare.set_attn_implementation("attnbench_linformer")
    with pytest.raises(RuntimeError, match=r"prepare\(model"):
        hidden(bare, inputs())
    before = sum(p.numel() for p in bare.parameters())
    ours.prepare(bare)
    for one in (model, bare):
        assert sum(p.numel() for p in one.parameters()) == before + 2 * 2 * 64 * 16
    assert any(name.endswith("attnbench.own.key_projection.weight") for name in model.state_dict())
    hidden(model.train(), inputs()).sum().backward()
    grads = [p.grad for name, p in model.named_parameters() if "attnbench" in name]
    assert len(grads) == 4
    assert all(g is not None and g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize(
    ("kind", "backend", "changes", "call", "message"),
    [
        ("GPT2", "linformer", {}, {}, "is_causal: linformer is bidirectional only"),
        ("Mistral", "performer", {}, {}, "the layer sees 8 keys on a side, and performer has"),
        ("Mistral", "bigbird", {}, {}, "accepted: attnbench_longformer and the exact backends"),
        ("Bert", "sdpa", {}, {"attention_mask": torch.ones(2, 1, LENGTH, LENGTH)}, "ready"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused(
    kind: str, backend: str, changes: dict[str, Any], call: dict[str, Any], message: str
) -> None:
    model = build(kind, f"attnbench_{backend}", **changes)
    with pytest.raises(UnsupportedError, match=message), torch.no_grad():
        model(**{**inputs(), **call})


def test_dropout_is_honoured_or_refused() -> None:
    model = build("Bert", "attnbench_performer", attention_probs_dropout_prob=0.1).train()
    with pytest.raises(UnsupportedError, match=r"dropout: .* probability 0.1, and performer"):
        hidden(model, inputs())
    model = build(
        "Bert", "attnbench_sdpa", attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0
    )
    with torch.no_grad():
        still = [hidden(model, inputs()) for _ in range(2)]
        moving = [hidden(model.train(), inputs()) for _ in range(2)]
        again = hidden(model.eval(), inputs())
    assert torch.equal(*still)
    assert torch.equal(still[0], again)
    assert not torch.allclose(*moving)


def test_softcapping_is_refused() -> None:
    config = transformers.Gemma2Config(**{**LOCAL, "head_dim": 8, "attn_logit_softcapping": 50.0})
    model = transformers.Gemma2Model._from_config(config, attn_implementation="attnbench_full")
    with pytest.raises(UnsupportedError, match="softcap: the model hands it to attention"):
        model(**inputs())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"longformr": {}}, ValueError, "longformer"),
        ({"longformer": {"windw": 3}}, TypeError, "window"),
        ({"longformer": {"window": -1}}, ValueError, "window"),
        ({"sdpa": {"num_heads": 3}}, TypeError, "num_heads: the model decides it"),
    ],
)
def test_bad_options_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ours.register(**options)


def test_a_missing_option_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ours._options, "linformer")
    ours.register()
    with pytest.raises(TypeError, match=r"seq_len.*register\(linformer"):
        build("Bert", "attnbench_linformer")


def test_new_options_reach_a_model_built_before_when_it_is_prepared() -> None:
    model = build("Bert", "attnbench_longformer")
    with torch.no_grad():
        narrow = hidden(model, inputs())
        ours.register(longformer={"window": LENGTH})
        assert torch.equal(hidden(model, inputs()), narrow)
        ours.prepare(model)
        exact = hidden(build("Bert", "sdpa"), inputs())
        torch.testing.assert_close(hidden(model, inputs()), exact, atol=1e-4, rtol=1e-4)
    assert (narrow - exact).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/transformers.md", "README.md"])
def test_what_the_pages_show_runs(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    shown = [block for block in blocks if "attention.integrations" in block or page != "README.md"]
    assert shown
    scope: dict[str, Any] = {}
    for block in shown:
        exec(compile(block, page, "exec"), scope)
    model = scope["bert" if page == "README.md" else "model"].eval()
    with torch.no_grad():
        out = model(torch.ones(1, 200, dtype=torch.int64)).last_hidden_state
    assert out.isfinite().all()


# -- swapped ---------------------------------------------------------------------------------


def longformer(**changes: Any) -> Any:
    config = transformers.LongformerConfig(
        **{**TEXT, "attention_window": [16, 8], "pad_token_id": 0, "sep_token_id": 1, **changes}
    )
    torch.manual_seed(0)
    return transformers.LongformerModel(config).eval()


def bigbird(**changes: Any) -> Any:
    config = transformers.BigBirdConfig(
        **{
            **TEXT, "block_size": 4, "num_random_blocks": 2, "pad_token_id": 0,
            "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0, **changes,
        }
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.BigBirdModel(config).eval()


@pytest.mark.parametrize("padded", ["", "right"])
@pytest.mark.parametrize("with_global", [False, True])
def test_a_swapped_longformer_gives_the_same(with_global: bool, padded: str) -> None:
    theirs, mine = longformer(), longformer()
    given = inputs(padded)
    more = {}
    if with_global:
        more["global_attention_mask"] = torch.zeros_like(given["input_ids"])
        more["global_attention_mask"][0, [0, 17]] = 1
        more["global_attention_mask"][1, 3] = 1
    names = list(mine.state_dict())
    assert ours.swap(mine) is mine
    assert list(mine.state_dict()) == names
    assert not [m for m in mine.modules() if type(m).__name__ == "LongformerSelfAttention"]
    outs = [model(**given, **more).last_hidden_state for model in (theirs, mine)]
    torch.testing.assert_close(real(outs[1], given), real(outs[0], given), atol=1e-4, rtol=1e-4)
    grads = []
    for model, out in zip((theirs, mine), outs, strict=True):
        real(out, given).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert with_global == any("query_global" in name for name in grads[0])
    for name, want in grads[0].items():
        torch.testing.assert_close(grads[1][name], want, atol=2e-4, rtol=1e-3)


@covering(("training", [False, True]), ("padded", ["", "right"]), ("length", [64, 1024]))
def test_a_swapped_bigbird_gives_the_same(length: int, padded: str, training: bool) -> None:
    block = 4 if length == 64 else 16
    changes = {"block_size": block, "max_position_embeddings": length}
    theirs, mine = bigbird(**changes).train(training), bigbird(**changes).train(training)
    names = list(mine.state_dict())
    ours.swap(mine)
    assert list(mine.state_dict()) == names
    generator = torch.Generator().manual_seed(1)
    given = {
        "input_ids": torch.randint(1, VOCAB, (BATCH, length), generator=generator),
        "attention_mask": torch.ones(BATCH, length, dtype=torch.int64),
    }
    if padded:
        given["attention_mask"][1, length - 11 :] = 0
    outs = [model(**given).last_hidden_state for model in (theirs, mine)]
    assert mine.attention_type == theirs.attention_type == "block_sparse"
    torch.testing.assert_close(real(outs[1], given), real(outs[0], given), atol=1e-4, rtol=1e-4)
    grads = []
    for model, out in zip((theirs, mine), outs, strict=True):
        real(out, given).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, want in grads[0].items():
        torch.testing.assert_close(grads[1][name], want, atol=5e-4, rtol=2e-3)


def test_a_swapped_longformer_refuses_weights_and_other_models() -> None:
    mine = ours.swap(longformer())
    with pytest.raises(UnsupportedError, match="output_attentions"):
        mine(**inputs(), output_attentions=True)
    with pytest.raises(ValueError, match=r"LongformerSelfAttention or .* or BigBirdBlockSparse"):
        ours.swap(nn.Linear(2, 2))


SEQ2SEQ: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48, "init_std": 0.2, "pad_token_id": 0, "dropout": 0.0,
    "attention_dropout": 0.0, "activation_dropout": 0.0,
}  # fmt: skip


def seq2seq(kind: str) -> Any:
    changes: dict[str, Any] = {"max_position_embeddings": 128, "block_size": 4}
    if kind == "LED":
        changes = {"attention_window": [16, 8], "max_encoder_position_embeddings": 128}
    config = getattr(transformers, f"{kind}Config")(**SEQ2SEQ, **changes)
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


@covering(
    ("training", [False, True]), ("padded", ["", "right"]), ("kind", ["LED", "BigBirdPegasus"])
)
def test_a_swapped_encoder_gives_the_same_logits(kind: str, padded: str, training: bool) -> None:
    theirs, mine = seq2seq(kind).train(training), seq2seq(kind).train(training)
    names = list(mine.state_dict())
    ours.swap(mine)
    assert list(mine.state_dict()) == names
    swapped = [m for m in mine.modules() if "transformers_layers" in type(m).__module__]
    assert len(swapped) >= 2
    generator = torch.Generator().manual_seed(1)
    given = {
        "input_ids": torch.randint(4, VOCAB, (BATCH, 64), generator=generator),
        "attention_mask": torch.ones(BATCH, 64, dtype=torch.int64),
        "decoder_input_ids": torch.randint(4, VOCAB, (BATCH, 7), generator=generator),
    }
    if padded:
        given["attention_mask"][1, 53:] = 0
    if kind == "LED":
        given["global_attention_mask"] = torch.zeros_like(given["input_ids"])
        given["global_attention_mask"][0, [0, 17]] = 1
    outs = [model(**given).logits for model in (theirs, mine)]
    torch.testing.assert_close(outs[1], outs[0], atol=2e-4, rtol=1e-4)
    for out in outs:
        out.square().mean().backward()
    for (name, p), other in zip(theirs.named_parameters(), mine.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(other.grad, p.grad, atol=5e-4, rtol=2e-3, msg=name)


# -- chosen by kind and by layer -------------------------------------------------------------


def test_self_and_cross_attention_have_backends_of_their_own() -> None:
    theirs, mine = pair("Bart", "attnbench_full")
    ours.choose(
        mine, ("longformer", {"window": 64}), cross="sdpa", layers={"*encoder.layers.0.*": "full"}
    )
    assert [one.name for one in ours.backends(mine)] == ["full", "longformer", "sdpa"]
    given = inputs("right")
    with torch.no_grad():
        expected, actual = hidden(theirs, given), hidden(mine, given)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    made = transformers.BartForConditionalGeneration._from_config(config_of("Bart")).eval()
    written = [made.generate(**given, max_new_tokens=9, do_sample=False)]
    ours.choose(made, "sdpa", encoder=("longformer", {"window": 64}))
    written.append(made.generate(**given, max_new_tokens=9, do_sample=False))
    assert torch.equal(*written)


def test_a_choice_keeps_what_is_there_and_differs_by_layer() -> None:
    model = build("Bart", "attnbench_performer")
    first = [one.projection for one in ours.backends(model)]
    ours.choose(model, "performer", cross="sdpa")
    kept = [one for one in ours.backends(model) if one.name == "performer"]
    assert [one.projection is x for one, x in zip(kept, first, strict=False)] == [True, True]
    model.set_attn_implementation("eager")
    ours.choose(model, "performer", cross=("performer", {"num_features": 8}))
    assert not torch.equal(*(one.projection for one in ours.backends(model)[:2]))
    assert ours.backends(model)[2].num_features == 8


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"cross": "sdpa"}, ValueError, "cross: the model has no such layers; accepted: encoder"),
        ({"layers": {"*.9.*": "full"}}, ValueError, r"layers: .* is none of encoder.layer.0"),
        ({"encoder": "longformr"}, ValueError, "longformer"),
        ({"encoder": ("longformer", {"windw": 3})}, TypeError, "window"),
        ({"encoder": ("sdpa", {"num_heads": 3})}, TypeError, "the model decides it"),
    ],
)
def test_choices_that_do_not_fit_are_named(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ours.choose(build("Bert", "sdpa"), "full", **given)


def test_nothing_chosen_is_said() -> None:
    model = build("Bert", "sdpa")
    model.set_attn_implementation("attnbench_chosen")
    with pytest.raises(RuntimeError, match=r"call choose\(model"):
        hidden(model, inputs())
