"""What mixes the tokens of a block: which name builds which sub-layer.

A registered backend's name builds a `MultiheadAttention` around it; the names in `LAYERS` build
layers that need no queries and keys. Nothing else in `models` knows any of these by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from attention.base import Attention, UnsupportedError
from attention.checks import check_int
from attention.declaration import Declared
from attention.options import check_options
from attention.registry import get
from models.layers.inner_attention import check_built
from models.layers.multihead import MultiheadAttention
from models.layers.positional import RotaryPositions
from models.layers.recurrent import LSTMLayer

MixingLayer: TypeAlias = MultiheadAttention | LSTMLayer
MixingClass: TypeAlias = type[Declared]

LAYERS: Mapping[str, type[LSTMLayer]] = {LSTMLayer.name: LSTMLayer}
"""Layers that mix tokens without attention, by name."""


def mixer_class(name: Any, argument: str = "attention") -> MixingClass:
    """Return the class that declares what a name can do: a backend, or one of `LAYERS`.

    Raises:
        TypeError: if it is no name.
        ValueError: if there is none of that name.
    """
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected a backend's name, got {type(name).__name__}")
    return LAYERS[name] if name in LAYERS else get(name)


def make_mixer(
    attention: str | Attention | LSTMLayer,
    *,
    d_model: int,
    num_heads: int,
    num_kv_heads: int | None = None,
    attention_options: Mapping[str, Any] | None = None,
    dropout_p: float = 0.0,
    bias: bool = True,
    rotary: RotaryPositions | None = None,
) -> MixingLayer:
    """Build what mixes the tokens of a block.

    Args:
        attention: a registered backend's name, a built backend, a name in `LAYERS`, or such a
            layer, built.
        d_model: width.
        num_heads: see `MultiheadAttention`; the others have none.
        num_kv_heads: likewise.
        attention_options: constructor arguments of what is named, beyond those given here.
        dropout_p: see `MultiheadAttention`.
        bias: whether linear layers have a bias.
        rotary: see `MultiheadAttention`.

    Raises:
        ValueError: if an argument is out of range or does not fit.
        TypeError: if an argument has the wrong type or there is no such option.
        UnsupportedError: if an argument would have no effect, or a backend refuses it.
    """
    options = dict(attention_options or {})
    if isinstance(attention, LSTMLayer):
        _refuse_unused(attention.name, num_heads, num_kv_heads, dropout_p, rotary)
        check_built(attention, options, "block", {"d_model": d_model})
        return attention
    if isinstance(attention, str) and attention in LAYERS:
        cls = LAYERS[attention]
        _refuse_unused(attention, num_heads, num_kv_heads, dropout_p, rotary)
        of_block: dict[str, Any] = {"d_model": d_model, "bias": bias}
        for name in of_block:
            if name in options:
                raise ValueError(
                    f"attention_options: {name} is the block's own argument; got {options[name]!r}"
                )
        check_options(cls.name, cls.options(), of_block | options)
        return cls(**of_block, **options)
    return MultiheadAttention(
        d_model=d_model,
        num_heads=num_heads,
        attention=attention,
        num_kv_heads=num_kv_heads,
        attention_options=options,
        dropout_p=dropout_p,
        bias=bias,
        rotary=rotary,
    )


def layer_options(
    argument: str,
    name: str,
    options: Mapping[str, Any],
    *,
    num_layers: int,
    d_model: int,
    num_heads: int,
    max_len: int,
    is_causal: bool,
    first_layer: int = 0,
) -> list[dict[str, Any]]:
    """Return the options of each layer of a stack: length and direction, what is shared, a seed.

    Args:
        argument: what the name was given as.
        name: as in `make_mixer`.
        options: those that were chosen.
        num_layers: how many layers.
        d_model: width.
        num_heads: H.
        max_len: stands for an option ``seq_len`` that is not given.
        is_causal: stands for an option of that name that is not given.
        first_layer: how many layers of the model come before these.
    """
    cls = mixer_class(name, argument)
    accepted = cls.options()
    filled = {"seq_len": max_len, "is_causal": is_causal}
    options = {**{n: v for n, v in filled.items() if n in accepted}, **options}
    of_stack: dict[str, Any] = {"d_model": d_model}
    if issubclass(cls, Attention):
        of_stack = {"num_heads": num_heads, "head_dim": d_model // num_heads}
    check_options(cls.name, accepted, {**of_stack, **options})
    options |= cls.shared_options(**{**of_stack, **options})
    first = options.get("seed", accepted["seed"].default) if "seed" in accepted else None
    if first is None:  # nothing random, or every layer draws from torch's own generator
        return [options] * num_layers
    check_int("seed", first, minimum=0)
    return [{**options, "seed": first + first_layer + layer} for layer in range(num_layers)]


def token_masks(name: str) -> list[str]:
    """Return the names of the token masks that a layer built by this name takes at the call."""
    declared = mixer_class(name).call_inputs
    return [n for n, spec in declared.items() if spec.kind == "token_mask"]


def check_serves(name: str, argument: str, *, causal: bool) -> None:
    """Refuse what a stack of this kind has no use for, when the model is built.

    Raises:
        UnsupportedError: with the backend's reason.
    """
    cls = mixer_class(name, argument)
    if causal and not cls.supports.causal:
        raise UnsupportedError(
            f"{argument}: {name} cannot be causal, and a decoder is{cls.why_not('causal')}"
        )
    if not cls.supports.key_padding:
        raise UnsupportedError(f"{argument}: {name} takes no mask, and a batch is padded")


def check_crosses(attention: str | Attention) -> None:
    """Refuse what cannot attend to another sequence, or not where that is padded.

    Raises:
        UnsupportedError: with the backend's reason.
    """
    kind = attention if isinstance(attention, Attention) else mixer_class(attention)
    if not kind.supports.cross:
        raise UnsupportedError(
            f"cross_attention: {kind.name} attends within one sequence{kind.why_not('cross')}"
        )
    if not kind.supports.key_padding:
        raise UnsupportedError(
            f"cross_attention: {kind.name} takes no mask, and an encoder's batch is padded"
        )


def _refuse_unused(
    name: str,
    num_heads: int,
    num_kv_heads: int | None,
    dropout_p: float,
    rotary: RotaryPositions | None,
) -> None:
    """Refuse what a layer without heads, weights and queries would ignore."""
    if num_kv_heads not in (None, num_heads):
        raise UnsupportedError(
            f"num_kv_heads: {name} has no heads to group; got {num_kv_heads}, accepted is None"
        )
    if dropout_p:
        raise UnsupportedError(
            f"attention_dropout_p: {name} forms no attention weights; "
            f"got {dropout_p}, accepted is 0"
        )
    if rotary is not None:
        raise UnsupportedError(
            f"rotary: {name} has no queries and keys to turn; expected None, got {rotary}"
        )
