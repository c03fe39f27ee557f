"""What a method computes beside softmax attention: exact, sparse, approximate, or its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from results.schema import LSTM

MethodType = Literal["exact", "sparse", "approximate", "own"]

TYPES: tuple[MethodType, ...] = ("exact", "sparse", "approximate", "own")
"""In the order of tables."""

ROUNDING: Mapping[str, float] = {
    "float64": 1e-8, "float32": 1e-4, "float16": 1e-3, "bfloat16": 1e-2,
}  # fmt: skip
"""A relative error up to so much, of a dtype, is rounding."""

WORDS: Mapping[MethodType, str] = {
    "exact": "same result as softmax attention",
    "sparse": "computes something else: a token sees a part of the keys",
    "approximate": "computes something else: an approximation of softmax",
    "own": "computes something else: no softmax over the keys",
}
"""What each type means, beside its name."""

CHANGES = "computes something else; a model must be trained with it"
"""What is said of every type but exact."""

_BY_NAME: Mapping[str, MethodType] = {
    "full": "exact", "sdpa": "exact", "xformers": "exact", "flash": "exact",
    "longformer": "sparse", "bigbird": "sparse",
    "linformer": "approximate", "performer": "approximate",
    "gated_linear": "own", "gated_delta": "own", LSTM: "own",
}  # fmt: skip

_UNTRAINED = ("linformer",)
"""Backends with projections that mean nothing until a model has been trained with them."""

_FREE = ("method=mean_pool",)
"""Options without such projections."""

_SINK = "sink=true"
"""A learnt logit that takes a part of the softmax."""


def is_rounding(error: float, dtype: str) -> bool:
    """Whether an error is no more than a dtype's rounding; of NaN it is not."""
    return error <= ROUNDING.get(dtype, min(ROUNDING.values()))


def method_type(backend: str, options: str, *, is_exact: bool = False) -> MethodType:
    """Return what a backend computes: by its name if it is ours, else by its error.

    Args:
        backend: its name.
        options: as the command line writes them; "" = its defaults.
        is_exact: whether its distance from softmax attention was measured, on any inputs, and is
            rounding.

    Returns:
        The type; of a plug-in ``exact`` or ``own``.
    """
    name = backend.partition("@")[0]  # the mark of a plug-in's version
    if name in _BY_NAME:
        known = _BY_NAME[name]
        # A sink takes a part of the softmax: no drop-in for attention without.
        return "approximate" if known == "exact" and _SINK in options.split(",") else known
    return "exact" if is_exact else "own"


def needs_training(backend: str, options: str) -> bool:
    """Whether an error says nothing: it is of projections that were drawn and never trained."""
    return backend in _UNTRAINED and not any(part in _FREE for part in options.split(","))
