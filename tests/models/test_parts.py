"""Parts of a block against their formulas: rotary positions, gated networks, norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models import FeedForward, ModelConfig, MultiheadAttention, RotaryPositions, TransformerModel
from models.layers.norm import make_norm


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rotary_positions_turn_pairs_by_the_papers_angles() -> None:
    x, at = draw(2, 3, 5, 8), torch.tensor([[0, 1, 2, 7, 40], [3, 3, 0, 1, 9]])
    out = RotaryPositions(head_dim=8, base=100.0)(x, at)
    for pair in range(4):  # as complex numbers: a product with e^(i·n·θ)
        turn = torch.polar(
            torch.ones_like(at, dtype=torch.float64), at.double() * 100.0 ** (-pair / 4)
        )
        expected = torch.complex(x[..., pair], x[..., pair + 4]) * turn[:, None]
        torch.testing.assert_close(out[..., pair], expected.real)
        torch.testing.assert_close(out[..., pair + 4], expected.imag)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("made_in_it", [False, True])
def test_positions_that_are_written_to_are_read_again(made_in_it: bool, inference: bool) -> None:
    rotary, x = RotaryPositions(head_dim=8), draw(2, 3, 5, 8)
    with torch.inference_mode(made_in_it):
        at = torch.arange(5).repeat(2, 1)
        first = rotary(x, at)
        assert rotary._angles(x, at)[0] is rotary._angles(x, at)[0]  # computed once
    with torch.inference_mode(inference or made_in_it):
        at += 1
        expected = RotaryPositions(head_dim=8)(x, at)
        assert torch.equal(rotary(x, at), expected)
    assert (expected - first).abs().max() > 1e-3


def test_a_score_depends_on_the_distance_alone() -> None:
    rotary = RotaryPositions(head_dim=8)
    q, k = draw(1, 1, 1, 8), draw(1, 1, 1, 8, seed=1)

    def score(query_at: int, key_at: int) -> Tensor:
        at = torch.tensor([[query_at]]), torch.tensor([[key_at]])
        return rotary(q, at[0]) @ rotary(k, at[1]).mT

    torch.testing.assert_close(score(5, 2), score(1005, 1002), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(score(2, 5), score(40002, 40005), rtol=1e-9, atol=1e-9)
    assert (score(5, 2) - score(5, 3)).abs() > 1e-3
    assert (score(5, 2) - score(2, 5)).abs() > 1e-3


@pytest.mark.parametrize("name", ["full", "sdpa", "longformer", "performer"])
def test_a_layer_gives_the_same_where_all_positions_are_shifted(name: str) -> None:
    torch.manual_seed(0)
    options = {"performer": {"num_features": 16, "seed": 0}, "longformer": {"window": 3}}.get(name)
    layer = MultiheadAttention(
        d_model=32, num_heads=4, num_kv_heads=2, attention=name,
        attention_options=options, rotary=RotaryPositions(head_dim=8),
    ).double()  # fmt: skip
    x, at = draw(2, 13, 32), torch.arange(13).expand(2, -1)
    out = layer(x, is_causal=True)
    assert torch.equal(layer(x, is_causal=True, positions=at), out)
    gaps = layer(x, is_causal=True, positions=3 * at)
    assert (gaps - out).abs().max() > 1e-4
    if name != "performer":  # its features are not of the distance, only their expectation is
        shift = torch.tensor([[700], [3]])
        torch.testing.assert_close(layer(x, is_causal=True, positions=at + shift), out)


def test_a_models_positions_are_those_among_the_tokens() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        "decoder", vocab_size=50, d_model=32, num_layers=2, num_heads=4, d_ff=48, max_len=40,
        num_kv_heads=2, positions="rotary",
    )  # fmt: skip
    model = TransformerModel(config).double().eval()
    ids = torch.randint(0, 50, (1, 9), generator=torch.Generator().manual_seed(1))
    in_front = torch.nn.functional.pad(ids, (5, 0))
    mask = torch.arange(14)[None] >= 5
    torch.testing.assert_close(model(in_front, key_padding_mask=mask)[:, 5:], model(ids))


@pytest.mark.parametrize("bias", [True, False])
def test_a_gated_network_is_shazeers(bias: bool) -> None:
    made = FeedForward(d_model=6, d_ff=10, activation="swiglu", bias=bias).double()
    assert {n for n, _ in made.named_parameters() if n.endswith("bias")} == (
        {"up_proj.bias", "gate_proj.bias", "down_proj.bias"} if bias else set()
    )
    x, weights = draw(2, 5, 6), dict(made.named_parameters())

    def affine(name: str, y: Tensor) -> Tensor:
        return y @ weights[f"{name}.weight"].T + (weights[f"{name}.bias"] if bias else 0.0)

    gate = affine("gate_proj", x)
    hidden = gate / (1 + torch.exp(-gate)) * affine("up_proj", x)
    torch.testing.assert_close(made(x), affine("down_proj", hidden))


@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_are_their_formulas(kind: Any, eps: float) -> None:
    norm, x = make_norm(kind, 6, eps=eps).double(), 3 * draw(2, 5, 6) + 1
    with torch.no_grad():
        for seed, parameter in enumerate(norm.parameters()):
            parameter.copy_(draw(6, seed=seed + 1))
    weights = dict(norm.named_parameters())
    if kind == "rms":
        assert set(weights) == {"weight"}
        expected = x / ((x**2).sum(-1, keepdim=True) / 6 + eps) ** 0.5 * weights["weight"]
    else:
        mean = x.sum(-1, keepdim=True) / 6
        variance = ((x - mean) ** 2).sum(-1, keepdim=True) / 6
        expected = (x - mean) / (variance + eps) ** 0.5 * weights["weight"] + weights["bias"]
    torch.testing.assert_close(norm(x), expected)
