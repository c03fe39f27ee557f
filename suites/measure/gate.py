"""The gate: no speed for wrong output.

After the timing, at the measured shape, sampled query rows of the very output are compared with
the backend's reference in float64, and in training the gradient of the same queries too: row i of
``dq`` depends on row i of the output alone, so ``O(K·M)`` work checks it at any length. The budget
is a few units in the last place of the case's dtype or, where that is not met, comes from the
data: how far the reference itself is off in float32 (in the case's dtype where that is wider).
Half precision is no excuse for scores rounded to it: fused kernels have them in float32.

Near one-hot weights dq is a difference of nearly equal terms, and zero with a single key: its
error is relative to those terms where they are larger than it
(`attention.functional.least_norms`).

Float32 products of reduced precision (TF32, bfloat16) are allowed what they lose, and only where
it is needed: an output within the full budget is held to that one, and the verdict says which.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attention.base import Attention
from attention.functional import error_budget, exact_attention_rows, least_norms, relative_l2
from results.schema import FULL_PRECISION, MatmulPrecision

GATE_ROWS = 64
ERROR_ROWS = 256
INPUT_SCALE = 0.3
"""Scale of the inputs on which errors against exact softmax are taken."""
CHUNK = 2**26
"""Scores that a reference may hold at once: 0.5 GiB in float64."""
EXACT_CHUNK, EXACT_ROWS = 2**19, 16
"""Exact softmax repeats nothing from chunk to chunk: few scores at once, but 16 rows at least."""

ROUNDING: Mapping[str, float] = {"high": 2.0**-11, "medium": 2.0**-8}
"""Largest relative rounding error of a factor: TF32 keeps 10 bits of the mantissa, bfloat16 7."""


class WrongOutputError(RuntimeError):
    """An output or a gradient off its reference by more than the budget; the numbers say how."""


@dataclass(frozen=True)
class Call:
    """One measured call of a backend: what went in, what came out.

    Attributes:
        attention: the backend.
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D]``.
        is_causal: as it was called.
        output: ``[B, H, N, D]``.
        output_grad: gradient that the backward pass started from; ``None`` = there was none.
        query_grad: the gradient that it left at q.
        extra: the call's further inputs, ``[B, H, N]`` or ``[B, H, N, D]``.
        rows: int64 ``[K]``: the queries that `output` holds, ``[B, H, K, D]``, as a step of a
            decoder does; ``None`` = all.
    """

    attention: Attention
    q: Tensor
    k: Tensor
    v: Tensor
    is_causal: bool
    output: Tensor
    output_grad: Tensor | None = None
    query_grad: Tensor | None = None
    rows: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)


def sampled_rows(seq_len: int, count: int, *, seed: int) -> Tensor:
    """Draw `count` distinct query indices, sorted; the first and the last are always among them.

    Returns:
        ``[min(count, seq_len)]``, int64.
    """
    if count >= seq_len:
        return torch.arange(seq_len)
    inner = random.Random(seed).sample(range(1, seq_len - 1), count - 2)
    return torch.tensor([0, *sorted(inner), seq_len - 1])


def check_call(
    call: Call,
    *,
    seed: int,
    rows: int = GATE_ROWS,
    precision: MatmulPrecision = FULL_PRECISION,
) -> dict[str, Any]:
    """Compare a call with its reference.

    Args:
        call: what went in and what came out.
        seed: of the sampled rows.
        rows: how many query rows are compared.
        precision: of float32 products in the call.

    Returns:
        ``relative_l2``, ``budget`` and ``rows`` of the output; after a backward pass also
        ``gradient`` with ``relative_l2`` and ``budget`` of dq. Where `precision` is reduced, each
        also has ``precision``: ``full`` if the error is within the budget of full precision,
        else ``reduced``.

    Raises:
        WrongOutputError: if either exceeds its budget or is not a number.
    """
    name = call.attention.name
    if not bool(torch.isfinite(call.output).all()):
        raise WrongOutputError(f"{name}: the output contains NaN or infinity")
    if call.output_grad is not None and call.query_grad is None:
        raise WrongOutputError(f"{name}: the backward pass gave no gradient of q")
    at, actual = call.rows, {"output": call.output}
    if at is None:
        at = sampled_rows(call.q.shape[2], rows, seed=seed).to(call.q.device)
        actual = {"output": call.output[:, :, at]}
    if call.query_grad is not None:
        actual["dq"] = call.query_grad[:, :, at]
    expected = _reference(call, at, torch.float64)
    least = _least_norms(call, at, expected["output"])
    errors = {p: relative_l2(actual[p], expected[p], least=least[p]) for p in expected}
    budgets = dict.fromkeys(expected, error_budget(call.q.dtype, 0.0))
    if not _within(errors, budgets):
        # Above the units in the last place: allow what the reference needs in float32.
        with _products(FULL_PRECISION):
            budgets = _own_budgets(call, at, expected, least)
    full = {part: errors[part] <= budgets[part] for part in expected}
    if precision in ROUNDING and not all(full.values()):
        with _products(precision):
            reduced = _own_budgets(call, at, expected, least)
        floor = reduced_floor(call.q.dtype, precision)
        budgets = {p: b if full[p] else max(floor, b, reduced[p]) for p, b in budgets.items()}
    for part, error in errors.items():
        if not error <= budgets[part]:  # so that NaN fails
            raise WrongOutputError(
                f"reference check: {name}: {part} differs from the reference by {error:.3g} "
                f"(relative L2 over {len(at)} query rows), allowed {budgets[part]:.3g}"
            )
    verdicts: dict[str, dict[str, Any]] = {
        p: {"relative_l2": errors[p], "budget": budgets[p]} for p in expected
    }
    if precision in ROUNDING:
        for part, verdict in verdicts.items():
            verdict["precision"] = "full" if full[part] else "reduced"
    gate: dict[str, Any] = {**verdicts["output"], "rows": len(at)}
    return gate if "dq" not in verdicts else {**gate, "gradient": verdicts["dq"]}


def check_rows(name: str, output: Tensor, expected: Tensor, budget: float) -> dict[str, Any]:
    """Compare rows ``[B, K, …]`` with what they must be; return the verdict as `check_call` does.

    Raises:
        WrongOutputError: if they are further apart than `budget` (relative L2).
    """
    error = relative_l2(output, expected)
    if not error <= budget:  # so that NaN fails
        raise WrongOutputError(
            f"reference check: {name}: output differs from the reference by {error:.3g} "
            f"(relative L2 over {output.shape[1]} tokens), allowed {budget:.3g}"
        )
    return {"relative_l2": error, "budget": budget, "rows": output.shape[1]}


def reduced_floor(dtype: torch.dtype, precision: MatmulPrecision) -> float:
    """Return the relative L2 error that products of `precision` may leave in any output.

    Four roundings of a factor, or the few units in the last place of `dtype` where that is more;
    four at least, as of half precision a layer around the attention rounds too.
    """
    floor = max(error_budget(dtype, 0.0), 4 * torch.finfo(dtype).eps)
    return max(floor, 4 * ROUNDING.get(precision, 0.0))


def _within(errors: Mapping[str, float], budgets: Mapping[str, float]) -> bool:
    return all(errors[part] <= budgets[part] for part in errors)


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Compute float32 products at `precision` in the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _own_budgets(
    call: Call, at: Tensor, expected: Mapping[str, Tensor], least: Mapping[str, float]
) -> dict[str, float]:
    """Return what the reference needs in float32, or in the call's dtype if wider, by part."""
    dtype = call.q.dtype
    rounded = _reference(call, at, torch.promote_types(dtype, torch.float32))
    return {
        p: _budget(dtype, relative_l2(rounded[p], expected[p], least=least[p])) for p in expected
    }


