"""Take one sample of a call: by the host's clock, or by events of a CUDA device.

On a CPU a sample is the difference of two readings of the monotonic clock around one call. On
CUDA it is the time between two events around the call, with the L2 cache flushed before it.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Timed(Protocol):
    """Something to be timed: `prepare` and `settle` are free, `call` is what counts."""

    def prepare(self) -> None:
        """Drop what the last call left."""

    def call(self) -> None:
        """Do the work."""

    def settle(self) -> None:
        """Keep what the checks need of this call."""


class Timer(Protocol):
    """Takes one sample of a call, in seconds."""

    cache: str

    def sample(self, timed: Timed) -> float:
        """Return the latency of one call."""


class HostTimer:
    """Times by the monotonic clock. The inputs may be in the processor's caches: ``warm``."""

    cache = "warm"

    def sample(self, timed: Timed) -> float:
        """Return the latency of one call."""
        timed.prepare()
        start = time.perf_counter_ns()
        timed.call()
        elapsed = time.perf_counter_ns() - start
        timed.settle()
        return elapsed / 1e9  # exact to the nanosecond, and no longer when written


class EventTimer:
    """Times on a CUDA device by events, after overwriting a buffer twice the L2 cache."""

    cache = "flushed"

    def __init__(self, device: torch.device) -> None:
        size = torch.cuda.get_device_properties(device).L2_cache_size
        self._flush = torch.empty(2 * size, dtype=torch.int8, device=device)
        self._start = torch.cuda.Event(enable_timing=True)
        self._stop = torch.cuda.Event(enable_timing=True)

    def sample(self, timed: Timed) -> float:
        """Return the latency of one call."""
        timed.prepare()
        self._flush.zero_()
        self._start.record()
        timed.call()
        self._stop.record()
        self._stop.synchronize()
        timed.settle()
        return float(self._start.elapsed_time(self._stop)) * 1e-3


def timer_for(device: str) -> Timer:
    """Return the timer of a device type."""
    return EventTimer(torch.device(device)) if device == "cuda" else HostTimer()
