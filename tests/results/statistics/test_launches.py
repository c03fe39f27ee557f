"""The model of launches is least squares: held against statsmodels, and at its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from results.statistics.crossover import crossover_of, lead_between
from results.statistics.intervals import ONE_LAUNCH, Array
from results.statistics.launches import (
    Cell,
    Launches,
    contrast,
    fit_series,
    is_less,
    ratio_of,
    slope_of,
    slope_weights,
    time_of,
)

LENGTHS = (512, 1024, 2048, 4096)
COUNTS = (3, 5, 4, 3)


def a_series(
    seed: int, *, noise: float = 0.1, beta: float = 0.8, machine: float = 0.15
) -> list[Launches]:
    """Return a case a length, of launches that follow the sentinel's log by `beta`."""
    rng = np.random.default_rng(seed)
    cases = []
    for length, count in zip(LENGTHS, COUNTS, strict=True):
        z = machine * rng.standard_normal(count)
        y = math.log(1e-6 * length) + beta * z + noise * rng.standard_normal(count)
        cases.append(Launches.of(np.exp(y), 4e-3 * np.exp(z)))
    return cases


def steady(times: Sequence[float], spread: float = 0.01) -> list[Cell]:
    """Return the cells of a series without sentinel: of each time three launches."""
    factors = (math.exp(-spread), 1.0, math.exp(spread))
    (cells,) = fit_series([[Launches.of([t * f for f in factors]) for t in times]])
    return cells


# -- against statsmodels -------------------------------------------------------------------------


def by_least_squares(cases: Sequence[Launches], centre: float, *, with_sentinel: bool) -> OLS:
    """Return the fit of log time on a dummy a case and the centred log sentinel."""
    rows = [(i, y, z) for i, case in enumerate(cases)
            for y, z in zip(np.log(case.values), np.log(case.sentinels), strict=True)]  # fmt: skip
    design = np.zeros((len(rows), len(cases) + with_sentinel))
    for row, (index, _, z) in enumerate(rows):
        design[row, index] = 1
        if with_sentinel:
            design[row, -1] = z - centre
    return OLS([y for _, y, _ in rows], design).fit()


WEIGHTS = {
    "a time": (0.0, 1.0, 0.0, 0.0),
    "a ratio": (0.0, -1.0, 0.0, 1.0),
    "a slope": tuple(slope_weights(LENGTHS)),
    "between two lengths": (0.3, 0.7, 0.0, 0.0),
}


