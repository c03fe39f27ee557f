"""Attention backends: q, k, v in, output out.

    >>> import torch, attention
    >>> performer = attention.build("performer", num_heads=8, head_dim=64, seed=0)
    >>> q = k = v = torch.randn(1, 8, 1000, 64)
    >>> performer(q, k, v, is_causal=True).shape
    torch.Size([1, 8, 1000, 64])

Axes, mask polarity and alignment are said once, in `attention.base`. Every backend has a file or
a package in ``attention/backends/``; every class is importable from here.
"""

from attention.backends.bigbird import BigBirdAttention
from attention.backends.full import FullAttention
from attention.backends.linformer import LinformerAttention, LinformerProjection
from attention.backends.longformer import LongformerAttention
from attention.backends.performer import PerformerAttention
from attention.backends.sdpa import SDPAAttention
from attention.backends.xformers import XFormersAttention
from attention.base import Attention, UnsupportedError
from attention.packed import Packed
from attention.plain_functions import register_function
from attention.problem import CallInput, Cost, Problem, Supports
from attention.registry import build, describe, get, names, register
from attention.registry import class_named as _class_named

__all__ = [
    "Attention",
    "BigBirdAttention",
    "CallInput",
    "Cost",
    "FullAttention",
    "LinformerAttention",
    "LinformerProjection",
    "LongformerAttention",
    "Packed",
    "PerformerAttention",
    "Problem",
    "SDPAAttention",
    "Supports",
    "UnsupportedError",
    "XFormersAttention",
    "build",
    "describe",
    "get",
    "names",
    "register",
    "register_function",
]


def __getattr__(name: str) -> type[Attention]:
    """Find the class of a backend that is not listed above: a new file, or a plug-in."""
    cls = _class_named(name)
    if cls is None:
        raise AttributeError(f"module 'attention' has no attribute {name!r}")
    return cls
