"""The position-wise feed-forward network of a block."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from attention.checks import check_bool, check_choice, check_float, check_int

Activation = Literal["relu", "gelu"]


class FeedForward(nn.Module):
    """Apply ``W₂·dropout(activation(W₁·x))`` to each token.

    Vaswani et al. 2017, arXiv 1706.03762, eq. 2; GELU: Hendrycks and Gimpel 2016, arXiv
    1606.08415.

    Args:
        d_model: width of the input and the output.
        d_ff: width between the two layers; ``None`` means ``4·d_model``.
        activation: ``relu`` or ``gelu``.
        dropout_p: probability of dropping an activation in training.
        bias: whether the two layers have a bias.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument has the wrong type.
    """

    def __init__(
        self,
        *,
        d_model: int,
        d_ff: int | None = None,
        activation: Activation = "relu",
        dropout_p: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_int("d_model", d_model, minimum=1)
        d_ff = 4 * d_model if d_ff is None else check_int("d_ff", d_ff, minimum=1)
        check_choice("activation", activation, get_args(Activation))
        check_float("dropout_p", dropout_p, minimum=0.0, below=1.0)
        check_bool("bias", bias)
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.activation = nn.ReLU() if activation == "relu" else nn.GELU()
        self.dropout = nn.Dropout(dropout_p)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, d_model]``."""
        hidden = self.dropout(self.activation(self.up_proj(x)))  # [B, N, d_ff]
        out: Tensor = self.down_proj(hidden)  # [B, N, d_model]
        return out
