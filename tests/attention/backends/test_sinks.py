"""Sinks: gpt-oss's eager attention is the oracle; what is refused, kept and decoded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor

import attention
from attention.functional import relative_l2
from attention.problem import Problem

HEADS, DIM, LENGTH = 4, 16, 67
LOGITS = torch.tensor([-30.0, 0.3, 1.7, 40.0])
"""From a sink that does nothing to one that takes nearly all."""
NAMES = {"full": {}, "sdpa": {}, "longformer": {"window": 9}}


def built(name: str, **options: Any) -> attention.Attention:
    options = {**NAMES[name], "sink": LOGITS, **options}
    return attention.build(name, num_heads=HEADS, head_dim=DIM, **options)


def drawn(dtype: torch.dtype = torch.float32, kv_heads: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, h, LENGTH, DIM, generator=generator).to(dtype).requires_grad_()
        for h in (HEADS, kv_heads, kv_heads)
    ]


def visible(name: str, is_causal: bool, padding: Tensor | None) -> Tensor:
    at = torch.arange(LENGTH)
    distance = at[:, None] - at
    seen = (distance.abs() <= 9) if name == "longformer" else torch.ones_like(distance).bool()
    seen = (seen & (distance >= 0) if is_causal else seen)[None, None]
    return seen if padding is None else seen & padding[:, None, None, :]


def gpt_oss(q: Tensor, k: Tensor, v: Tensor, sink: Tensor, seen: Tensor) -> Tensor:
    """Call transformers' own function, in the dtype that is given."""
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    mask = torch.zeros(seen.shape, dtype=q.dtype).masked_fill(~seen, torch.finfo(q.dtype).min)
    module = SimpleNamespace(sinks=sink, num_key_value_groups=HEADS // k.shape[1], training=False)
    out, _ = eager_attention_forward(module, q, k, v, mask, scaling=DIM**-0.5)
    return out.transpose(1, 2)  # type: ignore[no-any-return]


@covering(
    ("padding", [False, True]),
    ("is_causal", [False, True]),
    ("kv_heads", [4, 2]),
    ("dtype", [torch.float32, torch.bfloat16]),
    ("name", [*NAMES]),
)
def test_it_is_gpt_osss_with_gradients(
    name: str, dtype: torch.dtype, kv_heads: int, is_causal: bool, padding: bool
) -> None:
    inputs = drawn(dtype, kv_heads)
    mask = None
    if padding:  # in front, between and behind; each query sees some key still
        mask = torch.ones(2, LENGTH, dtype=torch.bool)
        mask[0, 20:24], mask[1, 60:] = False, False
    module = built(name)
    real = torch.ones(1, 1, 1, 1) if mask is None else mask[:, None, :, None]
    ours = module(*inputs, is_causal=is_causal, key_padding_mask=mask) * real
    wide = [x.detach().double().requires_grad_() for x in (*inputs, LOGITS)]
    theirs = gpt_oss(*wide, visible(name, is_causal, mask)) * real
    weight = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(ours, (*inputs, module.sink), weight.to(dtype))
    want = torch.autograd.grad(theirs, wide, weight.to(dtype).double())
    budget = 5e-6 if dtype == torch.float32 else 1.2e-2
    assert relative_l2(ours, theirs) < budget
    for what, a, b in zip(("q", "k", "v", "sink"), got, want, strict=True):
        assert relative_l2(a, b) < budget, what


def test_global_tokens_have_a_sink_too() -> None:
    q, k, v = drawn(torch.float64)
    module = built("longformer").double()
    is_global = torch.zeros(2, LENGTH, dtype=torch.bool)
    is_global[0, 3], is_global[1, 40:43] = True, True
    triple = tuple(x.detach() * 0.7 for x in (q, k, v))
    asked = {"global_mask": is_global, "global_qkv": triple, "is_causal": True}
    outs = [f(q, k, v, **asked) for f in (module, module.reference)]
    torch.testing.assert_close(*outs)
    weight = torch.randn_like(outs[0])
    of = (q, k, v, module.sink)
    torch.testing.assert_close(*(torch.autograd.grad(out, of, weight) for out in outs))


@pytest.mark.parametrize("name", NAMES)
def test_grouped_heads_decode_as_one_causal_call(name: str) -> None:
    module = built(name).double().eval()
    q, k, v = (x.detach() for x in drawn(torch.float64))
    state = module.init_state(batch_size=2, max_len=LENGTH, num_kv_heads=2, dtype=torch.float64)
    sizes = (30, *[1] * (LENGTH - 30))
    parts = zip(*(x.split(sizes, 2) for x in (q, k, v)), strict=True)
    decoded = torch.cat([module.prefill(*part, state) for part in parts], dim=2)
    torch.testing.assert_close(decoded, module(q, k, v, is_causal=True))


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_reach_the_sink(name: str) -> None:
    module = built(name, sink=torch.tensor([-1.0, 0.3, 1.7, 2.0])).double()
    q, k, v = (x[:, :, :12] for x in drawn(torch.float64))

    def products(function: Any) -> tuple[Tensor, ...]:
        loss = function(q, k, v, is_causal=True).square().sum()
        first = torch.autograd.grad(loss, (q, module.sink), create_graph=True)
        total = first[0].sin().sum() + first[1].sin().sum()
        return torch.autograd.grad(total, (q, module.sink))

    torch.testing.assert_close(products(module), products(module.reference))


def test_a_parameter_is_drawn_copied_saved_and_shown() -> None:
    torch.manual_seed(0)
    module = attention.build("sdpa", num_heads=64, head_dim=DIM, sink=True)
    assert [*module.state_dict()] == ["sink"]
    assert 0.01 < float(module.sink.detach().std()) < 0.03  # gpt-oss's
    assert "sink=True" in repr(module)
    given = LOGITS.clone()
    kept = built("sdpa", sink=given)
    given.zero_()
    assert torch.equal(kept.sink, LOGITS)
    assert not [*attention.build("sdpa", num_heads=4, head_dim=DIM).state_dict()]


@pytest.mark.parametrize(
    ("sink", "error", "said"),
    [
        (torch.zeros(3), ValueError, r"sink: expected a logit a head, shape \(4,\), got \(3,\)"),
        (torch.zeros(4, 1), ValueError, r"sink: expected .* got \(4, 1\)"),
        (
            torch.zeros(4).long(),
            TypeError,
            "sink: expected floating-point logits, got torch.int64",
        ),
        (1.0, TypeError, "sink: expected true, false or a tensor of 4 logits, got 1.0"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_other_sinks_are_refused(name: str, sink: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        built(name, sink=sink)


def test_what_has_no_sink_says_so() -> None:
    q, k, v = drawn()
    refused = [
        (built("sdpa", kernel="math"), {}, "kernel: beside sink it is flash, not math"),
        (built("sdpa", dropout_p=0.1), {}, "dropout_p: .* beside sink; full does"),
        (built("longformer", dropout_p=0.1), {}, "dropout_p: .* beside sink; full does"),
        (built("longformer", kernel="flex"), {}, "sink: flex has none here; expected kernel="),
        (built("sdpa"), {"return_lse": True}, "return_lse: .* beside a sink"),
        (built("full"), {"return_lse": True}, "return_lse: .* beside a sink"),
    ]
    for module, asked, said in refused:
        with pytest.raises(attention.UnsupportedError, match=said):
            module(q, k, v, **asked)
    on_cuda = Problem.of(q, k)
    assert not built("sdpa").unsupported_reasons(on_cuda)
    nested = torch.nested.nested_tensor([x.transpose(0, 1) for x in q], layout=torch.jagged)
    with pytest.raises(attention.UnsupportedError, match="sink: nested tensors have none"):
        built("sdpa")(*[nested.transpose(1, 2)] * 3)


def test_full_drops_weights_of_keys_alone() -> None:
    module = built("full", dropout_p=0.5)
    q, k, v = (x.detach() for x in drawn(kv_heads=4))
    mean = torch.stack([module(q, k, v) for _ in range(400)]).mean(dim=0)
    torch.testing.assert_close(mean, module.eval()(q, k, v), atol=0.12, rtol=0.0)
