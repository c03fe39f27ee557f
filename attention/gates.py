"""Gates: how decays and betas of each token are made of hidden states, and how they are drawn.

What backends with such inputs declare (`attention.problem.CallInput`), so that a multi-head layer
and the suites can make them without knowing the method.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_STEP, MOST_STEP = 1e-3, 0.1
"""Of ``softplus(dt_bias)``: Mamba's initialisation, arXiv 2312.00752, section 3.6."""

MOST_RATE = 16.0
"""Of A, drawn from (1, 16): Mamba-2's initialisation, arXiv 2405.21060."""


class DecayGate(nn.Module):
    """Compute ``-exp(A_log)·softplus(x·W + dt_bias)``: a log-decay, as of Mamba-2.

    Dao and Gu 2024, arXiv 2405.21060; Yang et al. 2024, arXiv 2412.06464. It is at most 0.

    Args:
        d_model: width of `x`.
        num_heads: H.
        head_dim: D.
        per_channel: whether each channel has a decay of its own; A and dt_bias then have one of
            each head and channel too.
    """

    def __init__(
        self, d_model: int, num_heads: int, head_dim: int, *, per_channel: bool = False
    ) -> None:
        super().__init__()
        self.num_heads, self.width = num_heads, head_dim if per_channel else 0
        of_each = num_heads * (head_dim if per_channel else 1)
        self.proj = nn.Linear(d_model, of_each, bias=False)
        self.A_log = nn.Parameter(torch.empty(of_each))
        self.dt_bias = nn.Parameter(torch.empty(of_each))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A from (1, 16), and steps log-uniformly from 0.001 to 0.1."""
        with torch.no_grad():
            self.A_log.uniform_(1.0, MOST_RATE).log_()
            step = self.dt_bias.uniform_(math.log(LEAST_STEP), math.log(MOST_STEP)).exp_()
            self.dt_bias.add_(torch.log(-torch.expm1(-step)))  # softplus of it is the step

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, d_model]`` to ``[B, H, N]`` or ``[B, H, N, D]``, float32 or float64."""
        wide = torch.promote_types(x.dtype, torch.float32)
        step = F.softplus(self.proj(x).to(wide) + self.dt_bias.to(wide))
        return _by_head(-self.A_log.to(wide).exp() * step, self.num_heads, self.width)


class SigmoidGate(nn.Module):
    """Compute ``most·sigmoid(x·W)``, the beta of the delta rule: arXiv 2412.06464.

    Args:
        d_model: width of `x`.
        num_heads: H.
        head_dim: D.
        most: 1, or 2 where a state may change its sign.
        per_channel: whether each channel has a gate of its own.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        head_dim: int,
        *,
        most: float = 1.0,
        per_channel: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.width, self.most = num_heads, head_dim if per_channel else 0, most
        of_each = num_heads * (head_dim if per_channel else 1)
        self.proj = nn.Linear(d_model, of_each, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, d_model]`` to ``[B, H, N]`` or ``[B, H, N, D]``, of the projection's dtype."""
        return _by_head(self.most * torch.sigmoid(self.proj(x)), self.num_heads, self.width)


def _by_head(gate: Tensor, num_heads: int, width: int) -> Tensor:
    """``[B, N, H·D]`` to ``[B, H, N, D]``, or ``[B, N, H]`` to ``[B, H, N]``."""
    if width:
        gate = gate.unflatten(2, (num_heads, width))
    return gate.transpose(1, 2)


def draw_decay(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw log-decays as a trained Mamba-2 has them: most heads remember long, some forget fast.

    ``-A·softplus(x + dt_bias)`` with A of (1, 16) and a step of 0.001 to 0.1 a head (and channel),
    and x normal, of each token.

    Args:
        shape: ``[B, H, N]`` or ``[B, H, N, D]``.
        generator: on the CPU.
    """
    _, heads, _, *channels = shape
    of_each = (1, heads, 1, *channels)
    rate = 1.0 + (MOST_RATE - 1.0) * torch.rand(of_each, generator=generator)
    low, high = math.log(LEAST_STEP), math.log(MOST_STEP)
    step = (low + (high - low) * torch.rand(of_each, generator=generator)).exp()
    bias = step + torch.log(-torch.expm1(-step))
    return -rate * F.softplus(torch.randn(shape, generator=generator) + bias)


def draw_beta(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw gates between 0 and 1: the sigmoid of normal numbers.

    Args:
        shape: ``[B, H, N]`` or ``[B, H, N, D]``.
        generator: on the CPU.
    """
    return torch.sigmoid(torch.randn(shape, generator=generator))
