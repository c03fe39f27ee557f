"""Attention chosen layer by layer: lists and patterns, with their state, weights and errors."""

import io

import pytest
import torch

from models.config import ModelConfig, named_config
from models.layers.pattern import layer_names
from models.transformer import TransformerModel

CONFIG = ModelConfig("decoder", 50, d_model=16, num_layers=4, num_heads=2, d_ff=32, max_len=24)
MIXED = ["longformer", "performer", "lstm", "sdpa"]
OPTIONS = [{"window": 4}, {"seed": 3}, {}, {}]


def mixed(seed: int = 0) -> TransformerModel:
    torch.manual_seed(seed)
    return TransformerModel(CONFIG, attention=MIXED, attention_options=OPTIONS).eval()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("sdpa", ["sdpa"] * 4),
        ("longformer+sdpa", ["longformer", "sdpa"] * 2),
        ("3*performer + sdpa", ["performer"] * 3 + ["sdpa"]),
        (["full", "sdpa"], ["full", "sdpa"] * 2),
    ],
)
def test_a_pattern_is_repeated_over_the_depth(pattern, expected):
    assert layer_names("attention", pattern, 4)[0] == expected


@pytest.mark.parametrize(
    ("attention", "options", "kind", "words"),
    [
        ("2*sdpa+full", None, ValueError, r"attention: .*3 layers .*num_layers=4.*2\*sdpa\+full"),
        ([], None, ValueError, "attention: .*0 layers"),
        ("0*sdpa", None, ValueError, r"attention: expected .*'0\*sdpa'"),
        ("sdpa+", None, ValueError, "attention: expected .*'sdpa[+]'"),
        (["sdpa", 3], None, TypeError, "attention: expected .*list"),
        ("longformer+sdpa", {"window": 4}, ValueError, "attention_options: .*list of 2"),
        ("longformer+sdpa", [{"window": 4}], ValueError, "attention_options: .*2.*got 1"),
        ("sdpa", "window", TypeError, "attention_options: .*got str"),
    ],
)
def test_what_does_not_fit_is_named(attention, options, kind, words):
    with pytest.raises(kind, match=words):
        TransformerModel(CONFIG, attention=attention, attention_options=options)


def test_each_layer_has_its_own_attention_and_options():
    blocks = mixed().decoder.blocks
    assert [type(b.attention).__name__ for b in blocks] == [
        "MultiheadAttention", "MultiheadAttention", "LSTMLayer", "MultiheadAttention",
    ]  # fmt: skip
    assert blocks[0].attention.attention.name == "longformer"
    assert blocks[0].attention.attention.window == 4


@torch.no_grad()
def test_decoding_step_by_step_equals_the_whole():
    model, ids = mixed(), torch.randint(0, 50, (2, 11))
    whole = model(ids)
    state = model.init_state(batch_size=2)
    steps = [model(ids[:, :5], state=state)]
    steps += [model(ids[:, i : i + 1], state=state) for i in range(5, 11)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-4)


def test_a_token_mask_goes_to_the_layers_that_take_it():
    ids, special = torch.randint(0, 50, (1, 7)), torch.zeros(1, 7, dtype=torch.bool)
    shape = CONFIG.scaled(architecture="encoder", num_layers=2)
    torch.manual_seed(0)
    model = TransformerModel(
        shape, attention="longformer+sdpa", attention_options=[{"window": 4}, {}]
    ).eval()
    marked = special.clone()
    marked[:, 6] = True
    assert not torch.equal(model(ids, global_mask=marked), model(ids, global_mask=special))
    with pytest.raises(TypeError, match="nothing_mask"):
        model(ids, nothing_mask=special)


def test_saved_weights_give_the_same_logits():
    model, ids = mixed(), torch.randint(0, 50, (1, 7))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = mixed(seed=1)
    other.load_state_dict(torch.load(file))
    torch.testing.assert_close(other(ids), model(ids))


def test_another_pattern_keeps_the_weights():
    model, ids = TransformerModel(CONFIG).eval(), torch.randint(0, 50, (1, 7))
    torch.testing.assert_close(
        model.with_attention("full+sdpa")(ids), model(ids), atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_the_small_llama_decodes_as_it_reads_with_mixed_layers():
    shape = named_config("llama-small").scaled(num_layers=2, vocab_size=99, max_len=32)
    model, ids = TransformerModel(shape, attention="performer+sdpa").eval(), torch.arange(9)[None]
    state = model.init_state(batch_size=1)
    steps = [model(ids[:, i : i + 1], state=state) for i in range(9)]
    torch.testing.assert_close(torch.cat(steps, 1), model(ids), atol=1e-4, rtol=1e-3)
    assert not [n for n, _ in model.decoder.blocks.named_parameters() if n.endswith(".bias")]
