"""Our backends inside models of Hugging Face's transformers.

    from attention.integrations.transformers import register

    register(longformer={"window": 256})
    model = AutoModel.from_config(config, attn_implementation="attnbench_longformer")

Every backend is then an ``attn_implementation``, by transformers' own interfaces for attention
functions and masks (5.0 or newer): no model is patched. A mask never becomes N×M
(`attention.integrations.transformers_masks`), and what a backend holds is part of the model
(`attention.integrations.hf_layers`).

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

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from attention import registry
from attention.backends.longformer import LongformerAttention
from attention.base import Attention
from attention.checks import UnsupportedError, check_float
from attention.functional import opaque
from attention.integrations import hf_layers
from attention.integrations.hf_layers import CHOSEN, Held, held_in
from attention.integrations.hf_layers import PREFIX as PREFIX
from attention.integrations.transformers_layers import swap as swap
from attention.integrations.transformers_masks import (
    Pattern,
    is_plain_export,
    pattern_of,
    refuse_jit_trace,
)
from attention.kernels.fused import sdpa_rows

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

Choice: TypeAlias = "str | tuple[str, Mapping[str, Any]]"
"""A backend by name, with the options of `register` or with its own."""

_options = hf_layers.options

_preparing: ContextVar[Mapping[nn.Module, int] | None] = ContextVar("preparing", default=None)
"""The numbers of the layers of a model that `prepare` calls."""


def register(**options: Mapping[str, Any]) -> list[str]:
    """Make every backend an ``attn_implementation`` of transformers.

    May be called again: the backends that are named take the new options, the others keep theirs.
    A model keeps what it was made with; `prepare` gives it the new ones.

    Models that are made afterwards have the backends in their layers from the start; of others see
    `prepare`. Models that do not dispatch their attention (transformers says so of none) keep it:
    those that compute with a mask are refused at the call, of the others `backends` is empty.

    Args:
        **options: of backends by name, e.g. ``longformer={"window": 256}``,
            ``linformer={"seq_len": 512}``. Heads, head dimension, scale and dropout are the
            model's. A ``seed`` is that of the first layer; layer ``i`` draws by ``seed + i``, and
            without one by ``i``.

    Returns:
        the names: ``attnbench_`` and a backend's, and ``attnbench_chosen`` of `choose`.

    Raises:
        ImportError: if transformers is not there.
        ValueError: if there is no such backend, or an option is out of range.
        TypeError: if an option is unknown or the model's own.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, given in options.items():
        _check(name, given)
    for name in registry.names():
        _options.setdefault(name, {})
    _options.update({name: dict(given) for name, given in options.items()})
    functions = {PREFIX + n: attention_function(n, **_options[n]) for n in registry.names()}
    functions[CHOSEN] = attention_function(None)
    for name, function in functions.items():
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, pattern_of)
    hf_layers.watch()
    return [*functions]


def _check(name: str, given: Mapping[str, Any]) -> None:
    cls = registry.get(name)
    for option in given:
        if option in MODELS_OWN:
            raise TypeError(f"{option}: the model decides it; leave it out of {name}'s options")
    registry.build(name, num_heads=1, head_dim=8, **given)
    assert cls.name == name


