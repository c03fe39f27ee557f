"""What a layer of transformers lets its queries see, without an N×M mask.

transformers describes a mask by a function of indices, ``f(batch, head, query, key) -> bool``,
put together from a few parts. Here that function is called with symbols in the place of indices,
which note what is compared, so that a mask stays three facts of O(M): causal or not, a window, and
which keys are padding. A function that does anything else is refused by its name: no mask is
guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from attention.checks import UnsupportedError
from attention.functional import has_values
from attention.integrations.transformers_mask_functions import read, unpacked
from attention.packed import Packed

_READS = frozenset({"item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__"})
"""What looks at the numbers of a tensor and gives no tensor."""


class Pattern(Tensor):
    """What the queries of a layer may see.

    A tensor of one element, since transformers passes masks on as tensors (and hands a ready one,
    of four dimensions, through); what it means stands in the attributes. A model that computes
    with its mask has an attention of its own, which would run unmasked: that is an error.

    Attributes:
        is_causal: query ``i`` sees keys up to ``M - N + i``.
        window: keys seen on each side, with `is_causal` to the left; ``None`` = the layer has
            none. It may reach beyond the sequence.
        key_padding_mask: bool ``[B or 1, M]``, True = this key takes part; ``None`` = all do.
        key_len: M, the keys that there are: a cache of fixed size holds room for more.
        newest: where among the keys the only query stands, a number in a tensor; ``None`` = the
            queries are the last ones. The keys after it and those before its window are hidden in
            `key_padding_mask` already.
        documents: of each row, the sequences that are packed into it; ``None`` = one each.
    """

    is_causal: bool
    window: int | None
    key_padding_mask: Tensor | None
    key_len: int
    newest: Tensor | None
    documents: tuple[Packed, ...] | None

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
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **(kwargs or {}))
        if name in _READS or (isinstance(out, Tensor) and name != "__get__"):
            raise UnsupportedError(
                f"attention_mask: the model computes with its mask ({name}): it has an attention "
                "of its own, which no attn_implementation reaches"
            )
        return out

    @classmethod
    def of(
        cls,
        is_causal: bool,
        window: int | None,
        key_padding_mask: Tensor | None,
        key_len: int,
        newest: Tensor | None = None,
        documents: tuple[Packed, ...] | None = None,
    ) -> Pattern:
        """Make one."""
        # An export without dynamo gives tensors without numbers, which have no subclasses.
        apart = _disable_current_modes() if is_plain_export() else nullcontext()
        with torch._C.DisableTorchFunctionSubclass(), apart:
            pattern = torch.ones(1, 1, 1, 1, dtype=torch.bool, device="cpu").as_subclass(cls)
        pattern.is_causal, pattern.window = is_causal, window
        pattern.key_padding_mask, pattern.key_len = key_padding_mask, key_len
        pattern.newest, pattern.documents = newest, documents
        return pattern


def is_plain_export() -> bool:
    """Whether ``torch.export`` runs the model as it is, on tensors without numbers."""
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


def refuse_jit_trace() -> None:
    """Refuse ``torch.jit.trace``: it would keep one mask's answers for all.

    Raises:
        UnsupportedError: if it runs.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise UnsupportedError(
            "torch.jit.trace: it records one path, and the mask and the lengths decide which is "
            "right; accepted are torch.export and torch.compile"
        )


def pattern_of(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any],
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
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
        allow_is_causal_skip: False = the mask is more than causal, or of a cache of fixed size.
        use_vmap: whether it is more because the model says so.
        device: of the layer.
        **_of_other_masks: what transformers tells masks of another form (batch size, dtype and
            hints to skip the mask); none of it changes what is seen.

    Raises:
        UnsupportedError: if the mask has a part that is none of these, or may have one that a
            graph cannot be asked about.
    """
    refuse_jit_trace()
    if (
        torch.compiler.is_compiling()
        and attention_mask is None
        and not (allow_is_causal_skip or use_vmap or q_length == 1)
        and "allow_is_bidirectional_skip" not in _of_other_masks
    ):
        raise UnsupportedError(
            "attention_mask: while a graph is made, nobody can tell whether a row holds several "
            "sequences; give attention_mask (all ones if there is no padding) or use_cache=True"
        )
    documents = None
    if not torch.compiler.is_compiling():
        mask_function, numbers = unpacked(mask_function)
        if numbers is not None:
            documents = tuple(Packed.from_segment_ids(row) for row in numbers)
    is_causal, window = read(mask_function)
    has_room = isinstance(q_offset, Tensor) or kv_length > q_offset + q_length - kv_offset
    if is_causal and q_length == 1 and has_room:
        return _of_one_query(kv_length, q_offset, kv_offset, window, attention_mask, device)
    key_len = kv_length
    if is_causal:
        key_len = int(q_offset) + q_length - kv_offset
        if not 0 < key_len <= kv_length:
            raise UnsupportedError(
                f"attention_mask: {q_length} queries behind {int(q_offset)} tokens do not end "
                f"where {kv_length} keys from {kv_offset} on do"
            )
    mask = _padding(attention_mask, kv_offset, key_len)
    if mask is not None and not torch.compiler.is_compiling() and bool(mask.all()):
        mask = None
    return Pattern.of(is_causal, window, mask, key_len, documents=documents)


def _of_one_query(
    kv_length: int,
    q_offset: int | Tensor,
    kv_offset: int,
    window: int | None,
    attention_mask: Tensor | None,
    device: torch.device | str,
) -> Pattern:
    """Make the pattern of one query and a cache of fixed size.

    What differs from step to step is tensors, so that one compiled step serves all.
    """
    newest = torch.as_tensor(q_offset, device=device) - kv_offset
    at = torch.arange(kv_length, device=device)
    seen = at <= newest
    if window is not None:
        seen = seen & (at >= newest - window)
    mask = _padding(attention_mask, kv_offset, kv_length)
    seen = seen[None] if mask is None else seen & mask
    return Pattern.of(True, window, seen, kv_length, newest)


def _padding(mask: Tensor | None, kv_offset: int, key_len: int) -> Tensor | None:
    """Cut a mask of tokens to the keys; tokens that it does not reach are no real ones."""
    if mask is None:
        return None
    mask = mask[:, kv_offset : kv_offset + key_len].to(torch.bool)
    if short := key_len - mask.shape[1]:
        mask = torch.nn.functional.pad(mask, (0, short))
    return mask


def check_apart(q: Tensor, k: Tensor, pattern: Pattern, places: Any) -> None:
    """Refuse positions that start anew where nothing keeps the sequences apart, as with a cache.

    Raises:
        UnsupportedError: if one is 0 behind the first token.
    """
    is_whole = 1 < q.shape[2] == k.shape[2] and pattern.key_padding_mask is None
    if not (is_whole and isinstance(places, Tensor) and places.dim() == 2 and has_values(places)):
        return
    if bool((places[:, 1:] == 0).any()):
        raise UnsupportedError(
            "position_ids: they start anew within a row, but the mask keeps no sequences apart; "
            "packed sequences go without attention_mask and with use_cache=False"
        )
