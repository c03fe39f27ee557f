"""Crossovers, speed-ups, reach and limits: the known ones of synthetic runs are found."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import synthetic

from results.analysis.analysis import Analysis
from results.analysis.crossovers import (
    CROSSOVER_COLUMNS,
    Curve,
    against,
    crossover,
    crossover_table,
    feasible,
    speedups,
)
from results.analysis.series import points
from results.records.load import load
from results.statistics.crossover import GRID
from results.statistics.launches import Launches, fit_series

LENGTHS = (512, 1024, 2048, 4096)


def pair(
    own: Callable[[float], float],
    other: Callable[[float], float],
    *,
    lengths: Sequence[int] = LENGTHS,
    noise: float = 0.0,
    launches: int = 3,
    seed: int = 0,
) -> list[Curve]:
    """Return two series whose launches scatter by `noise` about their laws."""
    rng = np.random.default_rng(seed)
    fitted = fit_series(
        [[Launches.of(law(n) * np.exp(noise * rng.standard_normal(launches))) for n in lengths]
         for law in (own, other)]
    )  # fmt: skip
    return [{n: {"cell": c} for n, c in zip(lengths, cells, strict=True)} for cells in fitted]


def linear(n: float) -> float:
    return 1300.0 * n


def quadratic(n: float) -> float:
    return n**2


def test_a_crossover_between_lengths_is_found_exactly() -> None:
    got = crossover(*pair(linear, quadratic))
    assert got.value == pytest.approx(1300.0, rel=1e-9)
    # With no noise the ends are the places of the grid beside it.
    assert 1300 * 2 ** (-1 / GRID) <= got.low <= 1300 <= got.high <= 1300 * 2 ** (1 / GRID)


@pytest.mark.parametrize("noise", [0.03, 0.15])
def test_its_interval_covers_the_truth(noise: float) -> None:
    hits = []
    for seed in range(200):
        got = crossover(*pair(linear, quadratic, noise=noise, seed=seed))
        hits.append(not got.low > 1300 and not got.high < 1300)
    assert np.mean(hits) >= 0.92  # of a true 95 %, 200 stay above 0.915


def test_never_faster_says_what_was_tried() -> None:
    got = crossover(*pair(lambda n: 9 * n**2, quadratic), name="sdpa")
    assert math.isnan(got.value)
    assert got.reason == "not reached, tried 512 to 4096: 9.00 × slower than sdpa at the longest"


def test_always_faster_is_the_shortest_length_and_says_so() -> None:
    got = crossover(*pair(lambda n: n, quadratic))
    assert got[:3] == (512, 512, 512)
    assert "faster at every length tried (512 to 4096)" in got.reason


def test_faster_only_in_the_middle_is_not_reached() -> None:
    own, other = {512: 1.0, 1024: 1.0, 2048: 3.0}, {512: 0.5, 1024: 2.0, 2048: 2.0}
    got = crossover(*pair(own.__getitem__, other.__getitem__, lengths=(512, 1024, 2048)))
    assert math.isnan(got.value)


def test_one_launch_gives_no_interval() -> None:
    got = crossover(*pair(linear, quadratic, launches=1))
    assert got.value == pytest.approx(1300.0)
    assert math.isnan(got.low)
    assert got.reason == "one process: no interval"


def test_an_interval_beyond_the_lengths_is_open() -> None:
    got = crossover(*pair(lambda n: 3900 * n, quadratic, noise=0.1, seed=1))
    assert got.value > 2048
    assert math.isnan(got.high)
    assert got.reason == "open above: not measurably faster at the longest length"


def test_no_common_length_is_said() -> None:
    own, other = pair(quadratic, quadratic)
    assert "no length was measured for both" in crossover({1: own[512]}, other).reason
    assert "one length tried: 512 " in crossover({512: own[512]}, other).reason


def test_the_table_holds_the_known_crossovers(tmp_path: Path) -> None:
    table = crossover_table(load(synthetic.write_run(tmp_path)))
    assert list(table.columns) == list(CROSSOVER_COLUMNS)
    forward = table[table["mode"] == "forward"].set_index(["backend", "baseline"])
    sdpa = synthetic.SEVEN["sdpa"].coefficient
    for backend in ("longformer", "bigbird", "linformer", "performer"):
        row = forward.loc[backend, "sdpa"]
        truth = synthetic.SEVEN[backend].coefficient / sdpa
        assert row["ci_low"] <= truth <= row["ci_high"]
        assert row["seq_len"] == pytest.approx(truth, rel=0.08)
        assert forward.loc[backend, "full"]["seq_len"] == 512
    assert forward.loc["full", "sdpa"]["reason"].startswith("not reached, tried 512 to 8192")
    assert forward.loc["xformers", "sdpa"]["reason"] == "nothing was measured"
    assert ("sdpa", "sdpa") not in forward.index


def test_the_best_variant_of_a_baseline_counts(tmp_path: Path) -> None:
    laws = {
        "slow": synthetic.Law(1e-7, 2.0, name="sdpa", options={"kernel": "math"}),
        "fast": synthetic.Law(1e-8, 2.0, name="sdpa"),
        "performer": synthetic.Law(1.3e-5, 1.0),
    }
    table = crossover_table(load(synthetic.write_run(tmp_path, laws, noise=0.0)))
    row = table[(table["backend"] == "performer") & (table["baseline"] == "sdpa")].iloc[0]
    assert row["seq_len"] == pytest.approx(1300, rel=0.02)


def test_settings_are_never_mixed(tmp_path: Path) -> None:
    sdpa = synthetic.write_run(tmp_path / "1", {"sdpa": synthetic.SEVEN["sdpa"]})
    other = synthetic.write_run(
        tmp_path / "2", {"performer": synthetic.SEVEN["performer"]}, case={"threads": 1}
    )
    table = crossover_table(load(sdpa, other))
    against = table[(table["backend"] == "performer") & (table["baseline"] == "sdpa")]
    assert against["seq_len"].isna().all()
    assert (against["reason"] == "sdpa was not measured in this setting").all()


def test_speedups_are_the_ratios_of_the_laws(tmp_path: Path) -> None:
    table = speedups(against(points(load(synthetic.write_run(tmp_path, noise=0.01)))))
    row = table[
        (table["backend"] == "linformer") & (table["mode"] == "forward")
        & (table["baseline"] == "sdpa") & (table["seq_len"] == 8192)
    ].iloc[0]  # fmt: skip
    truth = 1.32e-8 * 8192 / 7.5e-6
    assert row["value"] == pytest.approx(truth, rel=0.05)
    assert row["ci_low"] < truth < row["ci_high"]


def test_reach_tells_what_stopped_each_backend(tmp_path: Path) -> None:
    reach = feasible(points(load(synthetic.write_run(tmp_path))))
    by = reach[reach["mode"] == "forward"].set_index("backend")
    assert tuple(by.loc["full"][["seq_len", "next_len", "status"]]) == (
        8192,
        16384,
        "out_of_memory",
    )
    assert by.loc["sdpa"]["seq_len"] == 16384
    assert by["next_len"].isna()["sdpa"]
    assert by["seq_len"].isna()["xformers"]
    assert by.loc["xformers"]["reason"] == "xformers needs CUDA"


def test_one_failed_launch_of_three_is_a_remark(tmp_path: Path) -> None:
    good = synthetic.write_run(tmp_path / "1", {"sdpa": synthetic.SEVEN["sdpa"]}, launches=2)
    law = dataclasses.replace(
        synthetic.SEVEN["sdpa"], fails=dict.fromkeys(synthetic.LENGTHS, ("timeout", "60 s"))
    )
    bad = synthetic.write_run(tmp_path / "2", {"sdpa": law}, launches=1, run="run-2")
    table = points(load(good, bad))
    assert (table["status"] == "ok").all()
    assert (table["reason"] == "1 of 3 processes: timeout (60 s)").all()


def test_the_limit_of_a_cpu_adds_products_and_exponentials(tmp_path: Path) -> None:
    run = load(synthetic.write_run(tmp_path, noise=0.0, sample_noise=0.0))
    table = Analysis(run).limits
    row = table[
        (table["backend"] == "sdpa") & (table["mode"] == "forward") & (table["seq_len"] == 4096)
    ].iloc[0]
    roof = synthetic.ROOF
    limit = row["pattern_ops"] / roof["matmul_rate"] + row["exponentials"] / roof["exp_rate"]
    assert row["limit"] == pytest.approx(limit)
    assert row["bound"] == "products"
    assert row["fraction_of_limit"] == pytest.approx(limit / row["value"])
    assert row["tile_efficiency"] == pytest.approx(0.8)
    assert row["tile_efficiency"] * row["kernel_efficiency"] == pytest.approx(
        row["fraction_of_limit"]
    )


def test_the_limit_of_a_gpu_is_the_largest_roof(tmp_path: Path) -> None:
    run = load(synthetic.write_run(tmp_path, noise=0.0, case={"device": "cuda"}))
    row = Analysis(run).limits.iloc[0]
    parts = (
        row["pattern_ops"] / synthetic.ROOF["matmul_rate"],
        row["exponentials"] / synthetic.ROOF["exp_rate"],
        row["bytes"] / synthetic.ROOF["bandwidth"],
    )
    assert row["limit"] == pytest.approx(max(parts))


def test_without_roofs_there_is_no_limit_but_a_reason(tmp_path: Path) -> None:
    run = load(synthetic.write_run(tmp_path, roof=None))
    table = Analysis(run).limits
    assert table["limit"].isna().all()
    assert table["limit_reason"].str.startswith("no peak measured").all()
