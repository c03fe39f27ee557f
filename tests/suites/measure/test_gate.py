from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor

import attention
from attention import Attention
from suites.measure.gate import (
    Call,
    WrongOutputError,
    check_call,
    error_against_softmax,
    sampled_rows,
)

N = 300


def call_of(name: str = "full", *, training: bool = False, dtype: torch.dtype = torch.float32,
            is_causal: bool = False, seq_len: int = N, draw: int = 0,
            **options: Any) -> Call:  # fmt: skip
    options |= options.pop("given", {})
    module: Attention = attention.build(name, num_heads=2, head_dim=16, **options)
    generator = torch.Generator().manual_seed(draw)
    shape = (2, 2, seq_len, 16)
    q, k, v, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(4))
    module.to(dtype).train(training)
    q.requires_grad_(training)
    output = module(q, k, v, is_causal=is_causal)
    if not training:
        return Call(module, q, k, v, is_causal, output.detach())
    output.backward(grad)
    return Call(module, q, k, v, is_causal, output.detach(), grad, q.grad)


def spoiled(x: Tensor | None, row: int, by: float) -> Tensor:
    assert x is not None
    x = x.clone()
    x[0, 1, row] += by
    return x


def test_rows_are_distinct_sorted_and_hold_both_ends():
    rows = sampled_rows(1000, 64, seed=0).tolist()
    assert len(set(rows)) == 64
    assert rows == sorted(rows)
    assert (rows[0], rows[-1]) == (0, 999)
    assert rows != sampled_rows(1000, 64, seed=1).tolist()


@pytest.mark.parametrize("seq_len", [1, 2, 63, 64, 65])
def test_rows_of_short_inputs(seq_len: int):
    rows = sampled_rows(seq_len, 64, seed=0)
    assert len(rows) == min(64, seq_len)
    assert rows[-1] == seq_len - 1


@covering(
    ("is_causal", [False, True]),
    ("dtype", [torch.float32, torch.float64, torch.bfloat16]),
    ("training", [False, True]),
)
def test_right_output_passes(training: bool, dtype: torch.dtype, is_causal: bool):
    gate = check_call(call_of(training=training, dtype=dtype, is_causal=is_causal), seed=0)
    assert gate["rows"] == 64
    assert gate["relative_l2"] <= gate["budget"] < 0.1
    assert ("gradient" in gate) == training


def test_sampled_features_are_held_against_their_own_formula():
    call = call_of("performer", training=True, seed=0)
    gate = check_call(call, seed=0)
    assert gate["relative_l2"] <= gate["budget"] < 1e-4
    assert error_against_softmax(call, seed=0) > 100 * gate["budget"]


def test_wrong_row_is_caught_and_told():
    call = call_of()
    with pytest.raises(WrongOutputError, match=r"full: output differs .* allowed \d"):
        check_call(replace(call, output=spoiled(call.output, N - 1, 1e-3)), seed=0)


def test_wrong_gradient_is_caught():
    call = call_of(training=True)
    with pytest.raises(WrongOutputError, match="full: dq differs"):
        check_call(replace(call, query_grad=spoiled(call.query_grad, 0, 1e-3)), seed=0)


def test_missing_gradient_is_caught():
    call = call_of(training=True)
    with pytest.raises(WrongOutputError, match="no gradient of q"):
        check_call(replace(call, query_grad=None), seed=0)


def test_nan_outside_the_sampled_rows_is_caught():
    call = call_of()
    unseen = next(i for i in range(N) if i not in sampled_rows(N, 64, seed=0).tolist())
    with pytest.raises(WrongOutputError, match="NaN"):
        check_call(replace(call, output=spoiled(call.output, unseen, float("nan"))), seed=0)


def test_nan_in_the_gradient_is_caught():
    call = call_of(training=True)
    with pytest.raises(WrongOutputError, match="from the reference by nan"):
        check_call(replace(call, query_grad=spoiled(call.query_grad, 0, float("nan"))), seed=0)


def test_output_of_the_wrong_causality_is_caught():
    call = call_of(is_causal=True)
    with pytest.raises(WrongOutputError):
        check_call(replace(call, is_causal=False), seed=0)


def test_error_of_an_exact_backend_is_rounding():
    assert 0 < error_against_softmax(call_of("sdpa", is_causal=True), seed=0) < 1e-6


def test_error_is_against_softmax_of_the_same_scale():
    assert error_against_softmax(call_of("full", scale=0.5), seed=0) < 1e-6


def test_error_of_a_window_is_that_of_exact_softmax():
    call = call_of("longformer", window=4)
    exact = call_of("full").output.double()
    error = (call.output.double() - exact).norm() / exact.norm()
    assert error_against_softmax(call, seed=0, rows=N) == pytest.approx(float(error), rel=1e-4)


def test_long_keys_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch):
    call = call_of("full", training=True)
    whole = check_call(call, seed=0), error_against_softmax(call, seed=0)
    monkeypatch.setattr("suites.measure.gate.CHUNK", 7 * 4 * N)
    parts = check_call(call, seed=0), error_against_softmax(call, seed=0)
    assert parts[0]["relative_l2"] == pytest.approx(whole[0]["relative_l2"], rel=1e-3)
    assert parts[0]["gradient"]["relative_l2"] == pytest.approx(
        whole[0]["gradient"]["relative_l2"], rel=1e-3
    )
    assert parts[1] == pytest.approx(whole[1], rel=1e-3)


