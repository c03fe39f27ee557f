"""Block-sparse softmax attention by FlexAttention: what it can serve, and the compiled call.

Dong et al. 2024, arXiv 2412.05496: one compiled kernel walks, for each tile of queries, the tiles
of keys that a list names (`attention.kernels.flex_tiles`), and calls ``mask_mod`` inside those
that are seen in part.

**Compilation.** Without it FlexAttention forms the N×N scores; here it always runs compiled, with
``fullgraph``, so that what cannot be compiled raises. Each static key (kind of pattern, its
constants, shapes, dtype, device, scale, whether gradients are wanted, how far apart the lists'
rows lie: a power of two) has a compiled callable with a code object of its own: torch's limit of
compilations a code object is not met by meeting many shapes. A new key compiles, which takes
seconds to a minute. `COMPILED` callables are kept.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from attention.checks import UnsupportedError
from attention.functional import opaque
from attention.kernels.flex_tiles import MaskMod, SparseTiles
from attention.problem import Problem

Kernel = Literal["auto", "tiled", "compiled", "flex"]
"""The option of a backend that has tiles of its own beside FlexAttention."""
KERNELS: tuple[str, ...] = get_args(Kernel)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SMALLEST_HEAD = 16
"""Triton multiplies no narrower matrices."""


WHOLE_TILE = 128
"""Tiles that are multiples of it fit whatever blocks torch's kernel prefers."""

COMPILED = 64
INSTEAD = "; kernel='tiled' serves it"


def flex_reasons(problem: Problem, *, dropout_p: float) -> list[str]:
    """Say why FlexAttention cannot serve a call; empty = it can.

    Args:
        problem: the call.
        dropout_p: probability of dropping an attention weight in this call.
    """
    reasons = _machine_reasons(problem.device)
    if problem.dtype not in DTYPES:
        reasons.append(f"dtype: kernel 'flex' takes float32, bfloat16, float16{INSTEAD}")
    if problem.device == "cuda" and problem.head_dim < SMALLEST_HEAD:
        reasons.append(
            f"head_dim: kernel 'flex' needs at least {SMALLEST_HEAD} on cuda, "
            f"got {problem.head_dim}{INSTEAD}"
        )
    if dropout_p:
        reasons.append(
            f"dropout_p: kernel 'flex' has no dropout on attention weights, "
            f"got {dropout_p}{INSTEAD}"
        )
    return reasons


def has_compiler() -> bool:
    """Whether there is the C++ compiler that torch calls on a CPU: ``CXX``, or else g++."""
    return _find_program(os.environ.get("CXX", "g++")) is not None


_find_program = functools.cache(shutil.which)
_find_module = functools.cache(importlib.util.find_spec)


@opaque
def _machine_reasons(device: str) -> list[str]:
    if device == "cuda" and _find_module("triton") is None:
        return [f"kernel: 'flex' on cuda needs triton, which is not installed{INSTEAD}"]
    if device != "cpu":
        return []
    reasons = []
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        reasons.append(f"kernel: 'flex' on a cpu needs AVX2{INSTEAD}")
    if not has_compiler():
        reasons.append(f"kernel: 'flex' on a cpu needs a C++ compiler, g++ or CXX{INSTEAD}")
    return reasons


def wants_gradient(*tensors: Tensor) -> bool:
    """Whether autograd will ask for a backward pass."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def check_gradient(*tensors: Tensor) -> None:
    """Refuse a backward pass where FlexAttention has none.

    Raises:
        UnsupportedError: on a CPU, if a tensor requires a gradient.
    """
    if tensors[0].device.type == "cpu" and wants_gradient(*tensors):
        raise UnsupportedError(f"kernel: 'flex' has no backward pass on a cpu{INSTEAD}")


def flex_ops(pairs: int, head_dim: int, training: bool) -> int:
    """Return the operations of matrix products over covered pairs.

    Two products forward. The backward pass computes scores and their gradients twice, once for the
    queries (three products) and once for the keys (four).
    """
    return pairs * 2 * head_dim * (9 if training else 2)


def attend(
    q: Tensor, k: Tensor, v: Tensor, tiles: SparseTiles, mask_mod: MaskMod, *, scale: float,
    kind: Hashable,
) -> Tensor:  # fmt: skip
    """Attend over the tiles, compiled.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D]``.
        tiles: the pattern, over N queries and M keys.
        mask_mod: what is seen of a partial tile: of (batch, head, query, key).
        scale: factor on the scores.
        kind: the mask's code and its constants.

    Returns:
        ``[B, H, N, D]``; zeros where a query sees no key.

    Raises:
        UnsupportedError: on a CPU, if a gradient is wanted.
    """
    check_gradient(q, k, v)
    training = wants_gradient(q, k, v)
    # All that compiled code has as a constant is in the key: one key, one compilation.
    key = (kind, q.shape, k.shape, q.dtype, q.device, training, tiles.layout, scale)
    small = q.device.type == "cuda" and tiles.tile % WHOLE_TILE != 0
    run = _compiled(key, any_tile=small and training)
    out: Tensor = run(
        q, k, v, tiles.block_mask(mask_mod), scale, q.shape[1] != k.shape[1],
        _kernel_options(tiles.tile, q),
    )  # fmt: skip
    return out


def _kernel_options(tile: int, q: Tensor) -> dict[str, Any] | None:
    """Keep the kernel's own blocks within small tiles.

    Torch's kernel for a few queries (flex decoding) reads lists in another way: not that one.
    """
    if q.device.type != "cuda":
        return None
    options: dict[str, Any] = {"FORCE_USE_FLEX_ATTENTION": True}
    if tile % WHOLE_TILE == 0:
        return options
    block = min(64, tile & -tile)  # the largest power of two that divides it
    options |= {"fwd_BLOCK_M": block, "fwd_BLOCK_N": block}
    options |= {"fwd_num_stages": 3, "fwd_num_warps": 4}
    if q.dtype != torch.float32:  # for float32 torch itself chooses blocks of 16
        options |= {f"bwd_BLOCK_{name}": block for name in ("M1", "N1", "M2", "N2")}
        options |= {"bwd_num_stages": 2, "bwd_num_warps": 4}
    return options


_callables: OrderedDict[Hashable, Callable[..., Any]] = OrderedDict()


def _compiled(key: Hashable, *, any_tile: bool = False) -> Callable[..., Any]:
    """Return the callable of a static key, the least recently used one making room.

    Args:
        key: what is constant in the compiled code.
        any_tile: torch drops its backward kernel where the tile is no multiple of its preferred
            block, before it reads which block was asked for; only among the candidates of
            autotuning is one that passes. Blocks being fixed, there is nothing to time.
    """
    if key in _callables:
        _callables.move_to_end(key)
        return _callables[key]
    while len(_callables) >= COMPILED:
        _callables.popitem(last=False)
    call = types.FunctionType(_call.__code__.replace(co_name="flex_attention_call"), globals())
    options: dict[str, Any] | None = {"max_autotune": True} if any_tile else None
    _callables[key] = torch.compile(call, dynamic=False, fullgraph=True, options=options)
    return _callables[key]


def _call(
    q: Tensor, k: Tensor, v: Tensor, block_mask: Any, scale: float, gqa: bool, options: Any
) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(
        q, k, v, block_mask=block_mask, scale=scale, enable_gqa=gqa, kernel_options=options
    )
