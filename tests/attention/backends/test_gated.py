"""Methods with decay: against other people's code, and what they refuse."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import attention

HEADS, DIM, BATCH = 4, 16, 2


def theirs(module: str) -> Any:
    """Import modelling code of transformers; its warnings are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"transformers.models.{module}")


def draw(n: int) -> tuple[Tensor, ...]:
    torch.manual_seed(n)
    q, k, v = (torch.randn(BATCH, HEADS, n, DIM) for _ in range(3))
    decay, beta = -torch.rand(BATCH, HEADS, n) * 0.5, torch.rand(BATCH, HEADS, n)
    return tuple(x.requires_grad_() for x in (q, k, v, decay, beta))


def same(got: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    """Compare outputs, and the gradients of all leaves."""
    weight = torch.randn_like(expected)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    for x, y in zip(
        torch.autograd.grad(got, leaves, weight),
        torch.autograd.grad(expected, leaves, weight),
        strict=True,
    ):
        assert (x - y).norm() <= 1e-4 * y.norm()


@pytest.mark.parametrize("n", [1, 63, 200])
def test_gated_delta_is_that_of_qwen3_next(n: int) -> None:
    rule = theirs("qwen3_next.modeling_qwen3_next").torch_chunk_gated_delta_rule
    q, k, v, decay, beta = leaves = draw(n)
    ours = attention.build("gated_delta", num_heads=HEADS, head_dim=DIM)
    got = ours(q, k, v, is_causal=True, decay=decay, beta=beta)
    swapped = [x.transpose(1, 2) for x in leaves]
    out, _ = rule(*swapped[:3], g=swapped[3], beta=swapped[4], use_qk_l2norm_in_kernel=True)
    same(got, out.transpose(1, 2), list(leaves))


@pytest.mark.parametrize("n", [1, 63, 200])
def test_gated_linear_is_the_chunk_scan_of_mamba2(n: int) -> None:
    scan = theirs("mamba2.modeling_mamba2").mamba2_chunk_scan
    q, k, v, _, dt = leaves = draw(n)
    rate = -torch.linspace(0.1, 4.0, HEADS)
    ours = attention.build("gated_linear", num_heads=HEADS, head_dim=DIM, scale=1.0)
    decay = dt * rate[:, None]
    got = ours(q, k, v * dt.unsqueeze(3), is_causal=True, decay=decay)
    swapped = [x.transpose(1, 2) for x in (v, dt, k, q)]
    out = scan(swapped[0], swapped[1], rate, swapped[2], swapped[3], chunk_size=32)
    out = out[0] if isinstance(out, tuple) else out
    same(got, out.view(BATCH, n, HEADS, DIM).transpose(1, 2), [leaves[i] for i in (0, 1, 2, 4)])


def test_lightning_is_that_of_minimax() -> None:
    config = theirs("minimax.configuration_minimax").MiniMaxConfig(
        hidden_size=HEADS * DIM, num_attention_heads=HEADS, head_dim=DIM, num_hidden_layers=2,
        block_size=32, layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    layer = theirs("minimax.modeling_minimax").MiniMaxLightningAttention(config, layer_idx=0)
    ours = attention.build(
        "gated_linear", num_heads=HEADS, head_dim=DIM, scale=1.0, decay="lightning"
    )
    x = torch.randn(BATCH, 75, HEADS * DIM, requires_grad=True)
    mask = torch.arange(75) < torch.tensor([[75], [60]])
    expected, _ = layer(x, None, mask)
    qkv = layer.act_fn(layer.qkv_proj(x)).unflatten(2, (HEADS, -1)).transpose(1, 2)
    q, k, v = qkv.split(DIM, dim=3)
    mixed = ours(q, k, v, is_causal=True, key_padding_mask=mask).transpose(1, 2).flatten(2)
    got = layer.out_proj(torch.sigmoid(layer.output_gate(x)) * layer.norm(mixed))
    same(got[mask], expected[mask], [x, *layer.parameters()])


@pytest.mark.parametrize("name", ["gated_linear", "gated_delta"])
def test_decay_by_channel_and_padding_match_the_reference(name: str) -> None:
    q, k, v, _, _ = draw(77)
    ours = attention.build(name, num_heads=HEADS, head_dim=DIM)
    decay = -torch.rand(BATCH, HEADS, 77, DIM) * 3
    mask = torch.arange(77) >= torch.tensor([[0], [20]])
    asked: dict[str, Any] = {"is_causal": True, "key_padding_mask": mask, "decay": decay}
    got = ours(q, k, v, **asked).transpose(1, 2)[mask]
    expected = ours.reference(q, k, v, **asked).transpose(1, 2)[mask]
    same(got, expected, [q, k, v])


@pytest.mark.parametrize("name", ["gated_linear", "gated_delta"])
def test_a_channel_decay_that_is_the_same_for_all_is_that_of_the_token(name: str) -> None:
    q, k, v, decay, _ = draw(130)
    ours = attention.build(name, num_heads=HEADS, head_dim=DIM)
    by_channel = ours(
        q, k, v, is_causal=True, decay=decay.unsqueeze(3).expand(-1, -1, -1, DIM).contiguous()
    )
    torch.testing.assert_close(by_channel, ours(q, k, v, is_causal=True, decay=decay))


def test_gated_delta_takes_keys_as_they_are() -> None:
    q, k, v, decay, beta = leaves = draw(70)
    plain, unit = (
        attention.build("gated_delta", num_heads=HEADS, head_dim=DIM, normalize=normalize)
        for normalize in (False, True)
    )
    gates = {"decay": decay, "beta": beta}
    q_1, k_1 = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    got = plain(q_1, k_1, v, is_causal=True, **gates)
    same(got, unit(q, k, v, is_causal=True, **gates), list(leaves))


def test_without_decay_it_is_linear_attention() -> None:
    q, k, v, _, _ = draw(90)
    ours = attention.build("gated_linear", num_heads=HEADS, head_dim=DIM, scale=1.0)
    same(ours(q, k, v, is_causal=True), (q @ k.mT).tril() @ v, [q, k, v])


def test_the_delta_rule_finds_the_last_value_of_a_key() -> None:
    keys = F.one_hot(torch.tensor([0, 1, 0, 2]), DIM).float()[None, None]
    values = torch.randn(1, 1, 4, 5)
    ours = attention.build("gated_delta", num_heads=1, head_dim=DIM, scale=1.0)
    out = ours(keys[:, :, :1].expand(-1, -1, 4, -1), keys, values, is_causal=True)
    torch.testing.assert_close(out, values[:, :, [0, 0, 2, 2]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["gated_linear", "gated_delta"])
def test_positive_decay_is_refused(name: str) -> None:
    q, k, v, decay, _ = draw(8)
    ours = attention.build(name, num_heads=HEADS, head_dim=DIM)
    with pytest.raises(ValueError, match="decay: expected values of at most 0"):
        ours(q, k, v, is_causal=True, decay=-decay)


@pytest.mark.parametrize("wrong", [-0.1, 2.1])
def test_beta_out_of_range_is_refused(wrong: float) -> None:
    q, k, v, _, beta = draw(8)
    ours = attention.build("gated_delta", num_heads=HEADS, head_dim=DIM)
    with pytest.raises(ValueError, match="beta: expected values of at least 0 and at most 2"):
        ours(q, k, v, is_causal=True, beta=torch.full_like(beta, wrong))


def test_a_decay_beside_a_fixed_one_is_refused() -> None:
    q, k, v, decay, _ = draw(8)
    ours = attention.build("gated_linear", num_heads=HEADS, head_dim=DIM, decay="retnet")
    with pytest.raises(TypeError, match="decay: gated_linear takes no such input"):
        ours(q, k, v, is_causal=True, decay=decay)
    with pytest.raises(ValueError, match="decay: expected one of retnet, lightning, got 'alibi'"):
        attention.build("gated_linear", num_heads=HEADS, head_dim=DIM, decay="alibi")
