"""Block and encoder: against torch's layers, with every backend, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor, nn

import attention
from attention import registry
from attention.base import UnsupportedError
from attention.problem import Supports
from models import (
    FeedForward,
    IdentityAttention,
    ModelConfig,
    SinusoidalPositions,
    TransformerBlock,
    TransformerEncoder,
    TransformerModel,
)

D_MODEL, HEADS, LENGTH = 32, 4, 21


def backend_options(name: str, max_len: int = LENGTH) -> dict[str, Any]:
    """Return what a backend cannot be built without."""
    return {"seq_len": max_len} if "seq_len" in attention.get(name).options() else {}


def available(name: str) -> str:
    """Skip, with the declared reason, what cannot run here."""
    if reasons := attention.get(name).unavailable_reasons("cpu"):
        pytest.skip("; ".join(reasons))
    return name


def asks(name: str) -> dict[str, bool]:
    """Return what a block is asked so that a backend serves it: those causal only, causally."""
    return {"is_causal": not attention.get(name).supports.bidirectional}


def every_backend() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", attention.names())


def hidden(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, LENGTH, D_MODEL, dtype=dtype)


def padding() -> Tensor:
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[1, 15:] = False
    return mask


def torch_block(ours: TransformerBlock, *, norm: str, activation: str) -> nn.Module:
    """Build torch's encoder layer with our weights."""
    theirs = nn.TransformerEncoderLayer(
        D_MODEL,
        HEADS,
        dim_feedforward=4 * D_MODEL,
        dropout=0.0,
        activation=activation,
        batch_first=True,
        norm_first=norm == "pre",
    ).double()
    qkv = ours.attention.qkv
    parts = (qkv.q_proj, qkv.k_proj, qkv.v_proj)
    with torch.no_grad():
        for parameter in ours.parameters():  # norms and biases too: nothing at its initial value
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        theirs.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
    for mine, other in (
        (ours.attention.out_proj, theirs.self_attn.out_proj),
        (ours.feed_forward.up_proj, theirs.linear1),
        (ours.feed_forward.down_proj, theirs.linear2),
        (ours.attention_norm, theirs.norm1),
        (ours.feed_forward_norm, theirs.norm2),
    ):
        other.load_state_dict(mine.state_dict())
    return theirs


@covering(("name", ["full", "sdpa"]), ("norm", ["pre", "post"]), ("activation", ["relu", "gelu"]))
def test_equals_torch_forward_and_gradients(name: str, norm: Any, activation: Any) -> None:
    ours = TransformerBlock(
        d_model=D_MODEL, num_heads=HEADS, attention=name, norm=norm, activation=activation
    ).double()
    theirs = torch_block(ours, norm=norm, activation=activation)
    x, takes_part = hidden(), padding()
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    actual = ours(mine, key_padding_mask=takes_part)[takes_part]
    expected = theirs(other, src_key_padding_mask=~takes_part)[takes_part]
    torch.testing.assert_close(actual, expected)
    weights = torch.randn_like(actual)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad)
    torch.testing.assert_close(ours.feed_forward.up_proj.weight.grad, theirs.linear1.weight.grad)


@every_backend()
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_backend_trains_in_the_same_block(name: str, norm: Any) -> None:
    block = TransformerBlock(
        d_model=D_MODEL,
        num_heads=HEADS,
        attention=available(name),
        attention_options=backend_options(name),
        norm=norm,
    ).double()
    x = hidden().requires_grad_()
    out = block(x, key_padding_mask=padding(), **asks(name))
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.isfinite().all()
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    extra = set(block.attention.call_projections.parameters())
    for label, parameter in block.named_parameters():
        if parameter not in extra:
            assert parameter.grad is not None, label
            assert parameter.grad.isfinite().all(), label


@every_backend()
def test_padded_contents_change_no_real_token(name: str) -> None:
    block = TransformerBlock(
        d_model=D_MODEL,
        num_heads=HEADS,
        attention=available(name),
        attention_options=backend_options(name),
    ).double()
    x, takes_part = hidden(), padding()
    other = torch.where(takes_part[..., None], x, 100.0)
    actual, expected = (
        block(each, key_padding_mask=takes_part, **asks(name))[takes_part] for each in (other, x)
    )
    torch.testing.assert_close(actual, expected)


