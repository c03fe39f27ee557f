"""Shapes and options that hypothesis thinks of, thrown at every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attention
from attention.testing import assert_matches

OPTIONS: dict[str, Any] = {
    "full": st.fixed_dictionaries({}),
    "sdpa": st.fixed_dictionaries({"kernel": st.sampled_from(["auto", "flash", "math"])}),
    "longformer": st.fixed_dictionaries(
        {"window": st.integers(0, 70), "dilation": st.integers(1, 5)}
    ),
    "bigbird": st.fixed_dictionaries(
        {
            "block_size": st.integers(1, 40),
            "num_random_blocks": st.integers(0, 5),
            "num_global_tokens": st.integers(0, 9),
            "seed": st.integers(0, 2**40),
        }
    ),
    "linformer": st.fixed_dictionaries(
        {
            "rank": st.integers(1, 90),
            "sharing": st.sampled_from(["none", "headwise", "key_value", "layer"]),
            "method": st.sampled_from(["learned", "mean_pool"]),
        }
    ),
    "performer": st.fixed_dictionaries(
        {
            "num_features": st.integers(1, 70),
            "features": st.sampled_from(["softmax", "relu"]),
            "kernel": st.sampled_from(["tiled", "chunked"]),
            "seed": st.integers(0, 2**40),
        }
    ),
}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """A backend with options, and a call that it declares it serves."""
    name = draw(st.sampled_from(sorted(OPTIONS)))
    supports = attention.get(name).supports
    kv_heads, groups = draw(st.sampled_from([(1, 1), (1, 3), (2, 2), (4, 1)]))
    n = draw(st.integers(1, 150))
    m = draw(st.integers(1, 150)) if supports.cross else n
    return {
        "name": name,
        "options": draw(OPTIONS[name]),
        "batch": draw(st.integers(1, 3)),
        "heads": kv_heads * groups,
        "kv_heads": kv_heads,
        "dim": draw(st.sampled_from([1, 3, 8, 17])),
        "n": n,
        "m": m,
        "causal": draw(st.booleans()) and supports.causal,
        "mask": draw(st.one_of(st.none(), st.floats(0.0, 1.0))),
        "strided": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31)),
    }


@settings(max_examples=300, deadline=None)
@given(calls())
def test_fast_path_equals_reference_forward_and_backward(call: dict[str, Any]) -> None:
    torch.manual_seed(call["seed"])
    options = dict(call["options"])
    if call["name"] == "linformer":
        options["seq_len"] = call["m"] + call["seed"] % 5
    module = attention.build(
        call["name"], num_heads=call["heads"], head_dim=call["dim"], **options
    ).double()
    shapes = [(call["heads"], call["n"])] + [(call["kv_heads"], call["m"])] * 2
    inputs = [
        torch.randn(call["batch"], h, n, call["dim"], dtype=torch.float64) for h, n in shapes
    ]
    if call["strided"]:
        inputs = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    inputs = [x.requires_grad_() for x in inputs]
    mask = None
    if call["mask"] is not None:
        mask = torch.rand(call["batch"], call["m"]) < call["mask"]
    asks = {"is_causal": call["causal"], "key_padding_mask": mask}
    real = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    if mask is not None and call["n"] == call["m"]:
        real = mask[:, None, :, None]
    actual, expected = module(*inputs, **asks), module.reference(*inputs, **asks)
    assert bool(actual.isfinite().all())
    assert_matches("output", actual * real, expected * real, 1e-8)
    weight = torch.randn_like(expected) * real
    got = torch.autograd.grad(actual, inputs, weight)
    want = torch.autograd.grad(expected, inputs, weight)
    for which, a, b in zip("qkv", got, want, strict=True):
        scale = float(b.norm()) + 1e-3  # a gradient may be zero: one key, one projected key
        error = float((a - b).norm())
        assert error <= 1e-6 * scale, f"gradient of {which}: {error:.2e} of {scale:.2e}"


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 90),
    window=st.integers(0, 30),
    dilation=st.one_of(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=4, max_size=4)),
    causal=st.booleans(),
    padding=st.booleans(),
    share=st.floats(0.0, 0.5),
    projected=st.booleans(),
    kv_heads=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**31),
)
def test_longformers_global_tokens_equal_reference(
    n: int,
    window: int,
    dilation: int | list[int],
    causal: bool,
    padding: bool,
    share: float,
    projected: bool,
    kv_heads: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    module = attention.LongformerAttention(
        num_heads=4, head_dim=5, window=window, dilation=dilation
    )

    def draw() -> list[torch.Tensor]:
        shapes = [(2, heads, n, 5) for heads in (4, kv_heads, kv_heads)]
        return [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    inputs = draw()
    own = draw() if projected else []
    real = torch.rand(2, n) < 0.7 if padding else torch.ones(2, n, dtype=torch.bool)
    asks: dict[str, Any] = {
        "is_causal": causal,
        "key_padding_mask": real if padding else None,
        "global_mask": torch.rand(2, n) < share,
        "global_qkv": tuple(own) if projected else None,
    }
    keep = real[:, None, :, None]
    actual, expected = module(*inputs, **asks), module.reference(*inputs, **asks)
    assert_matches("output", actual * keep, expected * keep, 1e-8)
    weight = torch.randn_like(expected) * keep
    leaves = inputs + own
    got = torch.autograd.grad(actual, leaves, weight, allow_unused=True)
    want = torch.autograd.grad(expected, leaves, weight, allow_unused=True)
    for a, b in zip(got, want, strict=True):
        # Without a global token the projected triple is not touched, which is a gradient of 0.
        a, b = (torch.zeros(1, dtype=torch.float64) if x is None else x for x in (a, b))
        assert float((a - b).norm()) <= 1e-6 * (float(b.norm()) + 1e-3)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(OPTIONS)),
    batch=st.integers(0, 2),
    heads=st.integers(0, 5),
    n=st.integers(0, 4),
    kv_heads=st.integers(0, 5),
    m=st.integers(0, 4),
    dim=st.integers(0, 5),
)
def test_any_shape_runs_or_is_refused_by_name(
    name: str, batch: int, heads: int, n: int, kv_heads: int, m: int, dim: int
) -> None:
    options = {"seq_len": 3} if name == "linformer" else {}
    module = attention.build(name, num_heads=4, head_dim=4, **options)
    q = torch.randn(batch, heads, n, dim)
    k = torch.randn(batch, kv_heads, m, dim)
    fits = heads == 4 and dim == 4 and min(n, m) > 0 and kv_heads in (1, 2, 4)
    if not fits:
        with pytest.raises(ValueError, match=r"^[qk]: "):
            module(q, k, k)
    elif reasons := module.unsupported_reasons(attention.Problem.of(q, k)):
        assert all(reason.startswith("k: ") for reason in reasons)
        with pytest.raises(attention.UnsupportedError, match=r"^k: "):
            module(q, k, k)
    else:
        assert module(q, k, k).shape == q.shape
