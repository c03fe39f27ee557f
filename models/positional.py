"""Positions: what tells a block the order of its tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attention.checks import check_int
from models.projection import check_hidden


class SinusoidalPositions(nn.Module):
    """Add a fixed sinusoid per channel to the embeddings.

    ``PE(n, 2i) = sin(n / 10000^(2i/d_model))`` and ``PE(n, 2i+1)`` the cosine: Vaswani et al.
    2017, arXiv 1706.03762, section 3.5.

    Args:
        d_model: width of the embeddings; an odd width ends with a sine.
        max_len: the longest length that will be asked for, in tokens.

    Raises:
        ValueError: if an argument is below 1.
        TypeError: if an argument is no whole number.
    """

    table: Tensor

    def __init__(self, *, d_model: int, max_len: int) -> None:
        super().__init__()
        self.d_model = check_int("d_model", d_model, minimum=1)
        self.max_len = check_int("max_len", max_len, minimum=1)
        # Not in the state dict: the table follows from the arguments, and a checkpoint should
        # load into a model built for another length.
        self.register_buffer("table", sinusoidal_table(max_len, d_model), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + PE`` for ``x`` of ``[B, N, d_model]``, N at most `max_len`.

        Raises:
            ValueError: if `x` is longer than `max_len` or of another width.
            TypeError: if `x` is not a floating-point tensor.
        """
        check_hidden("x", x, self.d_model)
        if x.shape[1] > self.max_len:
            raise ValueError(
                f"x: {x.shape[1]} tokens are more than max_len={self.max_len}, "
                f"the length that the positions were built for"
            )
        return x + self.table[: x.shape[1]].to(x.dtype)

    def extra_repr(self) -> str:
        """Show the size of the table."""
        return f"d_model={self.d_model}, max_len={self.max_len}"


def sinusoidal_table(max_len: int, d_model: int) -> Tensor:
    """Return the positions ``[max_len, d_model]``, float32, computed in float64."""
    position = torch.arange(max_len, dtype=torch.float64)[:, None]  # [max_len, 1]
    channel = torch.arange(0, d_model, 2, dtype=torch.float64)  # [ceil(d_model / 2)]
    angle = position * torch.exp(channel * (-math.log(10000.0) / d_model))
    table = torch.empty(max_len, d_model, dtype=torch.float64)
    table[:, 0::2] = torch.sin(angle)
    table[:, 1::2] = torch.cos(angle[:, : d_model // 2])
    return table.float()
