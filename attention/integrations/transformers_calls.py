"""A call of an attention layer of transformers, served by the backend that the layer holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from attention.backends.longformer import LongformerAttention
from attention.base import Attention
from attention.checks import UnsupportedError, check_float
from attention.functional import opaque
from attention.integrations import transformers_backends as parts
from attention.integrations.transformers_backends import CHOSEN, PREFIX, Held, held_in
from attention.integrations.transformers_masks import (
    Pattern,
    check_apart,
    is_plain_export,
    refuse_jit_trace,
)
from attention.kernels.fused import sdpa_rows
from attention.packed import Packed

WINDOWED = "longformer"
"""Who serves a model's sliding window."""

HARMLESS = frozenset(
    {
        "sliding_window",  # what it means stands in the mask already
        "position_ids", "cache_position", "use_cache", "deterministic", "return_dict",
        "output_hidden_states", "output_router_logits", "num_items_in_batch", "logits_to_keep",
        "token_type_ids", "labels", "use_top_left_mask", "max_length_q", "max_length_k",
    }
)  # fmt: skip
"""What models hand to attention functions that changes nothing here."""

Forward = Callable[..., tuple[Tensor, None]]

_preparing: ContextVar[Mapping[nn.Module, int] | None] = ContextVar("preparing", default=None)
"""The numbers of the layers of a model that `prepare` calls."""


@contextmanager
def numbered(numbers: Mapping[nn.Module, int]) -> Iterator[None]:
    """Say the numbers of the layers of a model that is called only to be prepared."""
    token = _preparing.set(numbers)
    try:
        yield
    finally:
        _preparing.reset(token)


def attention_function(backend: str | None, **options: Any) -> Forward:
    """Return a backend as an attention function of transformers.

    Args:
        backend: its name; ``None`` = that which a layer holds.
        **options: of its constructor.
    """

    def attnbench_forward(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **more: Any,
    ) -> tuple[Tensor, None]:
        """Attend: ``[B, H, N, D]`` in, ``[B, N, H, D]`` out, and no weights."""
        refuse_jit_trace()
        held: Any = module._modules.get(parts.NAME)
        shape = (query.shape[1], query.shape[3])
        if (
            held is None
            or (backend is not None and held.name != backend)
            or (held.num_heads, held.head_dim) != shape
        ):
            held = _held_late(module, backend, options, shape)
        _refuse(held.name, more)
        pattern = _pattern(held.name, module, query, key, attention_mask, is_causal)
        if pattern.documents is None:
            check_apart(query, key, pattern, more.get("position_ids"))
        attend = _backend(held, pattern, query.shape[2])
        if is_plain_export() and attend.family != "dense":
            raise UnsupportedError(
                f"torch.export: {attend.name} walks over the sequence in Python, and a graph of "
                "that grows with it; accepted: full and sdpa, in layers without a window"
            )
        _set(attend, dropout, scaling, module.training)
        out = _attend(attend, query, key, value, pattern)
        return out.transpose(1, 2).contiguous(), None

    return attnbench_forward


@opaque
def _held_late(
    module: nn.Module, name: str | None, given: Mapping[str, Any], shape: tuple[int, int]
) -> Held:
    """Attach a backend at a layer's call: in `prepare`, or where no two layers would differ."""
    held = held_in(module)
    if name is None:
        if held is None:
            raise RuntimeError(
                f"{CHOSEN}: nothing was chosen for this layer; call choose(model, …)"
            )
        name, given = held.name, held.given
    numbers = _preparing.get()
    if numbers is not None:
        return parts.attach(module, name, given, shape=shape, number=numbers.get(module, 0))
    if held is not None and held.name == name and held.is_drawn:
        raise RuntimeError(
            f"{PREFIX}{name}: the layer was made for {held.num_heads} heads of {held.head_dim}, "
            f"and is called with {shape[0]} of {shape[1]}; call prepare(model, …) with the "
            "arguments of one call"
        )
    if held is not None and held.name != name and held.tensors():
        raise RuntimeError(
            f"{PREFIX}{name}: the layer holds {held.name}'s tensors; prepare(model) puts {name} "
            "in its place, without them"
        )
    if held is None or held.name != name:
        probe = parts.Held(name, given, num_heads=shape[0], head_dim=shape[1], number=0, like=None)
        if probe.is_drawn:
            raise RuntimeError(
                f"{PREFIX}{name}: what it holds is no part of the model yet; call "
                "prepare(model, …) first, before an optimizer is made or weights are loaded"
            )
    return parts.attach(module, name, given, shape=shape, number=0)


def _refuse(name: str, more: Mapping[str, Any]) -> None:
    for what, value in more.items():
        if what not in HARMLESS and value is not None and value is not False:
            raise UnsupportedError(
                f"{what}: the model hands it to attention, and {PREFIX}{name} does not serve it"
            )


def _pattern(
    name: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    is_causal: bool | None,
) -> Pattern:
    """Return what the layer sees; without a mask it says itself whether it is causal."""
    if mask is None:
        causal = bool(getattr(module, "is_causal", True)) if is_causal is None else bool(is_causal)
        return Pattern.of(causal, None, None, key.shape[2])
    if not isinstance(mask, Pattern):
        raise UnsupportedError(
            f"attention_mask: {PREFIX}{name} takes padding [B, M]; got a mask that is ready, "
            f"{tuple(mask.shape)}"
        )
    if key.shape[2] < mask.key_len:
        raise UnsupportedError(
            f"attention_mask: it is of {mask.key_len} keys, but the layer has {key.shape[2]}"
        )
    return mask


