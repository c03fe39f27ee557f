from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.schema import STOPS
from suites.measure import clock
from suites.measure.clock import FIRST_LOOK, MAX_SAMPLES, Timing, is_narrow, sample_in_turn
from suites.measure.process import deadline
from suites.measure.timers import HostTimer, Timed, timer_for
from suites.measure.warm_up import has_fallen, warm_up


class Scripted:
    """A call whose latency follows a script; keeps the order of what happened."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def prepare(self) -> None:
        self.log.append(f"{self.name}.prepare")

    def call(self) -> None:
        self.log.append(f"{self.name}.call")

    def settle(self) -> None:
        self.log.append(f"{self.name}.settle")


class ScriptedTimer:
    cache = "warm"

    def __init__(self, latency: Callable[[int], float]) -> None:
        self.latency, self.calls = latency, 0

    def sample(self, timed: Timed) -> float:
        timed.call()
        self.calls += 1
        return self.latency(self.calls - 1)


def scripted(latency: Callable[[int], float]) -> tuple[Scripted, ScriptedTimer]:
    return Scripted("a", []), ScriptedTimer(latency)


def test_warm_up_goes_on_while_calls_get_faster():
    latencies = [0.010 * 0.9**i for i in range(12)]
    arm, timer = scripted(lambda i: latencies[min(i, 11)])
    done = warm_up(arm, timer, budget_s=0.2, limit_s=60.0)
    assert done.converged
    assert done.calls >= 12 + 3


@pytest.mark.parametrize(("latency", "calls"), [(0.010, 5), (0.2, 3)])
def test_warm_up_of_a_steady_call_ends_after_few(latency: float, calls: int):
    arm, timer = scripted(lambda _: latency)
    done = warm_up(arm, timer, budget_s=0.4, limit_s=60.0)
    assert (done.calls, done.converged) == (calls, True)


def test_warm_up_of_a_short_call_covers_a_share_of_the_budget():
    arm, timer = scripted(lambda _: 0.0001)
    done = warm_up(arm, timer, budget_s=0.4, limit_s=60.0)
    assert done.converged
    assert 0.05 * 0.4 <= done.calls * 0.0001 <= 0.1 * 0.4


def test_a_slow_first_call_is_no_measure_of_the_next():
    arm, timer = scripted(lambda i: 0.010 if i else 10.0)
    done = warm_up(arm, timer, budget_s=0.4, limit_s=60.0)
    assert (done.calls, done.converged) == (5, True)


def test_warm_up_that_never_converges_ends_within_its_limit():
    arm, timer = scripted(lambda i: 0.9**i)
    done = warm_up(arm, timer, budget_s=0.4, limit_s=8.0)
    assert not done.converged
    assert 8.0 - 5 * 0.9**done.calls < done.seconds < 8.0


def timed_alone(latency: Callable[[int], float], *, limit_s: float = 60.0) -> Timing:
    """Sample a scripted call as preset quick does."""
    arm, timer = scripted(latency)
    (timing,) = sample_in_turn([arm], timer, budget_s=0.25, seed=0, limit_s=limit_s)
    return timing


def after(slow: list[float], then: float) -> Callable[[int], float]:
    return lambda i: slow[i] if i < len(slow) else then


@pytest.mark.parametrize(
    "slow", [[2.0, 0.5, 0.5], [0.05] * 12, [40.0], [0.3, 0.3, 0.3], [0.02] * 13, [1.0] * 3],
    ids=str,
)  # fmt: skip
def test_what_is_slow_at_first_is_no_part_of_the_latency(slow: list[float]):
    timing = timed_alone(after(slow, 0.0007))
    assert timing.warm_up.converged
    assert statistics.median(timing.samples) == 0.0007


def test_latency_that_goes_on_falling_says_so():
    timing = timed_alone(lambda i: 5 * 0.97**i)
    assert not timing.warm_up.converged
    assert timing.metric()["warm_up"]["converged"] is False


@pytest.mark.parametrize("latency", [14.0, 19.0])
def test_warm_up_leaves_time_for_the_rest_of_a_case(latency: float):
    timing = timed_alone(lambda _: latency)
    assert (timing.warm_up.calls, timing.warm_up.converged, len(timing.samples)) == (1, False, 1)


def test_warm_up_may_take_until_the_deadline_around_it():
    with deadline(2.0):
        arm, timer = scripted(lambda i: 0.9**i)
        (timing,) = sample_in_turn([arm], timer, budget_s=0.01, seed=0)
    assert not timing.warm_up.converged
    assert timing.warm_up.calls == 1


@pytest.mark.parametrize(
    ("slow", "latency", "needed"),
    [([], 0.01, 3), ([], 0.15, 2), ([], 0.3, 1), ([0.02] * 13, 0.01, 13), ([0.6] * 3, 0.3, 3)],
    ids=str,
)  # fmt: skip
def test_a_warm_up_says_how_many_calls_the_next_launch_needs(
    slow: list[float], latency: float, needed: int
):
    arm, timer = scripted(after(slow, latency))
    (timing,) = sample_in_turn([arm], timer, budget_s=0.05, search_s=0.25, seed=0, limit_s=60.0)
    done = timing.metric()["warm_up"]
    assert done["needed"] <= done["calls"]
    assert needed <= done["needed"] <= needed + 6 * bool(slow)


@pytest.mark.parametrize(("latency", "calls"), [(0.03, 3), (0.15, 2), (0.3, 1)])
def test_a_launch_that_knows_its_warm_up_takes_a_few_calls(latency: float, calls: int):
    log: list[str] = []
    arm = Scripted("a", log)
    (timing,) = sample_in_turn(
        [arm], ScriptedTimer(lambda _: latency), budget_s=0.05, search_s=0.25, seed=0,
        limit_s=60.0, warm_up_calls=[calls],
    )  # fmt: skip
    assert timing.warm_up.calls == len(timing.samples) == calls
    assert log.count("a.call") == 2 * calls
    assert timing.warm_up.converged


def test_a_launch_that_is_not_warm_after_as_many_calls_goes_on_until_it_is():
    arm, timer = scripted(after([0.05] * 5, 0.01))
    (timing,) = sample_in_turn(
        [arm], timer, budget_s=0.05, search_s=0.25, seed=0, limit_s=60.0, warm_up_calls=[3]
    )
    assert timing.warm_up.calls > 5
    assert timing.warm_up.converged
    assert set(timing.samples) == {0.01}


def test_a_launch_that_the_limit_ends_before_as_many_calls_says_so():
    arm, timer = scripted(lambda _: 1.0)
    (timing,) = sample_in_turn(
        [arm], timer, budget_s=0.05, seed=0, limit_s=10.0, warm_up_calls=[20]
    )
    assert not timing.warm_up.converged
    assert timing.warm_up.calls < 20


def test_one_arm_that_compiles_late_is_sampled_anew_with_the_others():
    class Each(ScriptedTimer):
        late = 0

        def sample(self, timed: Timed) -> float:
            assert isinstance(timed, Scripted)
            if timed.name == "steady":
                return 0.01
            self.late += 1
            return 0.05 if self.late <= 12 else 0.0007

    arms = [Scripted(name, []) for name in ("steady", "late")]
    timings = sample_in_turn(arms, Each(lambda _: 0.0), budget_s=0.25, seed=0, limit_s=60.0)
    assert [statistics.median(t.samples) for t in timings] == [0.01, 0.0007]
    assert all(t.warm_up.converged for t in timings)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("latency", [0.002, 0.05, 0.4])
def test_scatter_is_not_taken_for_a_fall(
    latency: float, noise: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clock, "_no_garbage_collection", contextlib.nullcontext)  # it takes long
    rng = random.Random(0)
    timings = [timed_alone(lambda _: latency * rng.lognormvariate(0, noise)) for _ in range(100)]
    assert all(t.warm_up.converged for t in timings)
    spent = [t.warm_up.seconds + t.every * sum(t.samples) for t in timings]
    assert statistics.mean(spent) < max(0.9, 6 * latency)


def test_a_fall_is_told_by_ranks_and_of_few_calls_by_their_last():
    assert has_fallen([0.5, 0.5, 0.1])
    assert has_fallen([1.2] * 10 + [1.0] * 10)
    assert not has_fallen([1.0] * 10 + [1.2] * 10)
    assert not has_fallen([1.2, 1.0] * 10)
    assert not has_fallen([1.05] * 10 + [1.0] * 10)
    assert not has_fallen([1.0])


@pytest.mark.parametrize(
    ("latency", "expected"), [(0.05, 11), (0.15, 4), (0.3, 2), (0.41, 1), (5.0, 1)]
)
def test_number_of_samples_follows_the_budget(latency: float, expected: int):
    arm, timer = scripted(lambda i: latency * (1 + 0.1 * (i % 2)))
    (timing,) = sample_in_turn([arm], timer, budget_s=0.4, seed=0)
    assert len(timing.samples) == expected


def test_samples_that_agree_end_the_sampling_early():
    arm, timer = scripted(lambda _: 0.001)
    (timing,) = sample_in_turn([arm], timer, budget_s=0.4, seed=0)
    assert len(timing.samples) == 64  # the first doubling after a tenth of the budget
    assert timing.stopped == "spread"


def test_number_of_samples_is_bounded():
    arm, timer = scripted(lambda i: 1e-6 * (1 + i % 2))
    (timing,) = sample_in_turn([arm], timer, budget_s=1.0, seed=0)
    assert len(timing.samples) == MAX_SAMPLES
    assert timing.stopped == "count"


def test_spread_is_that_of_the_median():
    assert is_narrow([1.0] * 15 + [50.0])
    assert not is_narrow([1.0, 1.1] * 8)


def test_half_of_the_interval_is_held_against_two_percent_of_the_median():
    assert is_narrow([1.0, 1.039] * 8)
    assert not is_narrow([1.0, 1.042] * 8)


@pytest.mark.slow
@settings(max_examples=20)
@given(
    scale=st.floats(2e-3, 0.3), noise=st.floats(0, 0.5), budget_s=st.floats(0.01, 1.0),
    num_arms=st.integers(1, 3), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_why_sampling_stopped_is_told_truthfully(scale, noise, budget_s, num_arms, seed):
    rng = random.Random(seed)
    arms = [Scripted(name, []) for name in "abc"[:num_arms]]
    timer = ScriptedTimer(lambda _: scale * (1 + noise * rng.random()))
    timings = sample_in_turn(arms, timer, budget_s=budget_s, seed=seed)
    spent = sum(t.every * sum(t.samples) for t in timings)
    for timing in timings:
        known = len(timing.samples) >= FIRST_LOOK and is_narrow(timing.samples)
        assert (timing.stopped == "spread") == known
        if timing.stopped == "count":
            assert len(timing.samples) == MAX_SAMPLES
        if timing.stopped == "budget":
            assert spent >= 0.999 * budget_s * num_arms
        assert timing.metric()["stopped"] in STOPS
        assert timing.metric()["samples"] == timing.samples
    if all(len(t.samples) < MAX_SAMPLES for t in timings):
        assert spent >= 0.0999 * budget_s * num_arms


def test_each_arm_says_for_itself_why_it_stopped():
    class Each(ScriptedTimer):
        def sample(self, timed: Timed) -> float:
            assert isinstance(timed, Scripted)
            self.calls += 1
            steady = timed.name == "steady"
            return 0.01 if steady else 0.01 * (1 + random.Random(self.calls).random())

    arms = [Scripted(name, []) for name in ("steady", "restless")]
    timings = sample_in_turn(arms, Each(lambda _: 0.0), budget_s=0.3, seed=0)
    assert [t.stopped for t in timings] == ["spread", "budget"]
    assert len(timings[0].samples) == len(timings[1].samples)


def test_samples_of_a_very_short_call_lie_apart():
    log: list[str] = []
    (timing,) = sample_in_turn(
        [Scripted("a", log)], ScriptedTimer(lambda _: 3e-6), budget_s=0.3, seed=0
    )
    assert timing.every == math.ceil(0.03 / (MAX_SAMPLES / 2 * 3e-6))
    assert (len(timing.samples), timing.stopped) == (MAX_SAMPLES / 2, "spread")
    calls = timing.warm_up.calls + timing.every * len(timing.samples)
    assert log.count("a.call") == calls


def test_samples_lie_apart_by_themselves_where_caches_are_flushed():
    class Flushed(ScriptedTimer):
        cache = "flushed"

    arm, timer = Scripted("a", []), Flushed(lambda _: 3e-6)
    (timing,) = sample_in_turn([arm], timer, budget_s=0.3, seed=0)
    assert timing.every == 1


def test_a_short_call_is_sampled_beside_a_long_one():
    log: list[str] = []
    arms = [Scripted(name, log) for name in ("short", "middle", "long")]
    latency = {"short": 0.01, "middle": 0.2, "long": 5.0}

    class Each(ScriptedTimer):
        def sample(self, timed: Timed) -> float:
            assert isinstance(timed, Scripted)
            timed.call()
            return latency[timed.name]

    timings = sample_in_turn(arms, Each(lambda _: 0.0), budget_s=1.0, seed=0)
    assert [len(t.samples) for t in timings] == [10, 10, 1]  # sixteen calls, or 3 s


def test_arms_take_turns_in_random_order_under_the_seed():
    def rounds(seed: int) -> list[str]:
        log: list[str] = []
        arms = [Scripted(name, log) for name in "abc"]
        timings = sample_in_turn(
            arms, ScriptedTimer(lambda i: 0.1 + 0.01 * (i % 5)), budget_s=1.0, seed=seed
        )
        order = "".join(line[0] for line in log[sum(t.warm_up.calls for t in timings) :])
        assert {len(t.samples) for t in timings} == {len(order) // 3}
        return [order[i : i + 3] for i in range(0, len(order), 3)]

    taken = rounds(0)
    assert all(sorted(one) == ["a", "b", "c"] for one in taken)
    assert len(set(taken)) > 1
    assert taken == rounds(0)
    assert taken != rounds(1)


def test_host_timer_times_the_call_alone():
    class Slow:
        def prepare(self) -> None:
            time.sleep(0.02)

        def call(self) -> None:
            time.sleep(0.005)

        def settle(self) -> None:
            time.sleep(0.02)

    assert 0.005 <= HostTimer().sample(Slow()) < 0.02


def test_sample_follows_prepare_call_settle():
    log: list[str] = []
    HostTimer().sample(Scripted("a", log))
    assert log == ["a.prepare", "a.call", "a.settle"]


@pytest.mark.serial
def test_overhead_is_below_five_microseconds_a_sample():
    class Empty:
        def prepare(self) -> None: ...

        def call(self) -> None: ...

        def settle(self) -> None: ...

    timer, empty = timer_for("cpu"), Empty()
    start = time.perf_counter()
    latencies = [timer.sample(empty) for _ in range(5000)]
    whole = (time.perf_counter() - start) / 5000
    assert statistics.median(latencies) < 5e-6
    assert whole < 5e-6


def test_garbage_collector_rests_while_sampling():
    seen = []

    class Looks:
        def prepare(self) -> None: ...

        def call(self) -> None:
            seen.append(gc.isenabled())

        def settle(self) -> None: ...

    assert gc.isenabled()
    sample_in_turn([Looks()], HostTimer(), budget_s=0.001, seed=0)
    assert seen
    assert not any(seen)
    assert gc.isenabled()
