"""Claims about what computing costs: time, memory, operations, steps in a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import attention
from attention.base import Attention
from attention.problem import Problem
from models import FeedForward, LSTMLayer, ModelConfig, TransformerBlock, TransformerModel
from suites.claims.experiments import Found, Lab, experiment, several_threads, slope

WIDTH = 512
"""d_model, where nothing else is said."""


def _qkv(lab: Lab, heads: int, tokens: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (lab.draw(1, heads, tokens, dim, offset=i) for i in range(3))
    return q, k, v


def _calls(name: str, lab: Lab, heads: int, tokens: int, dim: int, **options: Any) -> Any:
    """Return a call of a backend on inputs of a shape."""
    backend = attention.build(name, num_heads=heads, head_dim=dim, **options)
    return partial(backend.to(lab.device).eval(), *_qkv(lab, heads, tokens, dim))


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
        "time_ratio_fixed_dim": _ends(lines["fused, 64 a head"]),
        "time_ratio_fixed_width": _ends(lines["materialised, width 512"]),
        "fused_ratio_fixed_width": _ends(lines["fused, width 512"]),
        "memory_ratio_fixed_width": heavy / light,
    }
    return Found(values, ("heads", "time (s)"), lines)


def _ends(points: Sequence[tuple[float, float]]) -> float:
    return points[-1][1] / points[0][1]


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
        calls["additive", n] = partial(additive, *_qkv(lab, 1, n, 64))
    seconds = lab.seconds(calls)
    lines = {w: [(n, seconds[w, n]) for n in lengths] for w in ("dot product", "additive")}
    memory = {w: max(1, lab.bytes(calls[w, 256])) for w in lines}
    values = {
        "time_ratio": lines["additive"][-1][1] / lines["dot product"][-1][1],
        "memory_ratio": memory["additive"] / memory["dot product"],
    }
    return Found(values, ("tokens", "time (s)"), lines)


@experiment("rnn-sequential")
def recurrent_against_parallel(lab: Lab) -> Found:
    """Time an LSTM and a transformer block with one thread and with all, 512 tokens of 256."""
    several_threads(lab)
    lab.seeded()
    lstm = lab.place(LSTMLayer(d_model=256, is_causal=True)).eval()
    block = lab.place(TransformerBlock(d_model=256, num_heads=4)).eval()
    lengths = (128, 256, 512)
    calls: dict[tuple[str, int], Any] = {}
    for n in lengths:
        x = lab.draw(1, n, 256)
        calls["LSTM", n] = partial(lstm, x, is_causal=True)
        calls["transformer block", n] = partial(block, x, is_causal=True)
    alone, all_threads = {}, lab.seconds(calls)
    if lab.device == "cpu":
        torch.set_num_threads(1)
        try:
            alone = lab.seconds(calls)
        finally:
            torch.set_num_threads(lab.threads)
    lines = {
        f"{what}, {lab.threads} threads": [(n, all_threads[what, n]) for n in lengths]
        for what in ("LSTM", "transformer block")
    }
    values = {"time_ratio": all_threads["LSTM", 512] / all_threads["transformer block", 512]}
    if alone:
        values["lstm_speedup"] = alone["LSTM", 512] / all_threads["LSTM", 512]
        values["block_speedup"] = (
            alone["transformer block", 512] / all_threads["transformer block", 512]
        )
    return Found(values, ("tokens", "time (s)"), lines)


@experiment("sequential-depth")
def depth_of_graphs(lab: Lab) -> Found:
    """Count the longest chain of dependent operations, in torch's graph of the backward pass."""
    lab.seeded()
    cell, dim = nn.LSTMCell(16, 16), 16
    lengths = (8, 16, 32, 64)
    lines: dict[str, list[tuple[float, float]]] = {"LSTM": [], "attention": []}
    for n in lengths:
        x = torch.randn(1, n, dim, requires_grad=True)
        state = torch.zeros(1, dim), torch.zeros(1, dim)
        for t in range(n):
            state = cell(x[:, t], state)
        lines["LSTM"].append((n, longest_chain(state[0])))
        weights = (x @ x.transpose(1, 2) / math.sqrt(dim)).softmax(-1)
        lines["attention"].append((n, longest_chain(weights @ x)))
    values = {
        "lstm_exponent": slope(lines["LSTM"]),
        "attention_exponent": slope(lines["attention"]),
        "attention_chain": lines["attention"][-1][1],
        "lstm_chain": lines["LSTM"][-1][1],
    }
    return Found(values, ("tokens", "operations in a row"), lines)


