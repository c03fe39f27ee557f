"""Kind ``roof``: the machine's peaks in the dtype and with the threads of the case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from attention.base import UnsupportedError
from results.schema import UNITS, Case
from suites.arms.timing import Measured
from suites.measure import roofs
from suites.measure.clock import timer_for


def run(case: Case, *, budget_s: float, stage: Callable[[str], None]) -> Measured:
    """Measure matrix products, exponentials, memory traffic, and an empty call.

    Args:
        case: gives device, dtype and seed; its threads are already set.
        budget_s: sampling time of each peak, shared by the shapes tried.
        stage: told what is being done, for the reason of a failure.

    Returns:
        The record's ``arms``: one, with the five metrics.

    Raises:
        UnsupportedError: if there is no such device here.
    """
    if case.device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("device: torch sees no CUDA device here")
    timer = timer_for(case.device)
    common: dict[str, Any] = {"budget_s": budget_s, "seed": case.seed}
    dtype: torch.dtype = getattr(torch, case.dtype)
    torch.manual_seed(case.seed)
    with torch.inference_mode():
        stage("measuring an empty call")
        empty = roofs.empty_latency(timer, **common)
        stage("measuring matrix products")
        products, by_torch = roofs.matmul_rates(dtype, case.device, timer, **common)
        stage("measuring exponentials")
        exponentials = roofs.exp_rate(dtype, case.device, timer, **common)
        stage("measuring memory traffic")
        traffic = roofs.bandwidth(case.device, timer, **common)
    peaks = {
        "matmul_rate": products,
        "torch_matmul_rate": by_torch,
        "exp_rate": exponentials,
        "bandwidth": traffic,
    }
    metrics: dict[str, Any] = {
        name: {"unit": UNITS[name], "samples": peak.rates, "shape": peak.shape}
        for name, peak in peaks.items()
    }
    metrics["empty_latency"] = {"unit": UNITS["empty_latency"], "samples": empty.samples}
    return Measured([{"kernel": "", "gate": None, "cost": None, "metrics": metrics}])
