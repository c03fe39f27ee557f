"""What a run is to answer, and where more launches help most."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from results.statistics.allocation import FORETOLD_SHARE, allocate
from results.statistics.crossover import crossover_of
from results.statistics.launches import Launches, contrast, fit_series, slope_of
from results.statistics.questions import Curve, Point, Targets, questions_of

LENGTHS = (512, 1024, 2048, 4096)
CURVES = {"full": (1e-7, 2.0), "fast": (2e-4, 1.0), "near": (2.2e-4, 1.0), "slow": (1.0, 1.0)}


def curves_of(sd=0.1, launches=3, seed=0, names=tuple(CURVES), sentinel=False, lengths=LENGTHS):
    """Return curves of series, each case launched so often, with normal scatter."""
    rng = np.random.default_rng(seed)
    series = []
    for name in names:
        scale, exponent = CURVES[name]
        cases = []
        for n in lengths:
            speed = rng.normal(0, sd, launches) if sentinel else np.zeros(launches)
            logs = math.log(scale * n**exponent) + rng.normal(0, sd, launches) + speed
            cases.append(Launches.of(np.exp(logs), 4e-3 * np.exp(speed) if sentinel else None))
        series.append(cases)
    return [
        Curve(
            name, "here", "forward", name if name == "full" else "",
            {n: Point((name, n), cell) for n, cell in zip(lengths, cells, strict=True)},
        )
        for name, cells in zip(names, fit_series(series), strict=True)
    ]  # fmt: skip


def asked(curves, precision=0.1):
    return {q.words: q for q in questions_of(curves, Targets.at(precision))}


def test_each_series_has_an_exponent_and_each_setting_the_fastest_two_and_the_crossovers():
    questions = asked(curves_of(sd=0.01))
    assert list(questions) == [
        "the exponent of full, forward", "the exponent of fast, forward",
        "the exponent of near, forward", "the exponent of slow, forward",
        "the fastest two at 4,096 tokens, forward: fast and near",
        "where fast becomes faster than full, forward",
        "where near becomes faster than full, forward",
    ]  # fmt: skip


def test_the_questions_are_those_of_the_model():
    curves = {c.name: c for c in curves_of(sd=0.02, sentinel=True)}
    questions = {(q.kind, q.words): q for q in asked(curves.values()).values()}
    cells = {name: [curve.points[n].cell for n in LENGTHS] for name, curve in curves.items()}

    exponent = questions["exponent", "the exponent of full, forward"]
    slope = slope_of(LENGTHS, cells["full"])
    assert exponent.difference.centre == pytest.approx(slope.value)
    assert exponent.half_width == pytest.approx((slope.high - slope.low) / 2)

    pair = questions["fastest", "the fastest two at 4,096 tokens, forward: fast and near"]
    known = contrast([(1.0, cells["near"][3]), (-1.0, cells["fast"][3])])
    assert pair.difference == known
    assert pair.target == pytest.approx(max(0.085, known.centre / 2))

    crossing = questions["crossover", "where fast becomes faster than full, forward"]
    place = crossover_of(LENGTHS, cells["fast"], cells["full"])
    assert place.at == pytest.approx(2000, rel=0.1)
    assert crossing.difference.centre == pytest.approx(0, abs=1e-9)
    assert crossing.target == pytest.approx(0.14 * crossing.per_unit)
    # The interval by inversion is, nearly, that of the difference over its slope.
    half = math.log(place.high / place.low) / 2
    assert crossing.half_width / crossing.per_unit == pytest.approx(half, rel=0.3)


def test_a_crossover_of_nearly_parallel_curves_is_not_asked_ever_more_exactly(monkeypatch):
    monkeypatch.setitem(CURVES, "fast", (1e-7 * 2000**0.1, 1.9))
    questions = asked(curves_of(sd=1e-6, names=("full", "fast"))).values()
    (crossing,) = [q for q in questions if q.kind == "crossover"]
    assert crossing.target == pytest.approx(0.14 * 0.3)


def test_a_lead_of_twice_its_interval_needs_no_more_launches():
    curves = curves_of(sd=0.3, launches=4, names=("fast", "slow"))
    (pair,) = [q for q in asked(curves).values() if q.kind == "fastest"]
    assert pair.half_width > 0.085
    assert not pair.is_open


def test_a_question_closes_for_its_width_alone():
    # Exponents far from any other: only the width counts.
    wide = asked(curves_of(sd=0.3, names=("full", "fast")))
    narrow = asked(curves_of(sd=0.01, names=("full", "fast")))
    assert wide["the exponent of full, forward"].is_open
    assert not any(q.is_open for q in narrow.values())


def test_the_targets_scale_together():
    half = Targets.at(0.05)
    assert (half.exponent, half.fastest, half.crossover) == pytest.approx((0.05, 0.0425, 0.07))
    with pytest.raises(ValueError, match="precision: expected a number above 0, got 0"):
        Targets.at(0)


def test_one_launch_leaves_every_question_open():
    questions = asked(curves_of(launches=1))
    assert questions
    assert all(q.is_open and q.half_width == math.inf for q in questions.values())


# -- where launches go ---------------------------------------------------------------------------


def test_launches_go_to_what_is_open_and_to_the_cheap():
    curves = curves_of(sd=0.15, names=("full", "fast"))
    questions = [q for q in asked(curves, precision=0.05).values() if q.kind == "exponent"]
    exact = [q for q in questions if "fast" in q.words]
    costs = {point.key: 1.0 for curve in curves for point in curve.points.values()}
    chosen = allocate(exact, costs, batch_s=20.0).keys
    assert {name for name, _ in chosen} == {"fast"}
    # The ends of a series say most of its slope, the cheaper end at less cost.
    costs["fast", 4096] = 4.0
    chosen = allocate(exact, costs, batch_s=40.0).keys
    assert chosen.count(("fast", 512)) > chosen.count(("fast", 4096)) > 0
    assert chosen.count(("fast", 1024)) < chosen.count(("fast", 512))


def test_what_is_foretold_to_be_enough_is_enough_where_the_scatter_stays():
    curves = curves_of(sd=0.15, names=("full", "fast", "near"))
    targets = Targets.at(0.05)
    costs = {point.key: 1.0 for curve in curves for point in curve.points.values()}
    chosen = allocate(questions_of(curves, targets), costs)
    assert chosen.is_enough
    assert chosen.seconds == len(chosen.keys) > 0

    def later(keys):
        """Return the questions once these launches were done, with the same means and scatter."""
        grown = []
        for curve in curves:
            old = next(iter(curve.points.values())).cell.series
            series = replace(old, df=old.df + sum(name == curve.name for name, _ in keys))
            points = {
                n: Point(p.key, p.cell._replace(
                    num_launches=p.cell.num_launches + keys.count(p.key), series=series))
                for n, p in curve.points.items()
            }  # fmt: skip
            grown.append(replace(curve, points=points))
        return questions_of(grown, targets)

    assert not any(question.is_open for question in later(chosen.keys))
    missed = [q.half_width / q.target for q in later(chosen.keys[:-1])]
    assert max(missed) > FORETOLD_SHARE


def test_a_batch_ends_with_its_time_and_holds_nothing_that_would_end_too_late():
    curves = curves_of(sd=0.5)
    questions = list(asked(curves).values())
    costs = {point.key: 0.7 for curve in curves for point in curve.points.values()}
    costs["full", 4096] = 30.0
    batch = allocate(questions, costs, batch_s=12.0, within_s=100.0)
    assert 12.0 <= batch.seconds < 12.0 + 30.0
    late = allocate(questions, costs, batch_s=12.0, within_s=2.0)
    assert late.seconds <= 2.0
    assert not late.is_enough
    assert allocate(questions, costs, within_s=0.5).keys == ()


def test_cases_that_get_no_more_launches_are_left_out():
    curves = curves_of(sd=0.5, names=("full", "fast"))
    questions = list(asked(curves).values())
    some = {("fast", n): 1.0 for n in LENGTHS}
    chosen = allocate(questions, some, batch_s=30.0)
    assert {name for name, _ in chosen.keys} == {"fast"}
    assert allocate(questions, {}) == ((), 0.0, False)


def test_nothing_open_takes_nothing():
    questions = list(asked(curves_of(sd=0.001)).values())
    assert allocate(questions, {}) == ((), 0.0, True)
