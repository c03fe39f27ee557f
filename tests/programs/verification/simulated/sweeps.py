"""Whole simulated sweeps: the real planner launches on a simulated machine until it is done."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from results.schema import Arm, Case
from results.statistics.crossover import crossover_of
from results.statistics.intervals import Array
from results.statistics.launches import Cell, Launches, fit_series, slope_of
from results.statistics.questions import BASELINES, Question, Targets
from suites.engine.planner import Launched, Planner
from suites.speed.suite import SUITE, SpeedPlan
from verification.simulated.launches import true_crossover, true_slopes
from verification.simulated.machines import BACKENDS, MACHINES, Weather
from verification.two_runs import REFERENCE, times_of

LENGTHS = (512, 1024, 2048, 4096)
MODES = ("forward", "training")
KINK = 0.02
BUDGET_S = 240.0
NEXT_SLOWER = 1.15
FASTEST, NEXT = "linformer", "performer"
TRUE_CURVES = "epyc-2-cores/speed"

Key = tuple[str, str]
"""Mode and backend."""


class Tally(NamedTuple):
    """What sweeps on one machine gave, each list one entry a try.

    Attributes:
        covered: kind and series to whether the interval held the truth.
        half_widths: kind to half-widths, as logarithms.
        told: whether the fastest two were said to be in some order; the right one, if they
            differ.
        largest: half-width of each sweep's widest exponent.
        minutes: that each sweep took.
        launches: of each sweep.
    """

    covered: dict[tuple[str, Key], list[bool]]
    half_widths: dict[str, list[float]]
    told: list[bool]
    largest: list[float]
    minutes: list[float]
    launches: list[int]

    @classmethod
    def empty(cls) -> Tally:
        """Return one without a try."""
        return cls(defaultdict(list), defaultdict(list), [], [], [], [])

    def add(self, other: Tally) -> None:
        """Take in what other sweeps gave."""
        for key, tries in other.covered.items():
            self.covered[key] += tries
        for kind, widths in other.half_widths.items():
            self.half_widths[kind] += widths
        self.told.extend(other.told)
        self.largest.extend(other.largest)
        self.minutes.extend(other.minutes)
        self.launches.extend(other.launches)


@functools.cache
def shipped_curves() -> dict[Key, Array]:
    """Return the log times of a shipped run, as true ones, shape [L]."""
    times = times_of(REFERENCE / TRUE_CURVES)
    return {
        (mode, backend): np.log([times[mode, backend, n] for n in LENGTHS])
        for mode in MODES for backend in BACKENDS
    }  # fmt: skip


def true_curves(rng: np.random.Generator, *, are_equal: bool) -> dict[Key, Array]:
    """Draw the true log times of a sweep, shape [L] each.

    Args:
        rng: moves each time by `KINK`.
        are_equal: whether the fastest two are the same; else the second is slower by
            `NEXT_SLOWER` at the longest length.
    """
    curves = {
        key: curve + KINK * rng.standard_normal(len(LENGTHS))
        for key, curve in shipped_curves().items()
    }
    for mode in MODES:
        fastest = curves[mode, FASTEST]
        if are_equal:
            curves[mode, NEXT] = fastest.copy()
        else:
            curves[mode, NEXT] += fastest[-1] + math.log(NEXT_SLOWER) - curves[mode, NEXT][-1]
    return curves


@functools.cache
def cases() -> tuple[Case, ...]:
    """Return the cases of the sweep."""
    plan = SpeedPlan(
        suite=SUITE, backends=tuple(map(Arm, BACKENDS)), seq_lens=LENGTHS, modes=MODES,
        threads=(2,),
    )  # fmt: skip
    return tuple(SUITE.cases(plan))


def key_of(case: Case) -> Key:
    """Return the mode and the backend of a case."""
    return case.mode, case.arms[0].name


def sweep(machine: str, seed: int, *, are_equal: bool) -> Tally:
    """Simulate a sweep from its first launch until its planner is done."""
    rng = np.random.default_rng([seed, are_equal, *machine.encode()])
    curves = true_curves(rng, are_equal=are_equal)
    weather = Weather(MACHINES[machine], rng)
    layouts = {case.id: bool(rng.random() < weather.machine.layouts) for case in cases()}
    planner = Planner(cases(), Targets(), seed=seed)
    measured: dict[str, list[Launched]] = {}
    spent = 0.0
    while items := planner.next(measured, within_s=BUDGET_S - spent):
        for item in items:
            case = item.case
            backend = case.arms[0].name
            log_time = float(curves[key_of(case)][LENGTHS.index(case.seq_len)])
            got = weather.launch(
                backend, case.seq_len, log_time, item.launch, has_layouts=layouts[case.id]
            )
            if spent + got.wall > BUDGET_S:
                continue  # as the driver leaves out what is foretold to end too late
            spent += got.wall
            launched = Launched(item.launch, got.latency, got.sentinel, got.wall)
            measured.setdefault(case.id, []).append(launched)
    truth = {
        key: curve + [
            weather.expected(key[1], has_layouts=layouts[case.id])
            for case in cases() if key_of(case) == key
        ]
        for key, curve in curves.items()
    }  # fmt: skip
    questions = planner.questions(measured)
    return judged(measured, truth, questions, spent, are_equal=are_equal)


def fitted(measured: Mapping[str, Sequence[Launched]]) -> dict[Key, list[Cell]]:
    """Fit the model to a finished sweep; return the cells of each series, shape [L]."""
    keys = list(dict.fromkeys(map(key_of, cases())))
    series = [
        [
            Launches.of(
                [one.latency_s for one in measured[case.id]],
                [one.sentinel_s for one in measured[case.id]],
            )
            for case in cases() if key_of(case) == key
        ]
        for key in keys
    ]  # fmt: skip
    return dict(zip(keys, fit_series(series), strict=True))


def judged(
    measured: Mapping[str, Sequence[Launched]],
    truth: Mapping[Key, Array],
    questions: Sequence[Question],
    spent: float,
    *,
    are_equal: bool,
) -> Tally:
    """Hold a finished sweep against the truth."""
    tally = Tally.empty()
    cells = fitted(measured)

    def note(kind: str, key: Key, low: float, true: float, high: float, half: float) -> None:
        tally.covered[kind, key].append(bool(low <= true <= high))
        tally.half_widths[kind].append(half)

    slopes = true_slopes(np.stack([truth[key] for key in cells]))
    for (key, own), slope in zip(cells.items(), slopes, strict=True):
        got = slope_of(LENGTHS, own)
        note("exponent", key, got.low, slope, got.high, (got.high - got.low) / 2)
    tally.largest.append(max(tally.half_widths["exponent"]))
    by_id = {case.id: case for case in cases()}
    for question in questions:
        if question.kind != "fastest":
            continue
        difference = question.difference
        true = sum(
            weight * truth[key_of(case)][LENGTHS.index(case.seq_len)]
            for case_id, weight in question.weights.items() for case in (by_id[str(case_id)],)
        )  # fmt: skip
        half = difference.half_width
        mode = by_id[str(question.terms[0].key)].mode
        low, high = difference.centre - half, difference.centre + half
        note("ratio", (mode, "fastest two"), low, true, high, half)
        is_told = abs(difference.centre) > half
        tally.told.append(bool(is_told and (are_equal or true > 0)))
    for (mode, backend), own in cells.items():
        for baseline in BASELINES if backend not in BASELINES else ():
            true = true_crossover(truth[mode, backend], truth[mode, baseline], LENGTHS)
            if not math.isfinite(true):
                continue
            found = crossover_of(LENGTHS, own, cells[mode, baseline])
            high = found.high if math.isfinite(found.high) else math.inf
            half = math.log(high / found.low) / 2
            note("crossover", (mode, backend), found.low, true, high, half)
    tally.minutes.append(spent / 60)
    tally.launches.append(sum(map(len, measured.values())))
    return tally


def part(machine: str, are_equal: bool, first: int, count: int) -> Tally:
    """Simulate some sweeps on a machine."""
    tally = Tally.empty()
    for seed in range(first, first + count):
        tally.add(sweep(machine, seed, are_equal=are_equal))
    return tally
