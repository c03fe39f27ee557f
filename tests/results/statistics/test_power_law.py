"""Curves of memory: known laws are found, intervals cover them, misses are the least possible."""

from __future__ import annotations

import math

import numpy as np
import pytest

from results.statistics.power_law import fit_exponent, largest_miss

WIDE = (512, 1024, 2048, 4096, 8192, 16384)


@pytest.mark.parametrize(
    ("exponent", "share"),
    [(0.0, 0.0), *((p, s) for p in (1.0, 1.5, 2.0, 3.0) for s in (0.0, 0.1, 0.9))],
)
def test_noiseless_laws_are_found(exponent: float, share: float) -> None:
    n = np.array(WIDE, dtype=float)
    rise = (n / n[0]) ** exponent
    values = 1e6 * (share + (1 - share) * rise)
    fit = fit_exponent(WIDE, values)
    assert fit.exponent == pytest.approx(exponent, abs=0.01)
    assert fit.low - 0.01 <= exponent <= fit.high + 0.01
    assert fit.curve(n) == pytest.approx(values, rel=0.01)
    assert largest_miss(WIDE, values, exponent) < 1e-3


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    n = np.array(WIDE, dtype=float)
    curve = 1.0 + n / n[0]
    fits = [
        fit_exponent(WIDE, curve * np.exp(0.03 * rng.standard_normal(len(n)))) for _ in range(100)
    ]
    # 95 of 100 are promised; a true 95 % stays above 89 in 99 of 100 tries.
    assert sum(f.low <= 1.0 <= f.high for f in fits) >= 89
    assert np.median([f.high - f.low for f in fits]) < 0.5


def test_a_constant_costs_a_degree_of_freedom() -> None:
    off = np.array([1.03, 0.98, 1.0, 1.01, 0.99, 1.02])
    values = off * np.array(WIDE)
    free, bound = (fit_exponent(WIDE, values, with_constant=has) for has in (True, False))
    assert free.constant > 0
    assert bound.constant == 0
    assert free.high - free.low > bound.high - bound.low


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [((512, 1024, 2048), "3 lengths"), ((512, 640, 768, 1024), "a factor of 4")],
)
def test_too_few_lengths_give_a_slope_without_interval(
    lengths: tuple[int, ...], reason: str
) -> None:
    fit = fit_exponent(lengths, [float(n) for n in lengths])
    assert fit.exponent == pytest.approx(1.0)
    assert math.isnan(fit.low)
    assert math.isnan(fit.high)
    assert reason in fit.reason


def test_without_a_constant_a_flat_line_is_no_steep_one_beside_a_large_constant() -> None:
    rng = np.random.default_rng(0)
    flat = np.exp(0.02 * rng.standard_normal(len(WIDE)))
    free = fit_exponent(WIDE, flat)
    bound = fit_exponent(WIDE, flat, with_constant=False)
    assert free.high - free.low > 1  # any exponent fits beside a constant
    assert bound.high - bound.low < 0.1


def test_no_curve_of_the_exponent_misses_by_less() -> None:
    rng = np.random.default_rng(2)
    n = np.array(WIDE, dtype=float)
    values = (1.0 + n / n[0]) * np.exp(0.1 * rng.standard_normal(len(n)))
    for exponent in (1.0, 2.0):
        least = largest_miss(WIDE, values, exponent)
        grown = (n / n[0]) ** exponent
        for constant in np.linspace(0.0, 3.0, 200):
            for factor in np.geomspace(1e-3, 3.0, 200):
                off = np.abs(np.log(values / (constant + factor * grown))).max()
                assert math.expm1(off) >= least - 1e-6


def test_a_miss_is_a_share_of_the_value() -> None:
    # A flat line through 1 and 4 lies at 2: off by a factor of 2 at both.
    assert largest_miss((1, 2), (1.0, 4.0), 0.0) == pytest.approx(1.0)
    assert largest_miss((1, 2), (1.0, 4.0), 2.0) == pytest.approx(0.0)
    assert largest_miss((1, 2, 4), (1.1, 2.0, 4.0), 1.0, with_constant=False) == pytest.approx(
        math.sqrt(1.1) - 1
    )


@pytest.mark.parametrize(
    ("lengths", "values"),
    [([512], [1.0]), ([512, 512], [1.0, 1.0]), ([1, 2], [1.0, 0.0]), ([1, 2], [1.0])],
)
def test_bad_input_is_refused(lengths: list[int], values: list[float]) -> None:
    for fit in (fit_exponent, lambda n, m: largest_miss(n, m, 1.0)):
        with pytest.raises(ValueError, match=r"lengths|values"):
            fit(lengths, values)
