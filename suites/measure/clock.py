"""Latency: many samples after a warm-up that has converged, the arms of a case in alternation.

How many follows from their spread: sampling ends when the median of every arm is known within
`SPREAD`, or when its time is spent; the record says which. Every sample is kept, outliers too.

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
from statistics import median
from typing import Any, Literal, Protocol

import torch

from results.schema import UNITS

MIN_SAMPLES = 3
MAX_SAMPLES = 512
"""Of an arm: a record keeps all of them, and a sweep's records are to stay below a mebibyte. The
calls of an arm may be many more (see `calls_per_sample`)."""
IMPROVEMENT = 0.02
"""The warm-up goes on while calls get faster than the best so far by more than this fraction."""
SPREAD = 0.02
"""Sampling may end once the interval of the median reaches no further from it than this fraction
of it, to either side on average."""
LEAST_SHARE = 0.1
"""Sampling may end once it took this share of its time: samples that agree within a millisecond
have seen a millisecond of the machine."""
COLD = 4.0
"""A first call of less than so many budgets is not the only one of a warm-up."""
FIRST_LOOK = 8
"""Rounds before the spread is looked at; then at every doubling."""
SHORTEST_S = 5e-7
"""What a call takes at least, the harness around it included."""

Stop = Literal["spread", "budget", "count"]
"""Why sampling ended; see `results.schema.STOPS`."""


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
class WarmUp:
    """How a warm-up ended: number of calls, whether they converged, seconds of the fastest."""

    calls: int
    converged: bool
    best_s: float


@dataclass(frozen=True)
class Timing:
    """The latency of one arm.

    Attributes:
        samples: in seconds, in the order taken, every one of them.
        cache: state of the caches before a sample, ``warm`` or ``flushed``.
        warm_up: the calls before the first sample; one that did not converge spent its budget.
        stopped: ``spread`` if the samples say the median as well as asked for; else what ended
            the sampling, ``budget`` or ``count``.
        every: one of so many calls was timed.
    """

    samples: list[float]
    cache: str
    warm_up: WarmUp
    stopped: Stop
    every: int

    def metric(self) -> dict[str, Any]:
        """Return the record's ``metrics.latency``."""
        return {
            "unit": UNITS["latency"],
            "samples": self.samples,
            "cache": self.cache,
            "stopped": self.stopped,
            "every": self.every,
            "warm_up": {"calls": self.warm_up.calls, "converged": self.warm_up.converged},
        }


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
            agree before (`SPREAD`, `LEAST_SHARE`). Three samples are taken of each at least,
            unless a single call exceeds the budget; then one.
        seed: of the order.
    """
    with _no_garbage_collection():
        warm_ups = [warm_up(arm, timer, budget_s=budget_s) for arm in arms]
        every = calls_per_sample(warm_ups, timer, budget_s=budget_s)
        order, rng = list(range(len(arms))), random.Random(seed)
        samples: list[list[float]] = [[] for _ in arms]

        def take_round(members: list[int]) -> float:
            """Take a sample of each; return the time that it stands for."""
            rng.shuffle(members)
            for _ in range(every - 1):
                for index in members:
                    _call_untimed(arms[index])
            seconds = 0.0
            for index in members:
                taken = timer.sample(arms[index])
                samples[index].append(taken)
                seconds += taken
            return every * seconds

        ended: Stop = "count"
        whole, spent = budget_s * len(arms), 0.0
        for done in range(1, MAX_SAMPLES + 1):
            spent += take_round(order)
            single = any(taken[0] > budget_s for taken in samples)
            if spent >= whole and (single or done >= MIN_SAMPLES):
                ended = "budget"
                break
            is_look = done >= FIRST_LOOK and done.bit_count() == 1
            if is_look and spent >= LEAST_SHARE * whole and all(map(is_narrow, samples)):
                break
        while short := [
            index
            for index, taken in enumerate(samples)
            if len(taken) < FIRST_LOOK and every * sum(taken) < budget_s
        ]:
            take_round(short)
    return [
        Timing(taken, timer.cache, w, "spread" if is_known(taken) else ended, every)
        for taken, w in zip(samples, warm_ups, strict=True)
    ]


def calls_per_sample(warm_ups: Sequence[WarmUp], timer: Timer, *, budget_s: float) -> int:
    """Return of how many calls one is timed, so that few samples fill `LEAST_SHARE` of the time.

    Half of `MAX_SAMPLES` do. 1 but for short calls: 512 calls of 3 µs would all lie within 1.5 ms
    of the machine's life. Where the caches are flushed, samples lie apart by themselves.
    """
    if timer.cache != HostTimer.cache:
        return 1
    round_s = sum(max(w.best_s, SHORTEST_S) for w in warm_ups)
    rounds = LEAST_SHARE * budget_s * len(warm_ups) / round_s
    return max(1, math.ceil(rounds / (MAX_SAMPLES // 2)))


def _call_untimed(arm: Timed) -> None:
    arm.prepare()
    arm.call()
    arm.settle()


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
            return WarmUp(calls, True, best)
        # The first call makes what is made once, and says little about the next.
        is_cold = calls == 1 and seconds < COLD * budget_s
        if spent >= budget_s and not is_cold:
            return WarmUp(calls, False, best)


def is_known(samples: Sequence[float]) -> bool:
    """Say whether there are enough samples to judge by, and they are narrow."""
    return len(samples) >= FIRST_LOOK and is_narrow(samples)


def is_narrow(samples: Sequence[float]) -> bool:
    """Say whether half of the median's interval is within `SPREAD` of the median.

    The interval is that of order statistics, at about 95 %: no law of the samples is assumed.
    """
    ordered, count = sorted(samples), len(samples)
    reach = 0.98 * math.sqrt(count)
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count - 1, math.ceil(count / 2 + reach))]
    return (high - low) / 2 <= SPREAD * median(ordered)


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
