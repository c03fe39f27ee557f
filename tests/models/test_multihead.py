"""The multi-head layer: against torch's, with every backend, and what it refuses."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor, nn

import attention
from attention.base import UnsupportedError
from attention.problem import CallInput, Supports
from models import IdentityAttention, LSTMLayer, MultiheadAttention, RotaryPositions

D_MODEL, HEADS, LENGTH = 32, 4, 13


def layer(**options: Any) -> MultiheadAttention:
    return MultiheadAttention(d_model=D_MODEL, num_heads=HEADS, **options).double()


def hidden(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, LENGTH, D_MODEL)), dtype=torch.float64)


def torch_layer(ours: MultiheadAttention) -> nn.MultiheadAttention:
    """Build torch's layer with our weights."""
    theirs = nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True).double()
    parts = (ours.qkv.q_proj, ours.qkv.k_proj, ours.qkv.v_proj)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    return theirs


def randomise_biases(module: nn.Module) -> None:
    """Move the biases off zero: a forgotten one would not be seen."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()


@pytest.mark.parametrize("name", ["full", "sdpa"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_equals_torch_with_its_weights(name: str, is_causal: bool) -> None:
    ours = layer(attention=name)
    randomise_biases(ours)
    x = hidden()
    future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1) if is_causal else None
    expected, _ = torch_layer(ours)(x, x, x, attn_mask=future, need_weights=False)
    torch.testing.assert_close(ours(x, is_causal=is_causal), expected)


@pytest.mark.parametrize("name", ["full", "sdpa"])
def test_padding_equals_torch_with_the_mask_inverted(name: str) -> None:
    ours = layer(attention=name)
    x, takes_part = hidden(), torch.ones(2, LENGTH, dtype=torch.bool)
    takes_part[1, 8:] = False
    expected, _ = torch_layer(ours)(x, x, x, key_padding_mask=~takes_part, need_weights=False)
    actual = ours(x, key_padding_mask=takes_part)
    torch.testing.assert_close(actual[takes_part], expected[takes_part])


def test_cross_attention_equals_torch() -> None:
    ours = layer()
    x, key = hidden(), hidden(2, 7, D_MODEL)
    expected, _ = torch_layer(ours)(x, key, key, need_weights=False)
    torch.testing.assert_close(ours(x, key), expected)


def test_fewer_kv_heads_equal_a_full_layer_with_the_heads_repeated() -> None:
    grouped, full = layer(num_kv_heads=2), layer()
    assert grouped.qkv.k_proj.weight.shape == (2 * D_MODEL // HEADS, D_MODEL)
    state = grouped.state_dict()
    for part in ("k_proj", "v_proj"):
        for kind in ("weight", "bias"):
            heads = state[f"qkv.{part}.{kind}"].unflatten(0, (2, -1))
            state[f"qkv.{part}.{kind}"] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    x = hidden()
    torch.testing.assert_close(grouped(x), full(x))


def test_dropout_acts_on_the_weights_in_training_only() -> None:
    dropping = layer(attention="full", dropout_p=0.5)
    x = hidden()
    assert dropping.attention.dropout_p == 0.5
    assert not torch.equal(dropping(x), dropping(x))
    dropping.eval()
    assert torch.equal(dropping(x), dropping(x))


def test_a_built_backend_serves_as_one_by_name() -> None:
    built = attention.build("longformer", num_heads=HEADS, head_dim=8, window=2)
    by_instance = layer(attention=built)
    by_name = layer(attention="longformer", attention_options={"window": 2})
    by_name.load_state_dict(by_instance.state_dict())
    x = hidden()
    assert by_instance.attention is built
    torch.testing.assert_close(by_instance(x), by_name(x))


def test_global_projections_are_made_when_the_mask_is_given_and_only_then() -> None:
    longformer = layer(attention="longformer", attention_options={"window": 2})
    x, mask = hidden(), torch.zeros(2, LENGTH, dtype=torch.bool)
    mask[:, 0] = True
    extra = longformer.call_projections["global_qkv"]

    runs: list[Tensor] = []
    extra.register_forward_hook(lambda *_: runs.append(x))
    longformer(x)
    longformer(x, global_mask=None)
    assert runs == []

    same = longformer(x, global_mask=mask)
    q, k, v = longformer.qkv(x, x)
    by_hand = longformer.attention(q, k, v, global_mask=mask, global_qkv=(q, k, v))
    # They start as copies of the local ones.
    torch.testing.assert_close(same, longformer.out_proj(by_hand.transpose(1, 2).flatten(2)))

    with torch.no_grad():
        extra.v_proj.weight.mul_(2.0)
    moved = longformer(x, global_mask=mask)
    assert not torch.allclose(moved[:, 0], same[:, 0])
    torch.testing.assert_close(moved[:, 1:], same[:, 1:])
    moved.sum().backward()
    assert all(p.grad is not None for p in extra.parameters())


class Probe(IdentityAttention):
    """Takes a projected triple at every call, and returns its queries."""

    supports = Supports(causal=True, cross=True)
    call_inputs = MappingProxyType({"more_qkv": CallInput("projected_qkv", "always")})

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, more_qkv: Any, **_: Any) -> Tensor:
        self.seen = more_qkv
        return more_qkv[0]


def test_a_triple_that_is_always_needed_is_made_from_both_inputs() -> None:
    probing = layer(attention=Probe(num_heads=HEADS, head_dim=8), num_kv_heads=2)
    x, key = hidden(), hidden(2, 7, D_MODEL)
    out = probing(x, key)
    q, k, v = probing.call_projections["more_qkv"](x, key)
    assert [tuple(t.shape) for t in (q, k, v)] == [(2, 4, 13, 8), (2, 2, 7, 8), (2, 2, 7, 8)]
    for actual, expected in zip(probing.attention.seen, (q, k, v), strict=True):
        torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(out, probing.out_proj(q.transpose(1, 2).flatten(2)))


def test_a_backend_without_extra_inputs_has_no_extra_projections() -> None:
    assert len(layer(attention="sdpa").call_projections) == 0


def test_identity_returns_the_projected_values() -> None:
    floor = layer(attention=IdentityAttention(num_heads=HEADS, head_dim=8), num_kv_heads=2)
    x = hidden()
    v = floor.qkv.v_proj(x).unflatten(-1, (2, 1, 8)).expand(-1, -1, -1, 2, -1).flatten(2)
    torch.testing.assert_close(floor(x, is_causal=True), floor.out_proj(v))
    assert "identity" not in attention.names()
    identity = floor.attention
    q, k, values = floor.qkv(x, x)
    rows = torch.tensor([3, 5])
    torch.testing.assert_close(
        identity.reference(q, k, values, rows=rows), identity(q, k, values)[:, :, rows]
    )
    floor(x).sum().backward()
    for projection in (floor.qkv.q_proj, floor.qkv.k_proj):
        # Zeros, not None: the floor of a training step holds their backward pass.
        assert projection.weight.grad is not None
        assert not projection.weight.grad.any()
    assert floor.qkv.v_proj.weight.grad is not None
    assert floor.qkv.v_proj.weight.grad.any()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_heads": 5}, ValueError, "d_model: expected a multiple of num_heads=5, got 32"),
        ({"num_heads": 0}, ValueError, "num_heads: expected at least 1"),
        ({"d_model": 2.0}, TypeError, "d_model: expected a whole number"),
        ({"num_kv_heads": 3}, ValueError, "num_kv_heads: expected a divisor of num_heads=4"),
        ({"attention": "sdpaa"}, ValueError, "did you mean 'sdpa'"),
        ({"attention": 7}, TypeError, "attention: expected a backend's name or an Attention"),
        ({"attention_options": {"windw": 1}}, TypeError, "windw: sdpa has no such option"),
        ({"attention_options": {"head_dim": 4}}, ValueError, "head_dim is the layer's own"),
        ({"dropout_p": 1.0}, ValueError, "dropout_p: expected a number"),
        ({"attention": "performer", "dropout_p": 0.1}, UnsupportedError, "no dropout"),
        ({"attention": "linformer"}, TypeError, "seq_len: linformer needs seq_len"),
        ({"bias": 1}, TypeError, "bias: expected true or false"),
    ],
)
def test_refuses_bad_arguments(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        MultiheadAttention(**{"d_model": D_MODEL, "num_heads": HEADS, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention_options": {"kernel": "math"}}, "attention_options: a built sdpa"),
        ({"dropout_p": 0.1}, "dropout_p: a built sdpa has its own"),
        ({"num_heads": 8}, "attention: the built sdpa has num_heads=4, the layer needs 8"),
        ({"d_model": 64}, "attention: the built sdpa has head_dim=8, the layer needs 16"),
    ],
)
def test_refuses_arguments_that_a_built_backend_would_ignore(
    options: dict[str, Any], words: str
) -> None:
    built = attention.build("sdpa", num_heads=HEADS, head_dim=8)
    with pytest.raises(ValueError, match=words):
        MultiheadAttention(
            **{"d_model": D_MODEL, "num_heads": HEADS, "attention": built, **options}
        )


@pytest.mark.parametrize(
    ("args", "inputs", "error", "words"),
    [
        ((torch.zeros(2, 5, 31),), {}, ValueError, r"x: expected \[B, N, 32\]"),
        ((torch.zeros(5, 32),), {}, ValueError, r"x: expected \[B, N, 32\]"),
        ((torch.zeros(2, 0, 32),), {}, ValueError, "at least 1"),
        ((torch.zeros(2, 5, 32, dtype=torch.long),), {}, TypeError, "x: expected a floating"),
        (([1.0],), {}, TypeError, "x: expected a tensor, got list"),
        ((torch.zeros(2, 5, 32), torch.zeros(2, 5, 8)), {}, ValueError, "key: expected"),
        ((torch.zeros(2, 5, 32),), {"global_mak": None}, TypeError, "accepted: .*global_mask"),
        ((torch.zeros(2, 5, 32),), {"global_qkv": None}, TypeError, "makes this input itself"),
    ],
)
def test_refuses_bad_calls(
    args: tuple[Any, ...], inputs: dict[str, Any], error: type[Exception], words: str
) -> None:
    longformer = MultiheadAttention(d_model=D_MODEL, num_heads=HEADS, attention="longformer")
    with pytest.raises(error, match=words):
        longformer(*args, **inputs)


def test_a_declared_refusal_reaches_the_caller() -> None:
    linformer = layer(attention="linformer", attention_options={"seq_len": LENGTH})
    with pytest.raises(UnsupportedError, match="is_causal: linformer"):
        linformer(hidden(), is_causal=True)


def linformer_layer(
    order: str, sharing: str = "headwise", **options: object
) -> MultiheadAttention:
    torch.manual_seed(3)
    layer = MultiheadAttention(
        d_model=32,
        num_heads=4,
        attention="linformer",
        attention_options={"seq_len": 80, "rank": 8, "sharing": sharing},
        projection_order=order,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    ).double()
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)  # a zero bias would hide how it meets the sequence
    return layer


@covering(("sharing", ["headwise", "key_value"]), ("kv_heads", [4, 2]), ("padded", [False, True]))
def test_sequence_before_features_is_the_same_function(
    sharing: str, kv_heads: int, padded: bool
) -> None:
    layers = [
        linformer_layer(order, sharing, num_kv_heads=kv_heads)
        for order in ("features_first", "sequence_first")
    ]
    x = torch.randn(2, 70, 32, dtype=torch.float64)
    mask = torch.arange(70) < torch.tensor([[70], [41]]) if padded else None
    results = []
    for layer in layers:
        own = x.clone().requires_grad_()
        out = layer(own, key_padding_mask=mask)
        out.sin().sum().backward()
        results.append([out, own.grad, *(p.grad for p in layer.parameters())])
    for usual, reordered in zip(*results, strict=True):
        torch.testing.assert_close(reordered, usual, rtol=1e-9, atol=1e-9)
    core = "sdpa+tiled_backward"
    assert layers[0].attention.kernel == f"learned_projection+{core}"
    assert layers[1].attention.kernel == f"learned_projection_first+{core}"


def test_the_order_that_takes_fewer_operations_is_taken() -> None:
    layer = linformer_layer("auto")
    assert layer.is_sequence_first(80)
    assert not layer.is_sequence_first(6)  # fewer keys than the rank
    layer(torch.randn(1, 80, 32, dtype=torch.float64))
    assert layer.attention.kernel == "learned_projection_first+sdpa+tiled_backward"


def test_an_order_that_a_backend_lacks_is_refused() -> None:
    for layer in (
        linformer_layer("sequence_first", "none"),
        MultiheadAttention(d_model=32, num_heads=4, projection_order="sequence_first").double(),
    ):
        with pytest.raises(UnsupportedError, match="projection_order"):
            layer(torch.randn(1, 8, 32, dtype=torch.float64))
    with pytest.raises(ValueError, match="projection_order"):
        linformer_layer("fastest")


def test_a_reordered_layer_refuses_what_its_backend_refuses() -> None:
    layer = linformer_layer("sequence_first")
    x = torch.randn(1, 81, 32, dtype=torch.float64)
    with pytest.raises(UnsupportedError, match="built for seq_len 80"):
        layer(x)
    with pytest.raises(UnsupportedError, match="is_causal"):
        layer(x[:, :8], is_causal=True)
    with pytest.raises(ValueError, match="key_padding_mask"):
        layer(x[:, :8], key_padding_mask=torch.ones(1, 9, dtype=torch.bool))


def test_a_call_on_projected_keys_refuses_what_it_would_ignore() -> None:
    ours, x, key = layer(), hidden(), hidden(2, 7, D_MODEL)
    made = ours.project_keys(key)
    torch.testing.assert_close(ours(x, projected=made), ours(x, key))
    state = ours.init_state(batch_size=2, max_len=20, dtype=torch.float64)
    for given in ({"key": key}, {"state": state}, {"positions": torch.zeros(2, LENGTH)}):
        with pytest.raises(ValueError, match=f"{next(iter(given))}: of no use beside projected"):
            ours(x, projected=made, **given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="global_mask: sdpa takes no such input"):
        ours(x, projected=made, global_mask=None)
    local = layer(attention="longformer", attention_options={"window": 2})
    with pytest.raises(ValueError, match="global_mask: of no use beside projected"):
        local(
            x,
            projected=local.project_keys(x),
            global_mask=torch.ones(2, LENGTH, dtype=torch.bool),
        )
    turned = layer(rotary=RotaryPositions(head_dim=8))
    with pytest.raises(ValueError, match="projected: rotary positions are those of one sequence"):
        turned(x, projected=turned.project_keys(key))
    ordered = linformer_layer("sequence_first")
    with pytest.raises(UnsupportedError, match=r"projection_order: .*made already"):
        ordered(x, projected=ordered.project_keys(key))
    probing = layer(attention=Probe(num_heads=HEADS, head_dim=8))
    with pytest.raises(UnsupportedError, match="projected: identity needs more_qkv"):
        probing(x, projected=probing.project_keys(key))


def test_a_state_is_causal_in_every_layer() -> None:
    x = hidden(2, 3, D_MODEL)
    for made in (layer(), LSTMLayer(d_model=D_MODEL, is_causal=True).double()):
        state = made.init_state(batch_size=2, max_len=6, dtype=torch.float64)
        with torch.no_grad():
            with pytest.raises(UnsupportedError, match=r"is_causal: .*got False"):
                made(x, state=state)
            assert not state.longest
            made(x, is_causal=True, state=state)
