"""Latency: many samples after a warm-up that has converged, the arms of a case in alternation.

Samples that fall after a warm-up (`suites.measure.warm_up`) were a part of it, and are taken anew.

How many samples follows from their spread: sampling ends when the median of every arm is known
within `SPREAD`, or when its time is spent; the record says which. Outliers are kept too. A launch
whose sampling time is short takes a few (`suites.measure.warm_up.FEW_CALLS`).

Beside each sample a companion is timed, the sentinel (`suites.measure.sentinel`): the same work in
every launch, which says how fast the machine was just then.

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
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal

from results.schema import UNITS
from suites.measure.process import seconds_left
from suites.measure.sentinel import Turn, call_untimed, take_turn
from suites.measure.timers import HostTimer, Timed, Timer
from suites.measure.warm_up import SPARED_CALLS, WARM_SHARE, WarmUp, few_calls, has_fallen, warm_up

MAX_SAMPLES = 512
"""Of an arm: a record keeps all of them, and a sweep's records are to stay below a mebibyte. The
calls of an arm may be many more (see `calls_per_sample`)."""
WATCHED_CALLS, WATCHED_BUDGETS = 16, 3.0
"""An arm is watched for so many calls, warm-up and samples together, or for so many times its
sampling time: a compiler may step in after a dozen calls of equal length. Not where it is known
how many calls its warm-up takes."""
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
        every: one of so many calls was timed, and those just before it that warm the caches.
        sentinel: of each sample the time of the companion beside it, in seconds; empty = there
            was none.
        spent: seconds of all calls since the warm-up, those of the companion too.
        calls: all calls of the arm since the warm-up.
    """

    samples: list[float]
    cache: str
    warm_up: WarmUp
    stopped: Stop
    every: int
    sentinel: list[float] = field(default_factory=list)
    spent: float = 0.0
    calls: int = 0

    def metric(self) -> dict[str, Any]:
        """Return the record's ``metrics.latency``.

        Its ``warm_up.needed`` is how many calls the launches behind this one warm up with.
        """
        done = self.warm_up
        return {
            "unit": UNITS["latency"],
            "samples": self.samples,
            **({"sentinel": self.sentinel} if self.sentinel else {}),
            "cache": self.cache,
            "stopped": self.stopped,
            "every": self.every,
            "warm_up": {"calls": done.calls, "converged": done.converged, "needed": done.needed},
        }


def sample_in_turn(
    arms: Sequence[Timed],
    timer: Timer,
    *,
    budget_s: float,
    seed: int,
    limit_s: float | None = None,
    companion: Timed | None = None,
    warm_up_calls: Sequence[int | None] = (),
    search_s: float = 0.0,
) -> list[Timing]:
    """Time all `arms` in alternation: in every round each once, in random order.

    Samples that fell were a part of the warm-up: what is not steady is warmed up further, and all
    are sampled anew, as long as there is time.

    Args:
        arms: what is compared.
        timer: takes the samples.
        budget_s: sampling time per arm, the companion's calls included, unless the samples agree
            before (`SPREAD`, `LEAST_SHARE`). `few_calls` of each are taken at least.
        seed: of the order.
        limit_s: time that is left for everything; ``None`` = until the `deadline` around this
            call. Where several processes make the calls together, they need the same one.
        companion: what is timed beside every sample, the sentinel; ``None`` = nothing.
        warm_up_calls: of each arm, how many calls its warm-up takes; empty or ``None`` = it is
            found out.
        search_s: sampling time by which a warm-up is found out, if it is more than `budget_s`.
    """
    known = {index: count for index, count in enumerate(warm_up_calls) if count is not None}
    watched = [index for index in range(len(arms)) if index not in known]
    search_s = max(budget_s, search_s)
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
                done = warm_up(
                    arms[index], timer, budget_s=search_s, limit_s=share, spared=spared,
                    known=known.pop(index, None),
                )  # fmt: skip
                spent += done.seconds
                warm_ups[index] = _after(warm_ups[index], done)
            taken = _sample(
                arms, timer, warm_ups, companion,
                budget_s=budget_s, watch_s=WATCHED_BUDGETS * search_s, watched=watched, rng=rng,
            )  # fmt: skip
            spent += sum(timing.spent for timing in taken)
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
                    calls=t.warm_up.calls + t.calls,
                    seconds=t.warm_up.seconds + t.spent,
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
        further,
        calls=before.calls + further.calls,
        seconds=before.seconds + further.seconds,
        needed=before.calls + further.needed,
    )


