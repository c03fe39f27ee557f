"""The tests behind a verdict keep their level, also where noise is not normal."""

from __future__ import annotations

import math

import numpy as np
import pytest

from results.statistics.inference import (
    Difference,
    adjusted,
    apart,
    apart_from,
    beyond_launches,
    medians_apart,
    paired,
    together,
)
from results.statistics.scatter import Scatter, digamma, scatters, trigamma


def test_digamma_and_trigamma_at_known_values() -> None:
    euler = 0.5772156649015329
    assert digamma(1.0) == pytest.approx(-euler, abs=1e-10)
    assert digamma(0.5) == pytest.approx(-euler - 2 * math.log(2), abs=1e-10)
    assert digamma(10.0) == pytest.approx(2.251752589066721, abs=1e-11)
    assert trigamma(1.0) == pytest.approx(math.pi**2 / 6, abs=1e-9)
    assert trigamma(0.5) == pytest.approx(math.pi**2 / 2, abs=1e-9)


def test_adjusted_p_values_are_benjamini_and_hochbergs() -> None:
    got = adjusted([0.01, 0.04, 0.03, 0.005])
    assert got == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjusted([0.9, 0.9]) == pytest.approx([0.9, 0.9])
    assert adjusted([]) == []


def test_what_was_not_tested_does_not_count() -> None:
    got = adjusted([math.nan, 0.01, math.nan, 0.04])
    assert math.isnan(got[0])
    assert math.isnan(got[2])
    assert [got[1], got[3]] == pytest.approx([0.02, 0.04])


def test_a_known_difference_of_pairs() -> None:
    got = paired([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert got.ratio.value == pytest.approx(2.0)
    assert got.error == pytest.approx(0.0, abs=1e-12)
    # Of ten pairs the two outermost are left out of the centre.
    logs = np.array([-9.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 9.0])
    got = paired(np.ones(10), np.exp(logs))
    assert got.centre == pytest.approx(0.1)
    assert got.df == 7
    winsorised = np.clip(logs, 0.0, 0.2)
    assert got.error == pytest.approx(math.sqrt(winsorised.var(ddof=1) * 9 / (8 * 7)))


@pytest.mark.parametrize("count", [5, 10, 28])
@pytest.mark.parametrize("bursts", [0.0, 0.15])
def test_pairs_keep_their_level(count: int, bursts: float) -> None:
    rng = np.random.default_rng(count)
    logs = 0.05 * rng.standard_normal((3000, 2, count))
    logs *= np.where(rng.random(logs.shape) < bursts, 5.0, 1.0)
    p = np.array([paired(*np.exp(one)).p for one in logs])
    assert np.mean(p <= 0.05) <= 0.062
    assert np.mean(p <= 0.01) <= 0.016


def test_a_burst_does_not_hide_what_the_other_pairs_show() -> None:
    rng = np.random.default_rng(1)
    base = np.exp(0.02 * rng.standard_normal(14))
    new = 1.1 * np.exp(0.02 * rng.standard_normal(14))
    new[3] *= 3.0
    assert paired(base, new).p < 1e-6


def test_pairs_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="new: expected 3 launches"):
        paired([1.0, 1.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="base: expected two or more positive numbers"):
        paired([1.0, -1.0], [1.0, 1.0])


def cases(count: int, launches: int, sigma: float, seed: int) -> list[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(np.exp(sigma * rng.standard_normal((2, launches)))) for _ in range(count)]


def test_a_case_is_given_the_usual_scatter_where_its_own_is_smaller() -> None:
    every = [*cases(120, 3, 0.05, 2), (np.array([1.0, 1.0, 1.0001]), np.array([1.0, 1.0, 1.0]))]
    got = scatters(every)
    assert math.sqrt(got[-1].variance) == pytest.approx(0.05, rel=0.25)
    assert got[-1].df > 20
    own = [np.var(np.log(b), ddof=1) / 2 + np.var(np.log(n), ddof=1) / 2 for b, n in every]
    assert all(s.variance >= o * (1 - 1e-12) for s, o in zip(got, own, strict=True))


def test_a_case_that_scatters_more_keeps_its_own() -> None:
    wild = (np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.1, 1.0]))
    got = scatters([*cases(40, 3, 0.02, 3), wild])[-1]
    assert got.df == 4
    assert got.variance > 0.05


def test_few_cases_say_nothing_about_the_usual() -> None:
    every = cases(4, 3, 0.05, 4)
    assert all(s.df == 4 for s in scatters(every))


