"""Checks of arguments: each names the argument, what it was and what is accepted.

Errors: a wrong type is a ``TypeError``, a value out of range a ``ValueError``, what a backend
declares it cannot do an `UnsupportedError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, is_autocast_enabled
from torch.amp import is_autocast_available

MAX_SEED = 2**62


class UnsupportedError(ValueError):
    """A request that the backend declares it cannot serve; the message says why."""


def check_qkv(
    q: Tensor, k: Tensor, v: Tensor, *, num_heads: int, head_dim: int, nested: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Check that q, k and v are tensors that fit each other and the module.

    One size at a time, and none beside another: an exported graph keeps each comparison as a
    condition on its sizes.

    Args:
        q: ``[B, H, N, D]``; B may be 0.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D_v]``.
        num_heads: H.
        head_dim: D.
        nested: whether nested tensors of layout ``torch.jagged`` are taken.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
        if x.is_nested and not (nested and x.layout == torch.jagged):
            raise UnsupportedError(
                f"{name}: expected a padded tensor and its key_padding_mask, got a nested tensor "
                f"({x.layout}); only a call of sdpa takes those, of layout torch.jagged"
            )
        if x.dim() != 4:
            raise ValueError(
                f"{name}: expected 4 axes [B, H, N, D], got {x.dim()}: {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise TypeError(f"{name}: expected a floating-point tensor, got {x.dtype}")
    batch, heads, seq_len, dim = q.shape
    if heads != num_heads:
        raise ValueError(f"q: expected {num_heads} heads (num_heads), got {heads}")
    if dim != head_dim:
        raise ValueError(f"q: expected head dimension {head_dim} (head_dim), got {dim}")
    for name, length in (("q", seq_len), ("k", k.shape[2])):
        if length < 1:
            raise ValueError(
                f"{name}: expected at least one token, got q {tuple(q.shape)}, k {tuple(k.shape)}"
            )
    if k.shape[0] != batch or k.shape[3] != dim:
        raise ValueError(
            f"k: expected [{batch}, H_kv, M, {dim}] to fit q {tuple(q.shape)}, "
            f"got {tuple(k.shape)}"
        )
    if k.shape[1] < 1 or heads % k.shape[1]:
        raise ValueError(f"k: its {k.shape[1]} heads must divide the {heads} heads of q")
    if v.shape[:3] != k.shape[:3] or v.shape[3] < 1:
        raise ValueError(
            f"v: expected the shape of k {tuple(k.shape)} but for its width, got {tuple(v.shape)}"
        )
    for name, x in (("k", k), ("v", v)):
        if x.device != q.device:
            raise ValueError(f"{name}: expected device {q.device} as q, got {x.device}")
        if x.dtype != q.dtype and not autocasts(q.device.type):
            raise ValueError(f"{name}: expected dtype {q.dtype} as q, got {x.dtype}")
    return q, k, v


def check_device(
    q: Any, served: Mapping[str, object], why_not: Callable[[str], list[str]]
) -> None:
    """Check the type of the device before all else: on another one nothing else matters.

    Args:
        q: of the call; what is no tensor is refused later.
        served: the device types.
        why_not: says why one of the others is not served; empty = it is.
    """
    if not isinstance(q, Tensor) or q.device.type in served:
        return
    if reasons := why_not(q.device.type):
        raise UnsupportedError("; ".join(reasons))


def autocasts(device: str) -> bool:
    """Whether autocast is on for this device type; not every one has it."""
    return is_autocast_available(device) and is_autocast_enabled(device)


def autocast_inputs(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v in the autocast dtype of their device; float64 stays.

    Raises:
        ValueError: if they then differ in dtype.
    """
    to = torch.get_autocast_dtype(q.device.type)
    q, k, v = (x if x.dtype == torch.float64 else x.to(to) for x in (q, k, v))
    for name, x in (("k", k), ("v", v)):
        if x.dtype != q.dtype:
            raise ValueError(
                f"{name}: expected dtype {q.dtype} as q after autocast, got {x.dtype}"
            )
    return q, k, v


def check_mask(name: str, mask: Any, shape: tuple[int, int], like: Tensor) -> None:
    """Check a bool token mask ``[B, length]`` on the device of `like`."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{name}: expected dtype bool (True = takes part), got {mask.dtype}")
    if tuple(mask.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(mask.shape)}")
    if mask.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, got {mask.device}")


def check_int(name: str, value: Any, *, minimum: int) -> int:
    """Return `value` if it is a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    return value


def check_kv_heads(num_kv_heads: int | None, num_heads: int) -> int:
    """Return H_kv, which divides `num_heads`; ``None`` means all of them."""
    if num_kv_heads is None:
        return num_heads
    if num_heads % check_int("num_kv_heads", num_kv_heads, minimum=1):
        raise ValueError(
            f"num_kv_heads: expected a divisor of num_heads={num_heads}, got {num_kv_heads}"
        )
    return num_kv_heads


def check_seed(value: Any) -> int:
    """Return `value` if it is a seed: a whole number from 0 to 2⁶²."""
    if check_int("seed", value, minimum=0) > MAX_SEED:
        raise ValueError(f"seed: expected at most {MAX_SEED}, got {value}")
    return int(value)


def check_float(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return `value` as a float if it is a finite number within the given bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    bounds: list[tuple[str, bool]] = [("finite", math.isfinite(value))]
    if minimum is not None:
        bounds.append((f"at least {minimum:g}", value >= minimum))
    if above is not None:
        bounds.append((f"above {above:g}", value > above))
    if below is not None:
        bounds.append((f"below {below:g}", value < below))
    if not all(holds for _, holds in bounds):
        raise ValueError(
            f"{name}: expected a number {' and '.join(b for b, _ in bounds)}, got {value}"
        )
    return float(value)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return str(value)


def check_bool(name: str, value: Any) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected true or false, got {value!r}")
    return value


def dtype_names(dtypes: tuple[torch.dtype, ...]) -> str:
    """Write dtypes without their module."""
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)


def signature(q: Any, k: Any, v: Any, also: object) -> tuple[object, ...] | None:
    """Return what the checks of a call without mask depend on; ``None`` = look closer.

    A short call would spend more on checks than on attention: one like the last is not checked
    again.

    Args:
        q: of the call.
        k: likewise.
        v: likewise.
        also: what else the checks look at.
    """
    if not type(q) is type(k) is type(v) is Tensor:
        return None
    if q.is_cpu and k.is_cpu and v.is_cpu:  # without devices: those alone take as long
        if is_autocast_enabled("cpu"):
            return None
        return (q.shape, k.shape, v.shape, q.dtype, k.dtype, v.dtype, also)
    device = q.device
    if autocasts(device.type):
        return None
    return (
        q.shape, k.shape, v.shape, q.dtype, k.dtype, v.dtype, device, k.device, v.device, also,
    )  # fmt: skip
