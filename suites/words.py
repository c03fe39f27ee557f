"""Words for what a case measured: times, memory, precision. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from results.schema import FULL_PRECISION, Case, warm_up_converged


def precision(case: Case) -> str:
    """Return the precision of the products, after a space, where it is not torch's default."""
    return "" if case.matmul_precision == FULL_PRECISION else f" {case.matmul_precision}"


def measured(metrics: Mapping[str, Any]) -> str:
    """Write an arm's latency and peak memory, as far as it has them."""
    parts = []
    if "latency" in metrics:
        short = warm_up_converged(metrics["latency"]) is False
        parts.append(
            f"{seconds(median(metrics['latency']['samples']))}"
            f"{' (warm-up cut short)' if short else ''}"
        )
    if "peak_memory" in metrics:
        parts.append(f"{metrics['peak_memory']['value'] / 2**20:.1f} MiB")
    return "  ".join(parts)


def seconds(value: float) -> str:
    """Write a latency with three digits: ``12.3 ms``."""
    if value >= 1:
        return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def size(count: float) -> str:
    """Write a number of bytes with three digits: ``1.5 GiB``."""
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
