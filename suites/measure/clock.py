"""Latency: many samples after a warm-up that has converged, the arms of a case in alternation.

A warm-up goes on until calls no longer get faster, however long that takes within the case's time
limit. Samples that then fall all the same were a part of it: they are taken anew. What had not
converged when the time was over says so in its record.

How many samples follows from their spread: sampling ends when the median of every arm is known
within `SPREAD`, or when its time is spent; the record says which. Outliers are kept too.

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
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal, Protocol

import torch

from results.schema import UNITS
from suites.measure.process import seconds_left

MIN_SAMPLES = 3
MAX_SAMPLES = 512
"""Of an arm: a record keeps all of them, and a sweep's records are to stay below a mebibyte. The
calls of an arm may be many more (see `calls_per_sample`)."""
IMPROVEMENT = 0.02
"""The warm-up goes on while the median of the last calls is below that of the calls before them by
more than this fraction."""
STEADY_CALLS, STEADY_SHARE = 4, 0.05
"""So many calls, and this share of the sampling time, must have brought no improvement. Two calls
do where four take longer than the sampling time: the samples behind them must bear them out."""
WATCHED_CALLS, WATCHED_BUDGETS = 16, 3.0
"""An arm is watched for so many calls, warm-up and samples together, or for so many times its
sampling time: a compiler may step in after a dozen calls of equal length."""
FALL, FEW_FALL, FALL_Z = 0.1, 0.3, 3.0
"""Samples have fallen if their second half is below the first by more than `FALL` and by so many
standard deviations of the rank sum; or if each of the last quarter is below all of the first half
by more than `FEW_FALL`."""
LIMIT_S = 120.0
"""Time that is left where no deadline is set."""
WARM_SHARE, SPARED_CALLS = 0.75, 4
"""Warming up ends when this share of the time that is left, less so many calls of every arm, is
spent: the samples, the pass for memory and the checks need the rest."""
SPREAD = 0.02
"""Sampling may end once the interval of the median reaches no further from it than this fraction
of it, to either side on average."""
LEAST_SHARE = 0.1
"""Sampling may end once it took this share of its time: samples that agree within a millisecond
have seen a millisecond of the machine."""
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
    """How a warm-up ended.

    Attributes:
        calls: how many.
        converged: whether the last of them got no faster.
        last: the last of them, in seconds.
        seconds: of all calls.
    """

    calls: int
    converged: bool
    last: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Timing:
    """The latency of one arm.

    Attributes:
        samples: in seconds, in the order taken, every one of them.
        cache: state of the caches before a sample, ``warm`` or ``flushed``.
        warm_up: the calls before the first sample. One that did not converge ran out of time, or
            the samples went on falling: they say how long a call takes at most.
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
    arms: Sequence[Timed],
    timer: Timer,
    *,
    budget_s: float,
    seed: int,
    limit_s: float | None = None,
) -> list[Timing]:
    """Time all `arms` in alternation: in every round each once, in random order.

    Samples that fell were a part of the warm-up: what is not steady is warmed up further, and all
    are sampled anew, as long as there is time.

    Args:
        arms: what is compared.
        timer: takes the samples.
        budget_s: sampling time per arm, unless the samples agree before (`SPREAD`,
            `LEAST_SHARE`). Three samples are taken of each at least, unless a single call exceeds
            the budget; then one.
        seed: of the order.
        limit_s: time that is left for everything; ``None`` = until the `deadline` around this
            call. Where several processes make the calls together, they need the same one.
    """
    left = seconds_left() if limit_s is None else limit_s
    limit = WARM_SHARE * (LIMIT_S if math.isinf(left) else left)
    spared = SPARED_CALLS * len(arms)
    rng, spent = random.Random(seed), 0.0
    warm_ups = [WarmUp(0, False, (), 0.0) for _ in arms]
    restless = list(range(len(arms)))
    with _no_garbage_collection():
        while True:
            for position, index in enumerate(restless):
                share = (limit - spent) / (len(restless) - position)
                done = warm_up(arms[index], timer, budget_s=budget_s, limit_s=share, spared=spared)
                spent += done.seconds
                warm_ups[index] = _after(warm_ups[index], done)
            taken = _sample(arms, timer, warm_ups, budget_s=budget_s, rng=rng)
            spent += sum(timing.every * sum(timing.samples) for timing in taken)
            steady = [
                t.warm_up.converged and not has_fallen([*t.warm_up.last, *t.samples])
                for t in taken
            ]
            last_s = sum(t.samples[-1] for t in taken)
            if all(steady) or spent + spared * last_s > limit:
                break
            restless = [index for index, is_steady in enumerate(steady) if not is_steady]
            warm_ups = [
                replace(
                    t.warm_up,
                    calls=t.warm_up.calls + t.every * len(t.samples),
                    seconds=t.warm_up.seconds + t.every * sum(t.samples),
                )
                for t in taken
            ]
    return [
        replace(timing, warm_up=replace(timing.warm_up, converged=is_steady))
        for timing, is_steady in zip(taken, steady, strict=True)
    ]


