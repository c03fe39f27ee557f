"""The clock on a GPU: against the host's, against a known duration, and the flushed cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import pytest
import torch

from suites.measure.timers import EventTimer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


class Call:
    """Something to be timed, with nothing to prepare."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def prepare(self) -> None:
        pass

    def settle(self) -> None:
        pass


def product(size: int) -> Callable[[], object]:
    """Return a matrix product of bfloat16 that writes where it wrote before."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def test_events_agree_with_the_synchronised_host_clock() -> None:
    """Over many calls, so that reading the host's clock and waiting are less than 1 %."""
    call = product(6144)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(5):
        call()
    ratios = []
    for _ in range(9):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        start.record()
        for _ in range(50):
            call()
        stop.record()
        torch.cuda.synchronize()
        host = time.perf_counter() - begun
        ratios.append(start.elapsed_time(stop) * 1e-3 / host)
    assert host / 50 > 100e-6  # it is of calls above 100 µs that this is said
    assert abs(median(ratios) - 1) < 0.01


SPIN = """
extern "C" __global__ void spin(long long nanoseconds) {
    long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}
"""


@pytest.mark.parametrize("milliseconds", [5, 20])
def test_a_kernel_of_known_duration_takes_that_long(milliseconds: int) -> None:
    """One thread that waits by the GPU's own clock, which counts nanoseconds."""
    spin = torch.cuda._compile_kernel(SPIN, "spin")
    timer = EventTimer(torch.device("cuda"))
    call = Call(lambda: spin((1, 1, 1), (1, 1, 1), (milliseconds * 1_000_000,)))
    timer.sample(call)
    taken = median(timer.sample(call) for _ in range(9))
    assert abs(taken / (milliseconds * 1e-3) - 1) < 0.01


def test_flushing_the_cache_shows() -> None:
    """Two reads of what fits into the L2 cache: from there, and from the device's memory."""
    bytes_there = torch.cuda.get_device_properties("cuda").L2_cache_size
    x = torch.randn(bytes_there // 16, device="cuda")  # a quarter of it
    call = Call(lambda: x.sum())
    timer = EventTimer(torch.device("cuda"))
    flushed = median([timer.sample(call) for _ in range(40)][10:])
    timer._flush = timer._flush[:1]
    warm = median([timer.sample(call) for _ in range(40)][10:])
    assert flushed > 1.1 * warm
