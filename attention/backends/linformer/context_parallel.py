"""Projected keys over a sequence that is cut over ranks: each projects its own; they add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attention.backends.linformer.projection import LinformerProjection
from attention.kernels.sequence_projection import along_sequence
from attention.problem import Problem

if TYPE_CHECKING:
    from attention.parallel.collectives import Part


def projected_across(
    part: Part, k: Tensor, v: Tensor, projections: tuple[LinformerProjection, LinformerProjection]
) -> tuple[Tensor, Tensor]:
    """Return the whole sequence's projected keys and values ``[B, H, R, D]``.

    k and v are this rank's ``[B, H, n, D]``, in the dtype to add up in; `projections` are E and F.
    """
    columns = slice(part.exchange.start, part.exchange.stop)
    both = [
        along_sequence(project.weight[:, :, columns], x)
        for project, x in zip(projections, (k, v), strict=True)
    ]
    keys, values = part.exchange.total(torch.cat(both, dim=1)).split(k.shape[1], dim=1)
    return keys, values


def pooled_across(
    part: Part, k: Tensor, v: Tensor, segment: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the means of the whole sequence's segments, as `pool` does of one device's.

    k and v are this rank's ``[B, H, n, D]``.
    """
    is_real, exchange = part.own_keys, part.exchange
    at = torch.arange(exchange.start, exchange.stop, device=k.device) // segment  # [n]
    rows = -(-exchange.total_length // segment)
    # A segment may lie on two ranks: sums and counts add up before the division.
    blank = k.new_zeros(k.shape[0], 2 * k.shape[1], rows, k.shape[3])
    total = exchange.total(blank.index_add(2, at, torch.cat([k, v], dim=1)))
    counts = is_real.new_zeros(is_real.shape[0], rows, dtype=torch.int64)
    counts = exchange.total(counts.index_add(1, at, is_real.to(torch.int64)))
    total = total / counts.clamp(min=1)[:, None, :, None]
    keys, values = total.split(k.shape[1], dim=1)
    return keys, values, None if part.key_padding_mask is None else counts == 0


def reduced_bytes(
    problem: Problem, spans: Sequence[tuple[int, int]], *, heads: int, rows: int, counted: bool
) -> int:
    """Return the bytes of the all-reduce of projected keys and values, as a ring moves them.

    With `counted`, the tokens of each row are counted too.
    """
    wide = torch.promote_types(problem.dtype, torch.float32)
    size = 2 * problem.batch * heads * rows * problem.head_dim * wide.itemsize
    moved = 2 * (len(spans) - 1) * size // len(spans)
    counts = 2 * (len(spans) - 1) * problem.batch * rows * 8 // len(spans) if counted else 0
    return moved + counts