def test_the_prior_knows_whether_cases_scatter_alike() -> None:
    alike = scatters(cases(200, 3, 0.05, 5))
    rng = np.random.default_rng(6)
    mixed = scatters(
        [c for i in range(200) for c in cases(1, 3, 0.05 * math.exp(rng.standard_normal()), i)]
    )
    largest = [max(s.df for s in found) for found in (alike, mixed)]
    assert largest[0] > 100
    assert largest[1] < 20


def test_the_machine_widens_an_interval() -> None:
    launches = ([1.0, 1.02, 0.98], [1.1, 1.12, 1.08])
    scatter = Scatter(4e-4, 4)
    plain, moved = apart(*launches, scatter), apart(*launches, scatter, shift=0.2)
    assert plain.centre == moved.centre == pytest.approx(math.log(1.1), abs=1e-3)
    assert plain.p < 0.01
    assert moved.p > 0.3


def test_what_runs_differ_by_beyond_their_launches() -> None:
    rng = np.random.default_rng(7)
    same = [Difference(0.02 * z, 0.02, 4) for z in rng.standard_normal(400)]
    further = [Difference(d.centre + 0.05 * z + 0.5, d.error, 4)
               for d, z in zip(same, rng.standard_normal(400), strict=True)]  # fmt: skip
    assert math.sqrt(beyond_launches(same).variance) < 0.01
    found = beyond_launches(further)
    assert math.sqrt(found.variance) == pytest.approx(0.05, rel=0.15)
    assert found.df == 399
    assert beyond_launches(further[:4]).variance == 0
    launches = ([1.0, 1.02, 0.98], [1.1, 1.12, 1.08])
    plain = apart(*launches, Scatter(4e-4, 4))
    wider = apart(*launches, Scatter(4e-4, 4), beyond=found)
    assert wider.error == pytest.approx(math.hypot(plain.error, math.sqrt(found.variance)))


def test_a_mean_over_cases_weighs_the_exact_ones_more() -> None:
    # 1/0.1² = 100 and 1/0.2² = 25: (100 · 0 + 25 · 0.1) / 125.
    got = together([Difference(0.0, 0.1, 10), Difference(0.1, 0.2, 10)])
    assert got.centre == pytest.approx(0.02)
    assert got.error == pytest.approx(math.sqrt(1 / 125))
    assert got.df == 14  # (100 + 25)² / (100² / 10 + 25² / 10) = 14.7
    # Cases that differ by more than their errors: 0 and 1 with 0.1 each.
    wide = together([Difference(0.0, 0.1, 10), Difference(1.0, 0.1, 10)])
    assert wide.error == pytest.approx(0.5)
    exact = together([Difference(0.0, 0.0, 4), Difference(1.0, 0.0, 4)])
    assert (exact.centre, exact.df) == (0.5, 1)
    assert exact.error == pytest.approx(0.5)
    with pytest.raises(ValueError, match="differences: expected two or more, got 1"):
        together([Difference(0.0, 0.1, 10)])


def test_one_beside_most_others() -> None:
    others = [Difference(c, 0.01, 1000) for c in (0.0, 0.01, 0.0, -0.01, 5.0)]
    apart, shared = apart_from(Difference(0.3, 0.01, 1000), others, 0.02)
    assert shared.centre == pytest.approx(0.01 / 3)  # without the outermost at either end
    assert apart.centre == pytest.approx(0.3 - 0.01 / 3)
    assert apart.error == pytest.approx(math.sqrt(1.24 * (0.02**2 + 0.01**2)), rel=0.01)
    moved = [Difference(d.centre + 0.4, d.error, d.df) for d in others]
    uneven, _ = apart_from(Difference(0.7, 0.01, 1000), moved, 0.02)
    assert uneven.centre == pytest.approx(apart.centre)
    assert uneven.error > 0.1  # the machine moved by 0.4, not alike for all


def test_medians_of_a_repeated_thing() -> None:
    got = medians_apart([1.0, 1.0, 1.1], [2.0, 2.0, 2.2])
    assert got.centre == pytest.approx(math.log(2))
    assert got.df == 4
    assert math.isinf(medians_apart([1.0], [2.0, 2.0]).error)


def test_the_smallest_change_that_a_test_sees_is_that_of_its_power() -> None:
    found = Difference(0.0, 0.1, 1000).smallest_seen(0.01)
    assert found == pytest.approx(math.exp(0.1 * (2.5808 + 0.8420)), rel=1e-4)  # R: qt(…, 1000)
    rng = np.random.default_rng(3)
    tries = [Difference(math.log(found) + 0.1 * z, 0.1, 1000).p for z in rng.normal(size=4000)]
    assert np.mean(np.array(tries) <= 0.01) == pytest.approx(0.8, abs=0.02)
