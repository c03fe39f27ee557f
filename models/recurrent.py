"""The recurrent rival: a block with an LSTM where the others have attention."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attention.base import UnsupportedError
from attention.checks import check_bool, check_choice, check_float, check_int, check_mask
from attention.functional import real_first
from attention.state import DecodeState, StateShape
from models.block import Memory, Norm
from models.feedforward import Activation, FeedForward
from models.norm import EPSILON, Normalization, make_norm
from models.projection import check_hidden

LSTM = "lstm"
"""What stands for it where a backend's name is asked for."""


class LSTMState(DecodeState):
    """Hidden state and cell of each sequence.

    Attributes:
        h: ``[1, B, d_model]``.
        c: ``[1, B, d_model]``.
    """

    def __init__(self, made_by: str, shape: StateShape) -> None:
        super().__init__(made_by, shape)
        self.h = shape.zeros(1, shape.batch_size, shape.head_dim)
        self.c = shape.zeros(1, shape.batch_size, shape.head_dim)


class LSTMBlock(nn.Module):
    """An LSTM and a feed-forward network, each with a residual and a norm.

    Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", as torch has it; called as
    `TransformerBlock` is, so that it can stand beside one. It reads its tokens one by one:
    time is linear, its state does not grow, and no two tokens are computed at once.

    Args:
        d_model: width; even where the LSTM reads both ways.
        is_causal: whether it reads forwards only; else one half of the channels comes from the
            past and the other from the future.
        d_ff: see `FeedForward`.
        norm: ``pre`` or ``post``; see `TransformerBlock`.
        activation: see `FeedForward`.
        dropout_p: dropout on the sub-layers' outputs.
        activation_dropout_p: dropout inside the feed-forward network; ``None`` means `dropout_p`.
        bias: whether linear layers, the LSTM and norms have a bias.
        normalization: see `TransformerBlock`.
        norm_eps: see `TransformerBlock`.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument has the wrong type.
    """

    def __init__(
        self,
        *,
        d_model: int,
        is_causal: bool,
        d_ff: int | None = None,
        norm: Norm = "pre",
        activation: Activation = "relu",
        dropout_p: float = 0.0,
        activation_dropout_p: float | None = None,
        bias: bool = True,
        normalization: Normalization = "layer",
        norm_eps: float = EPSILON,
    ) -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, get_args(Norm))
        self.is_causal = check_bool("is_causal", is_causal)
        self.d_model = check_int("d_model", d_model, minimum=1)
        if not is_causal and d_model % 2:
            raise ValueError(
                f"d_model: an LSTM that reads both ways halves its width; got {d_model}, not even"
            )
        check_float("dropout_p", dropout_p, minimum=0.0, below=1.0)
        inside = dropout_p if activation_dropout_p is None else activation_dropout_p
        self.lstm = nn.LSTM(
            d_model,
            d_model if is_causal else d_model // 2,
            bias=check_bool("bias", bias),
            batch_first=True,
            bidirectional=not is_causal,
        )
        self.lstm_norm = make_norm(normalization, d_model, eps=norm_eps, bias=bias)
        self.feed_forward = FeedForward(
            d_model=d_model, d_ff=d_ff, activation=activation, dropout_p=inside, bias=bias
        )
        self.feed_forward_norm = make_norm(normalization, d_model, eps=norm_eps, bias=bias)
        self.dropout = nn.Dropout(dropout_p)

    def forward(
        self,
        x: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        memory: Memory | None = None,
        positions: Tensor | None = None,
        state: DecodeState | None = None,
    ) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, d_model]``.

        Args:
            x: ``[B, N, d_model]``.
            is_causal: must be as the block was built.
            key_padding_mask: bool ``[B, N]``, **True = a token**; padding leaves no trace.
            memory: refused; there is no cross-attention.
            positions: of no use to it, which reads in order.
            state: of what came before, by `init_state`; takes the tokens in.

        Raises:
            ValueError: if a shape does not fit, or the state is of another batch.
            TypeError: if an input is no tensor or the state is not an LSTM's.
            UnsupportedError: if the direction is the other one, or for a memory.
        """
        check_hidden("x", x, self.d_model)
        if memory is not None:
            raise UnsupportedError("memory: an LSTM block has no cross-attention")
        if is_causal != self.is_causal:
            built = "forwards only" if self.is_causal else "both ways"
            raise UnsupportedError(
                f"is_causal: this LSTM was built to read {built}; got {is_causal}"
            )
        if key_padding_mask is not None:
            check_mask("key_padding_mask", key_padding_mask, (x.shape[0], x.shape[1]), x)
        if state is not None:
            self._check_state(state, x)

        def recur(tokens: Tensor) -> Tensor:
            return self._recur(tokens, key_padding_mask, state)

        if self.norm == "pre":
            x = x + self.dropout(recur(self.lstm_norm(x)))
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))  # type: ignore[no-any-return]
        x = self.lstm_norm(x + self.dropout(recur(x)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))  # type: ignore[no-any-return]

    def _recur(self, x: Tensor, mask: Tensor | None, state: Any) -> Tensor:
        """Run the LSTM over the tokens: ``[B, N, d_model]``, zeros at padding."""
        before = None if state is None else (state.h, state.c)
        if mask is None or bool(mask.all()):
            out, after = self.lstm(x, before)
            counts = None
        else:
            order = real_first(mask)
            index = order[:, :, None].expand_as(x)
            counts = mask.sum(dim=1)
            packed = pack_padded_sequence(
                x.gather(1, index), counts.clamp_min(1).cpu(), batch_first=True,
                enforce_sorted=False,
            )  # fmt: skip
            packed, after = self.lstm(packed, before)
            out, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
            out = torch.zeros_like(out).scatter(1, index, out) * mask[:, :, None]
        if state is not None:
            some = slice(None) if counts is None else counts > 0
            for held, new in zip((state.h, state.c), after, strict=True):
                held[:, some] = new[:, some].detach()
            state.lengths += x.shape[1] if counts is None else counts
            state.shortest, state.longest = int(state.lengths.min()), int(state.lengths.max())
        return out  # type: ignore[no-any-return]

    def init_state(
        self,
        *,
        batch_size: int,
        max_len: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> LSTMState:
        """Make the state before the first token.

        Args:
            batch_size: B.
            max_len: accepted, since others need it; the state does not grow.
            dtype: of the channels.
            device: where it lives.

        Raises:
            UnsupportedError: if the LSTM reads both ways.
        """
        if not self.is_causal:
            raise UnsupportedError("state: an LSTM that reads both ways sees the tokens to come")
        shape = StateShape(
            batch_size=check_int("batch_size", batch_size, minimum=1), max_len=max_len,
            num_heads=1, num_kv_heads=1, head_dim=self.d_model, dtype=dtype,
            device=torch.device(device),
        )  # fmt: skip
        return LSTMState(f"{LSTM}(d_model={self.d_model})", shape)

    def _check_state(self, state: DecodeState, x: Tensor) -> None:
        if not isinstance(state, LSTMState):
            raise TypeError(f"state: expected an LSTM's, got one made by {state.made_by}")
        if state.shape.head_dim != self.d_model or state.shape.batch_size != x.shape[0]:
            raise ValueError(
                f"state: made for [B, d_model] = [{state.shape.batch_size}, "
                f"{state.shape.head_dim}], got [{x.shape[0]}, {self.d_model}]"
            )
        if torch.is_grad_enabled():
            raise ValueError("x: a state keeps no graph; decode under torch.no_grad()")

    def extra_repr(self) -> str:
        """Show where the norms stand, and which way the LSTM reads."""
        return f"norm={self.norm!r}, is_causal={self.is_causal}"
