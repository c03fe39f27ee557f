"""The tests behind a verdict keep their level, also where noise is not normal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from results.statistics.inference import (
    Beyond,
    Difference,
    adjusted,
    apart_from,
    between_runs,
    beyond_launches,
    paired,
    together,
)
from results.statistics.scatter import Scatter, moderated


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
def test_a_trimmed_mean_is_scipys(count: int) -> None:
    """Of the standard error scipy has another form: it divides by shares, not by pairs left."""
    logs = np.random.default_rng(count).standard_t(3, count)
    got = paired(np.ones(count), np.exp(logs))
    assert got.centre == pytest.approx(stats.trim_mean(logs, 0.1), rel=1e-12)
    left = count - 2 * (count // 10)
    winsorised = np.asarray(stats.mstats.winsorize(logs, limits=(0.1, 0.1)))
    variance = winsorised.var(ddof=1) * (count - 1) / (left * (left - 1))
    assert got.error == pytest.approx(math.sqrt(variance), rel=1e-12)
    assert got.df == left - 1


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


def drawn(count: int, df: int, weight: float, seed: int) -> list[Scatter]:
    """Return variances of `df` around others, which scatter about 0.0025 with `weight`."""
    rng = np.random.default_rng(seed)
    true = 0.0025 * weight / rng.chisquare(weight, count)
    return [Scatter(float(v), df) for v in true * rng.chisquare(df, count) / df]


@pytest.mark.parametrize("weight", [3.0, 6.0, 30.0])
def test_what_is_usual_has_the_weight_that_it_was_drawn_with(weight: float) -> None:
    """The prior of Smyth 2004: its variance, and the degrees of freedom that it is worth."""
    own = drawn(4000, 8, weight, 2)
    for got, had in zip(moderated(own), own, strict=True):
        if got == had:
            continue
        found = got.df - had.df
        assert found == pytest.approx(weight, rel=0.2, abs=1)
        prior = (got.variance * (found + 8) - 8 * had.variance) / found
        assert prior == pytest.approx(0.0025, rel=0.15)
        return
    pytest.fail("no variance was given what is usual")


def test_a_variance_is_never_below_what_is_usual_and_a_larger_one_keeps_its_own() -> None:
    own = [*drawn(200, 8, 1000.0, 3), Scatter(1.0, 4), Scatter(0.0, 4), Scatter(math.nan, 0)]
    got = moderated(own)
    assert all(g.variance >= o.variance for g, o in zip(got[:-1], own[:-1], strict=True))
    assert got[-3] == own[-3]
    assert got[-2].variance == pytest.approx(0.0025, rel=0.5)
    assert got[-2].df > 4
    assert got[-1].df == 0


def test_few_say_nothing_about_the_usual() -> None:
    own = drawn(4, 4, 6.0, 4)
    assert moderated(own) == own


def test_the_machine_widens_an_interval() -> None:
    plain = Difference(math.log(1.1), 0.016, 4)
    moved = between_runs(plain, Beyond(), 0.2)
    assert plain.centre == moved.centre
    assert plain.p < 0.01
    assert moved.p > 0.3


def test_a_p_value_far_out_is_no_zero() -> None:
    got = Difference(0.1, 0.01, 1000).p
    assert got == pytest.approx(2 * stats.t.sf(10, 1000), rel=1e-9)
    assert 0 < got < 1e-20  # 1 - P(|T| < t) has no such digits
    assert Difference(0.0, 0.0, 4).p == 1
    assert Difference(1.0, 0.0, 4).p == 0


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
    plain = Difference(0.1, 0.016, 4)
    wider = between_runs(plain, found, 0.0)
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


def test_the_smallest_change_that_a_test_sees_is_that_of_its_power() -> None:
    found = Difference(0.0, 0.1, 1000).smallest_seen(0.01)
    assert found == pytest.approx(math.exp(0.1 * (2.5808 + 0.8420)), rel=1e-4)  # R: qt(…, 1000)
    rng = np.random.default_rng(3)
    tries = [Difference(math.log(found) + 0.1 * z, 0.1, 1000).p for z in rng.normal(size=4000)]
    assert np.mean(np.array(tries) <= 0.01) == pytest.approx(0.8, abs=0.02)
