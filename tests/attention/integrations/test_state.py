"""What our backends hold is part of a transformers model: copied, saved, loaded, moved with it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_transformers import build, config_of, hidden, inputs, transformers
from torch import Tensor, nn

import attention
from attention.integrations import transformers as ours

MISSING = r"the checkpoint does not hold .*projection"


@pytest.fixture(autouse=True)
def registered() -> None:
    pytest.importorskip("transformers", reason="needs the extra 'peers'")
    ours.register(
        performer={"num_features": 16}, linformer={"seq_len": 64, "rank": 8},
        bigbird={"block_size": 4},
    )  # fmt: skip


def out(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return hidden(model.eval(), inputs("right"))


def drawn(model: nn.Module) -> list[Tensor]:
    return [x for name, x in model.state_dict().items() if name.endswith("projection")]


@pytest.mark.parametrize(
    ("kind", "backend"),
    [("Bert", "performer"), ("Bert", "linformer"), ("Llama", "performer"), ("Bart", "performer")],
)
def test_copies_and_checkpoints_give_the_same(kind: str, backend: str, tmp_path: Path) -> None:
    """Also where the features are not those of any seed, and another seed is registered."""
    model = build(kind, f"attnbench_{backend}")
    if backend == "performer":
        for one in ours.backends(model):
            one.redraw()
    expected = out(model)
    assert torch.equal(out(copy.deepcopy(model)), expected)
    assert torch.equal(out(pickle.loads(pickle.dumps(model))), expected)
    if backend == "performer":
        ours.register(performer={"num_features": 16, "seed": 7})
    fresh = build(kind, f"attnbench_{backend}")
    assert backend != "performer" or not torch.equal(out(fresh), expected)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(out(fresh), expected)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation=f"attnbench_{backend}")
    assert torch.equal(out(loaded), expected)
    for one, other in zip(ours.backends(model), ours.backends(loaded), strict=True):
        if backend == "performer":
            one.redraw()
            other.redraw()
            assert torch.equal(one.projection, other.projection), "the stream goes on"


def test_every_process_draws_the_same() -> None:
    """By the number of the layer alone, whatever torch's seed is."""
    for seed, base in ((0, None), (1, 7)):
        ours.register(performer={"num_features": 16, "seed": base})
        torch.manual_seed(seed)
        model = transformers.BertModel._from_config(
            config_of("Bert"), attn_implementation="attnbench_performer"
        )
        for layer, features in enumerate(drawn(model)):
            alone = attention.build(
                "performer", num_heads=4, head_dim=8, num_features=16, seed=(base or 0) + layer
            )
            assert torch.equal(features, alone.projection)


@pytest.mark.parametrize("kind", ["Bert", "Llama", "Bart", "ModernBert"])
def test_layers_differ_and_a_forward_draws_nothing(kind: str) -> None:
    changes = {"local_attention": 512} if kind == "ModernBert" else {}
    torch.manual_seed(0)
    model = build(kind, "attnbench_performer", **changes)
    features = [one.projection for one in ours.backends(model)]
    assert len(features) == (3 if kind == "Bart" else 2)
    assert len({tuple(x.flatten().tolist()) for x in features}) == len(features)
    before = torch.get_rng_state()
    out(model)
    assert torch.equal(torch.get_rng_state(), before)
    plain = build(kind, "sdpa", **changes).state_dict()
    same = model.state_dict()
    assert all(torch.equal(x, same[name]) for name, x in plain.items()), "weights are as ever"


def test_bigbirds_layers_see_other_blocks() -> None:
    ours.register(bigbird={"block_size": 4, "seed": 3})
    model = build("Bert", "attnbench_bigbird")
    assert [one.seed for one in ours.backends(model)] == [3, 4]


def test_a_bare_model_and_one_with_a_head_count_alike() -> None:
    config = config_of("Bart")
    bare = transformers.BartModel._from_config(config, attn_implementation="attnbench_performer")
    whole = transformers.BartForConditionalGeneration._from_config(
        config, attn_implementation="attnbench_performer"
    )
    for one, other in zip(drawn(bare), drawn(whole), strict=True):
        assert torch.equal(one, other)


