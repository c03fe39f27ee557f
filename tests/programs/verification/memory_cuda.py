"""Allocations of known size are measured exactly on CUDA.

How: as for the CPU, in one process and several random orders; the sizes are whole MiB, which the
allocator hands out as they are.

Failure: a peak is a byte off.
"""

from __future__ import annotations

import torch

from verification import Measured, Report, Scale, not_tried
from verification.memory import ORDERS, SIZES, measured_in_orders


def measure(scale: Scale, report: Report) -> Measured:
    """Allocate, and compare."""
    if not torch.cuda.is_available():
        return not_tried("torch sees no CUDA device here")
    rows = measured_in_orders(SIZES[scale], ORDERS[scale], "cuda")
    off = [abs(row["peak"] - row["expected"]) for row in rows]
    failed = sum(map(bool, off))
    report(f"{len(rows)} peaks, {failed} off, at most by {max(off)} B")
    return Measured(
        figure="furthest from the truth", tried=len(rows), failed=failed, rate=max(off),
        bound=None, limit=0, side="at most", unit="B", passed=not failed,
    )  # fmt: skip
