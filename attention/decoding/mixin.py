"""Decode with a state: the calls of a backend that go on where the last one stopped.

``init_state``, then `prefill` with chunks of any size and `step` token by token give what one
causal call on the whole sequence gives. A backend that declares `Supports.state` writes
`make_state` and `advance`; checks, padding and counting are here. Decoding is inference: no graph
is kept, and no weight dropped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from attention.call_inputs import check_values, in_chunk_order
from attention.checks import (
    UnsupportedError,
    autocasts,
    check_device,
    check_int,
    check_kv_heads,
    check_mask,
    check_qkv,
    signature,
)
from attention.declaration import Declaration
from attention.decoding.chunk import Chunk
from attention.decoding.fits import check_fits, check_no_graph, check_room
from attention.decoding.state import DecodeState, StateShape
from attention.problem import Problem


class Decoding(Declaration):
    """What `attention.base.Attention` says about states."""

    # -- what a backend with states writes ----------------------------------------------------

    def make_state(self, shape: StateShape) -> DecodeState:
        """Make the state before any token, one of those in `attention.decoding.state`."""
        raise NotImplementedError(f"{self.name} declares states, but makes none")

    def advance(self, chunk: Chunk, state: Any) -> Tensor:
        """Attend from the tokens of a chunk to all seen and to each other, causally.

        Args:
            chunk: validated; its real tokens come first.
            state: made by `make_state`; takes the chunk in.

        A backend with extra inputs takes those given as further arguments, validated. Numbers of
        each token are in the chunk's order, masks and projections in that of the call:
        `Chunk.order` says which token is where.

        Returns:
            ``[B, H, C, D]``, in the chunk's order; unspecified but finite at padding.
        """
        raise NotImplementedError(f"{self.name} declares states, but does not advance them")

    # -- what users call ------------------------------------------------------------------------

    def init_state(
        self,
        *,
        batch_size: int,
        max_len: int | None = None,
        num_kv_heads: int | None = None,
        value_dim: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> DecodeState:
        """Make the state of a batch of sequences before their first token.

        Args:
            batch_size: B.
            max_len: the most tokens of a sequence, over all calls; more are refused. ``None`` =
                without end, for backends whose state does not grow.
            num_kv_heads: H_kv; ``None`` means H.
            value_dim: D_v; ``None`` means D.
            dtype: of q, k and v.
            device: theirs.

        Raises:
            UnsupportedError: if this backend decodes with no state, or would refuse a call.
            ValueError: if an argument is out of range.
            TypeError: if an argument is of the wrong type.
        """
        self._check_has_state()
        shape = StateShape.checked(
            batch_size=batch_size,
            max_len=max_len,
            dtype=dtype,
            device=device,
            num_heads=self.num_heads,
            num_kv_heads=check_kv_heads(num_kv_heads, self.num_heads),
            head_dim=self.head_dim,
            value_dim=self.head_dim
            if value_dim is None
            else check_int("value_dim", value_dim, minimum=1),
        )
        if reasons := self.unsupported_reasons(_problem(shape)):
            raise UnsupportedError("; ".join(reasons))
        return self.make_state(shape)

    def prefill(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: DecodeState,
        *,
        key_padding_mask: Tensor | None = None,
        **call_inputs: Any,
    ) -> Tensor:
        """Attend causally from a chunk of tokens to those in the state and to each other.

        Args:
            q: ``[B, H, C, D]``.
            k: ``[B, H_kv, C, D]``.
            v: ``[B, H_kv, C, D]``.
            state: made by `init_state` of this backend; takes the tokens in.
            key_padding_mask: bool ``[B, C]``, True = a token. What is not one leaves no trace,
                even NaN, so the sequences of a batch may have different lengths.
            **call_inputs: the inputs that the backend declares; of Longformer's global tokens, in
                the first chunk only.

        Returns:
            ``[B, H, C, D]``; unspecified but finite where there is no token.

        Raises:
            UnsupportedError: if this backend decodes with no state, or not with that input.
            ValueError: if the state is not of this backend, batch, dtype or device, is full, or a
                shape does not fit; if a graph would be needed; or in training with dropout.
            TypeError: if an argument is of the wrong type.
        """
        plain = None
        unmasked = key_padding_mask is None and not call_inputs and isinstance(state, DecodeState)
        if unmasked and not is_dynamo_compiling():
            # Room in the state and a graph are no part of it: they are asked about every time.
            plain = signature(q, k, v, (self.active_dropout_p, state.made_by, state.shape))
            if plain is not None and plain == self.__dict__.get("_continued"):
                return self._take(Chunk.of(q, k, v, None), state, {})
        self._check_has_state()
        check_device(q, self.supports.dtypes, self.unavailable_reasons)
        q, k, v = check_qkv(q, k, v, num_heads=self.num_heads, head_dim=self.head_dim)
        if k.shape[2] != q.shape[2]:
            raise ValueError(
                f"k: expected as many tokens as q, {q.shape[2]}: the others are in the state; "
                f"got {k.shape[2]}"
            )
        if autocasts(q.device.type):
            to = torch.get_autocast_dtype(q.device.type)
            q, k, v = (x if x.dtype == torch.float64 else x.to(to) for x in (q, k, v))
        check_fits(
            state, self.shown(), "q and k have", q, k, v, num_kv_heads=k.shape[1],
            v_dim=v.shape[3],
        )  # fmt: skip
        if key_padding_mask is not None:
            check_mask("key_padding_mask", key_padding_mask, (q.shape[0], q.shape[2]), q)
        extra = self.check_call_inputs(q, k, call_inputs)
        if self.active_dropout_p:
            raise ValueError(
                f"dropout_p: decoding drops no weight, got {self.active_dropout_p} in training "
                "mode; call eval() first"
            )
        if key_padding_mask is not None and bool(key_padding_mask.all()):
            key_padding_mask = None
        if key_padding_mask is not None:
            q, k, v, extra = self.clean_padding(q, k, v, key_padding_mask, extra, queries=True)
        chunk = Chunk.of(q, k, v, key_padding_mask)
        if extra:
            check_values(self.taken_inputs(), extra)
            extra = in_chunk_order(self.taken_inputs(), extra, chunk.order)
        if not autocasts(q.device.type):
            out = self._take(chunk, state, extra)
            self.__dict__["_continued"] = plain
            return out
        with torch.autocast(q.device.type, enabled=False):
            return self._take(chunk, state, extra)

    def _take(self, chunk: Chunk, state: DecodeState, extra: dict[str, Any]) -> Tensor:
        """Take in a chunk that fits the state in all but, perhaps, its length, and attend."""
        most = state.shape.max_len
        if most is not None and state.longest + chunk.size > most:
            check_room(state, chunk.size, None if chunk.is_even else chunk.counts)
        if not torch.is_grad_enabled():
            return chunk.in_order(self.advance(chunk, state, **extra))
        given = [x for x in extra.values() if isinstance(x, Tensor)]
        check_no_graph("q", chunk.q, chunk.k, chunk.v, *given)
        with torch.no_grad():
            return chunk.in_order(self.advance(chunk, state, **extra))

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: DecodeState,
        *,
        key_padding_mask: Tensor | None = None,
        **call_inputs: Any,
    ) -> Tensor:
        """Attend from one token of each sequence; arguments and errors as in `prefill`.

        Args:
            q: ``[B, H, 1, D]``.
            k: ``[B, H_kv, 1, D]``.
            v: ``[B, H_kv, 1, D]``.
            state: takes the token in.
            key_padding_mask: bool ``[B, 1]``, False = this sequence has ended.
            **call_inputs: the inputs that the backend declares, of this token.

        Returns:
            ``[B, H, 1, D]``.
        """
        if isinstance(q, Tensor) and q.dim() == 4 and q.shape[2] != 1:
            raise ValueError(f"q: a step takes one token, got {q.shape[2]}; prefill takes more")
        return self.prefill(q, k, v, state, key_padding_mask=key_padding_mask, **call_inputs)

    # -- checks ---------------------------------------------------------------------------------

    def _check_has_state(self) -> None:
        if not self.supports.state:
            raise UnsupportedError(f"state: {self.name} decodes with none{self.why_not('state')}")

    def drawn(self) -> str:
        """Tell apart what was drawn at random, where no option does: the same text, the same draw.

        Part of `shown`. A backend that draws anew, or loads what another one drew, calls
        `forget_shown`.
        """
        return ""

    def shown(self) -> str:
        """Write the backend with its options and draws, as a state remembers it; made once."""
        text: str | None = self.__dict__.get("_shown")
        if text is None:
            drawn = self.drawn()
            text = f"{self.name}({self.extra_repr()}{', ' if drawn else ''}{drawn})"
            self.__dict__["_shown"] = text
        return text

    def forget_shown(self) -> None:
        """Write it anew, and check the next call closely: what a state remembers has changed."""
        self.__dict__.pop("_shown", None)
        self.__dict__.pop("_continued", None)


def _problem(shape: StateShape) -> Problem:
    """Return the call that a state's first chunk makes, as far as it is known."""
    tokens = shape.max_len or 1
    return Problem(
        batch=shape.batch_size,
        num_heads=shape.num_heads,
        head_dim=shape.head_dim,
        seq_len=tokens,
        key_len=tokens,
        num_kv_heads=shape.num_kv_heads,
        dtype=shape.dtype,
        device=shape.device.type,
        value_dim=shape.v_dim,
        is_causal=True,
    )