def test_what_was_used_or_loaded_does_not_change_inside_another_model() -> None:
    encoder = build("Bert", "attnbench_performer")
    other = build("Bert", "attnbench_performer", is_decoder=True, add_cross_attention=True)
    expected = out(other)
    transformers.EncoderDecoderModel(encoder=encoder, decoder=other)
    assert torch.equal(out(other), expected)


def test_a_checkpoint_without_features_says_what_was_drawn(tmp_path: Path) -> None:
    plain = build("Bert", "sdpa")
    plain.save_pretrained(tmp_path)
    model = build("Bert", "attnbench_performer")
    with pytest.warns(UserWarning, match=MISSING + ".*drawn by its seed"):
        model.load_state_dict(plain.state_dict())
    with pytest.warns(UserWarning, match=MISSING + ".*drawn by its seed"):
        loaded = transformers.BertModel.from_pretrained(
            tmp_path, attn_implementation="attnbench_performer"
        )
    assert torch.equal(out(loaded), out(model))
    with pytest.warns(UserWarning, match="key_projection.weight.*drawn anew"):
        learned = transformers.BertModel.from_pretrained(
            tmp_path, attn_implementation="attnbench_linformer"
        )
    matrices = [x for name, x in learned.named_parameters() if "attnbench" in name]
    deviations = {float(x.detach().std()) for x in matrices}
    assert len(deviations) == 4
    assert all(0.3 < x < 0.4 for x in deviations), "N(0, 1/R)"
    half = {n: x for n, x in model.state_dict().items() if "layer.1.attention.self.attn" not in n}
    with pytest.warns(UserWarning, match=MISSING):
        model.load_state_dict(half)


def test_a_model_moves_with_what_it_holds() -> None:
    model = build("Bert", "attnbench_performer").to(torch.bfloat16)
    assert {x.dtype for x in drawn(model)} == {torch.bfloat16}
    with torch.device("meta"):
        light = build("Bert", "attnbench_performer")
    assert all(x.is_meta for x in drawn(light))
    light.to_empty(device="cpu")
    for one in ours.backends(light):
        one.reset_parameters()
    for x, y in zip(drawn(light), drawn(build("Bert", "attnbench_performer")), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_with_dropout_has_the_same_first_gradient(reentrant: bool) -> None:
    grads = []
    for checkpointing in (False, True):
        model = build(
            "Bert", "attnbench_performer", hidden_dropout_prob=0.3,
            attention_probs_dropout_prob=0.0,
        ).train()  # fmt: skip
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(5)
        hidden(model, inputs()).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 20
    for got, want in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(got, want)


def test_a_model_that_changes_its_attention_is_prepared() -> None:
    model = build("Bert", "sdpa")
    model.set_attn_implementation("attnbench_performer")
    with pytest.raises(RuntimeError, match=r"no part of the model yet; call prepare\(model"):
        out(model)
    with pytest.raises(ValueError, match="dispatches to none"):
        ours.prepare(build("Bert", "sdpa"))
    expected = build("Bert", "attnbench_performer")
    assert torch.equal(out(ours.prepare(model)), out(expected))
    kept = drawn(model)[0].data_ptr()
    assert drawn(ours.prepare(model))[0].data_ptr() == kept
    model.set_attn_implementation("attnbench_full")
    with pytest.raises(RuntimeError, match=r"holds performer's tensors; prepare\(model"):
        out(model)
    model.set_attn_implementation("attnbench_performer")
    assert torch.equal(out(model), out(expected)), "nothing was lost"
    model = build("Bert", "eager")
    model.set_attn_implementation("attnbench_full")  # nothing to draw: no need to prepare
    torch.testing.assert_close(out(model), out(build("Bert", "sdpa")))


def test_layers_that_do_not_say_their_heads_are_prepared_by_a_call() -> None:
    from attention.integrations import transformers_backends

    shapes: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers_backends, "shape_of", lambda module: shapes.get("none"))
        model = build("Bert", "attnbench_performer")
        assert not drawn(model)
        with pytest.raises(ValueError, match=r"prepare\(model, input_ids=…\)"):
            ours.prepare(model)
        ours.prepare(model, **inputs())
    for x, y in zip(drawn(model), drawn(build("Bert", "attnbench_performer")), strict=True):
        assert torch.equal(x, y)