def _after(before: WarmUp, further: WarmUp) -> WarmUp:
    """Return a warm-up with what it took before."""
    return replace(
        further, calls=before.calls + further.calls, seconds=before.seconds + further.seconds
    )


def _sample(
    arms: Sequence[Timed],
    timer: Timer,
    warm_ups: Sequence[WarmUp],
    *,
    budget_s: float,
    rng: random.Random,
) -> list[Timing]:
    """Sample all arms in rounds.

    Where one arm alone has used up the time of all, the others go on without it, each until it has
    `FIRST_LOOK` samples or has used up its own, and until it was watched long enough.
    """
    every = calls_per_sample(warm_ups, timer, budget_s=budget_s)
    order = list(range(len(arms)))
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

    def is_short(index: int) -> bool:
        """Say whether an arm needs further samples of its own."""
        count, took = every * len(samples[index]), every * sum(samples[index])
        if len(samples[index]) < FIRST_LOOK and took < budget_s:
            return True
        done = warm_ups[index]
        return (
            done.calls + count < WATCHED_CALLS and done.seconds + took < WATCHED_BUDGETS * budget_s
        )

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
    while short := [index for index in range(len(arms)) if is_short(index)]:
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
    round_s = sum(max(min(w.last), SHORTEST_S) for w in warm_ups)
    rounds = LEAST_SHARE * budget_s * len(warm_ups) / round_s
    return max(1, math.ceil(rounds / (MAX_SAMPLES // 2)))


def _call_untimed(arm: Timed) -> None:
    arm.prepare()
    arm.call()
    arm.settle()


def warm_up(
    arm: Timed, timer: Timer, *, budget_s: float, limit_s: float, spared: int = SPARED_CALLS
) -> WarmUp:
    """Call until calls get no faster: the last ones beside those just before them.

    The first call makes what is made once, and counts for nothing.

    Args:
        arm: what is called.
        timer: times the calls.
        budget_s: sampling time.
        limit_s: time that the calls may take; it ends without having converged before that.
        spared: calls that `limit_s` must leave time for.
    """
    times: list[float] = []
    spent, look = 0.0, 0
    while True:
        seconds = timer.sample(arm)
        times.append(seconds)
        spent += seconds
        if len(times) >= look:
            last = _last(times[1:], budget_s)
            if last and not _improves(last):
                return WarmUp(len(times), True, last[-STEADY_CALLS:], spent)
            look = len(times) + 1 + len(times) // 10
        if spent + spared * seconds > limit_s:
            return WarmUp(len(times), False, (seconds,), spent)


def _last(times: Sequence[float], budget_s: float) -> tuple[float, ...]:
    """Return the last calls, as many as decide whether a warm-up is over; () if there are not."""
    if len(times) < 2:
        return ()
    if STEADY_CALLS * min(times[-2:]) > budget_s:
        return tuple(times[-2:])
    count, taken = 0, 0.0
    while count < STEADY_CALLS or taken < STEADY_SHARE * budget_s:
        count += 1
        if count > len(times):
            return ()
        taken += times[-count]
    return tuple(times[-count:])


def _improves(times: Sequence[float]) -> bool:
    """Say whether the second half of some calls is faster than the first."""
    middle = len(times) // 2
    return median(times[middle:]) < (1 - IMPROVEMENT) * median(times[:middle])


def has_fallen(times: Sequence[float]) -> bool:
    """Say whether calls became faster meanwhile, by more than they scatter.

    The ranks of both halves decide, and of few calls their last quarter alone.
    """
    middle = (len(times) + 1) // 2
    early, late = sorted(times[:middle]), times[middle:]
    if not late:
        return False
    if max(times[-max(1, len(times) // 4) :]) < (1 - FEW_FALL) * early[0]:
        return True
    if median(late) >= (1 - FALL) * median(early):
        return False
    below = sum(bisect_left(early, x) + bisect_right(early, x) for x in late) / 2
    pairs = len(early) * len(late)
    return pairs / 2 - below > FALL_Z * math.sqrt(pairs * (len(times) + 1) / 12)


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
