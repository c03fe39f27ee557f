"""Claims about what computing costs: time, memory, operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import attention
from attention.problem import Problem
from models import FeedForward
from suites.claims.experiments import Found, Lab, end_ratio, experiment, slope

WIDTH = 512
"""d_model, where nothing else is said."""


def _calls(name: str, lab: Lab, heads: int, tokens: int, dim: int, **options: Any) -> Any:
    """Return a call of a backend on inputs of a shape."""
    backend = attention.build(name, num_heads=heads, head_dim=dim, **options)
    return partial(backend.to(lab.device).eval(), *lab.qkv(heads, tokens, dim))


@experiment("attention-quadratic")
def attention_in_d(lab: Lab) -> Found:
    """Time exact attention against the head dimension, at 1,024 tokens."""
    dims = (32, 64, 128, 256)
    calls = {(n, d): _calls(n, lab, 4, 1024, d) for n in ("full", "sdpa") for d in dims}
    seconds = lab.seconds(calls)
    lines = {n: [(d, seconds[n, d]) for d in dims] for n in ("full", "sdpa")}
    values = {f"{n}_dim_exponent": slope(points) for n, points in lines.items()}
    return Found(values, ("head dimension", "time (s)"), lines)


@experiment("ffn-linear")
def feed_forward(lab: Lab) -> Found:
    """Time the feed-forward layer against tokens, at width 256, and against width."""
    lab.seeded()
    lengths, widths = (512, 1024, 2048, 4096), (128, 256, 512, 1024)
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    for n in lengths:
        layer = lab.place(FeedForward(d_model=256, activation="gelu"))
        calls["tokens, at width 256", n] = partial(layer, lab.draw(1, n, 256))
    for d in widths:
        layer = lab.place(FeedForward(d_model=d, activation="gelu"))
        calls["width, at 1,024 tokens", d] = partial(layer, lab.draw(1, 1024, d))
    seconds = lab.seconds(calls)
    lines: dict[str, list[tuple[float, float]]] = {}
    for (what, x), y in seconds.items():
        lines.setdefault(what, []).append((x, y))
    by_length, by_width = lines.values()
    return Found(
        {"length_exponent": slope(by_length), "width_exponent": slope(by_width)},
        ("tokens, or width", "time (s)"),
        lines,
    )


@experiment("sparse-nlogn")
def sparse_operations(lab: Lab) -> Found:
    """Count the operations of Longformer's and BigBird's patterns against the length."""
    lengths = [2**p for p in range(13, 18)]
    lines: dict[str, list[tuple[float, float]]] = {}
    for name in ("longformer", "bigbird"):
        backend = attention.build(name, num_heads=1, head_dim=64)
        lines[name] = [(n, backend.cost(_problem(n), "forward").pattern_ops) for n in lengths]
    scale = lines["longformer"][0][1] / (lengths[0] * math.log(lengths[0]))
    lines["n log n"] = [(n, scale * n * math.log(n)) for n in lengths]
    values = {f"{n}_exponent": slope(lines[n]) for n in ("longformer", "bigbird")}
    values["nlogn_exponent"] = slope(lines["n log n"])
    for name in ("longformer", "bigbird"):
        values[f"{name}_to_nlogn"] = values[f"{name}_exponent"] / values["nlogn_exponent"]
    return Found(values, ("tokens", "operations"), lines)


def _problem(n: int, heads: int = 1, dim: int = 64) -> Problem:
    return Problem(
        batch=1, num_heads=heads, head_dim=dim, seq_len=n, key_len=n, num_kv_heads=heads
    )


@experiment("heads-cost")
def heads(lab: Lab) -> Found:
    """Time and weigh attention against its heads: at one width, and at one head dimension."""
    counts = (1, 2, 4, 8, 16)
    calls: dict[tuple[str, int], Any] = {}
    for h in counts:
        calls["materialised, width 512", h] = _calls("full", lab, h, 1024, WIDTH // h)
        calls["fused, width 512", h] = _calls("sdpa", lab, h, 1024, WIDTH // h)
        calls["fused, 64 a head", h] = _calls("sdpa", lab, h, 1024, 64)
    seconds = lab.seconds(calls)
    lines = {
        what: [(h, seconds[what, h]) for h in counts]
        for what in dict.fromkeys(w for w, _ in calls)
    }
    heavy, light = (lab.bytes(calls["materialised, width 512", h]) for h in (16, 1))
    values = {
        "time_ratio_fixed_dim": end_ratio(lines["fused, 64 a head"]),
        "time_ratio_fixed_width": end_ratio(lines["materialised, width 512"]),
        "fused_ratio_fixed_width": end_ratio(lines["fused, width 512"]),
        "memory_ratio_fixed_width": heavy / light,
    }
    return Found(values, ("heads", "time (s)"), lines)


@experiment("head-dim")
def split_width(lab: Lab) -> Found:
    """Count and time exact attention, one head of 512 against eight of 64."""
    ops = []
    for h in (1, 8):
        backend = attention.build("sdpa", num_heads=h, head_dim=WIDTH // h)
        cost = backend.cost(_problem(1024, h, WIDTH // h), "forward")
        ops.append((cost.pattern_ops, cost.exponentials))
    calls = {h: _calls("sdpa", lab, h, 1024, WIDTH // h) for h in (1, 2, 4, 8)}
    seconds = lab.seconds(calls)
    values = {
        "ops_ratio": ops[1][0] / ops[0][0],
        "exponentials_ratio": ops[1][1] / ops[0][1],
        "time_ratio": seconds[8] / seconds[1],
    }
    return Found(values, ("heads", "time (s)"), {"fused": list(seconds.items())})


class Additive(nn.Module):
    """Additive attention: Bahdanau, Cho and Bengio 2015, arXiv 1409.0473, section 3.1.

    Scores are ``vᵀ·tanh(q + k)`` of queries and keys that are projected already.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(dim) / math.sqrt(dim))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: ``[B, H, N, D]``; the sums of all pairs are ``[B, H, N, N, D]``."""
        scores = torch.tanh(q[..., :, None, :] + k[..., None, :, :]) @ self.v
        return scores.softmax(-1) @ v


@experiment("dot-vs-additive")
def dot_against_additive(lab: Lab) -> Found:
    """Time and weigh additive attention beside materialised dot products, 256 tokens of 64."""
    lab.seeded()
    additive = lab.place(Additive(64))
    lengths = (64, 128, 256)
    calls: dict[tuple[str, int], Any] = {}
    for n in lengths:
        calls["dot product", n] = _calls("full", lab, 1, n, 64)
        calls["additive", n] = partial(additive, *lab.qkv(1, n, 64))
    seconds = lab.seconds(calls)
    lines = {w: [(n, seconds[w, n]) for n in lengths] for w in ("dot product", "additive")}
    memory = {w: max(1, lab.bytes(calls[w, 256])) for w in lines}
    values = {
        "time_ratio": lines["additive"][-1][1] / lines["dot product"][-1][1],
        "memory_ratio": memory["additive"] / memory["dot product"],
    }
    return Found(values, ("tokens", "time (s)"), lines)
