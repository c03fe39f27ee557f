"""Modules that are made without memory, get it by `to_empty` and are filled part by part.

The convention of FSDP: build on the meta device, `to_empty`, `reset_parameters` of each module.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attention
from models import TransformerEncoder, TransformerModel, named_config

TINY: dict[str, Any] = {
    "num_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 24, "vocab_size": 20, "max_len": 48,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "linformer": {"seq_len": 48, "rank": 4},
    "performer": {"num_features": 16},
    "bigbird": {"block_size": 4},
}


def made_on_meta(make: Callable[[], nn.Module], *, by_default: bool) -> nn.Module:
    if not by_default:
        with torch.device("meta"):
            return make()
    torch.set_default_device("meta")
    try:
        return make()
    finally:
        torch.set_default_device(None)


def filled(module: nn.Module) -> nn.Module:
    """Give it memory, then fill the modules that hold something, as FSDP does."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for x in (*module.parameters(), *module.buffers()):
            x.fill_(math.nan)
    for part in module.modules():
        if [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            part.reset_parameters()
    return module


def held(module: nn.Module) -> dict[str, Tensor]:
    return {**module.state_dict(), **dict(module.named_buffers())}


def assert_filled_alike(make: Callable[[], nn.Module], *, by_default: bool) -> nn.Module:
    torch.manual_seed(3)
    expected = make()
    torch.manual_seed(3)
    light = made_on_meta(make, by_default=by_default)
    assert all(x.is_meta for x in (*light.parameters(), *light.buffers()))
    torch.manual_seed(3)
    module = filled(light)
    assert held(module).keys() == held(expected).keys()
    for name, x in held(expected).items():
        assert torch.equal(held(module)[name], x), name
    return module


@pytest.mark.parametrize("by_default", [False, True])
@pytest.mark.parametrize("name", attention.names())
def test_a_backend_is_made_on_meta_and_filled_as_its_constructor_does(
    name: str, by_default: bool
) -> None:
    options = OPTIONS.get(name, {})
    if "seed" in attention.get(name).options():
        options = {**options, "seed": 5}
    assert_filled_alike(
        lambda: attention.build(name, num_heads=2, head_dim=8, **options), by_default=by_default
    )


def test_features_without_a_seed_are_filled_as_they_were_drawn() -> None:
    torch.manual_seed(0)
    module = attention.build("performer", num_heads=2, head_dim=8)
    first = module.projection.clone()
    module.redraw()
    assert not torch.equal(module.projection, first)
    module.reset_parameters()
    assert torch.equal(module.projection, first)


@pytest.mark.parametrize("by_default", [False, True])
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("bert-base", "sdpa"),
        ("bert-base", "longformer"),
        ("bert-base", "linformer"),
        ("bert-base", "lstm"),
        ("bart-base", "performer"),
    ],
)
def test_a_model_is_made_on_meta_and_filled_as_its_constructor_does(
    name: str, backend: str, by_default: bool
) -> None:
    """Its global projections start as copies, its tied weights stay tied."""
    config = named_config(name).scaled(**TINY)
    options = {"seed": 1, "num_features": 16} if backend == "performer" else {}
    options = {"rank": 4} if backend == "linformer" else options
    model = assert_filled_alike(
        lambda: TransformerModel(config, attention=backend, attention_options=options),
        by_default=by_default,
    )
    assert model.logits.proj.weight is model.tokens.weight
    assert copy.deepcopy(model).tokens.weight is not model.tokens.weight


def test_an_encoder_of_sinusoids_is_filled() -> None:
    assert_filled_alike(
        lambda: TransformerEncoder(num_layers=1, d_model=16, num_heads=2, max_len=12),
        by_default=False,
    )


def test_patterns_are_drawn_on_the_cpu_whatever_the_default_device_is() -> None:
    def build() -> attention.Attention:
        return attention.build("bigbird", num_heads=2, head_dim=8, block_size=4)

    q, k, v = torch.randn(3, 1, 2, 64, 8, generator=torch.Generator().manual_seed(0))
    expected, module = build()(q, k, v), build()
    with torch.device("meta"):
        blocks = module.pattern.random_blocks(module.pattern.grid(64, False), torch.device("cpu"))
    assert not blocks.is_meta
    torch.testing.assert_close(module(q, k, v), expected)


def test_no_two_layers_of_a_model_share_a_draw() -> None:
    config = named_config("bart-base").scaled(**{**TINY, "num_layers": 2})
    model = TransformerModel(
        config, attention="performer", attention_options={"seed": 0, "num_features": 16},
        cross_attention="performer", cross_attention_options={"seed": 0, "num_features": 16},
    )  # fmt: skip
    drawn = [x for name, x in model.named_buffers() if name.endswith("projection")]
    assert len(drawn) == 6
    assert len({tuple(x.flatten().tolist()) for x in drawn}) == 6
