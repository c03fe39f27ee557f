from __future__ import annotations

import math
import statistics

import pytest
import torch

from suites.measure import sentinel as module
from suites.measure.clock import sample_in_turn
from suites.measure.sentinel import Sentinel, sentinel_of, take_turn
from suites.measure.timers import HostTimer, Timed


class Named:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def prepare(self) -> None:
        self.log.append(f"{self.name}.prepare")

    def call(self) -> None: ...

    def settle(self) -> None: ...


class Fixed:
    """Tells the seconds of each by name, and keeps who was timed."""

    cache = "warm"

    def __init__(self, log: list[str], **seconds: float) -> None:
        self.log, self.seconds = log, seconds

    def sample(self, timed: Timed) -> float:
        assert isinstance(timed, Named)
        self.log.append(timed.name)
        return self.seconds[timed.name]


def turn(arm_s: float, cache: str = "warm") -> tuple[list[str], module.Turn]:
    log: list[str] = []
    timer = Fixed(log, arm=arm_s, beside=0.004)
    timer.cache = cache
    arm, beside = Named("arm", log), Named("beside", log)
    return log, take_turn(arm, timer, beside, usual_s=arm_s)


def test_a_short_call_and_its_companion_both_have_their_caches_warmed():
    log, taken = turn(0.01)
    assert log == ["beside.prepare", "beside", "arm.prepare", "arm"]
    assert taken == pytest.approx((0.01, 0.004, 0.008 + 0.02, 2))


@pytest.mark.parametrize(("seconds", "cache"), [(0.1, "warm"), (0.01, "flushed")])
def test_a_longer_call_and_one_with_flushed_caches_are_not_called_once_more(
    seconds: float, cache: str
):
    log, taken = turn(seconds, cache)
    assert log == ["beside.prepare", "beside", "arm"]
    assert taken == pytest.approx((seconds, 0.004, 0.008 + seconds, 1))


def test_a_long_call_has_its_companion_before_and_behind_it():
    log, taken = turn(0.2)
    assert log == ["beside.prepare", *["beside"] * 5, "arm", "beside.prepare", *["beside"] * 5]
    assert taken == pytest.approx((0.2, 0.004, 12 * 0.004 + 0.2, 1))


def test_every_sample_of_every_arm_has_a_time_of_the_companion():
    log: list[str] = []
    timer = Fixed(log, short=0.01, long=0.5, beside=0.004)
    arms = [Named("short", log), Named("long", log)]
    timings = sample_in_turn(
        arms, timer, budget_s=0.3, seed=0, companion=Named("beside", log), limit_s=60.0
    )
    for timing in timings:
        assert timing.sentinel == pytest.approx([0.004] * len(timing.samples))
        assert timing.metric()["sentinel"] == timing.sentinel
    (alone,) = sample_in_turn(arms[:1], timer, budget_s=0.3, seed=0, limit_s=60.0)
    assert "sentinel" not in alone.metric()


def test_the_companions_time_is_within_the_sampling_time():
    log: list[str] = []
    timer = Fixed(log, arm=0.001, beside=0.004)
    (timing,) = sample_in_turn(
        [Named("arm", log)], timer, budget_s=0.05, seed=0, companion=Named("beside", log),
        warm_up_calls=[3],
    )  # fmt: skip
    assert len(timing.samples) == 5  # of 10 ms each, with two calls of either
    assert timing.spent == pytest.approx(0.05)
    assert timing.calls == 10


def test_the_sentinel_is_a_chain_of_products_and_exponentials_that_stays_where_it_is():
    sentinel = Sentinel("cpu")
    expected = torch.ones_like(sentinel.state)
    for _ in range(module.CHAINS["cpu"][1]):
        expected = torch.exp(expected @ sentinel._factor)
    places = {x.data_ptr() for x in (sentinel.state, sentinel._product, sentinel._factor)}
    sentinel.call()
    torch.testing.assert_close(sentinel.state, expected)
    with torch.inference_mode():
        for _ in range(30):
            sentinel.call()
    sentinel.call()  # and without
    assert {x.data_ptr() for x in (sentinel.state, sentinel._product, sentinel._factor)} == places
    assert 0.1 < float(sentinel.state.median()) < 10
    assert float(sentinel.state.max()) < 1e3  # no infinities, and no denormal numbers
    assert float(sentinel.state.min()) > 1e-3


def test_its_memory_is_small_and_stays():
    sentinel = sentinel_of("cpu")
    assert sentinel is sentinel_of("cpu")
    held = (sentinel.state, sentinel._product, sentinel._factor)
    assert sum(x.nbytes for x in held) < 2e6


@pytest.mark.serial
def test_it_takes_some_milliseconds():
    sentinel, timer = sentinel_of("cpu"), HostTimer()
    seconds = statistics.median(timer.sample(sentinel) for _ in range(20))
    assert math.isfinite(seconds)
    assert 1e-4 < seconds < 0.1
