"""One transformer block, the same for every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor, nn

from attention.base import Attention
from attention.checks import check_choice, check_float
from models.feedforward import Activation, FeedForward
from models.multihead import MultiheadAttention

Norm = Literal["pre", "post"]


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward network, each with a residual and a layer norm.

    ``post`` normalises after each residual (Vaswani et al. 2017, arXiv 1706.03762); ``pre``
    normalises the input of each sub-layer (Xiong et al. 2020, arXiv 2002.04745). Dropout acts in
    the three customary places: on the attention weights (`attention_dropout_p`), inside the
    feed-forward network after the activation, and on each sub-layer's output before it is added
    (both `dropout_p`). The first has an argument of its own because methods that never form
    weights have none to drop.

    Args:
        d_model: width of the input and the output.
        num_heads: H; divides `d_model`.
        d_ff: width inside the feed-forward network; ``None`` means ``4·d_model``.
        attention: a registered backend's name, or a built backend.
        attention_options: see `MultiheadAttention`.
        num_kv_heads: see `MultiheadAttention`.
        norm: ``pre`` or ``post``.
        activation: ``relu`` or ``gelu``.
        dropout_p: dropout inside the feed-forward network and on the sub-layers' outputs.
        attention_dropout_p: dropout on the attention weights.
        bias: whether linear layers and norms have a bias.

    Raises:
        ValueError: if an argument is out of range or the widths do not divide.
        TypeError: if an argument has the wrong type.
        UnsupportedError: if `attention_dropout_p` is not 0 and the backend has no dropout.
    """

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        d_ff: int | None = None,
        attention: str | Attention = "sdpa",
        attention_options: Mapping[str, Any] | None = None,
        num_kv_heads: int | None = None,
        norm: Norm = "pre",
        activation: Activation = "relu",
        dropout_p: float = 0.0,
        attention_dropout_p: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, get_args(Norm))
        check_float("dropout_p", dropout_p, minimum=0.0, below=1.0)
        check_float("attention_dropout_p", attention_dropout_p, minimum=0.0, below=1.0)
        self.attention = MultiheadAttention(
            d_model=d_model,
            num_heads=num_heads,
            attention=attention,
            num_kv_heads=num_kv_heads,
            attention_options=attention_options,
            dropout_p=attention_dropout_p,
            bias=bias,
        )
        self.feed_forward = FeedForward(
            d_model=d_model, d_ff=d_ff, activation=activation, dropout_p=dropout_p, bias=bias
        )
        self.attention_norm = nn.LayerNorm(d_model, bias=bias)
        self.feed_forward_norm = nn.LayerNorm(d_model, bias=bias)
        self.dropout = nn.Dropout(dropout_p)

    def forward(
        self,
        x: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        **call_inputs: Tensor | None,
    ) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, d_model]``.

        Args:
            x: ``[B, N, d_model]``.
            is_causal: token ``i`` sees tokens up to ``i`` only.
            key_padding_mask: bool ``[B, N]``, **True = this token takes part**. The output at a
                padded token is finite and unspecified.
            **call_inputs: the token masks that the backend declares, bool ``[B, N]``.

        Raises:
            ValueError: if a shape does not fit.
            TypeError: if an input is no tensor or the backend takes no input of that name.
            UnsupportedError: if the backend declares that it cannot serve the request.
        """
        attend = partial(
            self.attention, is_causal=is_causal, key_padding_mask=key_padding_mask, **call_inputs
        )
        x = self._residual(x, self.attention_norm, attend)
        return self._residual(x, self.feed_forward_norm, self.feed_forward)

    def _residual(
        self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if self.norm == "pre":
            return x + self.dropout(sublayer(norm(x)))  # type: ignore[no-any-return]
        return norm(x + self.dropout(sublayer(x)))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Show where the norms stand."""
        return f"norm={self.norm!r}"
