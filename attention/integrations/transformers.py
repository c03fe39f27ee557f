"""Our backends inside models of Hugging Face's transformers.

    from attention.integrations.transformers import register

    register(longformer={"window": 256})
    model = AutoModel.from_config(config, attn_implementation="attnbench_longformer")

Every backend is then an ``attn_implementation``, by transformers' own interfaces for attention
functions and masks (5.0 or newer): no model is patched. A mask never becomes N×M
(`attention.integrations.hf_masks`).

**A model's own window is kept.** Layers with a sliding window (Mistral, Gemma 3, ModernBERT) get
theirs from the configuration, layer by layer, exactly: the exact backends and ``longformer`` serve
them over the band alone, in time and memory O(N·W); the rest refuse them. In layers without one
``longformer`` takes the window that `register` was given.

**With a cache** the queries stand at its end. Backends that take N ≠ M keys serve it, and a window
needs its last keys alone; ``bigbird`` refuses.

What a model asks that a backend does not have is refused with the reason: dropout, softcapping,
sinks, a position bias, masks of another form, attention weights as an output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attention import registry
from attention.backends.longformer import LongformerAttention
from attention.base import Attention
from attention.checks import UnsupportedError
from attention.functional import sdpa_rows
from attention.integrations.hf_masks import Pattern, pattern_of
from attention.integrations.hf_swap import swap as swap

PREFIX = "attnbench_"
"""Of the names that transformers knows the backends by."""

MODELS_OWN = ("num_heads", "head_dim", "scale", "dropout_p")
"""Options that the model decides."""

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

_built: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Attention]] = WeakKeyDictionary()
"""The backends of each layer, by what they were made with."""

_options: dict[str, dict[str, Any]] = {}
"""What `register` was given, by backend."""

_preparing: ContextVar[bool] = ContextVar("preparing", default=False)


def register(**options: Mapping[str, Any]) -> list[str]:
    """Make every backend an ``attn_implementation`` of transformers.

    May be called again: the backends that are named take the new options, in models that are there
    already too, from their next call on; the others keep theirs.

    Models that do not dispatch their attention (transformers says so of none) keep it: those that
    compute with a mask are refused at the call, of the others `backends` is empty after one.

    Args:
        **options: of backends by name, e.g. ``longformer={"window": 256}``,
            ``linformer={"seq_len": 512}``. Heads, head dimension, scale and dropout are the
            model's.

    Returns:
        the names: ``attnbench_`` and a backend's.

    Raises:
        ImportError: if transformers is not there.
        ValueError: if there is no such backend, or an option is out of range.
        TypeError: if an option is unknown or the model's own.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, given in options.items():
        _check(name, given)
    _options.update({name: dict(given) for name, given in options.items()})
    registered = []
    for name in registry.names():
        function = attention_function(name, **_options.get(name, {}))
        AttentionInterface.register(PREFIX + name, function)
        AttentionMaskInterface.register(PREFIX + name, pattern_of)
        registered.append(PREFIX + name)
    return registered


def _check(name: str, given: Mapping[str, Any]) -> None:
    cls = registry.get(name)
    for option in given:
        if option in MODELS_OWN:
            raise TypeError(f"{option}: the model decides it; leave it out of {name}'s options")
    registry.build(name, num_heads=1, head_dim=8, **given)
    assert cls.name == name


