"""What stands inside a multi-head layer: its backend, and what reaches unused projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attention.base import Attention, UnsupportedError
from attention.checks import check_float
from attention.registry import build, get


def inner_attention(
    attention: Any, num_heads: int, head_dim: int, options: Mapping[str, Any], dropout_p: float
) -> Attention:
    """Build a layer's backend by its name, or check that a built one fits.

    Args:
        attention: a registered backend's name, or a built backend.
        num_heads: H.
        head_dim: D.
        options: constructor arguments beyond what the layer knows; only beside a name.
        dropout_p: on the attention weights; only beside a name.

    Raises:
        ValueError, TypeError, UnsupportedError: as `models.layers.multihead.MultiheadAttention`.
    """
    if isinstance(attention, Attention):
        if dropout_p:
            raise ValueError(
                f"dropout_p: a built {attention.name} has its own ({attention.dropout_p}); "
                f"got {dropout_p}, accepted beside a name only"
            )
        check_built(attention, options, "layer", {"num_heads": num_heads, "head_dim": head_dim})
        return attention
    if not isinstance(attention, str):
        raise TypeError(
            f"attention: expected a backend's name or an Attention, got {type(attention).__name__}"
        )
    for name in ("num_heads", "head_dim", "dropout_p"):
        if name in options:
            raise ValueError(
                f"attention_options: {name} is the layer's own argument; got {options[name]!r}"
            )
    check_float("dropout_p", dropout_p, minimum=0.0, below=1.0)
    if dropout_p:
        if not get(attention).supports.dropout:
            raise UnsupportedError(
                f"dropout_p: {attention} has no dropout on attention weights; "
                f"got {dropout_p}, accepted is 0"
            )
        options = {**options, "dropout_p": dropout_p}
    return build(attention, num_heads=num_heads, head_dim=head_dim, **options)


def check_built(
    built: Any, options: Mapping[str, Any], owner: str, wanted: Mapping[str, int]
) -> None:
    """Check that what is built fits and that nothing would be ignored.

    Args:
        built: a backend, or a layer.
        options: that came with it.
        owner: what it is put into, for messages.
        wanted: sizes that it must have.
    """
    if options:
        raise ValueError(
            f"attention_options: a built {built.name} takes no more options; "
            f"got {', '.join(options)}, accepted beside a name only"
        )
    for argument, size in wanted.items():
        if getattr(built, argument) != size:
            raise ValueError(
                f"attention: the built {built.name} has {argument}={getattr(built, argument)}, "
                f"the {owner} needs {size}"
            )


def reach(x: Tensor, unused: Sequence[Tensor]) -> Tensor:
    """Return `x`, whose backward pass reaches parameters of no use in this call."""
    if not unused or not torch.is_grad_enabled():
        return x
    reached: Tensor = _Reached.apply(x, *unused)  # type: ignore[no-untyped-call]
    return reached


class _Reached(torch.autograd.Function):
    """The identity, whose backward pass reaches parameters of no use in this call.

    They get no gradient, and no time is spent on one; but whoever waits until every parameter was
    reached, as ``DistributedDataParallel`` does, need not be told to look for them.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, *unused: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.unused = len(inputs) - 1

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, *[None] * ctx.unused

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Tensor | None) -> Tensor:
        return tangent.view_as(tangent)  # of a view, a view


def check_beside_documents(projection_order: str, **given: object) -> None:
    """Refuse what does not go with packed documents.

    Args:
        projection_order: of the layer.
        **given: other inputs of the call, by name; all must be ``None``.

    Raises:
        UnsupportedError: if one is not, or the order is another.
    """
    for name, value in given.items():
        if value is not None:
            raise UnsupportedError(f"{name}: packed documents attend to themselves; expected None")
    if projection_order == "sequence_first":
        raise UnsupportedError(
            "projection_order: packed documents are sequences of their own; accepted: auto, "
            "features_first"
        )
