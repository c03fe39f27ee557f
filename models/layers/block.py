"""One transformer block, the same for every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypedDict, get_args

from torch import Tensor, nn

from attention.base import Attention
from attention.checks import check_choice, check_float, check_mask
from attention.decoding.state import DecodeState
from attention.functional import without_padding
from models.layers.feedforward import Activation, FeedForward
from models.layers.multihead import MultiheadAttention
from models.layers.norm import EPSILON, Normalization, make_norm
from models.layers.positional import RotaryPositions
from models.layers.recurrent import LSTMLayer
from models.layers.token_mixer import MixingLayer, check_crosses, make_mixer

Norm = Literal["pre", "post"]


@dataclass
class Memory:
    """What a decoder's cross-attention reads: the encoder's output.

    Attributes:
        hidden: ``[B, M, d_model]``.
        key_padding_mask: bool ``[B, M]``, True = this token takes part; ``None`` = all do.
        projected: keys and values of each layer that read it, kept for the next call; ``None`` =
            they are not kept, as in training.
    """

    hidden: Tensor
    key_padding_mask: Tensor | None = None
    projected: dict[nn.Module, tuple[Tensor, Tensor]] | None = None

    def of(self, index: Tensor) -> Memory:
        """Return the memory of some of the sequences, int64 ``[B']``."""
        mask, projected = self.key_padding_mask, None
        if self.projected is not None:
            projected = {layer: (k[index], v[index]) for layer, (k, v) in self.projected.items()}
        return Memory(self.hidden[index], None if mask is None else mask[index], projected)

    def read_by(self, layer: MultiheadAttention, x: Tensor) -> Tensor:
        """Attend to it from `x` ``[B, N, d_model]``."""
        if self.projected is None:
            return layer(x, self.hidden, key_padding_mask=self.key_padding_mask)  # type: ignore[no-any-return]
        if layer not in self.projected:
            self.projected[layer] = layer.project_keys(self.hidden)
        return layer(  # type: ignore[no-any-return]
            x, projected=self.projected[layer], key_padding_mask=self.key_padding_mask
        )


class BlockOptions(TypedDict, total=False):
    """Arguments of `TransformerBlock` that a stack hands on to each of its blocks."""

    d_ff: int | None
    num_kv_heads: int | None
    norm: Norm
    activation: Activation
    dropout_p: float
    attention_dropout_p: float
    activation_dropout_p: float | None
    bias: bool
    normalization: Normalization
    norm_eps: float
    rotary: RotaryPositions | None
    cross_attention_dropout_p: float | None


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention if there is an encoder, and a feed-forward network.

    In place of the self-attention may stand another layer that mixes tokens: see
    `models.layers.token_mixer`. Each has a residual and a norm. ``post`` normalises after each
    residual (Vaswani et al. 2017, arXiv 1706.03762); ``pre`` normalises the input of each
    sub-layer (Xiong et al. 2020, arXiv 2002.04745). Dropout acts in the three customary places: on
    the attention weights (`attention_dropout_p`), inside the feed-forward network after the
    activation (`activation_dropout_p`), and on each sub-layer's output before it is added
    (`dropout_p`). The first has an argument of its own because methods that never form weights
    have none to drop.

    Args:
        d_model: width of the input and the output.
        num_heads: H; divides `d_model`.
        d_ff: width inside the feed-forward network; ``None`` means ``4·d_model``.
        attention: a registered backend's name, a built backend, or ``lstm`` for a `LSTMLayer`.
        attention_options: constructor arguments of what `attention` names; an `LSTMLayer` needs
            ``is_causal``.
        num_kv_heads: see `MultiheadAttention`.
        norm: ``pre`` or ``post``.
        activation: see `FeedForward`.
        dropout_p: dropout on the sub-layers' outputs.
        attention_dropout_p: dropout on the attention weights.
        activation_dropout_p: dropout inside the feed-forward network; ``None`` means `dropout_p`.
        bias: whether linear layers and norms have a bias.
        normalization: ``layer`` or ``rms``.
        norm_eps: see `models.layers.norm.make_norm`.
        rotary: see `MultiheadAttention`; of the self-attention.
        cross_attention: backend of a second attention, from this block's tokens to an encoder's
            output: a name or a built backend; ``None`` = there is none.
        cross_attention_options: its options, beside a name.
        cross_attention_dropout_p: dropout on its weights; ``None`` means `attention_dropout_p`.

    Raises:
        ValueError: if an argument is out of range or the widths do not divide.
        TypeError: if an argument has the wrong type.
        UnsupportedError: if `attention_dropout_p` is not 0 and the backend has no dropout, if
            `cross_attention` is a backend that attends within one sequence only, or if an LSTM
            would ignore `num_kv_heads` or `rotary`.
    """

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        d_ff: int | None = None,
        attention: str | Attention | LSTMLayer = "sdpa",
        attention_options: Mapping[str, Any] | None = None,
        num_kv_heads: int | None = None,
        norm: Norm = "pre",
        activation: Activation = "relu",
        dropout_p: float = 0.0,
        attention_dropout_p: float = 0.0,
        activation_dropout_p: float | None = None,
        bias: bool = True,
        normalization: Normalization = "layer",
        norm_eps: float = EPSILON,
        rotary: RotaryPositions | None = None,
        cross_attention: str | Attention | None = None,
        cross_attention_options: Mapping[str, Any] | None = None,
        cross_attention_dropout_p: float | None = None,
    ) -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, get_args(Norm))
        check_float("dropout_p", dropout_p, minimum=0.0, below=1.0)
        check_float("attention_dropout_p", attention_dropout_p, minimum=0.0, below=1.0)
        inside = dropout_p if activation_dropout_p is None else activation_dropout_p
        check_float("activation_dropout_p", inside, minimum=0.0, below=1.0)
        shape: dict[str, Any] = {
            "d_model": d_model, "num_heads": num_heads, "num_kv_heads": num_kv_heads, "bias": bias,
        }  # fmt: skip
        new_norm = partial(make_norm, normalization, d_model, eps=norm_eps, bias=bias)
        self.attention: MixingLayer = make_mixer(
            attention,
            attention_options=attention_options,
            dropout_p=attention_dropout_p,
            rotary=rotary,
            **shape,
        )
        self.attention_norm = new_norm()
        self.cross_attention: MultiheadAttention | None = None
        if cross_attention is not None:
            check_crosses(cross_attention)
            self.cross_attention = MultiheadAttention(
                attention=cross_attention,
                attention_options=cross_attention_options,
                dropout_p=attention_dropout_p
                if cross_attention_dropout_p is None
                else cross_attention_dropout_p,
                **shape,
            )
            self.cross_attention_norm = new_norm()
        elif cross_attention_options:
            raise ValueError(
                "cross_attention_options: only beside a cross_attention; "
                f"got {', '.join(cross_attention_options)}"
            )
        self.feed_forward = FeedForward(
            d_model=d_model, d_ff=d_ff, activation=activation, dropout_p=inside, bias=bias
        )
        self.feed_forward_norm = new_norm()
        self.dropout = nn.Dropout(dropout_p)

    def forward(
        self,
        x: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        memory: Memory | None = None,
        **call: Any,
    ) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, d_model]``.

        Args:
            x: ``[B, N, d_model]``.
            key_padding_mask: bool ``[B, N]``, **True = this token takes part**. The output at a
                padded token is finite and unspecified; what stands there in `x` leaves no trace.
            memory: what the cross-attention reads; needed where there is one.
            **call: further arguments of the self-attention: ``is_causal``, ``positions`` and
                ``state`` (see `MultiheadAttention.forward`), and the token masks that the backend
                declares, bool ``[B, N]``.

        Raises:
            ValueError: if a shape does not fit, or `memory` is missing or has no use.
            TypeError: if an input is no tensor or the backend takes no input of that name.
            UnsupportedError: if the backend declares that it cannot serve the request.
        """
        if key_padding_mask is not None:
            check_mask("key_padding_mask", key_padding_mask, (x.shape[0], x.shape[1]), x)
            x = without_padding(x, key_padding_mask)
        attend = partial(self.attention, key_padding_mask=key_padding_mask, **call)
        x = self._residual(x, self.attention_norm, attend)
        if self.cross_attention is not None:
            if memory is None:
                raise ValueError("memory: this block attends to an encoder's output; got None")
            read = partial(memory.read_by, self.cross_attention)
            x = self._residual(x, self.cross_attention_norm, read)
        elif memory is not None:
            raise ValueError("memory: this block has no cross-attention; expected None")
        return self._residual(x, self.feed_forward_norm, self.feed_forward)

    def init_state(self, **made_for: Any) -> DecodeState:
        """Make the state of the self-attention; arguments as of `Attention.init_state`."""
        return self.attention.init_state(**made_for)

    def _residual(
        self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if self.norm == "pre":
            return x + self.dropout(sublayer(norm(x)))  # type: ignore[no-any-return]
        return norm(x + self.dropout(sublayer(x)))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Show where the norms stand."""
        return f"norm={self.norm!r}"
