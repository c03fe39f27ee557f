"""Each backend's declared FLOPs equal those that torch's FlopCounterMode counts where it can see
them, and a counted reference where it cannot.

How: every backend that runs here, with options that change its products, forward and training,
causal and not, at several lengths. Executed operations are held against the counter over the
backend's own call, fused attention on its math path. A fused kernel never multiplies what
causality hides and computes the scores anew in the backward pass, and on a CPU the counter sees
nothing of it: there the counter watches a plain attention that does just that, query by query.
Operations of the pattern are held against the pairs that have a weight in the backend's own
`reference`, found by handing it unit vectors as values: for dense and sparse methods.

Failure: a count is off, by whatever little. A backend that does not run here is
counted all the same where the reference stands for its kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from attention import backends
from attention.base import Attention
from attention.problem import Mode, Problem
from attention.registry import get, names
from attention.testing import Bench, Inputs, counted_ops
from verification import Measured, Report, Scale

LENGTHS = {"full": (65, 130, 700), "short": (65,)}
PAIRS_UP_TO = 130
MODES: tuple[Mode, ...] = ("forward", "training")
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "longformer": ({"window": 32}, {"window": 16, "dilation": (1, 1, 2, 4)}),
    "bigbird": ({"block_size": 16, "num_random_blocks": 2}, {"num_global_tokens": 8}),
    "linformer": ({"rank": 32}, {"sharing": "none"}, {"method": "mean_pool"}),
    "performer": ({"num_features": 32}, {"features": "relu"}),
    "sdpa": ({"kernel": "math"},),
}
"""Options that are tried beside a backend's defaults."""


def fused(name: str, options: Mapping[str, Any]) -> bool:
    """Say whether a backend runs in a fused kernel of torch's own or of xformers."""
    return name == "xformers" or (name == "sdpa" and options.get("kernel") != "math")


def plain_rows(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
    """Attend query by query over the keys each sees, the scores computed anew in the backward."""

    def weights(row: Tensor, keys: Tensor) -> Tensor:
        return torch.softmax(row @ keys.transpose(-1, -2), dim=-1)

    rows = []
    for i in range(q.shape[2]):
        end = k.shape[2] - q.shape[2] + i + 1 if is_causal else k.shape[2]
        row, keys = q[:, :, i : i + 1], k[:, :, :end]
        rows.append(checkpoint(weights, row, keys, use_reentrant=False) @ v[:, :, :end])
    return torch.cat(rows, dim=2)


def counted_reference(call: Inputs, mode: Mode) -> int:
    """Count the operations of `plain_rows`, and in mode training of its backward pass."""
    leaves = [x.detach().requires_grad_(mode == "training") for x in (call.q, call.k, call.v)]
    with FlopCounterMode(display=False) as counter:
        out = plain_rows(*leaves, is_causal=call.is_causal)
        if mode == "training":
            out.sum().backward()
    total: int = counter.get_total_flops()
    return total


def counted_pairs(module: Attention, call: Inputs) -> int:
    """Count the query-key pairs of all heads that have a weight in the backend's reference."""
    dim, total = call.v.shape[3], 0
    for start in range(0, call.k.shape[2], dim):
        values = torch.zeros_like(call.v)
        for column in range(min(dim, call.k.shape[2] - start)):
            values[:, :, start + column, column] = 1.0
        weights = module.reference(call.q, call.k, values, is_causal=call.is_causal)
        total += int((weights > 0).sum())
    return total


def measure(scale: Scale, report: Report) -> Measured:
    """Count every backend's operations, in every mode and shape."""
    rows: list[dict[str, Any]] = []
    absent = []
    for name in names():
        cls = get(name)
        if not cls.__module__.startswith(f"{backends.__name__}."):
            continue  # a plug-in's: what it declares is its own affair
        if (reasons := cls.unavailable_reasons("cpu")) and not fused(name, {}):
            absent.append(f"{name}: {'; '.join(reasons)}")
            continue
        if cls.approximates == "itself":  # what it executes depends on which inputs are given
            absent.append(f"{name}: its declared operations are an upper bound")
            continue
        for options in ({}, *VARIANTS.get(name, ())):
            found = _of(Bench(cls, options, "cpu"), LENGTHS[scale])
            rows += found
            off = max(row["worst"] for row in found)
            report(f"{name} {options or ''}: {sum(r['tried'] for r in found)} counts, "
                   f"up to {off:.2%} off")  # fmt: skip
    worst = max(row["worst"] for row in rows)
    failed = sum(row["failed"] for row in rows)
    return Measured(
        figure="furthest count from the declared one",
        tried=sum(row["tried"] for row in rows), failed=failed, rate=worst, bound=None,
        limit=0.0, side="at most", passed=failed == 0, details=rows,
        reason="; ".join(f"not counted: {one}" for one in absent),
    )  # fmt: skip


def _of(bench: Bench, lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return a row per kind of count: how many were held, how far off the worst was."""
    found: dict[str, list[float]] = {}

    def hold(kind: str, declared: int, counted: int) -> None:
        found.setdefault(kind, []).append(abs(counted / declared - 1))

    supports = bench.cls.supports
    causals = [False] * supports.bidirectional + [True] * supports.causal
    for n, causal, mode in itertools.product(lengths, causals, MODES):
        module = bench.build(n)
        call = bench.inputs(n, is_causal=causal, dtype=torch.float32)
        declared = module.cost(Problem.of(call.q, call.k, is_causal=causal), mode)
        if fused(bench.cls.name, bench.options):
            hold("executed, by a counted reference", declared.executed_ops,
                 counted_reference(call, mode))  # fmt: skip
        else:
            hold("executed, by torch's counter", declared.executed_ops,
                 counted_ops(module, call, mode))  # fmt: skip
        if bench.cls.family in ("dense", "sparse") and n <= PAIRS_UP_TO:
            wide = bench.inputs(n, is_causal=causal)
            pairs = counted_pairs(module.double().eval(), wide)
            products = 4 if mode == "forward" else 12
            hold("pattern, by the weights of its reference", declared.pattern_ops,
                 products * pairs * wide.q.shape[3])  # fmt: skip
    label = ",".join(f"{key}={value}" for key, value in bench.options.items())
    return [
        {
            "backend": f"{bench.cls.name}:{label}" if label else bench.cls.name,
            "counted": kind, "tried": len(off), "failed": sum(one > 0 for one in off),
            "worst": max(off) if all(map(math.isfinite, off)) else 1.0,
        }
        for kind, off in found.items()
    ]  # fmt: skip
