"""Numbers of each token at the call, causal-only methods, values of another width: by a toy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gated_toy import GatedToy
from torch import Tensor

import attention.testing
from attention import UnsupportedError
from attention.gates import DecayGate, draw_beta, draw_decay
from models import MultiheadAttention

B, H, N, D = 2, 4, 9, 8
test_contract = attention.testing.contract(GatedToy)


def _call(*, per_channel: bool = False, value_dim: int = D) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(B, H, N, D, generator=generator) for _ in range(2))
    v = torch.randn(B, H, N, value_dim, generator=generator)
    decay = draw_decay((B, H, N, D) if per_channel else (B, H, N), generator)
    beta = draw_beta((B, H, N), generator)
    return {"q": q, "k": k, "v": v, "is_causal": True, "decay": decay, "beta": beta}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("value_dim", [D, 5])
def test_decay_of_heads_or_channels_and_wide_values_equal_the_formula(
    per_channel: bool, value_dim: int
) -> None:
    toy = GatedToy(num_heads=H, head_dim=D).eval()
    call = _call(per_channel=per_channel, value_dim=value_dim)
    out = toy(**call)
    assert out.shape == (B, H, N, value_dim)
    torch.testing.assert_close(out, toy.reference(**call))
    state = toy.init_state(batch_size=B, value_dim=value_dim)
    parts = [
        {n: x[:, :, t : t + 1] for n, x in call.items() if n != "is_causal"} for t in range(N)
    ]
    torch.testing.assert_close(torch.cat([toy.step(**p, state=state) for p in parts], 2), out)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"decay": None}, TypeError, "decay: gated_toy needs it at each call"),
        ({"decay": torch.full((B, H, N), 0.5)}, ValueError, "decay: expected values of at most 0"),
        ({"beta": torch.full((B, H, N), 2.5)}, ValueError, "beta: .* at least 0 and at most 2"),
        ({"beta": torch.zeros(B, H, N, D)}, ValueError, "beta: expected shape"),
        ({"decay": torch.zeros(B, N)}, ValueError, r"\(2, 4, 9\) or \(2, 4, 9, 8\)"),
        ({"beta": torch.zeros(B, H, N).half()}, TypeError, "beta: expected dtype"),
        ({"is_causal": False}, UnsupportedError, "is_causal: gated_toy is causal only"),
    ],
)
def test_bad_inputs_are_named(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        GatedToy(num_heads=H, head_dim=D)(**(_call() | changes))


def test_out_of_range_values_at_padding_leave_no_trace() -> None:
    toy, call = GatedToy(num_heads=H, head_dim=D), _call()
    mask = torch.ones(B, N, dtype=torch.bool)
    mask[1, 4:] = False
    expected = toy(**call, key_padding_mask=mask)
    call["decay"][1, :, 4:], call["beta"][1, :, 4:] = 7.0, float("nan")
    assert torch.equal(toy(**call, key_padding_mask=mask)[:, :, :4], expected[:, :, :4])


def test_values_of_another_width_are_refused_where_not_declared() -> None:
    q = torch.randn(1, 2, 5, 8)
    with pytest.raises(UnsupportedError, match="v: bigbird needs values as wide as keys"):
        attention.build("bigbird", num_heads=2, head_dim=8)(q, q, torch.randn(1, 2, 5, 6))


def test_a_layer_makes_what_the_backend_declares() -> None:
    layer = MultiheadAttention(
        d_model=H * D, num_heads=H, attention=GatedToy(num_heads=H, head_dim=D)
    )
    x = torch.randn(B, N, H * D, requires_grad=True)
    out = layer(x, is_causal=True)
    assert set(layer.token_gates) == {"decay", "beta"}
    q, k, v = layer.qkv(x, x)
    gates: dict[str, Tensor] = {name: gate(x) for name, gate in layer.token_gates.items()}
    inner = layer.attention.reference(q, k, v, is_causal=True, **gates)
    torch.testing.assert_close(out, layer.out_proj(inner.transpose(1, 2).flatten(2)))
    out.sum().backward()
    assert all(p.grad is not None for p in layer.token_gates.parameters())
    state = layer.init_state(batch_size=B)
    with torch.no_grad():
        steps = [layer(x[:, t : t + 1], is_causal=True, state=state) for t in range(N)]
    torch.testing.assert_close(torch.cat(steps, 1), out)
    with pytest.raises(TypeError, match="decay: the layer makes this input itself"):
        layer(x, is_causal=True, decay=gates["decay"])


def test_a_decay_gate_starts_as_the_paper_says() -> None:
    gate = DecayGate(16, H, D, per_channel=True)
    torch.nn.init.zeros_(gate.proj.weight)
    decay = gate(torch.randn(1, 3, 16)).detach()
    assert decay.shape == (1, H, 3, D)
    steps = -decay / gate.A_log.detach().exp().view(1, H, 1, D)
    assert 1e-3 * 0.999 <= float(steps.min()) <= float(steps.max()) <= 0.1 * 1.001
