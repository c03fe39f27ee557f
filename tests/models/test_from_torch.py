"""Layers of torch, with their weights, as ours: the same outputs and gradients."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers_covering import covering
from torch import Tensor, nn

from models import TransformerStack, from_torch

MASK = torch.arange(9) < torch.tensor([[9], [5], [1]])
"""True = takes part, as ours have it."""


def inputs() -> Tensor:
    return torch.randn(3, 9, 16, dtype=torch.float64)


def layer(**changes: Any) -> nn.TransformerEncoderLayer:
    given = {"d_model": 16, "nhead": 2, "dim_feedforward": 24, "dropout": 0.0} | changes
    made = nn.TransformerEncoderLayer(**given).double()
    for parameter in made.parameters():  # torch starts biases and norms at zeros and ones
        nn.init.normal_(parameter, std=0.3)
    return made


def assert_same(theirs: nn.Module, ours: nn.Module, batch_first: bool, **named: Any) -> None:
    x = inputs().requires_grad_()
    turned = x if batch_first else x.transpose(0, 1)
    expected = theirs(turned, src_key_padding_mask=~MASK)
    expected = expected if batch_first else expected.transpose(0, 1)
    out = ours(x, key_padding_mask=MASK)
    torch.testing.assert_close(out[MASK], expected[MASK])
    grads = [torch.autograd.grad(y[MASK].square().sum(), x)[0][MASK] for y in (out, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@covering(
    ("batch_first", [False, True]),
    ("norm_first", [False, True]),
    ("bias", [False, True]),
    ("last", [False, True]),
)
def test_an_encoder(batch_first: bool, norm_first: bool, bias: bool, last: bool) -> None:
    one = layer(batch_first=batch_first, norm_first=norm_first, bias=bias, layer_norm_eps=1e-3)
    theirs = nn.TransformerEncoder(one, 2, norm=nn.LayerNorm(16).double() if last else None)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert_same(theirs, from_torch(theirs), batch_first)


@pytest.mark.parametrize(
    "activation",
    ["relu", "gelu", F.gelu, nn.ReLU(), nn.GELU("tanh"), partial(F.gelu, approximate="tanh")],
    ids=str,
)
def test_a_layer(activation: Any) -> None:
    theirs = layer(batch_first=True, activation=activation)
    assert_same(theirs, from_torch(theirs, attention="full"), batch_first=True)


@pytest.mark.parametrize("bias", [False, True])
def test_an_attention(bias: bool) -> None:
    theirs = nn.MultiheadAttention(16, 4, batch_first=True, bias=bias).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, key = inputs(), inputs()
    expected = theirs(x, key, key, key_padding_mask=~MASK, need_weights=False)[0]
    torch.testing.assert_close(from_torch(theirs)(x, key, key_padding_mask=MASK), expected)


def test_mode_dtype_dropout_and_other_backends() -> None:
    one = layer(dropout=0.2, batch_first=True).float()
    theirs = nn.TransformerEncoder(one, 2, enable_nested_tensor=False).eval()
    for name, more, kept in (("linformer", {"max_len": 9}, 0.2), ("performer", {}, 0.0)):
        made = from_torch(theirs, attention=name, **more)
        assert isinstance(made, TransformerStack)
        assert not made.training
        assert made.blocks[0].dropout.p == made.blocks[0].feed_forward.dropout.p == 0.2
        assert made.blocks[0].attention.attention.dropout_p == kept
        assert made(inputs().float(), key_padding_mask=MASK).dtype == torch.float32
    longer = from_torch(one, attention="longformer", attention_options={"window": 2}).attention
    for key, x in longer.call_projections["global_qkv"].state_dict().items():
        assert torch.equal(x, longer.qkv.state_dict()[key])


@pytest.mark.parametrize(
    ("module", "more", "error", "said"),
    [
        (
            nn.Linear(2, 2),
            {},
            TypeError,
            "module: expected one of nn.Multihead.*got Linear",
        ),
        (nn.MultiheadAttention(8, 2, kdim=4), {}, ValueError, "module.kdim.*got 4 and 8"),
        (nn.MultiheadAttention(8, 2, add_zero_attn=True), {}, ValueError, "add_zero_attn"),
        (layer(activation=torch.tanh), {}, ValueError, "module.activation: expected relu or gelu"),
        (layer(), {"attention": "linformer"}, ValueError, "max_len: linformer is built"),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_what_ours_do_not_have_is_refused(
    module: nn.Module, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        from_torch(module, **more)
