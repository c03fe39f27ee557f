"""Half precision: scores and softmax in float32, whatever the inputs, in both passes.

The oracle is float64 on the same rounded inputs. Of torch's own fused kernel the output is off by
less than half a unit in the last place, and the gradients by one or two: that is the measure.
Scores that are rounded leave ten times as much.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor

import attention
from attention import Attention
from attention.functional import relative_l2

HEADS, DIM, N = 2, 64, 96
HALVES = (torch.bfloat16, torch.float16)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("full", {}),
    ("sdpa", {}),
    ("longformer", {"window": 24, "kernel": "tiled"}),
    ("bigbird", {"block_size": 16, "num_random_blocks": 1, "kernel": "tiled"}),
    ("bigbird", {"block_size": 8, "num_random_blocks": 1, "kernel": "tiled"}),
    ("linformer", {"seq_len": N, "rank": 32}),
    ("linformer", {"seq_len": N, "rank": 32, "method": "mean_pool"}),
    ("performer", {"num_features": 48, "seed": 0, "kernel": "tiled"}),
    ("performer", {"num_features": 48, "seed": 0, "kernel": "chunked"}),
]
IDS = [f"{name}-{'-'.join(str(v) for v in options.values())}" for name, options in CASES]


def build(name: str, options: dict[str, Any], dtype: torch.dtype) -> tuple[Attention, Attention]:
    """Return a module in `dtype`, and one in float64 with the same parameters."""
    torch.manual_seed(0)
    module = attention.build(name, num_heads=HEADS, head_dim=DIM, **options).to(dtype)
    wide = attention.build(name, num_heads=HEADS, head_dim=DIM, **options).double()
    wide.load_state_dict(module.state_dict())
    return module, wide


def draw(deviation: float, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return q and k whose logits have a deviation, v, and a gradient of the output."""
    generator = torch.Generator().manual_seed(1)
    q, k, v, grad = (torch.randn(2, HEADS, N, DIM, generator=generator) for _ in range(4))
    return tuple(x.to(dtype) for x in (q * deviation**0.5, k * deviation**0.5, v, grad))


@covering(("dtype", HALVES), ("deviation", [1.0, 10.0, 100.0]), ("name, options", CASES))
def test_output_and_gradients_are_as_exact_as_a_fused_kernel_has_them(
    name: str, options: dict[str, Any], deviation: float, dtype: torch.dtype
) -> None:
    module, wide = build(name, options, dtype)
    *inputs, grad = draw(deviation, dtype)
    unit = torch.finfo(dtype).eps
    # Performer's tiles multiply features, not logits, in bfloat16.
    gradients = unit * (6 if name == "performer" and options["kernel"] == "tiled" else 2.5)
    for is_causal in [False, True] if module.supports.causal else [False]:
        outs = []
        for run, owner, of in (
            (module, module, dtype), (wide.reference, wide, torch.float64),
        ):  # fmt: skip
            leaves = [x.detach().to(of).requires_grad_() for x in inputs]
            out = run(*leaves, is_causal=is_causal)
            slopes = torch.autograd.grad(out, [*leaves, *owner.parameters()], grad.to(of))
            outs.append([out, *slopes])
        errors = [relative_l2(ours, right) for ours, right in zip(*outs, strict=True)]
        assert errors[0] <= 0.6 * unit, errors
        assert max(errors[1:]) <= gradients, errors


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_float16_overflows_no_earlier_than_float32(name: str, options: dict[str, Any]) -> None:
    """Logits of a million: ten times what float16 holds."""
    module, wide = build(name, options, torch.float16)
    q, k, v, grad = draw(1e5, torch.float16)
    q.requires_grad_()
    out = module(q, k, v)
    (slope,) = torch.autograd.grad(out, q, grad)
    assert out.isfinite().all()
    assert slope.isfinite().all()
    if wide.exact:
        right = wide.reference(*(x.detach().double() for x in (q, k, v)))
        assert relative_l2(out, right) < 1e-3


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] != "linformer"])
def test_decoding_rounds_no_scores_either(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    module, wide = build(name, options, dtype)
    *inputs, _ = draw(100.0, dtype)
    state = module.init_state(batch_size=2, max_len=N, dtype=dtype)
    outs = []
    for q, k, v in zip(*(x.split([40, 1, 1, 30, 24], dim=2) for x in inputs), strict=True):
        outs.append(module.prefill(q, k, v, state))
    right = wide.reference(*(x.double() for x in inputs), is_causal=True)
    # A state of sums adds the rounding of the features so far to that of a whole call.
    assert relative_l2(torch.cat(outs, dim=2), right) <= 0.6 * torch.finfo(dtype).eps