# -- products of reduced precision ---------------------------------------------------------------


def test_full_precision_is_asked_for_where_it_is_kept():
    call = call_of(training=True)
    plain, allowed = check_call(call, seed=0), check_call(call, seed=0, precision="medium")
    assert "precision" not in plain
    assert (allowed["precision"], allowed["gradient"]["precision"]) == ("full", "full")
    assert allowed["budget"] == plain["budget"]


@pytest.mark.parametrize(("precision", "error"), [("high", 1e-3), ("medium", 1e-2)])
def test_what_reduced_precision_loses_is_allowed_and_said(precision: Any, error: float):
    call = call_of()
    noise = torch.randn(call.output.shape, generator=torch.Generator().manual_seed(1))
    off = replace(call, output=call.output * (1 + error * noise))
    gate = check_call(off, seed=0, precision=precision)
    assert gate["precision"] == "reduced"
    assert gate["relative_l2"] <= gate["budget"] < 4 * error
    with pytest.raises(WrongOutputError, match="output differs"):
        check_call(off, seed=0)
    with pytest.raises(WrongOutputError, match="output differs"):
        check_call(
            replace(call, output=call.output * (1 + 9 * error * noise)),
            seed=0,
            precision=precision,
        )


NAMES = ("full", "sdpa", "longformer", "bigbird", "linformer", "performer")


@covering(
    ("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    ("is_causal", [False, True]),
    ("name", NAMES),
)
def test_training_passes_over_one_key_and_two(name: str, is_causal: bool, dtype: torch.dtype):
    """Of one key the gradient of q is 0: what is computed is rounding."""
    for seq_len in (1, 2):
        options = {"seq_len": seq_len} if name == "linformer" else {}
        if is_causal and not attention.describe(name)["causal"]:
            pytest.skip("not causal")
        for seed in range(3):
            call = call_of(
                name, training=True, dtype=dtype, is_causal=is_causal, seq_len=seq_len,
                draw=seed, given=options,
            )  # fmt: skip
            gate = check_call(call, seed=0)
            assert gate["gradient"]["relative_l2"] <= gate["gradient"]["budget"] < 0.1


def test_a_wrong_gradient_over_one_key_is_found():
    call = call_of("performer", training=True, seq_len=1)
    with pytest.raises(WrongOutputError, match="dq differs"):
        check_call(replace(call, query_grad=spoiled(call.query_grad, 0, 1e-3)), seed=0)


def test_a_gradient_may_lose_what_the_output_keeps():
    call = call_of(training=True)
    assert call.query_grad is not None
    off = replace(call, query_grad=call.query_grad * (1 + 1e-3))
    gate = check_call(off, seed=0, precision="high")
    assert (gate["precision"], gate["gradient"]["precision"]) == ("full", "reduced")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_reference_leaves_the_precision_as_it_was(dtype: torch.dtype):
    call = call_of("performer", dtype=dtype, seed=0)
    torch.set_float32_matmul_precision("high")
    try:
        check_call(call, seed=0, precision="high")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


class RoundedScores(attention.get("full")):  # type: ignore[misc]
    """Scores and softmax in the dtype of the inputs."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
        return torch.softmax(q * self.scale @ k.mT, dim=-1) @ v


def half_call(module: Attention, deviation: float, dtype: torch.dtype, n: int = N) -> Call:
    """Return a training call whose logits have a deviation."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(2, 2, n, 64, generator=generator) for _ in range(4))
    q, k = q * deviation**0.5, k * deviation**0.5
    q, k, v, grad = (x.to(dtype) for x in (q, k, v, grad))
    output = module.to(dtype)(q.requires_grad_(), k, v)
    output.backward(grad)
    return Call(module, q, k, v, False, output.detach(), grad, q.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_rounded_to_half_precision_do_not_pass(dtype: torch.dtype):
    rounded = half_call(RoundedScores(num_heads=2, head_dim=64), 100.0, dtype)
    with pytest.raises(WrongOutputError, match="output differs"):
        check_call(rounded, seed=0)
    right = half_call(attention.build("full", num_heads=2, head_dim=64), 100.0, dtype)
    with pytest.raises(WrongOutputError, match="dq differs"):
        check_call(replace(right, query_grad=rounded.query_grad), seed=0)


@covering(
    ("dtype", [torch.bfloat16, torch.float16]),
    ("deviation", [0.1, 1.0, 10.0, 100.0, 1000.0]),
    (
        "name, options",
        [
            ("full", {}),
            ("sdpa", {}),
            ("longformer", {"window": 32, "kernel": "tiled"}),
            ("bigbird", {"block_size": 16, "kernel": "tiled"}),
            ("linformer", {"seq_len": N, "rank": 32}),
            ("performer", {"seed": 0, "num_features": 64, "kernel": "tiled"}),
            ("performer", {"seed": 0, "num_features": 64, "kernel": "chunked"}),
        ],
    ),
)
def test_scores_in_float32_pass(
    name: str, options: dict[str, Any], deviation: float, dtype: torch.dtype
):
    module = attention.build(name, num_heads=2, head_dim=64, **options)
    check_call(half_call(module, deviation, dtype), seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["full", "sdpa", "performer"])
def test_a_single_key_leaves_a_gradient_of_zero_but_for_rounding(name: str, dtype: torch.dtype):
    check_call(half_call(attention.build(name, num_heads=2, head_dim=64), 1.0, dtype, n=1), seed=0)