def prepare(model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Put the backends of a model's ``attn_implementation`` into its layers.

    A model that is made with one has them already. It is needed after
    ``model.set_attn_implementation``, and to take new options of `register`: what is there with
    the same options stays, the rest is made anew. Do it before an optimizer is made and before
    weights are loaded.

    Args:
        model: with an ``attn_implementation`` of `register`.
        *args: of one call of it, e.g. token ids: for layers that do not say what heads they have.
        **kwargs: likewise.

    Returns:
        `model`; what its layers hold is called ``…attnbench``.

    Raises:
        ValueError: if no layer has such an implementation, or one does not say its heads and no
            call is given.
    """
    numbers = {module: at for at, module in enumerate(hf_layers.layers_of(model).values())}
    unknown, count = [], 0
    for module, number in numbers.items():
        implementation = hf_layers.implementation(module)
        name = implementation.removeprefix(PREFIX)
        if implementation == name or name not in _options:
            continue
        count += 1
        shape = hf_layers.shape_of(module)
        if shape is None:
            unknown.append(type(module).__name__)
        else:
            hf_layers.attach(module, name, _options[name], shape=shape, number=number)
    if not count and not (args or kwargs):
        raise ValueError(
            f"model: expected an attn_implementation of {PREFIX}…, got a {type(model).__name__} "
            "that dispatches to none"
        )
    if unknown and not (args or kwargs):
        raise ValueError(
            f"model: its {unknown[0]} does not say what heads it has; give the arguments of one "
            "call too, e.g. prepare(model, input_ids=…)"
        )
    if args or kwargs:
        with _numbered(numbers), _as_in_eval(model), torch.no_grad():
            model(*args, **kwargs)
    return model


@contextlib.contextmanager
def _numbered(numbers: Mapping[nn.Module, int]) -> Iterator[None]:
    token = _preparing.set(numbers)
    try:
        yield
    finally:
        _preparing.reset(token)


@contextlib.contextmanager
def _as_in_eval(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def choose(
    model: nn.Module,
    backend: Choice,
    *,
    encoder: Choice | None = None,
    decoder: Choice | None = None,
    cross: Choice | None = None,
    layers: Mapping[str, Choice] | None = None,
) -> nn.Module:
    """Put backends into a model's layers, by kind and by name.

    The model's ``attn_implementation`` is then ``attnbench_chosen``. What a layer holds already
    with the same options stays.

    Args:
        model: of transformers; `register` was called.
        backend: of all layers: a name, or a name and its options; without them those of
            `register`.
        encoder: of an encoder's self-attention; ``None`` = as `backend`.
        decoder: of a decoder's self-attention, likewise.
        cross: of the attention from a decoder to an encoder, likewise.
        layers: by the names of layers as ``model.named_modules()`` has them; ``*`` stands for
            anything. These come before the kinds, and a later one before an earlier one.

    Returns:
        `model`.

    Raises:
        ValueError: if there is no such backend, kind or layer in it, an option is out of range, or
            the model does not dispatch its attention.
        TypeError: if an option is unknown or the model's own.
    """
    found = hf_layers.layers_of(model)
    kinds = {name: hf_layers.kind_of(name, module) for name, module in found.items()}
    by_kind = {"encoder": encoder, "decoder": decoder, "cross": cross}
    for kind, choice in by_kind.items():
        if choice is not None and kind not in kinds.values():
            raise ValueError(
                f"{kind}: the model has no such layers; accepted: "
                f"{', '.join(sorted({*kinds.values()})) or 'none, it does not dispatch attention'}"
            )
    for pattern in layers or {}:
        if not any(fnmatchcase(name, pattern) for name in found):
            raise ValueError(f"layers: {pattern!r} is none of {', '.join(found)}")
    if not found:
        raise ValueError(f"model: {type(model).__name__} does not dispatch its attention")
    taken = {}
    for name, kind in kinds.items():
        choice = by_kind[kind] or backend
        for pattern, other in (layers or {}).items():
            choice = other if fnmatchcase(name, pattern) else choice
        taken[name] = _parsed(choice)
        if hf_layers.shape_of(found[name]) is None:
            raise ValueError(f"model: its layer {name} does not say what heads it has")
    model.set_attn_implementation(CHOSEN)  # type: ignore[operator]
    for number, (name, module) in enumerate(found.items()):
        shape = hf_layers.shape_of(module)
        assert shape is not None
        hf_layers.attach(module, taken[name][0], taken[name][1], shape=shape, number=number)
    return model


def _parsed(choice: Choice) -> tuple[str, Mapping[str, Any]]:
    """Read a choice, and check it."""
    if isinstance(choice, str):
        registry.get(choice)
        return choice, _options.get(choice, {})
    name, given = choice
    _check(name, given)
    return name, given


def backends(model: nn.Module) -> list[Attention]:
    """Return the backends that a model's layers call, layer by layer.

    Of a layer with a sliding window, which it shows at a call, that is the one of its window.
    """
    held = [module for module in model.modules() if isinstance(module, Held)]
    return [one.own if one.band is None else one.band for one in held]


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
        held: Any = module._modules.get(hf_layers.NAME)
        shape = (query.shape[1], query.shape[3])
        if (
            held is None
            or (backend is not None and held.name != backend)
            or (held.num_heads, held.head_dim) != shape
        ):
            held = _held_late(module, backend, options, shape)
        _refuse(held.name, more)
        pattern = _pattern(held.name, module, query, key, attention_mask, is_causal)
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
        return hf_layers.attach(module, name, given, shape=shape, number=numbers.get(module, 0))
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
        probe = hf_layers.Held(
            name, given, num_heads=shape[0], head_dim=shape[1], number=0, like=None
        )
        if probe.is_drawn:
            raise RuntimeError(
                f"{PREFIX}{name}: what it holds is no part of the model yet; call "
                "prepare(model, …) first, before an optimizer is made or weights are loaded"
            )
    return hf_layers.attach(module, name, given, shape=shape, number=0)


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
