"""An output in 64 numbers, by which the launches of a case are seen to compute the same.

A case's first launch holds its output against a reference in float64. The launches behind it have
the same inputs, threads and seed: theirs is the same, but for what a device rounds in another
order. So they compare 64 numbers: products of sampled query rows with fixed random unit vectors.
Of a difference ``e`` each shows ``e·u``, whose mean square is ``‖e‖² / d`` (Johnson and
Lindenstrauss 1984), so that their relative L2 is that of the rows, give or take a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from suites.measure.gate import GATE_ROWS, WrongOutputError, sampled_rows

_ROW_AXIS = {2: 0, 3: 1, 4: 2}
"""Of a table, of ``[B, N, d_model]`` and of ``[B, H, N, D]``: which axis the rows are on."""


def projected(output: Tensor, *, seed: int, least: float = 0.0) -> tuple[Tensor, float]:
    """Return an output in a few numbers.

    Args:
        output: ``[B, H, N, D]``, ``[B, N, W]``, ``[V, W]``, or a single number.
        seed: of the rows and of the vectors; equal ones give equal rows.
        least: what the norm of the rows counts at least: of terms that cancel little is left.

    Returns:
        float64: one number a row of 64, or several of each where there are fewer; and what their
        norm is to be expected as, from that of the rows.
    """
    rows = output.detach()
    if rows.ndim in _ROW_AXIS:
        axis = _ROW_AXIS[rows.ndim]
        at = sampled_rows(rows.shape[axis], GATE_ROWS, seed=seed).to(rows.device)
        rows = rows.index_select(axis, at).movedim(axis, 0).flatten(1)
    rows = rows.to("cpu", torch.float64)
    rows = rows.reshape(len(rows) if rows.ndim else 1, -1)
    count, width = rows.shape
    each = math.ceil(GATE_ROWS / count) if width > 1 else 1
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(width, each, generator=generator, dtype=torch.float64)
    vectors /= vectors.norm(dim=0)
    return (rows @ vectors).flatten(), max(float(rows.norm()), least) * math.sqrt(each / width)


def fingerprint(numbers: Tensor, norm: float, *, allowed: float) -> dict[str, Any]:
    """Return what a first launch records of an output.

    Args:
        numbers: by `projected`.
        norm: likewise.
        allowed: relative L2 that the output of a later launch may be off this one.
    """
    return {"projections": numbers.tolist(), "norm": norm, "allowed": allowed}


def compared(what: str, output: Tensor, first: Mapping[str, Any], *, seed: int) -> dict[str, Any]:
    """Hold an output against what the case's first launch recorded of its own.

    Args:
        what: the backend and the part, for the message.
        output: of this launch.
        first: by `fingerprint`.
        seed: as there.

    Raises:
        WrongOutputError: if they are further apart than is allowed.
    """
    numbers, _ = projected(output, seed=seed)
    before = torch.tensor(first["projections"], dtype=torch.float64)
    if numbers.shape != before.shape:
        raise WrongOutputError(
            f"reference check: {what}: the first process gave {len(before)} numbers, this one "
            f"{len(numbers)}"
        )
    apart, norm = float((numbers - before).norm()), first["norm"]
    difference = apart / norm if norm > 0 else apart
    if not difference <= first["allowed"]:  # so that NaN fails
        raise WrongOutputError(
            f"reference check: {what} differs from that of the first process by "
            f"{difference:.3g} (relative L2 over {len(numbers)} numbers), allowed "
            f"{first['allowed']:.3g}"
        )
    return {"difference": difference, "allowed": first["allowed"]}
