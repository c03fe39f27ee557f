"""Intervals have the coverage they claim, with the launch as the unit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from results.statistics.intervals import ONE_LAUNCH, estimate, ratio, resample, t_quantile


@pytest.mark.parametrize(
    ("df", "level", "expected"),
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (4, 0.99, 4.604), (9, 0.95, 2.262), (30, 0.99, 2.750)],
)
def test_t_quantile_equals_the_tables(df: int, level: float, expected: float) -> None:
    assert t_quantile(df, level) == pytest.approx(expected, abs=6e-4)


def test_t_quantile_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="df"):
        t_quantile(0)


def test_estimate_is_the_median_within_its_interval() -> None:
    got = estimate([1.0, 1.1, 5.0])
    assert got.value == 1.1
    assert got.low < 1.1 < got.high
    assert got.has_interval


def test_one_launch_has_no_interval_and_says_so() -> None:
    got = estimate([2.0])
    assert got.value == 2.0
    assert not got.has_interval
    assert got.reason == ONE_LAUNCH
    assert ratio([2.0], [1.0, 1.1]).reason == ONE_LAUNCH


def test_equal_launches_have_an_interval_of_no_width() -> None:
    assert estimate([3.3, 3.3])[:3] == (3.3, 3.3, 3.3)
    assert ratio([4.0, 4.0], [2.0, 2.0])[:3] == (2.0, 2.0, 2.0)


def test_zeros_are_estimated_without_logarithms() -> None:
    got = estimate([0.0, 1.0, 2.0])
    assert got.value == 1.0
    assert got.low < 0 < got.high


@pytest.mark.parametrize("bad", [[], [math.nan], [math.inf, 1.0], [[1.0]]])
def test_bad_launches_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="launches"):
        estimate(bad)


def test_resampling_refuses_what_has_no_logarithm() -> None:
    with pytest.raises(ValueError, match="positive"):
        resample([0.0, 1.0], np.random.default_rng(0))


@pytest.mark.parametrize("launches", [2, 3, 5, 10])
def test_the_interval_of_a_median_covers_it(launches: int) -> None:
    rng = np.random.default_rng(launches)
    draws = np.exp(0.1 * rng.standard_normal((1500, launches)))
    covered = [e.low <= 1.0 <= e.high for e in map(estimate, draws)]
    assert 0.935 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("launches", [3, 6])
def test_the_interval_of_a_ratio_covers_it(launches: int) -> None:
    rng = np.random.default_rng(launches)
    tops = 2.0 * np.exp(0.1 * rng.standard_normal((400, launches)))
    bottoms = np.exp(0.03 * rng.standard_normal((400, launches)))
    got = [ratio(t, b) for t, b in zip(tops, bottoms, strict=True)]
    assert np.mean([r.low <= 2.0 <= r.high for r in got]) >= 0.935


def test_a_fortieth_of_the_resamples_lies_beyond_either_end_of_a_ratio() -> None:
    top, bottom = np.array([1.0, 1.2, 1.1, 1.4]), np.array([2.0, 2.1, 1.9])
    got, rng = ratio(top, bottom, seed=3), np.random.default_rng(3)
    drawn = resample(top, rng) / resample(bottom, rng)
    assert np.mean(drawn < got.low) == pytest.approx(0.025, abs=5e-4)
    assert np.mean(drawn > got.high) == pytest.approx(0.025, abs=5e-4)


def test_equal_input_gives_equal_intervals() -> None:
    assert ratio([1.0, 1.2, 1.1], [2.0, 2.1]) == ratio([1.0, 1.2, 1.1], [2.0, 2.1])
