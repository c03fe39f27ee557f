"""Norms of a token's channels: layer norm, or the root mean square alone."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from attention.checks import check_choice, check_float, check_int

Normalization = Literal["layer", "rms"]

EPSILON = 1e-5
"""What torch's layer norm adds to the variance."""


def make_norm(
    kind: Normalization, d_model: int, *, eps: float = EPSILON, bias: bool = True
) -> nn.Module:
    """Make a norm over the last axis.

    Args:
        kind: ``layer`` (Ba et al. 2016, arXiv 1607.06450) or ``rms`` (Zhang and Sennrich 2019,
            arXiv 1910.07467), which has no bias.
        d_model: channels.
        eps: added to the variance, or to the mean square.
        bias: whether a layer norm has one.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if an argument has the wrong type.
    """
    check_choice("normalization", kind, get_args(Normalization))
    check_int("d_model", d_model, minimum=1)
    check_float("norm_eps", eps, above=0.0)
    if kind == "rms":
        return nn.RMSNorm(d_model, eps=eps)
    return nn.LayerNorm(d_model, eps=eps, bias=bias)
