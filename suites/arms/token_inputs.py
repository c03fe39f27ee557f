"""Numbers of each token that backends take beside q, k and v: drawn, and found in a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attention.base import Attention
from results.schema import Case
from suites.arms.build import STEPPED, Mixer, dtype_of


def draw_token_inputs(mixer: Mixer, case: Case) -> dict[str, Tensor]:
    """Draw a backend's numbers of each token, as it says trained models have them.

    At level attention; elsewhere the layer makes them. From a generator of their own: q, k and v
    are the same whatever a backend takes beside them.
    """
    if case.level != "attention" or not isinstance(mixer, Attention):
        return {}
    generator = torch.Generator().manual_seed(case.seed + 1)
    tokens = case.seq_len + (STEPPED if case.mode == "decode" else 0)
    drawn = {}
    for name, spec in mixer.taken_inputs().items():
        if spec.is_of_tokens and spec.draw is not None:
            shape = spec.shape(case.batch, case.num_heads, tokens, case.head_dim)
            x = spec.draw(shape, generator).to(case.device, dtype_of(case))
            drawn[name] = x.requires_grad_(case.mode == "training")
    return drawn


def of_tokens(mixer: Mixer, given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the numbers of each token among a call's arguments."""
    if not isinstance(mixer, Attention):
        return {}
    taken = mixer.taken_inputs().items()
    return {n: given[n] for n, spec in taken if spec.is_of_tokens and given.get(n) is not None}