def _least_norms(call: Call, at: Tensor, output: Tensor) -> dict[str, float]:
    """Return what the norm of each part at the sampled rows counts at least.

    Args:
        call: what was called.
        at: the rows.
        output: at these, in float64.
    """
    grad = None if call.output_grad is None else call.output_grad[:, :, at]
    return least_norms(call.k, call.v, call.attention.scale, output, grad)


def _budget(dtype: torch.dtype, own_error: float) -> float:
    # A plain formula may overflow: that widens no budget.
    return error_budget(dtype, own_error if math.isfinite(own_error) else 0.0)


def _reference(call: Call, rows: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Run the reference at `rows` in `dtype`: ``output``'s rows, and ``dq``'s after a backward."""
    q, k, v = (x.detach().to(dtype) for x in (call.q, call.k, call.v))
    extra = {name: x.detach().to(dtype) for name, x in call.extra.items()}
    parts: dict[str, list[Tensor]] = {"output": []}
    for chunk in torch.split(rows, _rows_at_once(q, k)):
        leaf = q if call.output_grad is None else q.clone().requires_grad_()
        with torch.set_grad_enabled(leaf.requires_grad):
            out = call.attention.reference(
                leaf, k, v, is_causal=call.is_causal, rows=chunk, **extra
            )
        parts["output"].append(out.detach())
        if call.output_grad is not None:
            start = call.output_grad[:, :, chunk].to(dtype)
            (grad,) = torch.autograd.grad(out, leaf, start)
            parts.setdefault("dq", []).append(grad[:, :, chunk])
    return {part: torch.cat(chunks, dim=2) for part, chunks in parts.items()}


def _rows_at_once(q: Tensor, k: Tensor, scores: int = CHUNK) -> int:
    return max(1, scores // (q.shape[0] * q.shape[1] * k.shape[2]))


def error_against_softmax(call: Call, *, seed: int, rows: int = ERROR_ROWS) -> float:
    """Return the relative L2 distance of a call's output from exact softmax attention.

    Taken over `rows` sampled query rows, in float64, in the backend's own scale of the scores.
    """
    at = sampled_rows(call.q.shape[2], rows, seed=seed).to(call.q.device)
    q, k, v = (x.detach().to(torch.float64) for x in (call.q, call.k, call.v))
    few = max(_rows_at_once(q, k, EXACT_CHUNK), min(EXACT_ROWS, _rows_at_once(q, k)))
    expected = [
        exact_attention_rows(
            q, k, v, is_causal=call.is_causal, rows=chunk, scale=call.attention.scale
        )
        for chunk in torch.split(at, few)
    ]
    return relative_l2(call.output[:, :, at], torch.cat(expected, dim=2))
