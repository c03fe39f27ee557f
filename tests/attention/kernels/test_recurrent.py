"""Recurrences by chunks against the recurrence token by token, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attention.kernels.recurrent.blocks import Rule, Tokens
from attention.kernels.recurrent.chunked import one_token, recurrent_attention
from attention.kernels.recurrent.inverse import unit_lower_inverse

GATES = ("none", "token", "channel")


def by_token(rule: Rule, tokens: Tokens, state: Tensor) -> tuple[Tensor, Tensor]:
    """Walk over the tokens, by the formula."""
    q, k, v = (x.double() for x in tokens[:3])
    decay, beta = (None if x is None else x.double() for x in tokens[3:])
    if rule.normalize:
        q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    outs, s = [], state.double()
    for t in range(q.shape[1]):
        if decay is not None:
            s = s * (decay[:, t, :, None] if decay.dim() == 3 else decay[:, t, None, None]).exp()
        new = v[:, t] - torch.einsum("gd,gdv->gv", k[:, t], s) if rule.is_delta else v[:, t]
        if beta is not None:
            new = new * beta[:, t, None]
        s = s + k[:, t, :, None] * new[:, None]
        outs.append(rule.scale * torch.einsum("gd,gdv->gv", q[:, t], s))
    return torch.stack(outs, 1), s


def draw(
    n: int, gate: str, *, dtype: torch.dtype = torch.float64, groups: int = 2, dim: int = 8,
    strong: float = 1.0,
) -> tuple[Tokens, Tensor]:  # fmt: skip
    make = torch.Generator().manual_seed(n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)

    q, k, v = normal(groups, n, dim), normal(groups, n, dim), normal(groups, n, dim + 3)
    shape = {"none": None, "token": (groups, n), "channel": (groups, n, dim)}[gate]
    decay = None if shape is None else -strong * normal(*shape).abs()
    beta = normal(groups, n).sigmoid()
    state = torch.randn(groups, dim, dim + 3, generator=make, dtype=torch.float64)
    return (q, k, v, decay, beta), state.to(torch.promote_types(dtype, torch.float32))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("is_delta", [False, True])
@pytest.mark.parametrize("n", [1, 17, 131])
def test_output_state_and_gradients_are_those_of_the_recurrence(
    n: int, is_delta: bool, gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attention.kernels.recurrent.chunked.TILE", 2 * 8 * 64)
    rule = Rule(0.3, is_delta, normalize=is_delta)
    tokens, state = draw(n, gate)
    leaves = [x.requires_grad_() for x in (*tokens, state) if x is not None]
    out, last = recurrent_attention(rule, tokens, state)
    expected, expected_last = by_token(rule, tokens, state)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(last, expected_last)
    weights = torch.randn_like(out), torch.randn_like(last)
    got = torch.autograd.grad((out, last), leaves, weights)
    for x, y in zip(
        got, torch.autograd.grad((expected, expected_last), leaves, weights), strict=True
    ):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("is_delta", [False, True])
def test_second_derivatives(is_delta: bool, gate: str) -> None:
    tokens, state = draw(6, gate, groups=1, dim=2)
    given = [x.requires_grad_() for x in (*tokens, state) if x is not None]

    def run(*given: Tensor) -> Tensor:
        q, k, v, *more = given
        decay = None if gate == "none" else more.pop(0)
        beta, state = more
        rule = Rule(0.3, is_delta, normalize=is_delta)
        return recurrent_attention(rule, (q, k, v, decay, beta), state)[0]

    assert torch.autograd.gradgradcheck(run, given, fast_mode=True)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("is_delta", [False, True])
def test_tokens_one_by_one(is_delta: bool, gate: str) -> None:
    rule = Rule(0.3, is_delta, normalize=is_delta)
    tokens, state = draw(9, gate)
    expected, last = recurrent_attention(rule, tokens, state)
    for t in range(9):
        at = tuple(None if x is None else x[:, t : t + 1] for x in tokens)
        out = one_token(rule, at, state)  # type: ignore[arg-type]
        torch.testing.assert_close(out, expected[:, t : t + 1])
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("gate", ["token", "channel"])
@pytest.mark.parametrize("is_delta", [False, True])
@pytest.mark.parametrize("strong", [1e-3, 1.0, 100.0, float("inf")])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 1e-2)], ids=str
)
def test_stable_at_any_decay(
    dtype: torch.dtype, tolerance: float, strong: float, is_delta: bool, gate: str
) -> None:
    rule = Rule(0.3, is_delta, normalize=True)
    tokens, state = draw(200, gate, dtype=dtype, strong=min(strong, 100.0))
    assert tokens[3] is not None
    with torch.no_grad():
        tokens[3][:, ::3] *= 1e-4  # strong and weak side by side
        if strong == float("inf"):
            tokens[3][:, 5::50] = -torch.inf
    leaves = [x.requires_grad_() for x in tokens if x is not None]
    out, _ = recurrent_attention(rule, tokens, state)
    expected, _ = by_token(rule, tokens, state)
    assert (out.double() - expected).norm() <= tolerance * expected.norm()
    weight = torch.randn_like(out)
    got = torch.autograd.grad(out, leaves, weight)
    for x, y in zip(got, torch.autograd.grad(expected, leaves, weight.double()), strict=True):
        if strong == float("inf") and x is got[3]:
            assert x.isfinite().all()
            continue
        assert (x - y).norm() <= 4 * tolerance * y.norm()


def test_inverse_of_equal_keys_does_not_cancel() -> None:
    a = torch.full((3, 64, 64), 1.0).tril(-1)
    inverse = unit_lower_inverse(a)
    expected = torch.eye(64) - torch.eye(64).roll(1, 0).tril(-1)
    torch.testing.assert_close(inverse, expected.expand(3, 64, 64), atol=1e-6, rtol=0)
