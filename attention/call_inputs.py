"""Inputs of a call beside q, k and v: checked, cleaned and put in order in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attention.checks import check_mask
from attention.functional import gather_tokens, has_values, without_padding
from attention.problem import CallInput


def check_call_inputs(
    backend: str, declared: Mapping[str, CallInput], q: Tensor, k: Tensor, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the inputs of a call but for their values, validated; those left out are absent.

    Args:
        backend: its name.
        declared: by name.
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        given: by name; ``None`` = left out.

    Raises:
        TypeError: if one is not declared, is missing, or of the wrong type or dtype.
        ValueError: if a shape or a device does not fit.
    """
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if name not in declared:
            accepted = ", ".join(["is_causal", "key_padding_mask", *declared])
            raise TypeError(f"{name}: {backend} takes no such input; accepted: {accepted}")
        if value is None:
            continue
        kind = declared[name].kind
        if kind == "token_mask":
            check_mask(name, value, (q.shape[0], q.shape[2]), q)
            checked[name] = value
        elif kind == "projected_qkv":
            checked[name] = _check_projected(name, value, q, k)
        else:
            _check_of_tokens(name, declared[name], value, q, k)
            checked[name] = value
    for name, spec in declared.items():
        if spec.required and name not in checked:
            raise TypeError(f"{name}: {backend} needs it at each call ({spec.doc}); got none")
    return checked


def _check_of_tokens(name: str, spec: CallInput, value: Any, q: Tensor, k: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    batch, heads, tokens, dim = q.shape
    shapes = [spec.shape(batch, heads, tokens, dim)]
    if spec.or_per_channel:
        shapes.append((*shapes[0], dim))
    if not any(value.shape == shape for shape in shapes):
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(value.shape)}")
    if k.shape[2] != tokens:
        raise ValueError(
            f"{name}: speaks of the tokens of one sequence; expected as many keys as queries, "
            f"got N={tokens}, M={k.shape[2]}"
        )
    if value.dtype not in (q.dtype, torch.float32):
        raise TypeError(f"{name}: expected dtype {q.dtype} or torch.float32, got {value.dtype}")
    if value.device != q.device:
        raise ValueError(f"{name}: expected device {q.device} as q, got {value.device}")


def check_values(declared: Mapping[str, CallInput], given: Mapping[str, Any]) -> None:
    """Check that numbers of each token are in the range that is declared, padding apart.

    On a CPU, where no graph is compiled or traced and no transform runs: elsewhere the host would
    wait for the values. NaN passes, as in q.

    Args:
        declared: by name.
        given: validated, and clean at padding.

    Raises:
        ValueError: if a value is out of range.
    """
    for name, value in given.items():
        spec = declared[name]
        least, most = spec.minimum, spec.maximum
        if not spec.is_of_tokens or (least is None and most is None) or not value.numel():
            continue
        if not value.is_cpu or not has_values(value):
            continue
        low, high = (float(x) for x in torch.aminmax(value.detach()))
        if (least is not None and low < least) or (most is not None and high > most):
            bounds = [] if least is None else [f"at least {least:g}"]
            bounds += [] if most is None else [f"at most {most:g}"]
            raise ValueError(
                f"{name}: expected values of {' and '.join(bounds)}, got {low:g} to {high:g}"
            )


def clean_tokens(value: Tensor, mask: Tensor) -> Tensor:
    """Replace what stands at padding by zeros, in ``[B, H, N]`` or ``[B, H, N, D]``.

    Args:
        value: of each token.
        mask: bool ``[B, N]``, True = a token.
    """
    if value.dim() == 4:
        return without_padding(value, mask)
    return torch.where(mask[:, None, :], value, 0.0)


def in_chunk_order(
    declared: Mapping[str, CallInput], given: Mapping[str, Any], order: Tensor | None
) -> dict[str, Any]:
    """Put numbers of each token in a chunk's order, the real tokens first; leave the rest."""
    if order is None:
        return dict(given)
    return {
        name: _gathered(value, order) if declared[name].is_of_tokens else value
        for name, value in given.items()
    }


def _gathered(value: Tensor, order: Tensor) -> Tensor:
    if value.dim() == 4:
        return gather_tokens(value, order)
    return value.gather(2, order[:, None].expand(-1, value.shape[1], -1))


def _check_projected(name: str, value: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise TypeError(f"{name}: expected a triple (q, k, v), got {type(value).__name__}")
    for part, tensor, like in zip("qkv", value, (q, k, k), strict=True):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: its {part} must be a tensor, got {type(tensor).__name__}")
        if tensor.shape != like.shape:
            raise ValueError(
                f"{name}: its {part} must be {tuple(like.shape)}, got {tuple(tensor.shape)}"
            )
        if tensor.device != like.device:
            raise ValueError(f"{name}: its {part} must be on {like.device}, got {tensor.device}")
    q_g, k_g, v_g = (t.to(q.dtype) for t in value)
    return q_g, k_g, v_g


def of_that_shape(q: Tensor, k: Tensor, v: Tensor, *others: Tensor) -> Tensor:
    """Return a tensor like the output with a gradient to all of these; no value is looked at."""
    out = q if v.shape[3] == q.shape[3] else q[..., :1].expand(*q.shape[:3], v.shape[3])
    return out + sum(x.sum() for x in (q, k, v, *others)).to(q.dtype)  # type: ignore[union-attr]
