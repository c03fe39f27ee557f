"""The recurrent rival: an LSTM that stands where a block has its multi-head attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attention.base import UnsupportedError
from attention.checks import check_bool, check_int, check_mask
from attention.declaration import Declared
from attention.decoding.fits import check_fits, check_no_graph, check_room
from attention.decoding.state import DecodeState, StateShape
from attention.functional import is_stand_in, real_first, without_padding
from attention.problem import Cost, Mode, Problem, Supports
from models.layers.projection import check_hidden


class LSTMState(DecodeState):
    """Hidden state and cell of each sequence.

    Attributes:
        h: ``[1, B, d_model]``.
        c: ``[1, B, d_model]``.
    """

    sequence_axes: ClassVar[Mapping[str, int]] = {**DecodeState.sequence_axes, "h": 1, "c": 1}

    def __init__(self, made_by: str, shape: StateShape) -> None:
        super().__init__(made_by, shape)
        self.h = shape.zeros(1, shape.batch_size, shape.head_dim)
        self.c = shape.zeros(1, shape.batch_size, shape.head_dim)


class LSTMLayer(Declared):
    """Mix the tokens of a sequence by an LSTM, as torch has it.

    Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", Neural Computation 9(8), with the
    forget gate of Gers et al. 2000. It reads its tokens one by one: time is linear, its state does
    not grow, and no two tokens of a sequence are computed at once. Called as `MultiheadAttention`
    is, and asked what it supports and costs as a backend is; order is all it knows of positions.

    Args:
        d_model: width of the input and the output; even where the LSTM reads both ways.
        is_causal: whether it reads forwards only; else one half of the channels comes from the
            past and the other from the future.
        bias: whether the LSTM has biases.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument has the wrong type.
    """

    name = "lstm"
    summary = "torch's LSTM in place of attention"
    paper = "Hochreiter and Schmidhuber 1997, Neural Computation 9(8)"
    family = "recurrent"
    exact = False
    supports = Supports(causal=True, cross=False, key_padding=True, state=True)
    refusals: ClassVar[Mapping[str, str]] = {"cross": "it has no queries: it reads one sequence"}
    time_exponent = memory_exponent = 1.0
    decode_time_exponent = decode_memory_exponent = 0.0
    kernel = "torch.nn.LSTM"
    dropout_p = 0.0

    def __init__(self, *, d_model: int, is_causal: bool, bias: bool = True) -> None:
        super().__init__()
        self.d_model = check_int("d_model", d_model, minimum=1)
        self.is_causal = check_bool("is_causal", is_causal)
        if not is_causal and d_model % 2:
            raise ValueError(
                f"d_model: an LSTM that reads both ways halves its width; got {d_model}, not even"
            )
        self.lstm = nn.LSTM(
            d_model,
            d_model if is_causal else d_model // 2,
            bias=check_bool("bias", bias),
            batch_first=True,
            bidirectional=not is_causal,
        )

    # -- what a backend says of itself ----------------------------------------------------------

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Say why a call on `problem` would be refused; empty = it will run."""
        reasons = []
        if problem.is_causal != self.is_causal:
            reasons.append(self._other_way(problem.is_causal))
        if problem.seq_len != problem.key_len:
            reasons.append(
                f"k: {self.name} needs as many keys as queries{self.why_not('cross')}; "
                f"got N={problem.seq_len}, M={problem.key_len}"
            )
        if problem.num_kv_heads != problem.num_heads:
            reasons.append(
                f"num_kv_heads: {self.name} has no heads to group; expected num_heads="
                f"{problem.num_heads}, got {problem.num_kv_heads}"
            )
        return reasons

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the whole layer on the ``B·N`` tokens, whose width is `d_model`.

        Each token meets every matrix once: with W in all, ``2·W`` operations, of which the
        backward pass has two for each; W is ``8·d_model²`` where the LSTM reads forwards only. A
        hidden unit takes five exponentials: three sigmoids (input, forget and output gate) and two
        tanh (candidate and cell). Bytes are those of the input, the output and the weights;
        training adds the output's gradient, input and weights read again, and two gradients
        written.
        """
        tokens = problem.batch * problem.seq_len
        matrices = [p for n, p in self.lstm.named_parameters() if n.startswith("weight")]
        weights = sum(p.numel() for p in self.lstm.parameters())
        ops = 2 * tokens * sum(m.numel() for m in matrices) * (1 if mode == "forward" else 3)
        numbers = 2 * tokens * self.d_model + weights
        if mode == "training":
            numbers += 3 * tokens * self.d_model + 2 * weights
        return Cost(
            pattern_ops=ops,
            executed_ops=ops,
            exponentials=5 * tokens * self.d_model,
            bytes=numbers * problem.dtype.itemsize,
        )

    def reference_rows(self, x: Tensor, rows: int, *, backwards: bool = False) -> Tensor:
        """Write out the recurrence for the first tokens that are read, in float64: the oracle.

        ``i, f, o = σ(W x_t + b + U h_{t-1} + b')`` with matrices of their own, ``g`` likewise with
        tanh, ``c_t = f∘c_{t-1} + i∘g`` and ``h_t = o∘tanh(c_t)``; h and c start at zero. Torch
        keeps the four matrices in the order i, f, g, o.

        Args:
            x: ``[B, N, d_model]``.
            rows: how many tokens, at most N.
            backwards: read from the end, where the LSTM reads both ways.

        Returns:
            float64 ``[B, rows, hidden]`` of the first `rows` tokens: all channels, or where the
            LSTM reads both ways the first half. Backwards: of the last ones, in their order, the
            second half.

        Raises:
            ValueError: if a shape does not fit or `rows` is out of range.
            TypeError: if an argument has the wrong type.
        """
        check_hidden("x", x, self.d_model)
        if check_int("rows", rows, minimum=1) > x.shape[1]:
            raise ValueError(f"rows: expected at most the {x.shape[1]} tokens of x, got {rows}")
        if check_bool("backwards", backwards) and self.is_causal:
            raise ValueError("backwards: this LSTM reads forwards only; expected False")
        end = "_reverse" if backwards else ""
        parts = {name: p.double() for name, p in self.lstm.named_parameters()}
        w, u = parts[f"weight_ih_l0{end}"], parts[f"weight_hh_l0{end}"]
        size = u.shape[1]
        b = torch.zeros(4 * size, dtype=torch.float64, device=x.device)
        if self.lstm.bias:
            b = parts[f"bias_ih_l0{end}"] + parts[f"bias_hh_l0{end}"]
        h = c = torch.zeros(x.shape[0], size, dtype=torch.float64, device=x.device)
        outs = []
        read = x.flip(1) if backwards else x
        for token in read[:, :rows].double().unbind(1):
            i, f, g, o = (token @ w.T + h @ u.T + b).split(size, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs.append(h)
        return torch.stack(outs[::-1] if backwards else outs, dim=1)

    # -- the layer -------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        positions: Tensor | None = None,
        state: DecodeState | None = None,
    ) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, d_model]``.

        Args:
            x: ``[B, N, d_model]``.
            is_causal: must be as the layer was built; so, true beside a state.
            key_padding_mask: bool ``[B, N]``, **True = a token**; padding leaves no trace, and
                gives zeros.
            positions: of no use to it, which reads in order.
            state: of what came before, by `init_state`; takes the tokens in.

        Raises:
            ValueError: if a shape does not fit, or the state is of another layer, batch, dtype or
                device, or is full, or a graph would be needed.
            TypeError: if an input is no tensor or the state is none.
            UnsupportedError: if the direction is the other one.
        """
        check_hidden("x", x, self.d_model)
        if is_causal != self.is_causal:
            raise UnsupportedError(self._other_way(is_causal))
        if key_padding_mask is not None:
            check_mask("key_padding_mask", key_padding_mask, (x.shape[0], x.shape[1]), x)
            if is_stand_in(x) or bool(key_padding_mask.all()):
                key_padding_mask = None
            else:
                x = without_padding(x, key_padding_mask)
        if state is None:
            return self._recur(x, key_padding_mask, None)[0]
        counts = None if key_padding_mask is None else key_padding_mask.sum(dim=1)
        check_fits(state, self._shown(), "x has", x)
        check_no_graph("x", x, *self.lstm.parameters())
        check_room(state, x.shape[1], counts)
        assert isinstance(state, LSTMState)
        out, after = self._recur(x, key_padding_mask, (state.h, state.c))
        some = slice(None) if counts is None else counts > 0
        for held, new in zip((state.h, state.c), after, strict=True):
            held[:, some] = new[:, some].detach()
        state.count(x.shape[1], counts)
        return out

    def _recur(
        self, x: Tensor, mask: Tensor | None, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the LSTM: ``[B, N, d_model]``, zeros at padding, and hidden state and cell after."""
        if mask is None:
            out, after = self.lstm(x, before)
            return out, after
        order = real_first(mask)
        index = order[:, :, None].expand_as(x)
        counts = mask.sum(dim=1).clamp_min(1).cpu()  # an empty sequence counts for nothing below
        packed = pack_padded_sequence(
            x.gather(1, index), counts, batch_first=True, enforce_sorted=False
        )
        packed, after = self.lstm(packed, before)
        out, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return torch.zeros_like(out).scatter(1, index, out) * mask[:, :, None], after

    def init_state(self, **made_for: Any) -> LSTMState:
        """Make the state before the first token; arguments as of `Attention.init_state`.

        Without `max_len` it has no end: it does not grow.

        Raises:
            UnsupportedError: if the LSTM reads both ways.
        """
        if not self.is_causal:
            raise UnsupportedError("state: an LSTM that reads both ways sees the tokens to come")
        shape = StateShape.checked(**made_for, num_heads=1, num_kv_heads=1, head_dim=self.d_model)
        return LSTMState(self._shown(), shape)

    def _other_way(self, is_causal: bool) -> str:
        built = "forwards only" if self.is_causal else "both ways"
        return f"is_causal: this LSTM was built to read {built}; got {is_causal}"

    def _shown(self) -> str:
        return f"{self.name}(d_model={self.d_model})"

    def extra_repr(self) -> str:
        """Show the width, and which way the LSTM reads."""
        return f"d_model={self.d_model}, is_causal={self.is_causal}"
