"""The functions that every tool times: a backend's forward call on inputs that are made once."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable

import torch

from attention import registry

SHAPE = (1, 8, 64)
"""Batch, heads, head_dim: those of preset quick."""


def asked() -> tuple[list[str], list[int]]:
    """Return backends and lengths, from the variable that `time_to_answer` sets."""
    backends, lengths = json.loads(os.environ["VERIFICATION_GRID"])
    return backends, lengths


@functools.cache
def function_of(backend: str, length: int) -> Callable[[], torch.Tensor]:
    """Return the function that calls a backend on `length` tokens, on all processors."""
    batch, heads, dim = SHAPE
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    accepted = registry.get(backend).options()
    options = {"seq_len": length, "seed": 0}
    module = registry.build(
        backend, num_heads=heads, head_dim=dim,
        **{name: value for name, value in options.items() if name in accepted},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(batch, heads, length, dim, generator=generator) for _ in range(3))

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            output: torch.Tensor = module(q, k, v)
        return output

    return forward
