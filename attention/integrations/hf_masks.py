"""What a layer of transformers lets its queries see, without an N×M mask.

transformers describes a mask by a function of indices, ``f(batch, head, query, key) -> bool``,
put together from a few parts. Here the parts are read, so that a mask stays three facts of O(M):
causal or not, a window, and which keys are padding. A part that is not known is refused by its
name: no mask is guessed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from attention.checks import UnsupportedError

_LOOKS = frozenset({"__get__", "dim", "size", "numel", "__len__", "__repr__", "is_contiguous"})
"""What may be asked of a pattern as a tensor."""


class Pattern(Tensor):
    """What the queries of a layer may see.

    A tensor of one element, since transformers passes masks on as tensors (and hands a ready one,
    of four dimensions, through); what it means stands in the attributes. A model that computes
    with its mask has an attention of its own, which would run unmasked: that is an error.

    Attributes:
        is_causal: query ``i`` sees keys up to ``M - N + i``.
        window: keys seen on each side, with `is_causal` to the left; ``None`` = the layer has
            none. It may reach beyond the sequence.
        key_padding_mask: bool ``[B, M]``, True = this key takes part; ``None`` = all do.
        key_len: M, the keys that there are: a cache of fixed size holds room for more.
    """

    is_causal: bool
    window: int | None
    key_padding_mask: Tensor | None
    key_len: int

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Let it be looked at and passed on; refuse to compute with it.

        Raises:
            UnsupportedError: if it is computed with.
        """
        name = getattr(func, "__name__", "")
        if name in ("contiguous", "detach", "to"):
            return args[0]
        if name not in _LOOKS:
            raise UnsupportedError(
                f"attention_mask: the model computes with its mask ({name}): it has an attention "
                "of its own, which no attn_implementation reaches"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def of(
        cls, is_causal: bool, window: int | None, key_padding_mask: Tensor | None, key_len: int
    ) -> Pattern:
        """Make one."""
        with torch._C.DisableTorchFunctionSubclass():
            pattern = torch.ones(1, 1, 1, 1, dtype=torch.bool).as_subclass(cls)
        pattern.is_causal, pattern.window = is_causal, window
        pattern.key_padding_mask, pattern.key_len = key_padding_mask, key_len
        return pattern


def pattern_of(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any],
    attention_mask: Tensor | None = None,
    **_of_other_masks: Any,
) -> Pattern:
    """Make the pattern of a layer: registered as a mask interface of transformers.

    Args:
        q_length: N, queries.
        kv_length: keys, with the room that a cache of fixed size keeps.
        q_offset: tokens before the first query.
        kv_offset: tokens before the first key: a cache of a window has dropped them.
        mask_function: of indices.
        attention_mask: bool ``[B, tokens so far]``, True = a real token.
        **_of_other_masks: what transformers tells masks of another form (batch size, dtype, device
            and hints to skip the mask); none of it changes what is seen.

    Raises:
        UnsupportedError: if the mask has a part that is none of these.
    """
    is_causal, window = _read(mask_function)
    key_len = kv_length
    if is_causal:
        key_len = int(q_offset) + q_length - kv_offset
        if not 0 < key_len <= kv_length:
            raise UnsupportedError(
                f"attention_mask: {q_length} queries behind {int(q_offset)} tokens do not end "
                f"where {kv_length} keys from {kv_offset} on do"
            )
    return Pattern.of(is_causal, window, _padding(attention_mask, kv_offset, key_len), key_len)


def _padding(mask: Tensor | None, kv_offset: int, key_len: int) -> Tensor | None:
    """Cut a mask of tokens to the keys; tokens that it does not reach are no real ones."""
    if mask is None:
        return None
    mask = mask[:, kv_offset : kv_offset + key_len].to(torch.bool)
    if short := key_len - mask.shape[1]:
        mask = torch.nn.functional.pad(mask, (0, short))
    return None if bool(mask.all()) else mask


_COMPOUND = "and_masks.<locals>.and_mask"
_CAUSAL = "causal_mask_function"
_LEFT = "sliding_window_overlay.<locals>.inner_mask"
_BOTH = "sliding_window_bidirectional_overlay.<locals>.inner_mask"
_ALL = "bidirectional_mask_function"

_MEANING = {
    "packed_sequence_mask_function": "several sequences packed into one row",
    "remap_positions_for_packed_sequence": "several sequences packed into one row",
    "chunked_overlay": "attention within chunks",
    "blockwise_overlay": "blocks that see each other",
    "or_masks": "a union of masks",
}


def _read(mask_function: Callable[..., Any]) -> tuple[bool, int | None]:
    """Return whether a mask is causal, and its window: keys on each side."""
    is_causal, windows = False, []
    for name, part in _parts(mask_function):
        if name == _CAUSAL:
            is_causal = True
        elif name in (_LEFT, _BOTH):
            size = int(inspect.getclosurevars(part).nonlocals["sliding_window"])
            # The first counts the query itself and looks left alone.
            windows.append((name, size - 1 if name == _LEFT else size))
        elif name != _ALL:
            maker = name.partition(".")[0]
            what = _MEANING.get(maker, "a mask of its own making")
            raise UnsupportedError(
                f"attention_mask: the model asks for {what} ({maker}); accepted are causal and "
                "bidirectional masks, a sliding window, and padding"
            )
    if not windows:
        return is_causal, None
    (side, window), *more = windows
    if more or (side == _LEFT and not is_causal):
        raise UnsupportedError(
            "attention_mask: expected one sliding window, to the left with a causal mask; got "
            f"{len(windows)}, {'causal' if is_causal else 'bidirectional'}"
        )
    return is_causal, window


def _parts(mask_function: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Walk the parts of an intersection, with the names that transformers defines them by."""
    name = getattr(mask_function, "__qualname__", type(mask_function).__name__)
    module = getattr(mask_function, "__module__", "")
    if module != "transformers.masking_utils":
        yield f"{module}:{name}", mask_function
    elif name == _COMPOUND:
        for part in inspect.getclosurevars(mask_function).nonlocals["mask_functions"]:
            yield from _parts(part)
    else:
        yield name, mask_function
