"""The log-sum-exp as an output: its values, its gradient, and that it merges."""

from __future__ import annotations

import pytest
import torch
from helpers_covering import covering
from torch import Tensor

import attention
from attention.functional import exact_attention_rows, expand_kv_heads, visible_keys

SCALE = 0.4


def inputs(n: int, m: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    sizes = ((2, 4, n, 8), (2, 2, m, 8), (2, 2, m, 8))
    return [torch.randn(size).to(dtype).requires_grad_() for size in sizes]


def dense(q: Tensor, k: Tensor, v: Tensor, is_causal: bool, mask: Tensor | None) -> list[Tensor]:
    n, m = q.shape[2], k.shape[2]
    seen = visible_keys(torch.arange(n), n, m, is_causal=is_causal, key_padding_mask=mask)
    scores = (q @ expand_kv_heads(k, 4).mT * SCALE).masked_fill(~seen, float("-inf"))
    empty = ~seen.any(-1).expand(scores.shape[:3])
    lse = scores.masked_fill(empty[..., None], 0.0).logsumexp(-1).masked_fill(empty, -torch.inf)
    out = exact_attention_rows(q, k, v, is_causal=is_causal, key_padding_mask=mask, scale=SCALE)
    return [out, lse]


@covering(
    ("padding", [False, True]),
    ("is_causal", [False, True]),
    ("n, m", [(40, 40), (19, 40), (40, 19)]),
    ("name", ["full", "sdpa"]),
)
def test_values_and_gradients_are_those_of_the_formula(
    name: str, n: int, m: int, is_causal: bool, padding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attention.backends.sdpa.causal.MASK_ELEMENTS", 40 * 16)  # several tiles
    module = attention.build(name, num_heads=4, head_dim=8, scale=SCALE)
    q, k, v = inputs(n, m)
    mask = torch.rand(2, m) > 0.3 if padding else None
    if mask is not None:
        mask[0, :5] = False
    found = module(q, k, v, is_causal=is_causal, key_padding_mask=mask, return_lse=True)
    expected = dense(q, k, v, is_causal, mask)
    torch.testing.assert_close(found, tuple(expected))
    same = module(q, k, v, is_causal=is_causal, key_padding_mask=mask)
    real = ~expected[1].isinf()
    torch.testing.assert_close(found[0][real], same[real])
    weights = [torch.randn_like(x) for x in expected]
    ours, right = (
        torch.autograd.grad(
            sum((x[real] * w[real]).sum() for x, w in zip(pair, weights, strict=True)), (q, k, v)
        )
        for pair in (found, expected)
    )
    torch.testing.assert_close(ours, right)


@pytest.mark.parametrize("name", ["full", "sdpa"])
def test_calls_on_parts_of_the_keys_merge_to_one_call(name: str) -> None:
    module = attention.build(name, num_heads=4, head_dim=8)
    q, k, v = inputs(13, 30)
    mask = torch.rand(2, 30) > 0.5
    mask[0, 11:] = False  # one half has no key for one sequence
    halves = [
        module(q, k[:, :, at], v[:, :, at], key_padding_mask=mask[:, at], return_lse=True)
        for at in (slice(0, 12), slice(12, 30))
    ]
    total = torch.logaddexp(halves[0][1], halves[1][1])
    merged = sum((lse - total).exp()[..., None] * out for out, lse in halves)
    one, lse = module(q, k, v, key_padding_mask=mask, return_lse=True)
    torch.testing.assert_close(merged, one)
    torch.testing.assert_close(total, lse)
    weight = torch.randn_like(one)
    grads = [torch.autograd.grad((x * weight).sum(), (q, k, v)) for x in (merged, one)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["full", "sdpa"])
def test_half_precision_has_it_in_float32(name: str, dtype: torch.dtype) -> None:
    module = attention.build(name, num_heads=4, head_dim=8, scale=SCALE)
    q, k, v = inputs(9, 9, dtype)
    out, lse = module(q, k, v, is_causal=True, return_lse=True)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    right = dense(*(x.double() for x in (q, k, v)), True, None)[1]
    torch.testing.assert_close(lse.double(), right, rtol=1e-5, atol=1e-5)


def test_sdpa_refuses_what_has_no_log_sum_exp() -> None:
    q, k, v = inputs(5, 5)
    for given, named in (({"kernel": "math"}, "kernel"), ({"dropout_p": 0.1}, "dropout_p")):
        module = attention.build("sdpa", num_heads=4, head_dim=8, **given)
        with pytest.raises(attention.UnsupportedError, match=f"^{named}: .*return_lse"):
            module(q, k, v, return_lse=True)
    module = attention.build("sdpa", num_heads=4, head_dim=8)
    with pytest.raises(TypeError, match="return_lse: expected true or false"):
        module(q, k, v, return_lse=1)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("name", ["full", "sdpa"])
def test_second_derivatives_and_transforms(name: str, padding: bool) -> None:
    module = attention.build(name, num_heads=4, head_dim=8, scale=SCALE)
    _, k, v = (x.detach() for x in inputs(3, 5))
    x = torch.randn(2, 4, 3, 8, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, True], [False, True, True, True, True]])
    asked = {"is_causal": True, "key_padding_mask": mask if padding else None}

    def ours(q: Tensor) -> Tensor:
        out, lse = module(q, k, v, **asked, return_lse=True)
        return out.square().sum() + lse.sin().sum()  # type: ignore[no-any-return]

    def right(q: Tensor) -> Tensor:
        out, lse = dense(q, k, v, *asked.values())  # type: ignore[arg-type]
        return out.square().sum() + lse.sin().sum()

    torch.testing.assert_close(torch.func.grad(ours)(x), torch.func.grad(right)(x))
    vector = torch.randn_like(x)
    products = [torch.autograd.functional.vhp(f, x, vector)[1] for f in (ours, right)]
    torch.testing.assert_close(*products)