@every_backend()
def test_state_dict_round_trip_through_a_file(name: str, tmp_path: Any) -> None:
    def encoder() -> TransformerEncoder:
        return TransformerEncoder(
            num_layers=2,
            d_model=D_MODEL,
            num_heads=HEADS,
            max_len=LENGTH,
            attention=available(name),
        ).double()

    saved, fresh = encoder(), encoder()
    x = hidden()
    assert not torch.equal(saved(x, **asks(name)), fresh(x, **asks(name)))
    torch.save(saved.state_dict(), tmp_path / "encoder.pt")
    fresh.load_state_dict(torch.load(tmp_path / "encoder.pt", weights_only=True))
    assert torch.equal(saved(x, **asks(name)), fresh(x, **asks(name)))


@every_backend()
def test_one_adamw_step_lowers_the_loss(name: str) -> None:
    encoder = TransformerEncoder(
        num_layers=2, d_model=D_MODEL, num_heads=HEADS, max_len=LENGTH, attention=available(name)
    )
    x, target = hidden(torch.float32), hidden(torch.float32)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = (encoder(x, **asks(name)) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


def dropped_places(block: TransformerBlock) -> list[float]:
    return [
        block.attention.attention.dropout_p,
        block.feed_forward.dropout.p,
        block.dropout.p,
    ]


def test_dropout_stands_in_its_three_places_and_acts_in_each() -> None:
    x = hidden()
    for place, options in (
        ("attention", {"attention_dropout_p": 0.5}),
        ("elsewhere", {"dropout_p": 0.5}),
    ):
        block = TransformerBlock(
            d_model=D_MODEL, num_heads=HEADS, attention="full", **options
        ).double()
        inside = [0.5, 0.0, 0.0] if place == "attention" else [0.0, 0.5, 0.5]
        assert dropped_places(block) == inside
        assert not torch.equal(block(x), block(x))
        block.eval()
        assert torch.equal(block(x), block(x))


def test_residual_dropout_drops_the_sublayer_and_keeps_the_input() -> None:
    block = TransformerBlock(
        d_model=D_MODEL,
        num_heads=HEADS,
        attention=IdentityAttention(num_heads=HEADS, head_dim=8),
        dropout_p=0.9,
    ).double()
    x = hidden()
    kept = (block(x) == x).double().mean().item()
    # An element keeps its input where both sub-layers were dropped: 0.9 · 0.9 of them.
    assert kept == pytest.approx(0.81, abs=0.04)


def test_feed_forward_drops_after_the_activation() -> None:
    network = FeedForward(d_model=D_MODEL, activation="gelu", dropout_p=0.5).double()
    x = hidden()
    torch.manual_seed(1)
    actual = network(x)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(nn.functional.gelu(network.up_proj(x)), 0.5)
    torch.testing.assert_close(actual, network.down_proj(dropped))


def test_encoder_is_its_parts_in_order() -> None:
    encoder = TransformerEncoder(
        num_layers=3, d_model=D_MODEL, num_heads=HEADS, max_len=40, norm="pre"
    ).double()
    x = hidden()
    expected = encoder.positions(x)
    for block in encoder.blocks:
        expected = block(expected, is_causal=True)
    torch.testing.assert_close(encoder(x, is_causal=True), encoder.final_norm(expected))
    assert isinstance(encoder.final_norm, nn.LayerNorm)


def test_encoder_drops_the_sum_of_embeddings_and_positions() -> None:
    encoder = TransformerEncoder(
        num_layers=1, d_model=D_MODEL, num_heads=HEADS, max_len=40, dropout_p=0.25
    ).double()
    seen: list[Tensor] = []
    encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(hidden())
    assert (seen[0] == 0).double().mean().item() == pytest.approx(0.25, abs=0.05)


def test_post_norm_encoder_has_no_last_norm_and_positions_can_be_left_out() -> None:
    encoder = TransformerEncoder(
        num_layers=1, d_model=D_MODEL, num_heads=HEADS, max_len=40, norm="post", positions=None
    ).double()
    x = hidden()
    torch.testing.assert_close(encoder(x), encoder.blocks[0](x))


def test_linformer_shares_one_projection_over_all_layers() -> None:
    def encoder(sharing: str) -> TransformerEncoder:
        return TransformerEncoder(
            num_layers=3,
            d_model=D_MODEL,
            num_heads=HEADS,
            max_len=64,
            attention="linformer",
            attention_options={"rank": 8, "sharing": sharing},
        )

    def projections(model: TransformerEncoder) -> int:
        owned = {id(p) for block in model.blocks for p in block.attention.attention.parameters()}
        return len(owned)

    assert projections(encoder("layer")) == 1
    assert projections(encoder("key_value")) == 3
    assert projections(encoder("headwise")) == 6


def test_layers_draw_different_patterns_unless_nothing_is_drawn() -> None:
    def seeds(**options: Any) -> list[int]:
        encoder = TransformerEncoder(
            num_layers=3,
            d_model=D_MODEL,
            num_heads=HEADS,
            max_len=64,
            attention="bigbird",
            attention_options=options,
        )
        return [block.attention.attention.seed for block in encoder.blocks]

    assert seeds() == [0, 1, 2]
    assert seeds(seed=10) == [10, 11, 12]


def test_performer_layers_draw_their_own_features() -> None:
    encoder = TransformerEncoder(
        num_layers=2, d_model=D_MODEL, num_heads=HEADS, max_len=64, attention="performer"
    )
    first, second = (dict(b.attention.attention.named_buffers()) for b in encoder.blocks)
    assert first
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_positions_follow_the_formula() -> None:
    table = SinusoidalPositions(d_model=7, max_len=50).table
    for n, channel in ((0, 0), (0, 1), (3, 2), (49, 5), (20, 6)):
        angle = n / 10000 ** (2 * (channel // 2) / 7)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert table[n, channel].item() == pytest.approx(expected, abs=1e-6)


def test_positions_are_added_and_refuse_a_longer_input() -> None:
    positions = SinusoidalPositions(d_model=D_MODEL, max_len=LENGTH)
    x = hidden()
    torch.testing.assert_close(positions(x) - x, positions.table.double().expand_as(x))
    assert positions.state_dict() == {}
    with pytest.raises(ValueError, match="22 tokens are more than max_len=21"):
        positions(torch.zeros(1, 22, D_MODEL))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"norm": "rms"}, ValueError, "norm: expected one of pre, post, got 'rms'"),
        ({"activation": "swish"}, ValueError, "activation: expected one of relu, gelu"),
        ({"d_ff": 0}, ValueError, "d_ff: expected at least 1"),
        ({"dropout_p": -0.1}, ValueError, "dropout_p: .* at least 0 .* got -0.1"),
        ({"attention_dropout_p": "x"}, TypeError, "attention_dropout_p: expected a number"),
        ({"num_heads": 3}, ValueError, "d_model: expected a multiple of num_heads=3"),
    ],
)
def test_block_refuses_bad_arguments(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        TransformerBlock(**{"d_model": D_MODEL, "num_heads": HEADS, **options})


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_layers": 0}, ValueError, "num_layers: expected at least 1"),
        ({"num_heads": 0}, ValueError, "num_heads: expected at least 1"),
        ({"max_len": True}, TypeError, "max_len: expected a whole number"),
        ({"positions": "rotary"}, ValueError, "positions: expected one of sinusoidal"),
        ({"attention": IdentityAttention(num_heads=4, head_dim=8)}, TypeError, "a backend's name"),
        ({"attention_options": {"wndow": 3}}, TypeError, "wndow: sdpa has no such option"),
    ],
)
def test_encoder_refuses_bad_arguments(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        TransformerEncoder(
            **{"num_layers": 1, "d_model": D_MODEL, "num_heads": HEADS, "max_len": 64, **options}
        )


def test_encoder_refuses_more_tokens_than_it_was_built_for() -> None:
    encoder = TransformerEncoder(num_layers=1, d_model=D_MODEL, num_heads=HEADS, max_len=20)
    with pytest.raises(ValueError, match="max_len=20"):
        encoder(hidden(torch.float32))


def test_autocast_runs_the_block_in_half_precision() -> None:
    block = TransformerBlock(d_model=D_MODEL, num_heads=HEADS)
    x = hidden(torch.float32)
    exact = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = block(x)
    assert half.isfinite().all()
    error = (half.float() - exact).norm() / exact.norm()
    assert 0 < error < 0.02


class Unmasked(IdentityAttention):
    """Attends to another sequence, but takes no mask."""

    name = "unmasked"
    supports = Supports(causal=True, cross=True, key_padding=False)


def test_what_takes_no_mask_serves_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._registry, "unmasked", Unmasked)
    config = ModelConfig(
        "encoder_decoder", vocab_size=9, d_model=D_MODEL, num_layers=1, num_heads=HEADS, d_ff=8,
        max_len=9,
    )  # fmt: skip
    for argument in ("attention", "decoder_attention"):
        with pytest.raises(UnsupportedError, match=f"^{argument}: unmasked takes no mask, and a"):
            TransformerModel(config, **{argument: "unmasked"})
    for given in ("unmasked", Unmasked(num_heads=HEADS, head_dim=8)):
        with pytest.raises(UnsupportedError, match=r"^cross_attention: unmasked takes no mask"):
            TransformerBlock(d_model=D_MODEL, num_heads=HEADS, cross_attention=given)


def test_the_floor_of_a_step_grows_with_nothing() -> None:
    assert IdentityAttention.decode_time_exponent == 0.0
    assert IdentityAttention.decode_memory_exponent == 0.0
