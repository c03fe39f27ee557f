"""Intervals have the coverage they claim, with the launch as the unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from results.statistics.intervals import ONE_LAUNCH, estimate, t_quantile


@pytest.mark.parametrize(
    ("df", "level", "expected"),
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (4, 0.99, 4.604), (9, 0.95, 2.262), (30, 0.99, 2.750)],
)
def test_t_quantile_equals_the_tables(df: int, level: float, expected: float) -> None:
    assert t_quantile(df, level) == pytest.approx(expected, abs=6e-4)


def test_t_quantile_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="df"):
        t_quantile(0)


def test_an_estimate_is_the_geometric_mean_with_students_interval() -> None:
    values = np.array([1.0, 1.1, 5.0])
    got = estimate(values, level=0.99)
    expected = stats.ttest_1samp(np.log(values), 0.0).confidence_interval(0.99)
    assert got.value == pytest.approx(stats.gmean(values))
    assert (got.low, got.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_one_launch_has_no_interval_and_says_so() -> None:
    got = estimate([2.0])
    assert got.value == 2.0
    assert not got.has_interval
    assert got.reason == ONE_LAUNCH


def test_equal_launches_have_an_interval_of_no_width() -> None:
    assert estimate([3.3, 3.3])[:3] == (3.3, 3.3, 3.3)


def test_zeros_are_estimated_without_logarithms() -> None:
    got = estimate([0.0, 1.0, 2.0])
    expected = stats.ttest_1samp([0.0, 1.0, 2.0], 0.0).confidence_interval()
    assert got[:3] == pytest.approx((1.0, expected.low, expected.high))


@pytest.mark.parametrize("bad", [[], [math.nan], [math.inf, 1.0], [[1.0]]])
def test_bad_launches_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="launches"):
        estimate(bad)


@pytest.mark.parametrize("launches", [2, 3, 5, 10])
def test_the_interval_covers_the_truth(launches: int) -> None:
    rng = np.random.default_rng(launches)
    draws = np.exp(0.1 * rng.standard_normal((1500, launches)))
    covered = [e.low <= 1.0 <= e.high for e in map(estimate, draws)]
    assert 0.935 <= np.mean(covered) <= 0.965
