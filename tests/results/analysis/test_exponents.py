"""Exponents of time: known laws are found, beside the operations that are declared."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import synthetic

import results
from results.analysis.exponents import COLUMNS, fit_all, scaling_table
from results.analysis.roofline import Roofs
from results.analysis.series import points
from results.records.load import load

REFERENCE = Path(results.__file__).parent / "reference"


def test_the_table_finds_the_laws_of_a_run(tmp_path: Path) -> None:
    table = scaling_table(load(synthetic.write_run(tmp_path)))
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 7 * 2 * 2
    by = table.set_index(["backend", "mode", "metric"])
    for backend, law in synthetic.SEVEN.items():
        if backend == "xformers":
            continue
        for mode in ("forward", "training"):
            time, memory = by.loc[backend, mode, "latency"], by.loc[backend, mode, "peak_memory"]
            assert time["exponent"] == pytest.approx(law.exponent, abs=0.05)
            assert time["ci_low"] <= time["exponent"] <= time["ci_high"]
            assert time["expected"] == pytest.approx(law.exponent, abs=1e-3)  # whole operations
            assert time["num_lengths"] == (5 if backend == "full" else 6)
            assert time["local_low"] <= time["local"] <= time["local_high"]
            assert time["local"] == pytest.approx(law.exponent, abs=0.1)
            assert memory["exponent"] == pytest.approx(law.memory[1], abs=0.01)
    assert by.loc["full", "forward", "latency"]["seq_len_max"] == 8192
    gone = by.loc["xformers", "forward", "latency"]
    assert math.isnan(gone["exponent"])
    assert gone["reason"] == "nothing was measured (unsupported)"


def test_latencies_near_an_empty_case_do_not_count(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1e-8, 1.0)}
    roof = {**synthetic.ROOF, "empty_latency": 1e-6}  # 20 × that is reached at 2000 tokens
    table = scaling_table(load(synthetic.write_run(tmp_path, laws, roof=roof)))
    by = table.set_index(["mode", "metric"])
    assert by.loc["forward", "latency"]["seq_len_min"] == 2048
    assert by.loc["forward", "peak_memory"]["seq_len_min"] == 512


def test_nothing_above_an_empty_case_is_said(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1e-8, 1.0)}
    roof = {**synthetic.ROOF, "empty_latency": 1.0}
    table = scaling_table(load(synthetic.write_run(tmp_path, laws, roof=roof)))
    row = table[table["metric"] == "latency"].iloc[0]
    assert math.isnan(row["exponent"])
    assert "below 20 × an empty call" in row["reason"]


def test_it_is_held_against_the_operations_over_the_same_lengths(tmp_path: Path) -> None:
    laws = {"linformer": synthetic.Law(1e-6, 1.6, ops_exponent=1.6)}
    table = scaling_table(load(synthetic.write_run(tmp_path, laws, modes=("forward",))))
    row = table.set_index("metric").loc["latency"]
    assert row["expected"] == pytest.approx(1.6, abs=1e-3)  # though 2 is declared
    assert row["ci_low"] <= 1.6 <= row["ci_high"]


def test_without_operations_it_is_held_against_the_declared_exponent(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1e-6, 1.0)}
    run = load(synthetic.write_run(tmp_path, laws, modes=("decode",)))
    row = fit_all(points(run), Roofs(run)).set_index("metric").loc["latency"]
    assert (row["expected"], row["by_operations"]) == (1.0, False)


def test_two_lengths_give_a_slope_with_an_interval_but_no_local_one(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1e-6, 1.0)}
    folder = synthetic.write_run(tmp_path, laws, lengths=(512, 1024), modes=("forward",))
    row = scaling_table(load(folder)).set_index("metric").loc["latency"]
    assert row["ci_low"] < 1.0 < row["ci_high"]
    assert row["num_lengths"] == 2
    assert math.isnan(row["local"])


def test_one_length_and_one_launch_are_said(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1e-6, 1.0)}
    shape = {"laws": laws, "modes": ("forward",)}
    one = synthetic.write_run(tmp_path / "1", lengths=(512,), **shape)
    row = scaling_table(load(one)).set_index("metric").loc["latency"]
    assert math.isnan(row["exponent"])
    assert row["reason"] == "one length (512): no slope"
    once = synthetic.write_run(tmp_path / "2", launches=1, **shape)
    row = scaling_table(load(once)).set_index("metric").loc["latency"]
    assert row["exponent"] == pytest.approx(1, abs=0.05)
    assert math.isnan(row["ci_low"])
    assert row["reason"] == "one process: no interval"


def test_a_sentinel_narrows_what_the_machine_scattered(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1e-6, 1.0), "performer": synthetic.Law(1e-6, 1.0)}
    folder = synthetic.write_run(tmp_path, laws, launches=5, noise=0.2, modes=("forward",))
    before = scaling_table(load(folder)).query("metric == 'latency'")
    records = synthetic.read_records(folder)
    for record in records:
        if record["case"]["kind"] == "speed":
            latency = record["arms"][0]["metrics"]["latency"]
            speed = np.median(latency["samples"]) / (1e-6 * record["case"]["seq_len"])
            latency["sentinel"] = [4e-3 * float(speed)] * 3
    after = scaling_table(load(synthetic.write_records(folder, records)))
    after = after.query("metric == 'latency'")
    assert (before["ci_high"] - before["ci_low"]).min() > 0.09
    assert (after["ci_high"] - after["ci_low"]).max() < 1e-3


@pytest.mark.parametrize("name", ["epyc-2-cores/speed", "epyc-2-cores/scaling"])
def test_shipped_runs_tell_every_exponent_of_time(name: str) -> None:
    table = scaling_table(load(REFERENCE / name)).query("metric == 'latency'")
    table = table[table["seq_len_min"].notna()]
    half = (table["ci_high"] - table["ci_low"]) / 2
    assert len(half) == (12 if name == "epyc-2-cores/speed" else 6)
    assert half.max() < 0.1


def test_machines_are_told_apart(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.SEVEN["sdpa"]}
    one = synthetic.write_run(tmp_path / "1", laws)
    two = synthetic.write_run(tmp_path / "2", laws, machine={"cpu": "other"}, run="run-2")
    table = scaling_table(load(one, two))
    assert list(table.columns) == [*COLUMNS, "machine", "environment"]
    assert len(table) == 8