@pytest.mark.parametrize("with_sentinel", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_a_contrast_is_that_of_least_squares(
    weights: Sequence[float], with_sentinel: bool
) -> None:
    cases = a_series(1)
    if not with_sentinel:
        cases = [Launches.of(case.values) for case in cases]
    (cells,) = fit_series([cases])
    known = np.concatenate([np.log(case.sentinels) for case in cases])
    model = by_least_squares(cases, float(known.mean()), with_sentinel=with_sentinel)
    expected = model.t_test([*weights, *[0.0] * with_sentinel])
    got = contrast(list(zip(weights, cells, strict=True)))
    assert got.centre == pytest.approx(float(expected.effect[0]), rel=1e-9)
    assert got.error == pytest.approx(float(expected.sd[0, 0]), rel=1e-9)
    assert got.df == expected.df_denom
    assert got.p == pytest.approx(float(expected.pvalue), rel=1e-6)
    low, high = expected.conf_int()[0]
    assert got.centre - got.half_width == pytest.approx(low, rel=1e-9)
    assert got.centre + got.half_width == pytest.approx(high, rel=1e-9)
    own = cells[0].series
    assert own.coefficient == pytest.approx(model.params[-1] if with_sentinel else 0, rel=1e-9)
    if with_sentinel:
        assert own.coefficient_error == pytest.approx(model.bse[-1], rel=1e-9)


def test_two_series_have_degrees_of_freedom_by_satterthwaite() -> None:
    one, other = a_series(2), a_series(3, noise=0.02)
    (ours, theirs) = fit_series([one, other])
    known = np.concatenate([np.log(case.sentinels) for case in (*one, *other)])
    parts = []
    for cases in (one, other):
        found = by_least_squares(cases, float(known.mean()), with_sentinel=True)
        at = found.t_test([0, 0, 1, 0, 0])
        parts.append((float(at.sd[0, 0]) ** 2, at.df_denom, float(at.effect[0])))
    got = contrast([(1.0, ours[2]), (-1.0, theirs[2])])
    assert got.centre == pytest.approx(parts[0][2] - parts[1][2], rel=1e-9)
    whole = parts[0][0] + parts[1][0]
    assert got.error == pytest.approx(math.sqrt(whole), rel=1e-9)
    df = whole**2 / sum(v**2 / df for v, df, _ in parts)
    assert got.df == math.floor(df)


# -- its interval --------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_exponents_and_ratios_are_covered(beta: float) -> None:
    slopes, ratios = [], []
    for seed in range(400):
        one, other = a_series(2 * seed, beta=beta), a_series(2 * seed + 1, beta=beta)
        ours, theirs = fit_series([one, other])
        slope, ratio = slope_of(LENGTHS, ours), ratio_of(ours[2], theirs[2])
        slopes.append(slope.low <= 1 <= slope.high)
        ratios.append(ratio.low <= 1 <= ratio.high)
    assert 0.92 <= np.mean(slopes) <= 0.98
    assert 0.92 <= np.mean(ratios) <= 0.98


def test_a_sentinel_narrows_what_follows_it_and_costs_little_where_nothing_does() -> None:
    def width(cases: Sequence[Launches]) -> float:
        (cells,) = fit_series([cases])
        found = slope_of(LENGTHS, cells)
        return found.high - found.low

    follows, alone = a_series(5, beta=1.0, noise=0.03), a_series(5, beta=0.0)
    for cases, most in ((follows, 0.4), (alone, 1.2)):
        without = [Launches.of(case.values) for case in cases]
        assert width(cases) < most * width(without)


# -- its edges -----------------------------------------------------------------------------------


def test_one_launch_has_a_value_and_no_interval() -> None:
    (cells,) = fit_series([[Launches.of([2.0]), Launches.of([8.0])]])
    for got, value in ((time_of(cells[0]), 2.0), (ratio_of(*cells[::-1]), 4.0)):
        assert got.value == pytest.approx(value)
        assert not got.has_interval
        assert got.reason == ONE_LAUNCH
    slope = slope_of((512, 1024), cells)
    assert slope.value == pytest.approx(2.0)
    assert (slope.has_interval, slope.reason) == (False, ONE_LAUNCH)
    crossed = crossover_of((512, 1024), cells, steady([3.0, 3.0]))
    assert (crossed.has_interval, crossed.is_always) == (False, False)
    assert not is_less(cells[0], cells[1])


def test_one_launch_of_a_length_has_the_scatter_of_the_others() -> None:
    (cells,) = fit_series([[Launches.of([1.0, 1.1, 0.9]), Launches.of([2.0])]])
    assert time_of(cells[1]).has_interval
    wider = [contrast([(1.0, cell)]).error for cell in cells]
    assert wider[1] == pytest.approx(math.sqrt(3) * wider[0])


def test_equal_launches_have_an_interval_of_no_width() -> None:
    (cells,) = fit_series([[Launches.of([3.0] * 3), Launches.of([6.0] * 3)]])
    assert time_of(cells[0])[:3] == pytest.approx((3.0, 3.0, 3.0))
    assert ratio_of(cells[1], cells[0])[:3] == pytest.approx((2.0, 2.0, 2.0))
    assert slope_of((512, 1024), cells)[:3] == pytest.approx((1.0, 1.0, 1.0))
    assert is_less(cells[0], cells[1])


def test_equal_launches_among_others_have_the_usual_scatter() -> None:
    others = [[Launches.of(np.exp(0.05 * np.random.default_rng(i).standard_normal(5)))]
              for i in range(8)]  # fmt: skip
    *_, (exact,) = fit_series([*others, [Launches.of([1.0] * 5)]])
    assert math.sqrt(exact.series.variance) == pytest.approx(0.05, rel=0.4)


def unused(cells: Sequence[Cell]) -> bool:
    """Whether a series leaves its sentinel aside."""
    own = cells[0].series
    return not own.uses_sentinel and own.coefficient == 0 and all(c.offset == 0 for c in cells)


def test_a_sentinel_that_a_launch_lacks_or_that_stands_still_is_left_aside() -> None:
    cases = a_series(7)
    lacking = [case.sentinels.copy() for case in cases]
    lacking[2][1] = math.nan
    still: list[Array] = [np.full(len(case.values), 4e-3) for case in cases]
    plain = fit_series([[Launches.of(case.values) for case in cases]])[0]
    for sentinels in (lacking, still):
        pairs = zip(cases, sentinels, strict=True)
        (cells,) = fit_series([[Launches.of(case.values, z) for case, z in pairs]])
        assert unused(cells)
        assert [c.log_value for c in cells] == pytest.approx([c.log_value for c in plain])
        assert cells[0].series.df == sum(COUNTS) - len(COUNTS)


def test_too_few_launches_leave_the_sentinel_aside() -> None:
    two = [Launches.of([1.0, 1.1], [1.0, 1.2]), Launches.of([2.0, 2.1], [1.0, 1.1])]
    assert unused(fit_series([two])[0])
    assert not unused(fit_series([[*two, Launches.of([4.0, 4.4], [1.1, 1.2])]])[0])


def test_one_length_has_a_time_and_no_slope() -> None:
    cells = steady([2.0])
    assert time_of(cells[0]).has_interval
    with pytest.raises(ValueError, match="lengths"):
        slope_of((512,), cells)


def test_huge_and_tiny_values_stay_finite() -> None:
    (cells,) = fit_series([[Launches.of([1e-300, 1e300]), Launches.of([1e300, 1e-300, 1e300])]])
    for got in (time_of(cells[0]), ratio_of(cells[1], cells[0])):
        assert 0 <= got.low <= got.high
        assert math.isfinite(got.value)


@pytest.mark.parametrize("bad", [[], [0.0, 1.0], [-1.0], [math.inf], [math.nan]])
def test_launches_that_have_no_logarithm_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="values: expected positive finite numbers"):
        Launches.of(bad)