def _backend(held: Held, pattern: Pattern, queries: int) -> Attention:
    """Return what serves a layer's call: its backend, or the band of its model's window."""
    cls, name = type(held.own), held.name
    if pattern.is_causal and queries > 1 and not cls.supports.causal:
        raise UnsupportedError(f"is_causal: {name} is bidirectional only{cls.why_not('causal')}")
    window = pattern.window
    exact = cls.family == "dense"
    if window is None or (exact and pattern.newest is not None):
        return held.in_use()
    if window >= pattern.key_len - 1 and name != WINDOWED:
        return held.in_use()  # the window holds all keys that there are
    if not exact and name != WINDOWED:
        raise UnsupportedError(
            f"sliding_window: the layer sees {window} keys on a side, and {name} has "
            f"no window; accepted: {PREFIX}{WINDOWED} and the exact backends"
        )
    if held.band is None or held.band.window != window:
        _make_band(held, window)
    assert held.band is not None
    return held.band


@opaque
def _make_band(held: Held, window: int) -> None:
    kernel = {"kernel": held.given["kernel"]} if "kernel" in held.given else {}
    held.band = LongformerAttention(
        num_heads=held.num_heads, head_dim=held.head_dim, window=window,
        **(kernel if held.name == WINDOWED else {}),
    ).train(held.training)  # fmt: skip


def _set(backend: Attention, dropout: float, scale: float | None, training: bool) -> None:
    """Set what the model decides at each call."""
    if dropout and not backend.supports.dropout:
        raise UnsupportedError(
            f"dropout: the model drops attention weights with probability {dropout}, and "
            f"{backend.name} has no dropout; set its configuration's to 0"
        )
    if backend.dropout_p != dropout:  # a module is slow to write to, and compiled by what it has
        backend.dropout_p = dropout
    wanted = backend.head_dim**-0.5 if scale is None else check_float("scaling", scale, above=0.0)
    if backend.scale != wanted:
        backend.scale = wanted
    if backend.training != training:
        backend.train(training)


def _attend(backend: Attention, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    mask, is_causal = pattern.key_padding_mask, pattern.is_causal
    if pattern.documents is not None:
        return _of_documents(backend, q, k, v, pattern.documents, is_causal)
    if mask is not None and mask.shape[0] != q.shape[0]:
        mask = mask.expand(q.shape[0], -1)
    if k.shape[2] > pattern.key_len:
        k, v = k[:, :, : pattern.key_len], v[:, :, : pattern.key_len]
    if isinstance(backend, LongformerAttention) and pattern.newest is not None:
        return _of_one_query(backend, q, k, v, mask, pattern.newest)
    before = k.shape[2] - q.shape[2]
    if isinstance(backend, LongformerAttention) and is_causal and before:
        return _at_the_end(backend, q, k, v, mask, before)
    is_causal = is_causal and q.shape[2] > 1  # the last token sees all there is
    out = backend(q, k, v, is_causal=is_causal, key_padding_mask=mask)
    assert isinstance(out, Tensor)
    return out


def _of_documents(
    backend: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: tuple[Packed, ...],
    is_causal: bool,
) -> Tensor:
    """Attend to each of the sequences that are packed into rows by itself."""
    outs = []
    for at, packed in enumerate(documents):
        row = slice(at, at + 1)
        outs.append(backend(q[row], k[row], v[row], is_causal=is_causal, packed=packed))
    return torch.cat(outs)


def _at_the_end(
    backend: LongformerAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    before: int,
) -> Tensor:
    """Attend from the last tokens of a sequence: of the keys before, a window reaches the last.

    In the places of those keys stand queries that nobody asks for.
    """
    cut = max(0, before - backend.window * max(backend.dilation))
    k, v = k[:, :, cut:], v[:, :, cut:]
    mask = None if mask is None else mask[:, cut:]
    if q.shape[2] == 1 and max(backend.dilation) == 1 and not backend.active_dropout_p:
        hidden = None if mask is None else ~mask[:, None, None]
        return sdpa_rows(q, k, v, hidden=hidden, scale=backend.scale)
    before -= cut
    out = backend(
        torch.nn.functional.pad(q, (0, 0, before, 0)), k, v, is_causal=True, key_padding_mask=mask
    )
    assert isinstance(out, Tensor)
    return out[:, :, before:]


def _of_one_query(
    backend: LongformerAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    newest: Tensor,
) -> Tensor:
    """Attend from one token to its window, in a cache of fixed size that goes on behind it."""
    gap = torch.tensor(backend.dilation, device=k.device)[:, None]  # [H, 1]
    distance = newest - torch.arange(k.shape[2], device=k.device)  # [M]
    seen = (distance >= 0) & (distance <= backend.window * gap) & (distance % gap == 0)
    hidden = ~seen[None, :, None]  # [1, H, 1, M]
    if mask is not None:
        hidden = hidden | ~mask[:, None, None]
    return sdpa_rows(
        q, k, v, hidden=hidden, scale=backend.scale, dropout_p=backend.active_dropout_p
    )
