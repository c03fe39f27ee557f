"""The model of launches: as least squares gives it, and its crossovers as its contrasts do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api

from results.statistics.launches import (
    Cell,
    Launches,
    contrast,
    crossover_of,
    fit_series,
    lead_between,
)

LENGTHS = (512, 1024, 2048, 4096)


def cells(count: int, *, seed: int = 0, sentinel: bool = True) -> list[list[Cell]]:
    """Return cells of series that cross, of unequal numbers of launches, on a swinging machine."""
    rng = np.random.default_rng(seed)
    series = []
    for power in np.linspace(1.0, 2.0, count):
        cases = []
        for n in LENGTHS:
            size = int(rng.integers(2, 6))
            machine = 0.1 * rng.standard_normal(size)
            logs = power * math.log(n / 1300) + machine + 0.05 * rng.standard_normal(size)
            beside = np.exp(machine) if sentinel else None
            cases.append(Launches.of(np.exp(logs), beside))
        series.append(cases)
    return fit_series(series)


@pytest.mark.parametrize("weights", [[1, 0, 0, 0], [0, 1, -1, 0], [-0.3, -0.1, 0.1, 0.3]])
def test_a_contrast_is_that_of_least_squares(weights: list[float]) -> None:
    rng = np.random.default_rng(1)
    sizes = (3, 2, 4, 3)
    place = np.repeat(np.arange(4), sizes)
    z = rng.standard_normal(len(place))
    y = place + 0.7 * z + 0.1 * rng.standard_normal(len(place))
    cases = [Launches.of(np.exp(y[place == i]), np.exp(z[place == i])) for i in range(4)]
    (fitted,) = fit_series([cases])
    got = contrast(list(zip(weights, fitted, strict=True)))
    design = np.column_stack([*(place == i for i in range(4)), z - z.mean()]).astype(float)
    oracle = statsmodels.api.OLS(y, design).fit().t_test([*weights, 0.0])
    assert got.centre == pytest.approx(oracle.effect.item())
    assert got.error == pytest.approx(oracle.sd.item())
    assert got.df == oracle.df_denom


@pytest.mark.parametrize("sentinel", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_ends_of_a_crossover_are_where_the_lead_is_not_told_from_zero(
    seed: int, sentinel: bool
) -> None:
    ours, _, theirs = cells(3, seed=seed, sentinel=sentinel)
    got = crossover_of(LENGTHS, ours, theirs)
    assert got.has_interval
    assert LENGTHS[0] < got.low < got.at < got.high < LENGTHS[-1]
    for end, sign in ((got.low, -1), (got.high, 1)):
        lead = lead_between(LENGTHS, ours, theirs, end)
        assert sign * lead.centre > lead.half_width
        inside = lead_between(LENGTHS, ours, theirs, end * 1.02**-sign)
        assert sign * inside.centre < inside.half_width
