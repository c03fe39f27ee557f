"""Checks of a state beside a call: whether it fits, has room, and is asked for no graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention.decoding.state import DecodeState


def check_fits(state: Any, shown: str, here: str, *inputs: Tensor, **heads: int) -> None:
    """Check that a state is of this layer and of inputs like these.

    Args:
        state: as it was given.
        shown: the layer, as its states remember it.
        here: which inputs they are, with a verb: "x has".
        *inputs: ``[B, ...]``.
        **heads: other values of `StateShape`, by name.

    Raises:
        TypeError: if it is no state.
        ValueError: if it does not fit.
    """
    if not isinstance(state, DecodeState):
        raise TypeError(f"state: expected one by init_state, got {type(state).__name__}")
    if state.made_by != shown:
        raise ValueError(f"state: made by {state.made_by}, this is {shown}")
    made = state.shape
    for what, there, given in (
        ("batch", made.batch_size, inputs[0].shape[0]),
        *((name, getattr(made, name), value) for name, value in heads.items()),
        *(("dtype", made.dtype, x.dtype) for x in inputs),
        ("device", made.device.type, inputs[0].device.type),
    ):
        if there != given:
            raise ValueError(f"state: made for {what} {there}, {here} {given}")


def check_room(state: DecodeState, size: int, counts: Tensor | None = None) -> None:
    """Check that a state has room for a chunk; arguments as of `DecodeState.count`."""
    room = state.shape.max_len
    if room is None or state.longest + size <= room:
        return
    most = int((state.lengths + (size if counts is None else counts)).max())
    if most > room:
        raise ValueError(
            f"max_len: the state was made for {room} tokens, with this chunk a sequence has {most}"
        )


def check_no_graph(name: str, *inputs: Tensor) -> None:
    """Refuse inputs that a graph would be kept of; `name` is what the error calls them."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        raise ValueError(f"{name}: a state keeps no graph; decode under torch.no_grad()")
