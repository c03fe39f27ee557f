"""Latency: many samples after a warm-up that has converged, the arms of a case in alternation.

On a CPU a sample is the difference of two readings of the monotonic clock around one call. On
CUDA it is the time between two events around the call, with the L2 cache flushed before it.

Inputs are made once and read by every sample; what a call returned is freed before the next one
starts, outside the timed region. So each call allocates its output and its temporaries anew, and
pays for the pages as the C allocator's policy of the case decides. Nothing is preallocated.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

MIN_SAMPLES = 3
MAX_SAMPLES = 512
IMPROVEMENT = 0.02
"""The warm-up goes on while calls get faster than the best so far by more than this fraction."""
SPREAD = 0.005
"""Sampling may stop once the interval of the median is within this fraction of it."""
FIRST_LOOK = 8
"""Rounds before the spread is looked at; then at every doubling."""


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


@dataclass(frozen=True)
class Timing:
    """The latency of one arm.

    Attributes:
        samples: in seconds, in the order taken.
        cache: state of the caches before a sample, ``warm`` or ``flushed``.
        warm_up_calls: calls before the first sample.
        converged: whether the warm-up ended because calls no longer got faster; if not, because
            its budget was spent.
    """

    samples: list[float]
    cache: str
    warm_up_calls: int
    converged: bool


@dataclass(frozen=True)
class WarmUp:
    """How a warm-up ended: number of calls, and whether they converged."""

    calls: int
    converged: bool


def sample_in_turn(
    arms: Sequence[Timed], timer: Timer, *, budget_s: float, seed: int
) -> list[Timing]:
    """Time all `arms` in alternation: in every round each once, in random order.

    Where one arm alone has used up the time of all, the others go on without it, each until it has
    `FIRST_LOOK` samples or has used up its own.

    Args:
        arms: what is compared.
        timer: takes the samples.
        budget_s: time per arm, for the warm-up at most and for the samples at least, unless they
            agree before. Three samples are taken of each at least, unless a single call exceeds
            the budget; then one.
        seed: of the order.
    """
    with _no_garbage_collection():
        warm_ups = [warm_up(arm, timer, budget_s=budget_s) for arm in arms]
        order, rng = list(range(len(arms))), random.Random(seed)
        samples: list[list[float]] = [[] for _ in arms]

        def take_round(members: list[int]) -> None:
            rng.shuffle(members)
            for index in members:
                samples[index].append(timer.sample(arms[index]))

        for done in range(1, MAX_SAMPLES + 1):
            take_round(order)
            single = any(taken[0] > budget_s for taken in samples)
            spent = sum(map(sum, samples))
            if spent >= budget_s * len(arms) and (single or done >= MIN_SAMPLES):
                break
            if done >= FIRST_LOOK and done.bit_count() == 1 and all(map(is_narrow, samples)):
                break
        while short := [
            index
            for index, taken in enumerate(samples)
            if len(taken) < FIRST_LOOK and sum(taken) < budget_s
        ]:
            take_round(short)
    return [
        Timing(taken, timer.cache, w.calls, w.converged)
        for taken, w in zip(samples, warm_ups, strict=True)
    ]


def warm_up(arm: Timed, timer: Timer, *, budget_s: float) -> WarmUp:
    """Call until the last calls, three at least and 5 % of the budget, brought nothing faster.

    It ends without having converged when the budget is spent.
    """
    best, spent, stale_time = math.inf, 0.0, 0.0
    calls = stale = 0
    while True:
        seconds = timer.sample(arm)
        calls, spent = calls + 1, spent + seconds
        if seconds < best * (1 - IMPROVEMENT):
            best, stale, stale_time = seconds, 0, 0.0
        else:
            stale, stale_time = stale + 1, stale_time + seconds
        if stale >= MIN_SAMPLES and stale_time >= 0.05 * budget_s:
            return WarmUp(calls, True)
        if spent >= budget_s:
            return WarmUp(calls, False)


def is_narrow(samples: Sequence[float]) -> bool:
    """Say whether the median's interval (about 95 %, by order statistics) is within `SPREAD`."""
    ordered, count = sorted(samples), len(samples)
    reach = 0.98 * math.sqrt(count)
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count - 1, math.ceil(count / 2 + reach))]
    return high - low <= SPREAD * ordered[count // 2]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
