"""Claims about what an output does, and does not, depend on."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attention
from attention import registry
from attention.functional import relative_l2
from models import FeedForward, MultiheadAttention, SinusoidalPositions
from suites.claims.experiments import Found, Lab, experiment

HEADS, DIM, TOKENS = 4, 16, 128

SMALL: dict[str, dict[str, Any]] = {
    "longformer": {"window": 16}, "bigbird": {"block_size": 16, "num_random_blocks": 1},
    "linformer": {"seq_len": TOKENS, "rank": 32}, "performer": {"num_features": 32},
}  # fmt: skip
"""Options that make a pattern or an approximation one at `TOKENS`."""


def _built(lab: Lab, **wanted: Any) -> dict[str, Any]:
    """Build every backend that runs here and supports what is wanted, by name."""
    lab.seeded()
    built = {}
    for name in registry.names():
        cls = registry.get(name)
        if cls.unavailable_reasons(lab.device) or not cls.__module__.startswith("attention."):
            continue
        if all(getattr(cls.supports, what) for what in wanted):
            more = {"dropout_p": 0.5} if "dropout" in wanted else {}
            made = attention.build(
                name, num_heads=HEADS, head_dim=DIM, **SMALL.get(name, {}), **more
            )
            built[name] = made.to(lab.device)
    return built


def _qkv(lab: Lab, tokens: int = TOKENS) -> list[Tensor]:
    return [lab.draw(2, HEADS, tokens, DIM, offset=i) for i in range(3)]


@experiment("causal-mask")
def changed_future(lab: Lab) -> Found:
    """Change the second half of the sequence: how far does the first half's output move?"""
    half = TOKENS // 2
    q, k, v = _qkv(lab)
    others = [torch.cat([x[:, :, :half], 3 * x.flip(2)[:, :, half:]], dim=2) for x in (q, k, v)]
    moved, masked = {}, _built(lab, causal=True)
    for name, backend in masked.items():
        backend.eval()
        first, again = (backend(*x, is_causal=True)[:, :, :half] for x in ((q, k, v), others))
        moved[name] = relative_l2(again, first)
    free = attention.build("sdpa", num_heads=HEADS, head_dim=DIM)
    bare = relative_l2(free(*others)[:, :, :half], free(q, k, v)[:, :, :half])
    values = {
        "largest_change": max(moved.values()),
        "unmasked_change": bare,
        "backends": len(moved),
    }
    return Found(values)


@experiment("dropout-eval")
def same_twice(lab: Lab) -> Found:
    """Call every backend that drops weights twice: in eval mode, and in training."""
    still: list[float] = []
    moving: list[float] = []
    for backend in _built(lab, dropout=True).values():
        qkv = _qkv(lab)
        for mode, found in ((False, still), (True, moving)):
            backend.train(mode)
            found.append(relative_l2(backend(*qkv), backend(*qkv)))
    values = {
        "largest_change_eval": max(still), "smallest_change_training": min(moving),
        "backends": len(still),
    }  # fmt: skip
    return Found(values)


@experiment("dropout-place")
def sums_of_rows(lab: Lab) -> Found:
    """With values of one, an output is the sum of its row of weights: what does dropout do to it?

    Before the softmax every row would still sum to one; after it rows do not.
    """
    lab.seeded()
    q, k, _ = _qkv(lab)
    ones = torch.ones_like(k)
    fused = F.scaled_dot_product_attention(q, k, ones, dropout_p=0.5)
    layer = nn.MultiheadAttention(HEADS * DIM, HEADS, dropout=0.5, batch_first=True)
    layer = layer.to(lab.device).train()
    x = lab.draw(2, TOKENS, HEADS * DIM)
    _, weights = layer(x, x, x, need_weights=True, average_attn_weights=False)
    scores = q @ k.transpose(2, 3) / DIM**0.5
    kept = torch.empty_like(scores).bernoulli_(0.5).bool()
    before = scores.masked_fill(~kept, float("-inf")).softmax(-1).sum(-1)
    values = {
        "row_sums_deviation_fused": float(fused[..., 0].detach().std()),
        "row_sums_deviation_layer": float(weights.detach().sum(-1).std()),
        "row_sums_deviation_before": float(before.nan_to_num(1.0).std()),
    }
    return Found(values)


@experiment("order-blind")
def permuted(lab: Lab) -> Found:
    """Permute the tokens: does the output permute with them, without positions and with them?"""
    lab.seeded()
    layer = lab.place(MultiheadAttention(d_model=64, num_heads=HEADS)).eval()
    positions = lab.place(SinusoidalPositions(d_model=64, max_len=TOKENS))
    x = lab.draw(2, TOKENS, 64)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(lab.seed))
    order = order.to(lab.device)
    without = relative_l2(layer(x[:, order]), layer(x)[:, order])
    within = relative_l2(layer(positions(x[:, order])), layer(positions(x))[:, order])
    return Found({"change_without_positions": without, "change_with_positions": within})


@experiment("layernorm-batch")
def alone_and_in_batches(lab: Lab) -> Found:
    """Normalise one sequence alone and among others, by layer norm and by batch norm."""
    x = torch.cat([lab.draw(1, TOKENS, 64), lab.draw(7, TOKENS, 64, offset=1, scale=3.0)])
    layer, batch = nn.LayerNorm(64).to(lab.device), nn.BatchNorm1d(64).to(lab.device).train()

    def change(norm: nn.Module) -> float:
        return relative_l2(norm(x.transpose(1, 2))[:1], norm(x[:1].transpose(1, 2)))

    values = {
        "layer_norm_change": relative_l2(layer(x)[:1], layer(x[:1])),
        "batch_norm_change": change(batch),
    }
    return Found(values)


@experiment("ffn-nonlinear")
def superposed(lab: Lab) -> Found:
    """Add two values under the same weights: is the output the sum of the two outputs?"""
    lab.seeded()
    q, k, v = _qkv(lab)
    other = lab.draw(2, HEADS, TOKENS, DIM, offset=7)
    attend = attention.build("sdpa", num_heads=HEADS, head_dim=DIM)
    feed = lab.place(FeedForward(d_model=HEADS * DIM, bias=False)).eval()

    def mixed(values: Tensor) -> Tensor:
        out: Tensor = attend(q, k, values).transpose(1, 2).flatten(2)
        return out

    def error(function: Any) -> float:
        parts = function(mixed(v)) + function(mixed(other))
        return relative_l2(function(mixed(v + other)), parts)

    values = {"attention_error": error(lambda x: x), "with_feed_forward_error": error(feed)}
    return Found(values)
