"""A swap of the attention keeps what was drawn at random, where it fits, and says what is new."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import attention
from models import ModelConfig, TransformerModel

SHAPE: dict[str, Any] = {
    "vocab_size": 30, "d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 48, "max_len": 24,
}  # fmt: skip


def ids(seed: int = 0) -> Tensor:
    return torch.randint(0, 30, (2, 11), generator=torch.Generator().manual_seed(seed))


def features(model: TransformerModel) -> dict[str, Tensor]:
    return {n: x.clone() for n, x in model.state_dict().items() if n.endswith(".projection")}


def redraw(model: TransformerModel) -> dict[str, Tensor]:
    for module in model.modules():
        if hasattr(module, "redraw"):
            module.redraw()
    return features(model)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[n]) for n, x in one.items())


def test_a_decoder_keeps_its_features_where_the_encoder_is_swapped() -> None:
    made = TransformerModel(
        ModelConfig("encoder_decoder", **SHAPE),
        decoder_attention="performer",
        decoder_attention_options={"num_features": 16},
        cross_attention="performer",
        cross_attention_options={"num_features": 8},
    ).eval()
    redraw(made)
    swapped = made.with_attention("longformer", window=4)
    assert len(features(made)) == 4
    assert same(features(swapped), features(made))
    assert swapped.swap_notes == ("call_projections: new, copies of the usual projections",)
    with torch.no_grad():
        memory = made.encode(ids())
        expected = made.decode(ids(1), memory=memory)
        assert torch.equal(swapped.decode(ids(1), memory=memory), expected)
    assert same(redraw(swapped), redraw(made))  # and what comes next


def test_features_are_kept_from_performer_to_performer() -> None:
    made = TransformerModel(
        ModelConfig("decoder", **SHAPE),
        attention="performer",
        attention_options={"num_features": 16},
    ).eval()
    layer = "decoder.blocks.1.attention.attention.projection"
    again = made.with_attention("performer", num_features=16, kernel="chunked")
    assert same(features(again), features(made))
    assert again.swap_notes == ()
    with torch.no_grad():
        torch.testing.assert_close(again(ids()), made(ids()), rtol=1e-3, atol=1e-4)

    seeded = made.with_attention("performer", num_features=16, seed=3)
    asked = attention.build("performer", num_heads=4, head_dim=8, num_features=16, seed=4)
    assert torch.equal(features(seeded)[layer], asked.state_dict()["projection"])
    assert f"{layer}: new, drawn by the seed that was given" in seeded.swap_notes

    wider = made.with_attention("performer", num_features=24)
    assert f"{layer}: new, drawn at random" in wider.swap_notes
    assert len(wider.swap_notes) == 2

    without = made.with_attention("sdpa")
    assert f"{layer}: not kept, sdpa has none" in without.swap_notes
    assert len(without.swap_notes) == 2
