"""Read a mask that transformers describes by a function of indices, without computing it.

The function is called with symbols in the place of indices, which note what is compared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from attention.checks import UnsupportedError


class _Facts:
    """What a mask function has compared: in the place of the bool that it returns."""

    device = None

    def __init__(self, *said: tuple[str, int]) -> None:
        self.said = said

    def to(self, _device: Any) -> _Facts:
        return self

    def __and__(self, other: _Facts) -> _Facts:
        return _Facts(*self.said, *other.said)


class _Distance:
    """How far a query is from a key."""

    def __abs__(self) -> _Distance:
        return self

    def __le__(self, most: int) -> _Facts:
        return _Facts(("both", int(most)))


class _Query:
    """The index of a query; `back` says how far in front of it."""

    def __init__(self, back: int = 0) -> None:
        self.back = back

    def new_ones(self, *_size: Any, **_kind: Any) -> _Facts:
        return _Facts()

    def __ge__(self, least: int) -> _Facts:
        if least != 0:
            raise TypeError
        return _Facts()

    def __sub__(self, other: Any) -> Any:
        return _Distance() if isinstance(other, _Key) else _Query(self.back + int(other))


class _Key:
    """The index of a key."""

    def __le__(self, query: _Query) -> _Facts:
        if query.back:
            raise TypeError
        return _Facts(("causal", 0))

    def __gt__(self, query: _Query) -> _Facts:
        return _Facts(("left", query.back - 1))  # the window counts the query itself


def read(mask_function: Callable[..., Any]) -> tuple[bool, int | None]:
    """Return whether a mask is causal, and its window: keys on each side.

    Raises:
        UnsupportedError: if it is anything else; the message names the part.
    """
    try:
        facts = mask_function(None, None, _Query(), _Key()).said
    except (TypeError, AttributeError, IndexError, RuntimeError):
        raise UnsupportedError(
            f"attention_mask: the model asks for {_named(mask_function)}; accepted are causal and "
            "bidirectional masks, a sliding window, and padding"
        ) from None
    is_causal = any(what == "causal" for what, _ in facts)
    windows = [(what, size) for what, size in facts if what != "causal"]
    if not windows:
        return is_causal, None
    (side, window), *more = windows
    if more or (side == "left" and not is_causal):
        raise UnsupportedError(
            "attention_mask: expected one sliding window, to the left with a causal mask; got "
            f"{len(windows)}, {'causal' if is_causal else 'bidirectional'}"
        )
    return is_causal, window


def unpacked(mask_function: Callable[..., Any]) -> tuple[Callable[..., Any], Tensor | None]:
    """Take a mask of packed sequences apart: what each of them sees, and which is each token's.

    transformers keeps sequences of one row apart by an intersection of two parts: equal numbers of
    sequences, and a mask of places within them. A sequence's places go up by one, so that mask is
    the same of places in the row.

    Returns:
        the mask within a sequence, and int64 ``[B, N]``; the mask itself and ``None`` = it is
        another one.
    """
    if _maker(mask_function) != "and_masks":
        return mask_function, None
    parts = _enclosed(mask_function)["mask_functions"]
    if [_maker(part) for part in parts] != list(_PARTS):
        return mask_function, None
    numbers, within = (_enclosed(part) for part in parts)
    return within["mask_function"], numbers["packed_sequence_mask"]


_PARTS = ("packed_sequence_mask_function", "remap_positions_for_packed_sequence")


def _maker(function: Callable[..., Any]) -> str:
    """Name transformers' function that made a part of a mask; of others nothing."""
    if getattr(function, "__module__", "") != "transformers.masking_utils":
        return ""
    return str(getattr(function, "__qualname__", "")).partition(".")[0]


def _enclosed(function: Callable[..., Any]) -> dict[str, Any]:
    return dict(inspect.getclosurevars(function).nonlocals)


_PACKED = (
    "several sequences packed into one row (a compiled model does so, too, where it gets neither "
    "attention_mask nor cache: give attention_mask)"
)
_MEANING = {
    "packed_sequence_mask_function": _PACKED,
    "remap_positions_for_packed_sequence": _PACKED,
    "chunked_overlay": "attention within chunks",
    "blockwise_overlay": "blocks that see each other",
    "or_masks": "a union of masks",
}
_KNOWN = (
    "causal_mask_function", "bidirectional_mask_function", "sliding_window_overlay",
    "sliding_window_bidirectional_overlay",
)  # fmt: skip


def _named(mask_function: Callable[..., Any]) -> str:
    """Name the first part of a mask that is not served."""
    makers = [maker for maker in _makers(mask_function) if maker not in _KNOWN]
    maker = makers[0] if makers else "?"
    return f"{_MEANING.get(maker, 'a mask of its own making')} ({maker})"


def _makers(mask_function: Callable[..., Any]) -> Iterator[str]:
    """Walk the parts of an intersection, by the names of what made them."""
    name = getattr(mask_function, "__qualname__", type(mask_function).__name__)
    module = getattr(mask_function, "__module__", "")
    if module != "transformers.masking_utils":
        yield f"{module}:{name}"
    elif name == "and_masks.<locals>.and_mask":
        for part in inspect.getclosurevars(mask_function).nonlocals["mask_functions"]:
            yield from _makers(part)
    else:
        yield name.partition(".")[0]
