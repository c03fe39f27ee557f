"""The position-wise feed-forward network of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from attention.checks import check_bool, check_choice, check_float, check_int

Activation = Literal["relu", "gelu", "gelu_tanh", "swiglu"]

FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "swiglu": F.silu,
}


class FeedForward(nn.Module):
    """Apply ``W₂·dropout(activation(W₁·x))`` to each token.

    Vaswani et al. 2017, arXiv 1706.03762, eq. 2; GELU, exact or by its tanh form: Hendrycks and
    Gimpel 2016, arXiv 1606.08415. With ``swiglu`` it is ``W₂·dropout(SiLU(W·x) ∘ W₁·x)``: Shazeer
    2020, arXiv 2002.05202, eq. 6; its third matrix makes it half as large again.

    Args:
        d_model: width of the input and the output.
        d_ff: width between the two layers; ``None`` means ``4·d_model``.
        activation: ``relu``, ``gelu``, ``gelu_tanh`` or ``swiglu``.
        dropout_p: probability of dropping an activation in training.
        bias: whether the layers have a bias.

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
        self.activation = check_choice("activation", activation, get_args(Activation))
        check_float("dropout_p", dropout_p, minimum=0.0, below=1.0)
        check_bool("bias", bias)
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.gate_proj = nn.Linear(d_model, d_ff, bias=bias) if activation == "swiglu" else None
        self.dropout = nn.Dropout(dropout_p)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, d_model]``."""
        function, up = FUNCTIONS[self.activation], self.up_proj(x)  # [B, N, d_ff]
        hidden = function(up) if self.gate_proj is None else function(self.gate_proj(x)) * up
        out: Tensor = self.down_proj(self.dropout(hidden))  # [B, N, d_model]
        return out

    def extra_repr(self) -> str:
        """Show the activation."""
        return f"activation={self.activation!r}"