def longest_chain(output: Tensor) -> int:
    """Return how many operations of the graph behind a tensor depend on one another."""
    depth: dict[Any, int] = {}
    waiting = [(output.grad_fn, False)]
    while waiting:
        node, is_ready = waiting.pop()
        if node is None or node in depth:
            continue
        before = [other for other, _ in node.next_functions if other is not None]
        if is_ready:
            depth[node] = 1 + max((depth[other] for other in before), default=0)
        else:
            waiting.append((node, True))
            waiting += [(other, False) for other in before]
    return depth[output.grad_fn]


@experiment("kv-cache")
@torch.no_grad()
def cached_decoding(lab: Lab) -> Found:
    """Time the next token of a small decoder, from its cache and by reading all anew."""
    lab.seeded()
    config = ModelConfig(
        "decoder", vocab_size=256, d_model=256, num_layers=2, num_heads=4, d_ff=1024, max_len=1040
    )
    model: Any = lab.place(TransformerModel(config)).eval()
    contexts = (128, 256, 512, 1024)
    calls: dict[tuple[str, int], Any] = {}
    for n in contexts:
        ids = lab.ids(1, n + 1, vocab_size=256)
        calls["reads all anew", n] = partial(model, ids)
        state = model.init_state(batch_size=1, max_len=n + 8)
        model(ids[:, :n], state=state)
        calls["from its cache", n] = partial(_again, model, ids[:, n:], state, state.mark())
    seconds = lab.seconds(calls)
    lines = {
        w: [(n, seconds[w, n]) for n in contexts] for w in ("reads all anew", "from its cache")
    }
    values = {
        "time_ratio": lines["reads all anew"][-1][1] / lines["from its cache"][-1][1],
        "cached_exponent": slope(lines["from its cache"]),
        "anew_exponent": slope(lines["reads all anew"]),
    }
    return Found(values, ("tokens before", "time a token (s)"), lines)


def _again(model: Any, ids: Tensor, state: Any, mark: Any) -> Tensor:
    """Go back to a mark, and take a token."""
    state.rewind(mark)
    out: Tensor = model(ids, state=state)
    return out


@experiment("decode-state")
@torch.no_grad()
def constant_state(lab: Lab) -> Found:
    """Weigh and time a step of each backend with a state, after 512 and after 4,096 tokens."""
    contexts = (512, 1024, 2048, 4096)
    options: dict[str, dict[str, Any]] = {"longformer": {"window": 128}}
    calls: dict[tuple[str, int], Any] = {}
    held: dict[tuple[str, int], int] = {}
    names = ("sdpa", "longformer", "performer")
    for name in names:
        for n in contexts:
            backend = attention.build(name, num_heads=4, head_dim=64, **options.get(name, {}))
            backend = backend.to(lab.device).eval()
            state = backend.init_state(batch_size=1, max_len=n + 8, device=lab.device)
            backend.prefill(*_qkv(lab, 4, n, 64), state)
            held[name, n] = state.nbytes
            calls[name, n] = partial(
                _step_again, backend, _qkv(lab, 4, 1, 64), state, state.mark()
            )
    seconds = lab.seconds(calls)
    lines = {name: [(n, seconds[name, n]) for n in contexts] for name in names}
    values = {f"{n}_bytes_ratio": held[n, 4096] / held[n, 512] for n in names}
    values |= {f"{n}_time_ratio": _ends(lines[n]) for n in names}
    return Found(values, ("tokens before", "time a step (s)"), lines)


def _step_again(backend: Attention, qkv: Any, state: Any, mark: Any) -> Tensor:
    state.rewind(mark)
    q, k, v = qkv
    return backend.step(q, k, v, state)
