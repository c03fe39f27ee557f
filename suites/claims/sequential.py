"""Claims about work that is done one step after the other: recurrence, depth, decoding."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import attention
from attention.base import Attention
from models import LSTMLayer, ModelConfig, TransformerBlock, TransformerModel
from suites.claims.experiments import (
    Found,
    Lab,
    end_ratio,
    experiment,
    several_threads,
    slope,
)


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
        calls["without cache", n] = partial(model, ids)
        state = model.init_state(batch_size=1, max_len=n + 8)
        model(ids[:, :n], state=state)
        calls["from its cache", n] = partial(_again, model, ids[:, n:], state, state.mark())
    seconds = lab.seconds(calls)
    lines = {
        w: [(n, seconds[w, n]) for n in contexts] for w in ("without cache", "from its cache")
    }
    values = {
        "time_ratio": lines["without cache"][-1][1] / lines["from its cache"][-1][1],
        "cached_exponent": slope(lines["from its cache"]),
        "anew_exponent": slope(lines["without cache"]),
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
            backend.prefill(*lab.qkv(4, n, 64), state)
            held[name, n] = state.nbytes
            calls[name, n] = partial(_step_again, backend, lab.qkv(4, 1, 64), state, state.mark())
    seconds = lab.seconds(calls)
    lines = {name: [(n, seconds[name, n]) for n in contexts] for name in names}
    values = {f"{n}_bytes_ratio": held[n, 4096] / held[n, 512] for n in names}
    values |= {f"{n}_time_ratio": end_ratio(lines[n]) for n in names}
    return Found(values, ("tokens before", "time a step (s)"), lines)


def _step_again(backend: Attention, qkv: Any, state: Any, mark: Any) -> Tensor:
    state.rewind(mark)
    q, k, v = qkv
    return backend.step(q, k, v, state)
