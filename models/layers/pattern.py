"""Which attention each layer of a stack has: one for all, a list, or a pattern as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from attention.checks import check_int
from models.layers.token_mixer import check_serves, layer_options

Names: TypeAlias = str | Sequence[str]
"""``"sdpa"``, ``["longformer", "sdpa"]`` or ``"3*longformer+sdpa"``."""
Options: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Constructor arguments of all layers, or a list of them: one for each name of the pattern."""


def layer_names(argument: str, attention: Any, num_layers: int) -> tuple[list[str], int]:
    """Return the name of each layer's attention, and how many layers the pattern has.

    Args:
        argument: what the pattern was given as.
        attention: see `Names`; a pattern is repeated over the depth.
        num_layers: of the stack.

    Raises:
        TypeError: if it is neither text nor a list of names.
        ValueError: if it cannot be read, or `num_layers` is no multiple of its length.
    """
    check_int("num_layers", num_layers, minimum=1)
    if isinstance(attention, str):
        names: list[str] = []
        for part in attention.split("+"):
            read = re.fullmatch(r"\s*(?:([1-9]\d{0,3})\s*\*\s*)?([^\s*+]+)\s*", part)
            if read is None:
                raise ValueError(
                    f"{argument}: expected a name or a pattern such as '3*longformer+sdpa', "
                    f"got {attention!r}"
                )
            names += [read[2]] * int(read[1] or 1)
    elif isinstance(attention, list | tuple) and all(isinstance(n, str) for n in attention):
        names = list(attention)
    else:
        raise TypeError(
            f"{argument}: expected a backend's name, a list of names or a pattern such as "
            f"'3*longformer+sdpa', got {type(attention).__name__}"
        )
    if not names or num_layers % len(names):
        raise ValueError(
            f"{argument}: a pattern of {len(names)} layers does not fit num_layers={num_layers}; "
            f"got {attention!r}, accepted: a pattern whose length divides {num_layers}"
        )
    return names * (num_layers // len(names)), len(names)


def check_layers_serve(argument: str, attention: Any, num_layers: int, *, causal: bool) -> None:
    """Refuse a pattern of which a layer cannot serve the stack; see `check_serves`."""
    for name in dict.fromkeys(layer_names(argument, attention, num_layers)[0]):
        check_serves(name, argument, causal=causal)


def options_of_layers(
    argument: str, attention: Any, options: Options | None, *, num_layers: int, **sizes: Any
) -> list[tuple[str, dict[str, Any]]]:
    """Return name and constructor arguments of each layer; layers that are alike share.

    Args:
        argument: what the pattern was given as.
        attention: see `Names`.
        options: see `Options`.
        num_layers: of the stack.
        **sizes: further arguments of `layer_options`.

    Raises:
        TypeError: if options are of the wrong type.
        ValueError: if options do not fit the pattern.
    """
    names, length = layer_names(argument, attention, num_layers)
    options = {} if options is None else options
    if isinstance(options, Mapping):
        if options and len(set(names)) > 1:
            raise ValueError(
                f"{argument}_options: {attention!r} names several backends; expected a list of "
                f"{length} mappings, one for each layer of the pattern, got one mapping"
            )
        each: list[Mapping[str, Any]] = [options] * length
    elif isinstance(options, list | tuple) and all(isinstance(o, Mapping) for o in options):
        each = list(options)
    else:
        raise TypeError(
            f"{argument}_options: expected a mapping or a list of mappings, "
            f"got {type(options).__name__}"
        )
    if len(each) != length:
        raise ValueError(
            f"{argument}_options: expected one mapping or {length}, one for each layer of the "
            f"pattern {attention!r}, got {len(each)}"
        )
    made: list[tuple[str, Mapping[str, Any], list[dict[str, Any]]]] = []
    layers = []
    for i, name in enumerate(names):
        chosen = each[i % length]
        found = next((m[2] for m in made if m[0] == name and m[1] is chosen), None)
        if found is None:
            found = layer_options(argument, name, chosen, num_layers=num_layers, **sizes)
            made.append((name, chosen, found))
        layers.append((name, found[i]))
    return layers