def _sample(
    arms: Sequence[Timed],
    timer: Timer,
    warm_ups: Sequence[WarmUp],
    companion: Timed | None,
    *,
    budget_s: float,
    watch_s: float,
    watched: Sequence[int],
    rng: random.Random,
) -> list[Timing]:
    """Sample all arms in rounds.

    Where one arm alone has used up the time of all, the others go on without it, each until it has
    `FIRST_LOOK` samples or has used up its own, and those that are `watched` until they were
    watched long enough.
    """
    every = calls_per_sample(warm_ups, timer, budget_s=budget_s)
    order = list(range(len(arms)))
    turns: list[list[Turn]] = [[] for _ in arms]
    spent, calls = [0.0] * len(arms), [0] * len(arms)

    def take_round(members: list[int]) -> None:
        """Take a sample of each."""
        rng.shuffle(members)
        for _ in range(every - 1):
            for index in members:
                call_untimed(arms[index])
        for index in members:
            usual_s = turns[index][-1].seconds if turns[index] else warm_ups[index].latest
            turn = take_turn(arms[index], timer, companion, usual_s=usual_s)
            turns[index].append(turn)
            spent[index] += turn.spent + (every - 1) * turn.seconds
            calls[index] += turn.calls + every - 1

    def is_short(index: int) -> bool:
        """Say whether an arm needs further samples of its own."""
        count, done = len(turns[index]), warm_ups[index]
        if count < few_calls(turns[index][-1].seconds):
            return True
        if count < FIRST_LOOK and spent[index] < budget_s:
            return True
        return (
            index in watched
            and done.calls + calls[index] < WATCHED_CALLS
            and done.seconds + spent[index] < watch_s
        )

    ended: Stop = "count"
    whole = budget_s * len(arms)
    for done in range(1, MAX_SAMPLES + 1):
        take_round(order)
        fewest = min(few_calls(taken[-1].seconds) for taken in turns)
        if sum(spent) >= whole and done >= fewest:
            ended = "budget"
            break
        is_look = done >= FIRST_LOOK and done.bit_count() == 1
        if is_look and sum(spent) >= LEAST_SHARE * whole and all(map(is_narrow, _times(turns))):
            break
    while short := [index for index in range(len(arms)) if is_short(index)]:
        take_round(short)
    ends: list[Stop] = [
        "spread" if len(samples) >= FIRST_LOOK and is_narrow(samples) else ended
        for samples in _times(turns)
    ]
    return [
        Timing(
            samples, timer.cache, warm_ups[i], ends[i], every,
            [turn.sentinel for turn in turns[i] if turn.sentinel is not None], spent[i], calls[i],
        )
        for i, samples in enumerate(_times(turns))
    ]  # fmt: skip


def _times(turns: Sequence[Sequence[Turn]]) -> list[list[float]]:
    return [[turn.seconds for turn in taken] for taken in turns]


def calls_per_sample(warm_ups: Sequence[WarmUp], timer: Timer, *, budget_s: float) -> int:
    """Return of how many calls one is timed, so that few samples fill `LEAST_SHARE` of the time.

    Half of `MAX_SAMPLES` do. 1 but for short calls: 512 calls of 3 µs would all lie within 1.5 ms
    of the machine's life. Where the caches are flushed, samples lie apart by themselves.
    """
    if timer.cache != HostTimer.cache:
        return 1
    round_s = sum(max(min(w.last, default=w.latest), SHORTEST_S) for w in warm_ups)
    rounds = LEAST_SHARE * budget_s * len(warm_ups) / round_s
    return max(1, math.ceil(rounds / (MAX_SAMPLES // 2)))


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
