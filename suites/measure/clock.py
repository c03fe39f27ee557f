"""Latency: many samples after a warm-up that has converged, the arms of a case in alternation.

Samples that fall after a warm-up (`suites.measure.warm_up`) were a part of it, and are taken anew.

How many samples follows from their spread: sampling ends when the median of every arm is known
within `SPREAD`, or when its time is spent; the record says which. Outliers are kept too.

Inputs are made once and read by every sample; what a call returned is freed before the next one
starts, outside the timed region. So each call allocates its output and its temporaries anew, and
pays for the pages as the C allocator's policy of the case decides. Nothing is preallocated.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from results.schema import UNITS
from suites.measure.process import seconds_left
from suites.measure.timers import HostTimer, Timed, Timer
from suites.measure.warm_up import SPARED_CALLS, WARM_SHARE, WarmUp, has_fallen, warm_up

MIN_SAMPLES = 3
MAX_SAMPLES = 512
"""Of an arm: a record keeps all of them, and a sweep's records are to stay below a mebibyte. The
calls of an arm may be many more (see `calls_per_sample`)."""
WATCHED_CALLS, WATCHED_BUDGETS = 16, 3.0
"""An arm is watched for so many calls, warm-up and samples together, or for so many times its
sampling time: a compiler may step in after a dozen calls of equal length."""
LIMIT_S = 120.0
"""Time that is left where no deadline is set."""
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