def test_there_is_one_sentinel_a_launch() -> None:
    with pytest.raises(ValueError, match="sentinels: expected 2, one a launch, got 1"):
        Launches.of([1.0, 2.0], [1.0])


# -- crossovers ----------------------------------------------------------------------------------


def test_a_crossover_is_where_the_interpolated_difference_is_zero() -> None:
    linear = steady([1e-6 * n for n in LENGTHS])
    square = steady([1e-9 * n**2 for n in LENGTHS])
    found = crossover_of(LENGTHS, linear, square)
    assert found.at == pytest.approx(1000, rel=1e-6)
    assert found.low < found.at < found.high
    assert found.has_interval
    assert not found.is_always


@pytest.mark.parametrize("sentinel", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_ends_of_a_crossover_are_where_the_lead_is_not_told_from_zero(
    seed: int, sentinel: bool
) -> None:
    rng = np.random.default_rng(seed)
    series = []
    for power in (1.0, 2.0):
        cases = []
        for n in LENGTHS:
            machine = 0.1 * rng.standard_normal(int(rng.integers(2, 6)))
            logs = power * math.log(n / 1300) + machine + 0.05 * rng.standard_normal(len(machine))
            cases.append(Launches.of(np.exp(logs), np.exp(machine) if sentinel else None))
        series.append(cases)
    ours, theirs = fit_series(series)
    found = crossover_of(LENGTHS, ours, theirs)
    assert found.has_interval
    assert LENGTHS[0] < found.low < found.at < found.high < LENGTHS[-1]
    for end, sign in ((found.low, -1), (found.high, 1)):
        lead = lead_between(LENGTHS, ours, theirs, end)
        assert sign * lead.centre > lead.half_width
        inside = lead_between(LENGTHS, ours, theirs, end * 1.02**-sign)
        assert sign * inside.centre < inside.half_width


def test_crossovers_at_no_length_at_every_one_and_open_above() -> None:
    flat = [1.0] * 4
    never = crossover_of(LENGTHS, steady([2.0] * 4), steady(flat))
    assert math.isnan(never.at)
    assert math.isnan(never.high)
    assert (never.low, never.is_always) == (4096, False)
    always = crossover_of(LENGTHS, steady([0.5] * 4), steady(flat))
    assert (always.at, always.low, always.high, always.is_always) == (512, 512, 512, True)
    not_surely = crossover_of(LENGTHS, steady([2.0, 1.5, 1.2, 0.999]), steady(flat))
    assert 2048 < not_surely.at < 4096
    assert math.isnan(not_surely.high)
    assert not_surely.low < not_surely.at
