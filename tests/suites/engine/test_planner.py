"""What a sweep launches next: from invented launches, with no process."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from helpers_sweep import case, record

from results.statistics.questions import Targets
from suites.engine.planner import BATCH_S, Launched, Planner
from suites.plan import Item
from suites.suite import BASE_ROUNDS

LENGTHS = (512, 1024, 2048, 4096)
CURVES = {"full": (1e-7, 2.0), "linformer": (2e-4, 1.0), "performer": (2.2e-4, 1.0)}
MODES = ("forward", "training")


def cases_of(names=tuple(CURVES), modes=MODES):
    return [case(name, n, mode=mode) for name in names for mode in modes for n in LENGTHS]


class Machine:
    """Launches with known costs and scatter; what is launched is kept."""

    def __init__(self, sd=0.15, *, broken=(), cost=lambda case: 0.5, seed=0):
        self.sd, self.broken, self.cost = sd, broken, cost
        self.rng = np.random.default_rng(seed)
        self.measured, self.seconds, self.order = {}, 0.0, []

    def launch(self, items):
        for item in items:
            scale, exponent = CURVES[item.case.arms[0].name]
            time = scale * item.case.seq_len**exponent * math.exp(self.rng.normal(0, self.sd))
            time = math.nan if item.case.id in self.broken else time
            wall = self.cost(item.case)
            one = Launched(item.launch, time, math.nan, wall)
            self.measured.setdefault(item.case.id, []).append(one)
            self.seconds += wall
            self.order.append(item)

    def run(self, planner, within_s=math.inf, batches=200):
        for _ in range(batches):
            items = planner.next(self.measured, within_s=within_s - self.seconds)
            if not items:
                return
            self.launch(items)
        raise AssertionError("no end")


def planner(cases, precision=0.1, **settings):
    return Planner(cases, Targets.at(precision), **settings)


def test_three_rounds_come_first_rising_in_the_first_and_then_shuffled():
    every = cases_of()
    one, machine = planner(every, seed=7), Machine()
    rounds = []
    for _ in range(BASE_ROUNDS):
        rounds.append(one.next(machine.measured))
        machine.launch(rounds[-1])
    assert [item for part in rounds for item in part] == one.base()
    for launch, part in enumerate(rounds):
        assert {item.launch for item in part} == {launch}
        assert sorted(i.case.id for i in part) == sorted(c.id for c in every)

    def rises(items):
        series = {}
        for item in items:
            key = item.case.arms[0].name, item.case.mode
            series.setdefault(key, []).append(item.case.seq_len)
        return all(lengths == sorted(lengths) for lengths in series.values())

    assert [rises(part) for part in rounds] == [True, False, False]
    assert [i.case.id for i in rounds[1]] != [i.case.id for i in rounds[2]]


def test_a_sweep_ends_once_every_question_is_narrow_enough():
    one, machine = planner(cases_of()), Machine()
    machine.run(one)
    outlook = one.outlook(machine.measured)
    assert outlook.open == ()
    assert outlook.seconds == 0
    assert {q.kind for q in outlook.questions} == {"exponent", "fastest", "crossover"}
    assert len(machine.order) > BASE_ROUNDS * len(cases_of())
    # Quiet launches answer all with the base rounds alone.
    quiet = Machine(sd=0.01)
    quiet.run(one)
    assert len(quiet.order) == BASE_ROUNDS * len(cases_of())


def test_launches_go_where_the_fastest_two_are_told_apart_and_seldom_to_the_dear():
    one, machine = planner(cases_of()), Machine(cost=lambda c: c.seq_len / 1000)
    machine.run(one)
    counts = Counter((i.case.arms[0].name, i.case.seq_len) for i in machine.order)
    assert min(counts["linformer", 4096], counts["performer", 4096]) > counts["full", 4096]
    # Of an exponent both ends say as much: the cheap end gets more.
    assert counts["full", 512] > counts["full", 4096]


def test_a_batch_takes_its_seconds_and_an_open_question_is_foretold():
    one, machine = planner(cases_of()), Machine(sd=0.5)
    machine.launch(one.base())
    before = one.outlook(machine.measured)
    batch = one.next(machine.measured)
    assert BATCH_S <= 0.5 * len(batch) < BATCH_S + 0.5
    assert before.seconds > BATCH_S
    machine.run(one)
    assert machine.seconds == pytest.approx(0.5 * len(one.base()) + before.seconds, rel=0.5)


def test_nothing_is_chosen_that_would_end_after_the_budget():
    one, machine = planner(cases_of()), Machine(sd=0.5)
    machine.run(one, within_s=50.0)
    assert 45.0 < machine.seconds <= 50.0
    assert one.outlook(machine.measured).open


def test_a_sweep_that_is_resumed_goes_on_as_it_would_have():
    one, machine = planner(cases_of(), seed=3), Machine(sd=0.3)
    for _ in range(6):
        machine.launch(one.next(machine.measured))
    again = {key: list(reversed(launches)) for key, launches in machine.measured.items()}
    upcoming = one.next(machine.measured)
    assert upcoming
    assert planner(cases_of(), seed=3).next(again) == upcoming
    assert planner(cases_of(), seed=4).next(again) != upcoming
    # Half of a round is there: the rest of it comes first.
    half = {key: launches[:1] for key, launches in itertools.islice(again.items(), 10)}
    lacking = planner(cases_of(), seed=3).next(
        {k: [Launched(0, 1.0, math.nan, 1.0)] for k in half}
    )
    assert len(lacking) == len(cases_of()) - 10


def test_indices_go_on_without_a_gap_or_a_repetition():
    one, machine = planner(cases_of()), Machine(sd=0.3)
    machine.run(one)
    for launches in machine.measured.values():
        assert [launch.launch for launch in launches] == list(range(len(launches)))


def test_a_case_that_fails_gets_its_base_rounds_and_no_more():
    every = cases_of(modes=("forward",))
    broken = {c.id for c in every if c.arms[0].name == "performer" and c.seq_len > 1024}
    one, machine = planner(every), Machine(sd=0.3, broken=broken)
    machine.run(one)
    counts = Counter(item.case.id for item in machine.order)
    assert {counts[key] for key in broken} == {BASE_ROUNDS}
    questions = {q.words: q for q in one.questions(machine.measured)}
    there = {c.id for c in every if c.arms[0].name == "performer"} - broken
    assert questions["the exponent of performer, forward"].weights.keys() == there
    assert "the fastest two at 4,096 tokens, forward: linformer and full" in questions


def test_what_cannot_be_answered_ends_the_sweep_and_is_foretold_never():
    every = cases_of(names=("full",), modes=("forward",))
    one, machine = planner(every), Machine(sd=0.5)
    machine.launch(one.base())
    everything = {c.id for c in every}
    assert one.next(machine.measured, without=everything) == []
    machine.broken = everything
    machine.launch([Item(c, BASE_ROUNDS) for c in every])
    assert one.next(machine.measured) == []
    outlook = one.outlook(machine.measured)
    assert outlook.open
    assert outlook.seconds is None


def test_settings_are_asked_apart_and_named_by_what_differs():
    every = [
        case(name, n, threads=threads)
        for name in CURVES for threads in (1, 2) for n in LENGTHS
    ]  # fmt: skip
    one, machine = planner(every), Machine()
    machine.launch(one.base())
    words = [q.words for q in one.questions(machine.measured)]
    assert "the exponent of full, forward, threads 2" in words
    assert len([w for w in words if w.startswith("the fastest two")]) == 2
    assert len(words) == len(set(words))


def test_a_record_is_read_as_the_report_reads_it():
    of = case("full", 512)
    good = record(of, 4, latency=0.25, wall_s=1.5)
    good["arms"][0]["metrics"]["latency"] |= {"samples": [0.2, 0.3, 0.4], "sentinel": [4e-3, 6e-3]}
    assert Launched.from_record(good) == Launched(4, 0.3, pytest.approx(5e-3), 1.5)
    bad = Launched.from_record(record(of, 5, status="timeout", reason="slow", arms=[]))
    assert not bad.is_ok
    assert (bad.launch, bad.wall_s) == (5, 2.0)
