"""Whole models: against transformers with the same weights, swapped attention, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_covering import covering
from helpers_lazy import transformers
from torch import Tensor

from attention.base import UnsupportedError
from models import (
    CONFIGS,
    ModelConfig,
    TransformerEncoder,
    TransformerModel,
    from_huggingface,
    named_config,
)

SMALL = {
    "BertForMaskedLM": {
        "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 40,
    },
    "GPT2LMHeadModel": {
        "vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48,
        "n_positions": 40,
    },
    "BartForConditionalGeneration": {
        "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48, "max_position_embeddings": 40,
    },
}  # fmt: skip
CONFIG_OF = {
    "BertForMaskedLM": "BertConfig",
    "GPT2LMHeadModel": "GPT2Config",
    "BartForConditionalGeneration": "BartConfig",
}


def theirs(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, CONFIG_OF[kind])(**{**SMALL[kind], **changes})
    made = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # biases and norms that do something
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def ids(batch: int = 3, length: int = 21, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 99, (batch, length), generator=generator)


def padding(batch: int = 3, length: int = 21) -> Tensor:
    return torch.arange(length) < torch.tensor([[length], [13], [1]])[:batch]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", SMALL)
def test_logits_are_those_of_transformers(kind: str, padded: bool) -> None:
    hf = theirs(kind)
    ours = from_huggingface(hf)
    mask = padding() if padded else None
    call: dict[str, Any] = {}
    hf_call: dict[str, Any] = {"attention_mask": None if mask is None else mask.long()}
    if kind == "BartForConditionalGeneration":
        call["decoder_input_ids"] = hf_call["decoder_input_ids"] = ids(length=9, seed=2)
    if kind == "BertForMaskedLM":
        types = (torch.arange(21) > 10).long().expand(3, -1)
        call["token_type_ids"] = hf_call["token_type_ids"] = types
    with torch.no_grad():
        expected = hf(ids(), **hf_call).logits
        actual = ours(ids(), key_padding_mask=mask, **call)
    real = mask if mask is not None and actual.shape[1] == 21 else torch.ones(actual.shape[:2]) > 0
    assert (actual - expected)[real].abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "GPT2LMHeadModel"])
def test_logits_of_their_own_matrix_are_those_of_transformers(kind: str) -> None:
    hf = theirs(kind, tie_word_embeddings=False)
    ours = from_huggingface(hf)
    assert not ours.config.tied
    assert ours.num_parameters() == from_huggingface(theirs(kind)).num_parameters() + 99 * 32
    with torch.no_grad():
        expected = hf(ids(), attention_mask=padding().long()).logits
        actual = ours(ids(), key_padding_mask=padding())
    assert (actual - expected)[padding()].abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bert-base", "BertForMaskedLM"),
        ("gpt2-small", "GPT2LMHeadModel"),
        ("bart-base", "BartForConditionalGeneration"),
    ],
)
def test_named_configurations_have_the_published_size(name: str, kind: str) -> None:
    with torch.device("meta"):
        config = getattr(transformers, CONFIG_OF[kind])()
        if kind == "BartForConditionalGeneration":  # its default is the large one
            config = transformers.BartConfig(
                d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
                decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
            )  # fmt: skip
        hf = getattr(transformers, kind)(config)
        ours = TransformerModel(named_config(name))
    assert ours.num_parameters() == sum(p.numel() for p in hf.parameters())


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_are_those_of_transformers(kind: str) -> None:
    hf = theirs(kind)
    ours = from_huggingface(hf)
    second = (ids(length=9, seed=2),) if kind == "BartForConditionalGeneration" else ()
    more = {"decoder_input_ids": second[0]} if second else {}
    hf(ids(), **more).logits.square().mean().backward()
    ours(ids(), *second).square().mean().backward()
    embedding = hf.get_input_embeddings().weight.grad
    torch.testing.assert_close(ours.tokens.weight.grad, embedding, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", SMALL)
def test_exact_attention_can_be_swapped_without_a_difference(kind: str) -> None:
    ours = from_huggingface(theirs(kind))
    second = (ids(length=9, seed=2),) if kind == "BartForConditionalGeneration" else ()
    swapped = ours.with_attention("longformer", window=40)
    with torch.no_grad():
        torch.testing.assert_close(swapped(ids(), *second), ours(ids(), *second))
    assert swapped.swap_notes == ("call_projections: new, copies of the usual projections",)
    assert not swapped.training


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own, while it traces
@pytest.mark.parametrize("name", ["full", "sdpa"])
@pytest.mark.parametrize("kind", SMALL)
def test_a_model_of_exact_attention_compiles_into_one_graph(kind: str, name: str) -> None:
    torch.compiler.reset()
    ours = from_huggingface(theirs(kind), attention=name)
    inputs = (ids(), ids(length=9)) if kind.startswith("Bart") else (ids(),)
    with torch.no_grad():
        whole = torch.compile(ours, backend="eager", fullgraph=True)(*inputs)
        torch.testing.assert_close(whole, ours(*inputs))


def test_a_longer_model_repeats_its_positions() -> None:
    ours = from_huggingface(theirs("BartForConditionalGeneration"))
    longer = ours.with_attention("longformer", max_len=100, window=8)
    for side in ("encoder_embeddings", "decoder_embeddings"):
        old, new = (getattr(m, side).positions.weight for m in (ours, longer))
        assert old.shape[0] == 42
        assert torch.equal(new[:42], old)
        assert torch.equal(new[42:82], old[2:])
        assert torch.equal(new[82:], old[2:22])
    assert (
        "encoder_embeddings.positions.weight: 40 positions, repeated to 100" in longer.swap_notes
    )
    out = longer(ids(length=100), ids(length=9))
    assert out.isfinite().all()


def test_what_is_new_or_lost_in_a_swap_is_said() -> None:
    ours = from_huggingface(theirs("BertForMaskedLM"))
    low_rank = ours.with_attention("linformer", rank=8)
    assert any("key_projection" in n and "new, drawn at random" in n for n in low_rank.swap_notes)
    kernel = ours.with_attention("performer", num_features=16)
    assert any(n.startswith("attention_dropout_p: 0.1 is not kept") for n in kernel.swap_notes)
    back = low_rank.with_attention("sdpa")
    assert any("key_projection" in n and "not kept, sdpa has none" in n for n in back.swap_notes)
    torch.testing.assert_close(back(ids()), ours(ids()))


def test_a_swap_copies_the_weights() -> None:
    ours = from_huggingface(theirs("GPT2LMHeadModel"))
    swapped = ours.with_attention("performer", num_features=16, seed=0)
    assert not any("random" in note for note in swapped.swap_notes)
    before = ours(ids()).detach().clone()
    with torch.no_grad():
        for parameter in swapped.parameters():
            parameter.zero_()
    torch.testing.assert_close(ours(ids()), before)


@pytest.mark.parametrize(
    ("kind", "first", "options"),
    [
        ("GPT2LMHeadModel", "longformer", {"window": 4}),
        ("BartForConditionalGeneration", "performer", {"num_features": 16, "seed": 0}),
        ("BertForMaskedLM", "bigbird", {"block_size": 4, "num_random_blocks": 1}),
    ],
)
def test_two_swaps_lead_back_to_the_same_model(
    kind: str, first: str, options: dict[str, Any]
) -> None:
    ours = from_huggingface(theirs(kind))
    second = (ids(length=9, seed=2),) if kind == "BartForConditionalGeneration" else ()
    swapped = ours.with_attention(first, **options)
    back = swapped.with_attention("sdpa")
    state, kept = ours.state_dict(), back.state_dict()
    assert state.keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in state.items())
    with torch.no_grad():
        expected = ours(ids(), *second)
        assert (swapped(ids(), *second) - expected).abs().max() > 1e-4
        assert torch.equal(back(ids(), *second), expected)
    # What the second backend has for itself survives a third swap to the same one.
    if first == "longformer":
        with torch.no_grad():
            swapped.decoder.blocks[0].attention.call_projections["global_qkv"].q_proj.bias += 1.0
        again = swapped.with_attention("longformer", window=8)
        assert all(
            torch.equal(value, again.state_dict()[name])
            for name, value in swapped.state_dict().items()
        )


def test_what_cannot_serve_is_refused_when_the_model_is_built() -> None:
    decoder = named_config("gpt2-small").scaled(num_layers=1, d_model=32, num_heads=4, d_ff=8)
    both = named_config("bart-base").scaled(num_layers=1, d_model=32, num_heads=4, d_ff=8)
    with pytest.raises(UnsupportedError, match=r"attention: linformer cannot be causal, .*future"):
        TransformerModel(decoder, attention="linformer")
    with pytest.raises(UnsupportedError, match="decoder_attention: linformer cannot be causal"):
        TransformerModel(both, attention="linformer")
    TransformerModel(both, attention="linformer", decoder_attention="sdpa")
    with pytest.raises(UnsupportedError, match="cross_attention: longformer attends within one"):
        TransformerModel(both, cross_attention="longformer")
    with pytest.raises(ValueError, match="cross_attention: only an encoder-decoder has one"):
        TransformerModel(decoder, cross_attention="sdpa")


def test_bad_input_is_named() -> None:
    ours = from_huggingface(theirs("GPT2LMHeadModel"))
    for given, error, said in (
        (ids() + 90, ValueError, r"input_ids: expected ids from 0 to 98 \(vocab_size=99\), got"),
        (ids() - 90, ValueError, r"input_ids: expected ids from 0 to 98 .*got -"),
        (ids(length=41), ValueError, "input_ids: 41 tokens are more than the model's max_len=40"),
        (ids().float(), TypeError, "input_ids: expected whole numbers"),
        (ids()[0], ValueError, r"input_ids: expected \[B, N\]"),
        ([[1, 2]], TypeError, "input_ids: expected a tensor, got list"),
    ):
        with pytest.raises(error, match=said):
            ours(given)
    with pytest.raises(ValueError, match="decoder_input_ids: only an encoder-decoder takes it"):
        ours(ids(), ids())
    with pytest.raises(ValueError, match="token_type_ids: this model has no token types"):
        ours(ids(), token_type_ids=ids())
    bert = from_huggingface(theirs("BertForMaskedLM"))
    with pytest.raises(ValueError, match=r"token_type_ids: expected \(3, 21\) as input_ids, got"):
        bert(ids(), token_type_ids=ids()[:, :5])
    encoder = TransformerEncoder(num_layers=1, d_model=16, num_heads=2, max_len=9)
    with (
        torch.no_grad(),
        pytest.raises(TypeError, match=r"states: an encoder counts its positions"),
    ):
        encoder(torch.randn(1, 4, 16), states=encoder.init_states(batch_size=1, max_len=9))
    both = from_huggingface(theirs("BartForConditionalGeneration"))
    with pytest.raises(ValueError, match="decoder_input_ids: an encoder-decoder needs them"):
        both(ids())
    with pytest.raises(ValueError, match=r"config: no configuration 'bert' \(did you mean"):
        named_config("bert")
    with pytest.raises(TypeError, match=r"num_layer: no such value \(did you mean 'num_layers'"):
        CONFIGS["bert-base"].scaled(num_layer=3)
    with pytest.raises(
        TypeError, match=r"hf_model: expected one of BertForMaskedLM, .*got Linear"
    ):
        from_huggingface(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"hf_model.config.scale_embedding: expected False"):
        from_huggingface(theirs("BartForConditionalGeneration", scale_embedding=True))
    with pytest.raises(ValueError, match=r"hf_model.config.tie_word_embeddings: expected True"):
        from_huggingface(theirs("BartForConditionalGeneration", tie_word_embeddings=False))


@covering(
    ("positions", ["sinusoidal", "learned", "rotary"]),
    ("normalization", ["layer", "rms"]),
    ("activation", ["relu", "gelu", "gelu_tanh", "swiglu"]),
    ("norm", ["pre", "post"]),
)
def test_every_part_trains(positions: Any, normalization: Any, activation: Any, norm: Any) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        "decoder", vocab_size=99, d_model=32, num_layers=2, num_heads=4, d_ff=48, max_len=40,
        num_kv_heads=2, positions=positions, normalization=normalization, activation=activation,
        norm=norm, bias=False, tied=False,
    )  # fmt: skip
    model = TransformerModel(config)
    out = model(ids(), key_padding_mask=padding())
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    # The order of tokens matters, to an encoder too.
    encoder = TransformerModel(config.scaled(architecture="encoder")).eval()
    turned = encoder(ids().flip(1)).flip(1)
    assert (turned - encoder(ids())).abs().max() > 1e-4
