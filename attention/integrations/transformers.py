"""Our backends inside models of Hugging Face's transformers.

    from attention.integrations.transformers import register

    register(longformer={"window": 256})
    model = AutoModel.from_config(config, attn_implementation="attnbench_longformer")

Every backend is then an ``attn_implementation``, by transformers' own interfaces for attention
functions and masks (5.0 or newer): no model is patched. A mask never becomes N×M
(`attention.integrations.transformers_masks`), and what a backend holds is part of the model
(`attention.integrations.transformers_backends`).

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
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import nn

from attention import registry
from attention.base import Attention
from attention.integrations import transformers_backends as parts
from attention.integrations.transformers_backends import CHOSEN, Held
from attention.integrations.transformers_backends import PREFIX as PREFIX
from attention.integrations.transformers_calls import Forward as Forward
from attention.integrations.transformers_calls import attention_function as attention_function
from attention.integrations.transformers_calls import numbered
from attention.integrations.transformers_layers import swap as swap
from attention.integrations.transformers_masks import pattern_of

MODELS_OWN = ("num_heads", "head_dim", "scale", "dropout_p")
"""Options that the model decides."""

Choice: TypeAlias = "str | tuple[str, Mapping[str, Any]]"
"""A backend by name, with the options of `register` or with its own."""

_options = parts.options


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
    parts.watch()
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
    numbers = {module: at for at, module in enumerate(parts.layers_of(model).values())}
    unknown, count = [], 0
    for module, number in numbers.items():
        implementation = parts.implementation(module)
        name = implementation.removeprefix(PREFIX)
        if implementation == name or name not in _options:
            continue
        count += 1
        shape = parts.shape_of(module)
        if shape is None:
            unknown.append(type(module).__name__)
        else:
            parts.attach(module, name, _options[name], shape=shape, number=number)
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
        with numbered(numbers), _as_in_eval(model), torch.no_grad():
            model(*args, **kwargs)
    return model


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
    dispatching = parts.layers_of(model)
    kinds = {name: parts.kind_of(name, module) for name, module in dispatching.items()}
    by_kind = {"encoder": encoder, "decoder": decoder, "cross": cross}
    for kind, choice in by_kind.items():
        if choice is not None and kind not in kinds.values():
            raise ValueError(
                f"{kind}: the model has no such layers; accepted: "
                f"{', '.join(sorted({*kinds.values()})) or 'none, it does not dispatch attention'}"
            )
    for pattern in layers or {}:
        if not any(fnmatchcase(name, pattern) for name in dispatching):
            raise ValueError(f"layers: {pattern!r} is none of {', '.join(dispatching)}")
    if not dispatching:
        raise ValueError(f"model: {type(model).__name__} does not dispatch its attention")
    taken = {}
    for name, kind in kinds.items():
        choice = by_kind[kind] or backend
        for pattern, other in (layers or {}).items():
            choice = other if fnmatchcase(name, pattern) else choice
        taken[name] = _parsed(choice)
        if parts.shape_of(dispatching[name]) is None:
            raise ValueError(f"model: its layer {name} does not say what heads it has")
    model.set_attn_implementation(CHOSEN)  # type: ignore[operator]
    for number, (name, module) in enumerate(dispatching.items()):
        shape = parts.shape_of(module)
        assert shape is not None
        parts.attach(module, taken[name][0], taken[name][1], shape=shape, number=number)
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
