"""Claims about what reaches where: scores, entropies and gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models import LSTMLayer, MultiheadAttention
from suites.claims.experiments import Found, Lab, experiment

SMALLEST, LARGEST = 1e-30, 1e30
"""A norm counts as this at least, and at most: its logarithm is asked."""


@experiment("sqrt-dk")
def scaled_scores(lab: Lab) -> Found:
    """Softmax of dot products of normal vectors over 128 keys, scaled by 1/√d_k and not."""
    dims, keys = (4, 16, 64, 256, 1024), 128
    lines: dict[str, list[tuple[float, float]]] = {"scaled": [], "not scaled": []}
    gradients: dict[str, list[float]] = {"scaled": [], "not scaled": []}
    variances = []
    for d in dims:
        q, k = lab.draw(256, d, offset=d), lab.draw(256, keys, d, offset=d + 1)
        scores = (k @ q[:, :, None])[:, :, 0]
        variances.append((d, float(scores.var())))
        for what, scale in (("scaled", 1 / math.sqrt(d)), ("not scaled", 1.0)):
            logits = (scores * scale).detach().requires_grad_()
            weights = logits.softmax(-1)
            lines[what].append((d, float(_entropy(weights.detach()).mean())))
            # of the largest weight, by its logit: w(1 - w) of a softmax
            (gradient,) = torch.autograd.grad(weights.max(-1).values.sum(), logits)
            gradients[what].append(float(gradient.norm(dim=-1).median()))
    values = {
        "variance_per_dim": variances[-1][1] / dims[-1],
        "scaled_entropy_ratio": lines["scaled"][-1][1] / lines["scaled"][0][1],
        "unscaled_entropy_ratio": lines["not scaled"][-1][1] / lines["not scaled"][0][1],
        "gradient_ratio": gradients["scaled"][-1] / max(SMALLEST, gradients["not scaled"][-1]),
    }
    return Found(values, ("d_k", "entropy of the weights (nat)"), lines)


def _entropy(weights: Tensor) -> Tensor:
    return -(weights * weights.clamp_min(SMALLEST).log()).sum(-1)


@experiment("rnn-vanishing")
def gradient_at_the_beginning(lab: Lab) -> Found:
    """The gradient that the first of n tokens has of the last one's output, beside the last's."""
    lab.seeded()
    lstm = lab.place(LSTMLayer(d_model=64, is_causal=True))
    attend = lab.place(MultiheadAttention(d_model=64, num_heads=4))
    lengths = (16, 32, 64, 128, 256)
    lines: dict[str, list[tuple[float, float]]] = {"LSTM": [], "attention": []}
    for n in lengths:
        for what, layer in (("LSTM", lstm), ("attention", attend)):
            x = lab.draw(4, n, 64, offset=n).requires_grad_()
            layer(x, is_causal=True)[:, -1].square().sum().backward()
            assert x.grad is not None
            norms = x.grad.norm(dim=(0, 2))
            lines[what].append((n, max(SMALLEST, float(norms[0] / norms[-1]))))
    values = {
        "log10_lstm": math.log10(lines["LSTM"][-1][1]),
        "log10_attention": math.log10(lines["attention"][-1][1]),
    }
    values["log10_apart"] = values["log10_attention"] - values["log10_lstm"]
    return Found(values, ("tokens", "gradient at the first by that at the last"), lines)


class Stack(nn.Module):
    """Layers of attention and feed-forward, with residuals and norms or without.

    Args:
        depth: layers.
        residual: whether a layer's input is added to its output.
        norm: whether a layer's input is normalised.
    """

    def __init__(self, depth: int, *, residual: bool, norm: bool) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.ModuleList()
        for _ in range(depth):
            feed = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
            for layer in (MultiheadAttention(d_model=64, num_heads=4), feed):
                self.layers.append(
                    nn.ModuleList([nn.LayerNorm(64) if norm else nn.Identity(), layer])
                )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, N, 64]`` to ``[B, N, 64]``."""
        for parts in self.layers:
            assert isinstance(parts, nn.ModuleList)
            norm, layer = parts
            out = layer(norm(x))
            x = x + out if self.residual else out
        return x


@experiment("residual-norm")
def gradient_of_deep_stacks(lab: Lab) -> Found:
    """The root mean square of the gradient at the input of a stack, against its depth."""
    depths = (1, 4, 16, 32)
    kinds = {
        "both": (True, True), "residuals alone": (True, False), "norm alone": (False, True),
        "neither": (False, False),
    }  # fmt: skip
    lines: dict[str, list[tuple[float, float]]] = {}
    for what, (residual, norm) in kinds.items():
        lines[what] = []
        for depth in depths:
            lab.seeded()
            stack = lab.place(Stack(depth, residual=residual, norm=norm))
            x = lab.draw(2, 32, 64).requires_grad_()
            out = stack(x)
            (out * lab.draw(2, 32, 64, offset=1)).sum().backward()
            assert x.grad is not None
            whole = float(x.grad.double().norm()) / math.sqrt(x.numel())
            lines[what].append((depth, min(LARGEST, max(SMALLEST, whole))))
    values = {
        f"log10_{what.replace(' ', '_')}": math.log10(points[-1][1] / points[0][1])
        for what, points in lines.items()
    }
    return Found(values, ("layers", "gradient at the input"), lines)
