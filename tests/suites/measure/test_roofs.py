from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from results.schema import canonical
from suites.measure import machine, roofs
from suites.measure.timers import timer_for
from suites.processes import processors


@pytest.fixture
def timer():
    return timer_for("cpu")


@pytest.mark.serial
def test_no_product_beats_the_measured_peak(timer):
    peak, by_torch = roofs.matmul_rates(torch.float32, "cpu", timer, budget_s=0.3, seed=0)
    a, b = torch.randn(768, 768), torch.randn(768, 768)
    work = roofs.Repeated(lambda: a @ b)
    rate = 2 * 768**3 / min(timer.sample(work) for _ in range(20))
    assert peak.rates
    assert rate < 2 * max(peak.rates)
    assert " @ " in peak.shape
    assert statistics.median(by_torch.rates) <= statistics.median(peak.rates)


@pytest.mark.serial
def test_rates_are_of_the_work_done(timer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timer, "sample", lambda _: 0.001)
    products, by_torch = roofs.matmul_rates(torch.float32, "cpu", timer, budget_s=0.1, seed=0)
    assert by_torch.rates == products.rates
    assert "onednn" not in by_torch.shape
    assert products.rates[0] == pytest.approx(2 * 2048**3 / 0.001)  # the largest shape
    exponentials = roofs.exp_rate(torch.float32, "cpu", timer, budget_s=0.1, seed=0)
    assert exponentials.rates[0] == pytest.approx(2**20 / 0.001)
    traffic = roofs.bandwidth("cpu", timer, budget_s=0.1, seed=0)
    assert traffic.rates[0] == pytest.approx(2 * roofs.COPY_BYTES["cpu"] / 0.001)


@pytest.mark.serial
def test_empty_call_costs_little(timer):
    timing = roofs.empty_latency(timer, budget_s=0.05, seed=0)
    assert statistics.median(timing.samples) < 5e-6


def test_machine_is_described_in_json():
    told = machine.machine()
    assert told["cpu"]
    assert told["cores"] == len(os.sched_getaffinity(0))
    assert told["ram_bytes"] > 2**28
    assert (told["gpu"] is None) == (not torch.cuda.is_available())
    assert canonical(told)


TELL = """
import json, os, sys
{first}
import torch
from suites.measure.machine import environment, machine
torch.ones(2**20).add_(1)
told = environment()
print(json.dumps([machine()["cores"], told["affinity"], told["openmp"]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "has_driver"), [("import suites.processes.processors", False), ("", True)]
)
def test_processors_are_those_of_the_process_though_openmp_binds_its_threads(first, has_driver):
    """In a command that reads them before torch is there, and in a server with a driver."""
    variables = {
        "OMP_PROC_BIND": "close",
        "OMP_PLACES": "cores",
        "KMP_AFFINITY": "granularity=fine,file=mine",
    }
    if has_driver:
        variables[processors.DRIVER_VARIABLE] = str(os.getpid())
    out = subprocess.run(
        [sys.executable, "-c", TELL.format(first=first)], env={**os.environ, **variables},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    mine = os.sched_getaffinity(0)
    assert json.loads(out) == [
        len(mine), machine.as_ranges(mine),
        "KMP_AFFINITY=set OMP_PLACES=cores OMP_PROC_BIND=close",
    ]  # fmt: skip


def test_environment_is_described_in_json():
    told = machine.environment()
    assert told["torch"] == torch.__version__
    assert told["asv"] == "0.6.6"
    assert set(told) == {
        "attnbench", "python", "torch", "blas", "numpy", "asv", "xformers", "triton",
        "transformers", "cuda",
        "driver", "thp", "governor", "turbo", "affinity", "openmp", "flags", "glibc",
    }  # fmt: skip
    assert canonical(told)


def test_nothing_says_whose_machine_it_is():
    text = canonical([machine.machine(), machine.environment()])
    assert socket.gethostname() not in text.replace('"cores"', "") or len(socket.gethostname()) < 4
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
