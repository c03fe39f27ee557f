"""Exponents: known laws are found, intervals cover them, and short of data nothing is claimed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import synthetic

from results.analysis.exponents import COLUMNS, asymptotic, scaling_table
from results.records.load import load


def test_the_asymptotic_part_begins_where_the_cost_grows_as_declared() -> None:
    window = 1000
    costs = [n * min(n, window) for n in (256, 512, 1024, 2048, 4096)]
    assert asymptotic((256, 512, 1024, 2048, 4096), costs, 1.0) == (2, "")
    start, reason = asymptotic((256, 512), costs[:2], 1.0)
    assert start == 1
    assert "exponent 2.00 there, declared is 1" in reason
    assert asymptotic((256, 512), [math.nan, math.nan], 1.0) == (0, "")


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
            assert time["expected"] == law.exponent
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
    assert "below 20 × an empty case" in row["reason"]


def test_a_cost_that_is_not_asymptotic_gives_no_exponent(tmp_path: Path) -> None:
    laws = {"linformer": synthetic.Law(1e-6, 1.0, ops_exponent=1.6)}
    table = scaling_table(load(synthetic.write_run(tmp_path, laws)))
    times = table[table["metric"] == "latency"]
    assert times["exponent"].isna().all()
    assert times["reason"].str.startswith("not asymptotic up to 16384").all()


def test_machines_are_told_apart(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.SEVEN["sdpa"]}
    one = synthetic.write_run(tmp_path / "1", laws)
    two = synthetic.write_run(tmp_path / "2", laws, machine={"cpu": "other"}, run="run-2")
    table = scaling_table(load(one, two))
    assert list(table.columns) == [*COLUMNS, "machine", "environment"]
    assert len(table) == 8
