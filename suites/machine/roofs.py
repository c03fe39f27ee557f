"""Kind ``roof``: the machine's peaks in the dtype and with the threads of the case."""

from __future__ import annotations

from typing import Any

import torch

from results.schema import UNITS, Case
from suites.kind import Inspection, Kind, Measured, Request, arm
from suites.measure import roofs
from suites.measure.machine import check_device
from suites.measure.timers import timer_for


def inspect(case: Case, _request: Request) -> Inspection:
    """Check that the case's device is here."""
    check_device(case.device)
    return Inspection()


def run(case: Case, request: Request) -> Measured:
    """Measure matrix products, exponentials, memory traffic, and an empty call.

    The budget is that of each peak, shared by the shapes tried.

    Raises:
        UnsupportedError: if there is no such device here.
    """
    check_device(case.device)
    stage, timer = request.stage, timer_for(case.device)
    common: dict[str, Any] = {"budget_s": request.budget_s, "seed": case.seed}
    dtype: torch.dtype = getattr(torch, case.dtype)
    torch.manual_seed(case.seed)
    with torch.inference_mode():
        stage("measuring an empty call")
        empty = roofs.empty_latency(timer, **common)
        stage("measuring the matmul peak")
        products, by_torch = roofs.matmul_rates(dtype, case.device, timer, **common)
        stage("measuring the peak of exponentials")
        exponentials = roofs.exp_rate(dtype, case.device, timer, **common)
        stage("measuring memory bandwidth")
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
    return Measured([arm(metrics)])


KIND = Kind("roof", inspect, run)
