"""Two runs by the one model of launches: what the sentinel takes off, and what is left of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from results.comparison.backend_changes import Member, backend_changes
from results.comparison.changes import Change, Comparison
from results.comparison.compare import compare
from results.comparison.fitting import Fitted, Sides, fit
from results.comparison.judging import judge
from results.comparison.pairing import Side
from results.records.load import load
from results.schema import RECORDS
from results.statistics.inference import Difference, between_runs, beyond_launches
from results.statistics.intervals import Array
from results.statistics.launches import Launches

SERIES, LENGTHS, LAUNCHES = 6, 8, 5
FOLLOWS = np.array([1.0, 1.0, 0.8, 0.4, 1.0, 0.8])
"""How far each series follows the machine."""


def a_table(
    rng: np.random.Generator, *, noise: float, machine: float, moved: float = 0.0
) -> tuple[Array, Array]:
    """Return logs of two runs and of their sentinels, each [series, length, run, launch].

    Cases scatter by `noise` times what differs between them (6 degrees of freedom), and follow
    the machine, which scatters between launches and is slower in the second run.
    """
    shape = (SERIES, LENGTHS, 2, LAUNCHES)
    own = noise * np.sqrt(6 / rng.chisquare(6, (SERIES, LENGTHS, 1, 1)))
    z = machine * rng.standard_normal(shape)
    y = own * rng.standard_normal(shape) + FOLLOWS[:, None, None, None] * z
    z = z + 0.1 * machine * rng.standard_normal(shape)
    later = np.array([0.0, moved])[:, None]
    return y + later, z + later


def fitted(y: Array, z: Array | None) -> list[list[Fitted]]:
    """Fit the model to a table, with its sentinels or without."""
    beside = np.full(y.shape, math.nan) if z is None else np.exp(z)
    series: list[list[Sides]] = [
        [(Launches(np.exp(y[s, n, 0]), beside[s, n, 0]),
          Launches(np.exp(y[s, n, 1]), beside[s, n, 1])) for n in range(LENGTHS)]
        for s in range(SERIES)
    ]  # fmt: skip
    return fit(series)


# -- one table -----------------------------------------------------------------------------------


def test_a_change_is_a_contrast_of_two_cells_and_series_share_their_scatter() -> None:
    y, _ = a_table(np.random.default_rng(1), noise=0.05, machine=0.0)
    for cases, logs in zip(fitted(y, None), y, strict=True):
        left = logs - logs.mean(axis=-1, keepdims=True)
        df = LENGTHS * 2 * (LAUNCHES - 1)
        own = math.sqrt(float((left**2).sum()) / df * 2 / LAUNCHES)
        for case, (base, new) in zip(cases, logs, strict=True):
            assert case.difference.centre == pytest.approx(new.mean() - base.mean())
            assert case.difference.error >= own * (1 - 1e-9)  # or what is usual, or the case's
            assert case.taken == 0


def test_a_case_that_scatters_more_than_its_series_keeps_its_own() -> None:
    y, z = a_table(np.random.default_rng(2), noise=0.02, machine=0.1)
    y[3, 4, 1] += [0.8, -0.8, 0.8, -0.8, 0.0]
    wild = fitted(y, z)[3][4]
    (others,) = {c.difference.error for c in fitted(y, z)[3][:1]}
    left = y[3, 4] - wild.taken * z[3, 4]
    squares = ((left - left.mean(axis=1, keepdims=True)) ** 2).sum()
    assert wild.difference.error == pytest.approx(math.sqrt(squares / 8 * 2 / 5))
    assert wild.difference.df == 8
    assert wild.difference.error > 2 * others


def test_the_machines_change_counts_once() -> None:
    """What the model leaves of it, (1 - β) · M, and what it took off are the whole of it."""
    y, z = a_table(np.random.default_rng(3), noise=0.01, machine=0.1, moved=0.3)
    moved = float(z[:, :, 1].mean() - z[:, :, 0].mean())
    for cases, follows in zip(fitted(y, z), FOLLOWS, strict=True):
        for case in cases:
            assert case.taken == pytest.approx(follows, abs=0.1)
            left = case.difference.centre - (1 - case.taken) * moved
            assert left == pytest.approx(0.3 - moved, abs=0.1)
    members = [
        Member("m", f"b{i}", "forward", case.difference, taken=case.taken)
        for i, cases in enumerate(fitted(y, z)[2:4]) for case in cases
    ]  # fmt: skip
    sentinel = {"m": Difference(moved, 0.005, 100)}
    found = backend_changes(members, sentinels=sentinel, threshold=lambda backend: 0.03)
    for change in found:
        assert change.apart.value == pytest.approx(1.0, abs=0.04)
        assert change.verdict not in ("worse", "better")


def test_two_machines_are_compared_as_they_are() -> None:
    y, z = a_table(np.random.default_rng(4), noise=0.02, machine=0.1)
    z[:, :, 1] += 0.7  # the other one is half as fast, and so is each of its times
    y[:, :, 1] += 0.7
    series: list[list[Sides]] = [
        [(Launches(np.exp(y[s, n, 0]), np.exp(z[s, n, 0])),
          Launches(np.exp(y[s, n, 1]), np.exp(z[s, n, 1]))) for n in range(LENGTHS)]
        for s in range(SERIES)
    ]  # fmt: skip
    for cases in fit(series, is_alike=False):
        for case in cases:
            assert case.difference.centre == pytest.approx(0.7, abs=0.1)
            assert case.taken == 0
            assert case.new.series.uses_sentinel  # against the noise between launches


def called(y: Array, z: Array | None, moved: float) -> tuple[int, bool]:
    """Return how many unchanged cases are called slower, and whether the one that is, is."""
    every = [case for cases in fitted(y, z) for case in cases]
    beyond = beyond_launches([case.difference for case in every])
    changes = []
    for i, case in enumerate(every):
        found = between_runs(case.difference, beyond, (1 - case.taken) * moved)
        changes.append(
            Change("m", str(i), 0, str(i), Side(), Side(), ratio=found.ratio, p=found.p)
        )
    worse = [change.case_id for change in judge(changes, 0.01) if change.verdict == "worse"]
    return sum(case != "0" for case in worse), "0" in worse


@pytest.mark.parametrize(
    ("machine", "moved", "least", "without"),
    [(0.12, 0.0, 14, 8), (0.12, math.log(1.1), 10, 2)],
)
def test_false_alarms_are_rare_and_a_sentinel_adds_power(
    machine: float, moved: float, least: int, without: int
) -> None:
    """Of 20 tables of 48 cases: one case slower by 30 %, launches that scatter by 13 %."""
    rng = np.random.default_rng(5)
    alarms = found = found_without = 0
    for _ in range(20):
        y, z = a_table(rng, noise=0.05, machine=machine, moved=moved)
        y[0, 0, 1] += math.log(1.3)
        of_sentinel = float(z[:, :, 1].mean() - z[:, :, 0].mean())
        wrong, is_found = called(y, z, of_sentinel)
        alarms, found = alarms + wrong, found + is_found
        wrong, is_found = called(y, None, of_sentinel)
        alarms, found_without = alarms + wrong, found_without + is_found
    assert alarms <= 2  # of 1,880
    assert found >= least
    assert found_without <= without


# -- whole runs ----------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "lengths": (512, 1024, 2048), "modes": ("forward",), "roof": None, "launches": 5,
    "noise": 0.01, "sample_noise": 0.001,
}  # fmt: skip
LAWS = {n: synthetic.SEVEN[n] for n in ("sdpa", "longformer", "bigbird", "performer", "linformer")}


def on_a_machine(folder: Path, seed: int, moved: float = 1.0, noise: float = 0.15) -> Path:
    """Let a run's launches follow a machine that is slower by a factor, and scatters."""
    rng = np.random.default_rng(seed)
    records = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
    for record in records:
        speed = moved * math.exp(noise * rng.standard_normal())
        for arm in record["arms"]:
            times = arm["metrics"]["latency"]
            times["samples"] = [speed * t for t in times["samples"]]
            times["sentinel"] = [4e-3 * speed] * 3
    (folder / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def both(
    tmp_path: Path, laws: Mapping[str, synthetic.Law], moved: float, **other: Any
) -> Comparison:
    base = on_a_machine(synthetic.write_run(tmp_path / "a", LAWS, **SMALL), 1)
    new = synthetic.write_run(tmp_path / "b", laws, **SMALL, seed=2, run="r2", **other)
    return compare(load(base), load(on_a_machine(new, 2, moved)))


def test_a_slower_machine_hides_no_slower_case(tmp_path: Path) -> None:
    sdpa = LAWS["sdpa"]
    laws = {**LAWS, "sdpa": replace(sdpa, coefficient=1.2 * sdpa.coefficient)}
    got = both(tmp_path, laws, 1.3)
    assert {c.name for c in got.regressions} == {
        f"sdpa forward N={n}" for n in SMALL["lengths"]
    }  # fmt: skip
    (note,) = (n for n in got.notes if "the control benchmark" in n)
    assert note.endswith("every interval allows for it; times are given at its mean speed")
    for change in got.changes:
        base, new = change.values
        assert change.ratio.value == pytest.approx(new.value / base.value)
        raw = np.mean(np.log(change.new.launches)) - np.mean(np.log(change.base.launches))
        assert change.ratio.value != pytest.approx(math.exp(raw), rel=0.02)
    quiet = {b.name: b.verdict for b in got.backends if b.backend not in ("sdpa", "every backend")}
    assert set(quiet.values()) <= {"no change", "inconclusive"}


def test_settings_have_a_mean_speed_each(tmp_path: Path) -> None:
    """On four threads the sentinel takes half as long: that says nothing of the machine."""
    folders = {}
    for name, seed in (("a", 1), ("b", 2)):
        for threads, factor in ((2, 1.0), (4, 0.5)):
            run = synthetic.write_run(
                tmp_path / f"{name}{threads}", LAWS, **SMALL, seed=seed, run=f"{name}{threads}",
                case={"threads": threads},
            )  # fmt: skip
            folders[name, threads] = on_a_machine(run, seed + threads)
            records = [json.loads(line) for line in (run / RECORDS).read_text().splitlines()]
            for record in records:
                times = record["arms"][0]["metrics"]["latency"]
                times["sentinel"] = [factor * t for t in times["sentinel"]]
            (run / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    got = compare(*(load(folders[name, 2], folders[name, 4]) for name in "ab"))
    assert len(got.changes) == 30
    for change in got.changes:
        raw = math.exp(np.mean(np.log(change.base.launches)))
        assert change.values[0].value == pytest.approx(raw, rel=0.2)


def test_memory_has_no_sentinel(tmp_path: Path) -> None:
    got = both(tmp_path, LAWS, 1.3)
    base, new = (load(tmp_path / name) for name in "ab")
    memory = compare(base, new, metric="peak_memory")
    assert all(c.cells is None or not c.cells[0].series.uses_sentinel for c in memory.changes)
    assert got.changes[0].cells is not None
    assert got.changes[0].cells[0].series.uses_sentinel


@pytest.mark.parametrize(
    "other",
    [
        {"machine": {**synthetic.MACHINE, "cpu": "Another CPU"}},
        {"environment": {**synthetic.ENVIRONMENT, "torch": "9"}},
    ],
    ids=["another machine", "another torch"],
)
def test_sentinels_that_do_not_compare_leave_the_ratio_of_the_times(
    tmp_path: Path, other: Mapping[str, Any]
) -> None:
    got = both(tmp_path, LAWS, 2.0, **other)
    assert not any("mean speed" in note for note in got.notes)
    for change in got.changes:
        assert change.ratio.value == pytest.approx(2.0, rel=0.15)
    assert got.regressions == []
