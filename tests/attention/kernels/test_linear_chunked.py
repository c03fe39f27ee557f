"""Kernel attention in large batched products, against dense attention in the log domain."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor

import attention
from attention.functional import error_budget, relative_l2
from attention.kernels.linear import chunk_math
from attention.kernels.linear.chunk_math import Sums, prefix_sums
from attention.kernels.linear.chunked import chunked_attention, key_sums
from attention.kernels.linear.chunks import Sizes
from attention.kernels.linear.features import Features
from attention.testing import assert_matches

SMALL = Sizes(chunk=8, block_chunks=2, block_features=2**20)
LENGTHS = [
    (1, 1),
    (7, 7),
    (8, 8),
    (9, 9),
    (15, 15),
    (16, 16),
    (17, 17),
    (67, 67),
    (20, 45),
    (45, 20),
]
KINDS = ("softmax", "relu")


def make_map(kind: str, dim: int = 6, rank: int = 12, epsilon: float = 1e-3) -> Features:
    return Features(
        projection=torch.randn(rank, dim), scale=dim**-0.25, kind=kind,
        epsilon=epsilon if kind == "relu" else 0.0,
    )  # fmt: skip


def oracle(
    q: Tensor, k: Tensor, v: Tensor, features: Features, hidden: Tensor | None, causal: bool
) -> Tensor:
    """Normalise the logarithms of the weights ``[G, N, M]``, which no range can harm."""
    q, k = (x.double() * features.scale for x in (q, k))
    omega = features.projection.double()
    if features.kind == "relu":
        phi_q, phi_k = (torch.relu(x @ omega.T) + features.epsilon for x in (q, k))
        weights = (phi_q @ phi_k.mT).log()
    else:
        lq, lk = (x @ omega.T - 0.5 * (x * x).sum(-1, keepdim=True) for x in (q, k))
        weights = torch.logsumexp(lq[:, :, None] + lk[:, None], dim=-1)
    n, m = weights.shape[1:]
    if causal:
        future = torch.arange(m) > torch.arange(n)[:, None] + m - n
        weights = weights.masked_fill(future, -torch.inf)
    if hidden is not None:
        weights = weights.masked_fill(hidden[:, None], -torch.inf)
    some = (weights > -torch.inf).any(dim=-1, keepdim=True)
    return torch.softmax(torch.where(some, weights, 0.0), dim=-1) @ v.double() * some


def draw(n: int, m: int, scale: float, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    q, k, v = (torch.randn(3, length, 6, dtype=torch.float64) for length in (n, m, m))
    return [x.to(dtype) for x in (q * scale, k * scale, v)]


@covering(("n, m", LENGTHS), ("scale", [1.0, 5.0, 30.0]), ("kind", KINDS))
def test_output_and_gradients_equal_dense(kind: str, scale: float, n: int, m: int) -> None:
    features = make_map(kind)
    for causal, padding in itertools.product([False, True], repeat=2):
        hidden = torch.rand(3, m) < 0.4 if padding else None
        if hidden is not None:
            hidden[2] = True
        mine, its = ([x.requires_grad_() for x in draw(n, m, scale)] for _ in range(2))
        its = [x.detach().clone().requires_grad_() for x in mine]
        out = chunked_attention(*mine, features, hidden, is_causal=causal, sizes=SMALL)
        expected = oracle(*its, features, hidden, causal)
        where = f"causal={causal}, padding={padding}"
        assert_matches(f"output ({where})", out, expected, 1e-9)
        weight = torch.randn_like(expected)
        got = torch.autograd.grad(out, mine, weight)
        want = torch.autograd.grad(expected, its, weight)
        for which, a, b in zip("qkv", got, want, strict=True):
            error = float((a - b).norm())  # a gradient may be zero: one key alone
            assert error <= 1e-9 * (float(b.norm()) + 1.0), f"gradient of {which} ({where})"


@covering(
    ("dtype", [torch.float32, torch.bfloat16, torch.float16]),
    ("scale", [1.0, 30.0]),
    ("causal", [False, True]),
)
def test_other_dtypes_at_any_range(dtype: torch.dtype, scale: float, causal: bool) -> None:
    features = make_map("softmax")
    inputs = draw(67, 67, scale, dtype)
    out = chunked_attention(*inputs, features, is_causal=causal, sizes=SMALL)
    expected = oracle(*inputs, features, None, causal)
    assert out.dtype == dtype
    # A logit of size scale² is as exact as its dtype: an error of that size in the weight.
    exact = torch.finfo(torch.float32).eps * scale**2 * 8
    assert_matches("output", out, expected, max(error_budget(dtype, 0.0), exact))


def test_a_chunk_whose_later_keys_are_far_larger_is_read_by_halves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    real = chunk_math.read_by_halves

    def watched(*inputs: Any) -> Any:
        calls.append(inputs[0].shape)
        return real(*inputs)

    monkeypatch.setattr(chunk_math, "read_by_halves", watched)
    features = make_map("softmax")
    q, k, v = draw(32, 32, 1.0)
    plain = chunked_attention(q, k, v, features, is_causal=True, sizes=SMALL)
    assert not calls
    assert_matches("in range", plain, oracle(q, k, v, features, None, True), 1e-10)
    small = k.clone()
    small[:, 16:28] *= 60.0  # exp(-|k|²/2) puts them far below the keys that follow
    out = chunked_attention(q, small, v, features, is_causal=True, sizes=SMALL)
    assert calls == [(3, 2, 8, 12)] * len(calls)
    assert len(calls) == 1  # the second of two blocks of two chunks
    assert_matches("out of range", out, oracle(q, small, v, features, None, True), 1e-10)
    second = []
    for run in (chunked_attention, oracle):
        leaves = [x.clone().requires_grad_() for x in (q, small, v)]
        how = {"is_causal": True, "sizes": SMALL} if run is chunked_attention else {"causal": True}
        total = run(*leaves, features, None, **how)[:, :, 0].sum()
        grads = torch.autograd.grad(total, leaves, create_graph=True)
        total = sum(grad[..., 0].sum() for grad in grads)
        second.append(torch.autograd.grad(total, leaves))
    for ours, dense in zip(*second, strict=True):
        assert_matches("second derivative", ours, dense, 1e-9)


def test_halves_and_squares_agree() -> None:
    features = make_map("softmax")
    q, k = (torch.randn(2, 3, 16, 12, dtype=torch.float64) for _ in range(2))
    v = torch.randn(2, 3, 16, 6, dtype=torch.float64)
    square = chunk_math.read_square(q, k, v, features, causal=True)
    halves = chunk_math.read_by_halves(q, k, v, features)
    assert_matches("output", halves.output(), square.output(), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_prefix_sums_are_the_sums_of_what_precedes(kind: str) -> None:
    features = make_map(kind)
    s, z = torch.randn(2, 5, 12, 6, dtype=torch.float64), torch.rand(2, 5, 12, dtype=torch.float64)
    top = 400 * torch.randn(2, 5, 12, dtype=torch.float64)
    if kind == "relu":
        top = torch.zeros_like(top)
    every = Sums(s, z, top)
    carry = Sums(*(x[:, 0] for x in every))
    found = prefix_sums(Sums(*(x[:, 1:] for x in every)), carry, features)
    for chunk in range(5):
        expected = carry
        for other in range(1, chunk + 1):
            expected = expected.plus(Sums(*(x[:, other] for x in every)), features)
        for a, b in zip(found, expected, strict=True):
            assert_matches(f"chunk {chunk}", a[:, chunk], b, 1e-12)


def test_sizes_hold_their_bounds() -> None:
    assert Sizes(128, 64, 2**25).block(8, 256) == 64 * 128  # chunks decide
    assert Sizes(128, 64, 2**25).block(64, 256) == 2**25 // (64 * 256)  # features decide
    assert Sizes(128, 64, 2**25).block(10**6, 256) == 128  # one chunk at least


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [1, 127, 128, 129, 300])
def test_both_kernels_of_performer_agree(n: int, causal: bool) -> None:
    options: dict[str, Any] = {"num_heads": 4, "head_dim": 16, "num_features": 32, "seed": 0}
    q, k, v = (torch.randn(2, h, n, 16, dtype=torch.float64) for h in (4, 2, 2))
    mask = torch.rand(2, n) < 0.8
    tiled, chunked = (
        attention.PerformerAttention(kernel=w, **options) for w in ("tiled", "chunked")
    )
    asks: dict[str, Any] = {"is_causal": causal, "key_padding_mask": mask}
    assert_matches("output", chunked(q, k, v, **asks), tiled(q, k, v, **asks), 1e-11)
    assert chunked.kernel == ("chunked_prefix_sums" if causal else "chunked_sums")
    assert relative_l2(tiled(q, k, v), tiled(q, k, v, key_padding_mask=mask)) > 0 or n == 1


@covering(("kind", ["softmax", "relu"]), ("is_causal", [False, True]), ("prefix", [0, 40]))
def test_sums_of_earlier_keys_stand_for_them(kind: str, is_causal: bool, prefix: int):
    """With gradients, though later keys have larger logits, and M may be larger than N."""
    torch.manual_seed(0)
    projection = torch.randn(12, 8, dtype=torch.float64)
    features = Features(projection, 0.6, kind, 1e-3 if kind == "relu" else 0.0)
    early = [torch.randn(3, 50, 8, dtype=torch.float64, requires_grad=True) for _ in "kv"]
    q = torch.randn(3, 70, 8, dtype=torch.float64, requires_grad=True)
    late = [torch.randn(3, 70 + prefix, 8, dtype=torch.float64) for _ in "kv"]
    late = [(3.0 * x).requires_grad_() for x in late]
    hidden = torch.zeros(3, 50, dtype=torch.bool)
    hidden[1, 10:30] = True
    leaves = (q, *early, *late)
    sizes = Sizes(chunk=16, block_chunks=2)
    before = key_sums(*early, features, hidden, sizes=sizes)
    out = chunked_attention(q, *late, features, is_causal=is_causal, before=before, sizes=sizes)
    grads = torch.autograd.grad(out.square().sum(), leaves, retain_graph=True)
    every = torch.nn.functional.pad(hidden, (0, 70 + prefix))
    keys, values = (torch.cat(pair, dim=1) for pair in zip(early, late, strict=True))
    whole = chunked_attention(q, keys, values, features, every, is_causal=is_causal, sizes=sizes)
    expected = torch.autograd.grad(whole.square().sum(), leaves, retain_graph=True)
    torch.testing.assert_close(out, whole, rtol=1e-9, atol=1e-12)
    for got, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)
    twice = []
    for result in (out, whole):
        total = result.cos().sum()
        graphed = torch.autograd.grad(total, leaves, create_graph=True)
        total = sum(x.square().sum() for x in graphed)
        twice.append(torch.autograd.grad(total, leaves))
    for got, wanted in zip(*twice, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)
