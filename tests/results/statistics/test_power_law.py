"""The curve a + c·Nᵖ: known laws are found, intervals cover them, few lengths claim nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from results.analysis.memory_growth import asymptotic
from results.statistics import power_law
from results.statistics.power_law import fit_exponent

WIDE = (512, 1024, 2048, 4096, 8192, 16384)


@pytest.mark.parametrize(
    ("exponent", "share"),
    [(0.0, 0.0), *((p, s) for p in (1.0, 1.5, 2.0, 3.0) for s in (0.0, 0.1, 0.9))],
)
def test_noiseless_laws_are_found(exponent: float, share: float) -> None:
    n = np.array(WIDE, dtype=float)
    rise = (n / n[0]) ** exponent
    values = 1e-3 * (share + (1 - share) * rise)
    fit = fit_exponent(WIDE, [[v, v] for v in values])
    assert fit.exponent == pytest.approx(exponent, abs=0.011)
    assert fit.low - 0.006 <= exponent <= fit.high + 0.006
    assert fit.curve(n) == pytest.approx(values, rel=0.01)


@pytest.mark.parametrize("noise", [0.03, 0.10])
@pytest.mark.parametrize("law", ["1.0", "1.5", "2.0", "n log n", "1.0 + constant"])
def test_intervals_cover_the_truth(noise: float, law: str) -> None:
    rng = np.random.default_rng(round(1000 * noise) + len(law))
    n = np.array(WIDE, dtype=float)
    if law == "n log n":  # truth: the local exponent at the geometric mean length
        truth, curve = 1 + 1 / float(np.log(n).mean()), n * np.log(n)
    else:
        truth = float(law.split()[0])
        curve = (n / n[0]) ** truth + (0.1 if "constant" in law else 0.0)
    noisy = curve[:, None] * np.exp(noise * rng.standard_normal((250, len(n), 3)))
    fits = [fit_exponent(WIDE, list(sweep)) for sweep in noisy]
    # 1000 sweeps must cover in 93 %; 250 of a true 95 % stay above 91.5 %.
    assert np.mean([f.low <= truth <= f.high for f in fits]) >= 0.915
    if noise == 0.03:
        assert np.median([f.high - f.low for f in fits]) < 0.1


def test_a_constant_costs_a_degree_of_freedom(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    variance = power_law._variance

    def watched(*given: Any, free: int) -> Any:
        asked.append(free)
        return variance(*given, free=free)

    monkeypatch.setattr(power_law, "_variance", watched)
    lengths = [512, 1024, 2048, 4096, 8192]
    for has_constant in (True, False):
        times = [[5.0 * has_constant + 1e-6 * n**1.5] for n in lengths]
        fit_exponent(lengths, times, with_constant=has_constant)
    assert asked == [3, 2]


def test_lengths_off_the_curve_widen_the_interval() -> None:
    bent = [1.0, 2.3, 3.7, 8.9, 14.5, 34.0]
    exact = fit_exponent(WIDE, [[v * 1.001, v * 0.999, v] for v in bent])
    assert exact.high - exact.low > 0.1


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [((512, 1024, 2048), "3 asymptotic lengths"), ((512, 640, 768, 1024), "a factor of 4")],
)
def test_too_few_lengths_give_a_slope_without_interval(
    lengths: tuple[int, ...], reason: str
) -> None:
    fit = fit_exponent(lengths, [[n * 1.0, n * 1.0] for n in lengths])
    assert fit.exponent == pytest.approx(1.0)
    assert math.isnan(fit.low)
    assert math.isnan(fit.high)
    assert reason in fit.reason


@pytest.mark.parametrize(
    ("lengths", "launches"),
    [
        ([512], [[1.0]]),
        ([512, 512], [[1.0], [1.0]]),
        ([1, 2], [[1.0], [0.0]]),
        ([1, 2], [[1.0], []]),
    ],
)
def test_bad_input_is_refused(lengths: list[int], launches: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"lengths|launches"):
        fit_exponent(lengths, launches)


def test_the_asymptotic_part_begins_where_the_cost_grows_as_declared() -> None:
    window = 1000
    costs = [n * min(n, window) for n in (256, 512, 1024, 2048, 4096)]
    assert asymptotic((256, 512, 1024, 2048, 4096), costs, 1.0) == (2, "")
    start, reason = asymptotic((256, 512), costs[:2], 1.0)
    assert start == 1
    assert "exponent 2.00 there, declared is 1" in reason
    assert asymptotic((256, 512), [math.nan, math.nan], 1.0) == (0, "")