def prepare(model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Give a model the parameters of its backends, by one call of it.

    Linformer's projections are learned: they must be there before an optimizer is made and before
    weights are loaded. Other backends need no preparation.

    Args:
        model: with an ``attn_implementation`` of `register`.
        *args: of one call of it, e.g. token ids.
        **kwargs: likewise.

    Returns:
        `model`; the parameters are called ``…attnbench``.
    """
    token = _preparing.set(True)
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(*args, **kwargs)
    finally:
        _preparing.reset(token)
        model.train(was_training)
    return model


def backends(model: nn.Module) -> list[Attention]:
    """Return the backends that a model's layers have called so far, layer by layer."""
    return [backend for m in model.modules() for backend in _built.get(m, {}).values()]


def attention_function(name: str, **options: Any) -> Forward:
    """Return a backend as an attention function of transformers.

    Args:
        name: of the backend.
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
        _refuse(name, more)
        pattern = _pattern(name, module, query, key, attention_mask, is_causal)
        backend = _backend(name, options, pattern, module, query, scaling)
        out = _attend(_with_dropout(backend, dropout, module.training), query, key, value, pattern)
        return out.transpose(1, 2).contiguous(), None

    return attnbench_forward


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


def _backend(
    name: str,
    options: Mapping[str, Any],
    pattern: Pattern,
    module: nn.Module,
    query: Tensor,
    scale: float | None,
) -> Attention:
    """Return the backend of a layer; it is built at the layer's first call."""
    cls = registry.get(name)
    if pattern.is_causal and query.shape[2] > 1 and not cls.supports.causal:
        raise UnsupportedError(f"is_causal: {name} is bidirectional only{cls.why_not('causal')}")
    window = pattern.window
    if window is not None and window >= pattern.key_len - 1 and name != WINDOWED:
        window = None  # it holds all keys that there are
    if window is not None:
        if cls.family != "dense" and name != WINDOWED:
            raise UnsupportedError(
                f"sliding_window: the layer sees {window} keys on a side, and {name} has "
                f"no window; accepted: {PREFIX}{WINDOWED} and the exact backends"
            )
        kernel = {"kernel": options["kernel"]} if name == WINDOWED and "kernel" in options else {}
        name, options = WINDOWED, {"window": window, **kernel}
    mine = _built.setdefault(module, {})
    _, num_heads, _, head_dim = query.shape
    made_with = (name, num_heads, head_dim, scale, repr(sorted(options.items())))
    backend = mine.get(made_with)
    if backend is None:
        shape = {"num_heads": num_heads, "head_dim": head_dim, "scale": scale}
        backend = _build(name, module, made_with, **shape, **options)
        mine[made_with] = backend
    own = next(backend.buffers(), None)
    if own is not None and own.device != query.device:
        backend.to(query.device)
    return backend


def _build(name: str, module: nn.Module, made_with: tuple[Any, ...], **options: Any) -> Attention:
    attached: Any = getattr(module, "attnbench", None)
    if attached is not None and attached.name == name:
        prepared_with: Any = module.attnbench_made_with
        if prepared_with != made_with:
            raise RuntimeError(
                f"{PREFIX}{name}: the model was prepared with {prepared_with[-1]}, and is called "
                f"with {made_with[-1]}; build it anew"
            )
        return attached  # type: ignore[no-any-return]
    try:
        backend = registry.build(name, **options)
    except TypeError as error:
        raise TypeError(f"{error}; give it by register({name}={{…}})") from None
    if next(backend.parameters(), None) is not None:
        if not _preparing.get():
            raise RuntimeError(
                f"{PREFIX}{name}: its projections are parameters, which the model does not have "
                "yet; call prepare(model, …) first"
            )
        like = next(module.parameters())
        module.add_module("attnbench", backend.to(like.device, like.dtype))
        module.attnbench_made_with = made_with  # type: ignore[assignment]
    return backend


def _with_dropout(backend: Attention, dropout: float, training: bool) -> Attention:
    if dropout and not backend.supports.dropout:
        raise UnsupportedError(
            f"dropout: the model drops attention weights with probability {dropout}, and "
            f"{backend.name} has no dropout; set its configuration's to 0"
        )
    backend.dropout_p = dropout
    if backend.training != training:
        backend.train(training)
    return backend


def _attend(backend: Attention, q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    mask, is_causal = pattern.key_padding_mask, pattern.is_causal
    if k.shape[2] > pattern.key_len:
        k, v = k[:, :, : pattern.key_len], v[:, :, : pattern.key_len]
    before = k.shape[2] - q.shape[2]
    if isinstance(backend, LongformerAttention) and is_causal and before:
        return _at_the_end(backend, q, k, v, mask, before)
    is_causal = is_causal and q.shape[2] > 1  # the last token sees all there is
    out = backend(q, k, v, is_causal=is_causal, key_padding_mask=mask)
    assert isinstance(out, Tensor)
    return out


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
