"""Tables, merge: what leaves the house."""

from __future__ import annotations

import io
import json
import re
import statistics
from pathlib import Path

import pandas as pd
import pytest
import synthetic
import synthetic_quality

from results.analysis.series import points
from results.export.launches import LAUNCH_TABLE
from results.export.tables import CASE_TABLE, ENVIRONMENT, FORMATS, TABLES, cases, export_table
from results.records.csv_text import csv_text
from results.records.load import NoRunError, load
from results.records.merge import merge
from results.schema import RECORDS

DOCUMENTED = (
    "backend", "options", "level", "mode", "device", "dtype", "batch", "num_heads", "head_dim",
    "seq_len", "is_causal", "metric", "value", "unit", "ci_low", "ci_high", "num_samples",
    "status", "reason",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_run(tmp_path_factory.mktemp("run"), lengths=(512, 1024, 2048, 16384))


def test_cases_has_the_documented_columns_then_the_environment(folder: Path) -> None:
    table = cases(load(folder))
    assert tuple(table.columns[:19]) == DOCUMENTED == CASE_TABLE
    row = table.iloc[0]
    assert (row["cpu"], row["torch"], row["flags"]) == (
        "Example CPU 2.5 GHz", "2.13.0", "avx2 avx512f",
    )  # fmt: skip
    assert not table.duplicated(["case_id", "backend", "metric", "machine", "environment"]).any()


def test_cases_has_measured_and_derived_metrics(folder: Path) -> None:
    table = cases(load(folder))
    one = table[
        (table["backend"] == "sdpa") & (table["mode"] == "forward") & (table["seq_len"] == 1024)
    ].set_index("metric")
    assert list(one.index) == [
        "latency", "peak_memory", "relative_error", "throughput", "pattern_ops", "executed_ops",
        "exponentials", "bytes", "achieved_rate", "fraction_of_limit", "tile_efficiency",
        "kernel_efficiency",
    ]  # fmt: skip
    latency = one.loc["latency"]
    assert latency["num_samples"] == 21
    assert latency["num_launches"] == 3
    assert latency["ci_low"] < latency["value"] < latency["ci_high"]
    speed = one.loc["throughput"]
    assert speed["value"] == pytest.approx(1024 / latency["value"])
    assert speed["ci_high"] == pytest.approx(1024 / latency["ci_low"])
    assert one.loc["achieved_rate"]["value"] == pytest.approx(
        one.loc["executed_ops"]["value"] / latency["value"]
    )


def test_times_are_those_of_the_report(folder: Path) -> None:
    run = load(folder)
    keys, numbers = ["backend", "mode", "seq_len"], ["value", "ci_low", "ci_high"]
    exported, shown = (
        table[(table["metric"] == "latency") & (table["value"] > 0)].set_index(keys)[numbers]
        for table in (cases(run), points(run))
    )
    pd.testing.assert_frame_equal(
        exported.sort_index(), shown.sort_index(), check_index_type=False
    )


def test_a_failed_case_stands_in_the_table(folder: Path) -> None:
    table = cases(load(folder))
    failed = table[(table["backend"] == "full") & (table["seq_len"] == 16384)]
    assert set(failed["metric"]) == {"latency", "peak_memory"}
    assert (failed["status"] == "out_of_memory").all()
    assert failed["value"].isna().all()
    assert failed["reason"].str.contains("allocate").all()


@pytest.mark.parametrize("table", TABLES)
def test_all_formats_hold_the_same_table(folder: Path, tmp_path: Path, table: str) -> None:
    made = folder
    if table == "peers":
        made = synthetic.write_peer_run(tmp_path / "peers")
    elif table in ("tasks", "errors", "quantized"):
        made = synthetic_quality.write_quality(tmp_path / table, synthetic_quality.few())
    elif table == "claims":
        made = synthetic_quality.write_quality(tmp_path / table, synthetic_quality.claim_records())
    elif table == "context":
        records = synthetic_quality.context_records({"sdpa": lambda ranks, n: (n / ranks, n)})
        made = synthetic_quality.write_quality(tmp_path / table, records)
    run = load(made)
    csv, text = export_table(run, table, "csv"), export_table(run, table, "json")
    assert csv is not None
    assert text is not None
    assert export_table(run, table, "parquet", tmp_path / "t.parquet") is None
    rows = json.loads(text, parse_constant=pytest.fail)
    read = pd.read_csv(io.StringIO(csv))
    stored = pd.read_parquet(tmp_path / "t.parquet")
    assert list(rows[0]) == list(read.columns) == list(stored.columns)
    assert len(rows) == len(read) == len(stored) > 0
    number = {
        "cases": "value", "launches": "latency", "scaling": "exponent", "crossover": "seq_len",
        "peers": "ratio",
        "tasks": "score", "errors": "relative_error", "quantized": "bits_per_byte",
        "claims": "value", "context": "latency",
    }[table]  # fmt: skip
    for index, row in enumerate(rows):
        a, b, c = row[number], read[number][index], stored[number][index]
        assert (a is None and pd.isna(b) and pd.isna(c)) or a == pytest.approx(b) == c
    if table not in ("cases", "claims"):
        whole = [r for r in rows if r[number] is not None]
        assert isinstance(whole[0]["seq_len_max" if table == "scaling" else "seq_len"], int)


def test_a_file_holds_what_the_text_would(folder: Path, tmp_path: Path) -> None:
    run = load(folder)
    assert export_table(run, "crossover", "csv", tmp_path / "c.csv") is None
    assert (tmp_path / "c.csv").read_text() == export_table(run, "crossover", "csv")
    assert [p.name for p in tmp_path.iterdir()] == ["c.csv"]


@pytest.mark.parametrize(
    ("table", "form", "out", "message"),
    [
        (
            "case",
            "csv",
            None,
            "table: expected one of cases, launches, scaling, crossover, peers, tasks, "
            "errors, quantized, claims, context, got 'case'",
        ),
        ("cases", "xls", None, f"format: expected one of {', '.join(FORMATS)}, got 'xls'"),
        ("cases", "parquet", None, "out: parquet is no text"),
        ("cases", "csv", "nowhere/x.csv", "out: nowhere is no folder"),
    ],
)
def test_misuse_names_the_argument(
    folder: Path, table: str, form: str, out: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")):
        export_table(load(folder), table, form, out)


def test_a_run_of_roofs_alone_gives_empty_tables(tmp_path: Path) -> None:
    run = load(synthetic.write_run(tmp_path, {}))
    for name in TABLES:
        text = export_table(run, name, "csv")
        assert text is not None
        assert text.count("\n") == (2 if name == "launches" else 1)


@pytest.mark.parametrize(
    ("delimiter", "decimal"), [(";", ","), (";", "."), ("\t", ","), ("|", ".")]
)
@pytest.mark.parametrize("table", ["cases", "launches", "scaling"])
def test_every_dialect_is_read_back_as_the_same_table(
    folder: Path, table: str, delimiter: str, decimal: str
) -> None:
    run = load(folder)
    usual = export_table(run, table, "csv")
    other = export_table(run, table, "csv", delimiter=delimiter, decimal=decimal)
    assert usual is not None
    assert other is not None
    assert usual != other
    versions = dict.fromkeys(ENVIRONMENT, str)  # 2.4 of numpy is a text
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(usual), dtype=versions),
        pd.read_csv(io.StringIO(other), dtype=versions, sep=delimiter, decimal=decimal),
    )


def test_numbers_beside_texts_have_the_decimal_mark_too() -> None:
    frame = pd.DataFrame(
        {"mixed": [1.5, "a", None], "text": ["1.5", "x;y", "-2.5"], "n": [0.25] * 3}
    )
    assert csv_text(frame, ";", ",") == 'mixed;text;n\n1,5;1.5;0,25\na;"x;y";0,25\n;-2.5;0,25\n'


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ({"delimiter": ":"}, r"delimiter: expected one of ',', ';', '\\t', '|', got ':'"),
        ({"decimal": ";"}, r"decimal: expected one of '.', ',', got ';'"),
        ({"decimal": ","}, "decimal: expected another mark than the delimiter, got ','"),
        ({"format": "json", "delimiter": ";"}, "delimiter, decimal: go with csv, got json"),
    ],
)
def test_a_dialect_that_cannot_be_read_is_refused(
    folder: Path, dialect: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message.replace("\\\\", "\\"))):
        export_table(load(folder), "cases", **{"format": "csv", **dialect})  # type: ignore[arg-type]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_text_is_no_formula(start: str) -> None:
    text = f"{start}cmd|' /C calc'!A0"
    frame = pd.DataFrame({"text": [text, "plain", "-1.5", "+2e3", "- none"], "n": [-1.5] * 5})
    read = pd.read_csv(io.StringIO(csv_text(frame), newline=""), dtype=str)
    text = text.replace("\r", "\n")
    assert list(read["text"]) == [f"'{text}", "plain", "-1.5", "+2e3", "'- none"]
    assert set(read["n"]) == {"-1.5"}


def test_launches_have_a_row_each_with_what_its_samples_say(folder: Path) -> None:
    run = load(folder)
    table = TABLES["launches"](run)
    assert tuple(table.columns) == LAUNCH_TABLE
    assert len(table) == len(run.records)
    one = table[
        (table["backend"] == "sdpa") & (table["mode"] == "forward") & (table["seq_len"] == 1024)
    ]
    assert list(one["launch"]) == [0, 1, 2]
    for row, record in zip(
        one.to_dict("records"),
        [r for r in run.records if r["case"]["id"] == one["case_id"].iloc[0]],
        strict=True,
    ):
        samples = record["arms"][0]["metrics"]["latency"]["samples"]
        assert row["latency"] == pytest.approx(statistics.median(samples))
        assert (row["latency_min"], row["latency_max"]) == (min(samples), max(samples))
        assert row["latency_q25"] == pytest.approx(
            statistics.quantiles(samples, method="inclusive")[0]
        )
        assert (row["num_samples"], row["wall_s"], row["load"]) == (7, 1.0, 0.1)
        assert row["peak_memory"] == record["arms"][0]["metrics"]["peak_memory"]["value"]
        assert row["started"] == record["launch"]["started"]
    failed = table[table["status"] == "out_of_memory"]
    assert len(failed) == 6
    assert failed["latency"].isna().all()


def test_a_launch_of_several_arms_has_a_row_an_arm_and_what_it_says_of_itself(
    tmp_path: Path,
) -> None:
    laws = {"sdpa": synthetic.SEVEN["sdpa"]}
    made = synthetic.write_run(
        tmp_path, laws, lengths=(512,), modes=("forward",), launches=1, roof=None,
        floor=synthetic.Law(1e-8, 1.0),
    )  # fmt: skip
    records = synthetic.read_records(made)
    records[0]["conditions"] = synthetic.conditions(steal=0.25, frequency=None)
    records[0]["launch"]["order"] = "first"
    latency = records[0]["arms"][0]["metrics"]["latency"]
    latency |= {"every": 4, "stopped": "spread", "warm_up": {"calls": 9, "converged": False}}
    rows = TABLES["launches"](load(synthetic.write_records(made, records)))
    assert list(zip(rows["arm"], rows["backend"], strict=True)) == [(0, "sdpa"), (1, "identity")]
    first = rows.iloc[0]
    assert (first["every"], first["stopped"], first["warm_up_calls"]) == (4, "spread", 9)
    assert first["converged"] is False
    assert first["steal"] == 0.25
    assert rows[["frequency", "order"]].isna().all(axis=None)


# -- merge ---------------------------------------------------------------------------------------


def test_merging_shards_gives_the_whole_run(tmp_path: Path) -> None:
    whole = synthetic.write_run(tmp_path / "whole", lengths=(512, 1024), launches=2)
    lines = (whole / RECORDS).read_text().splitlines(keepends=True)
    shards = []
    for index in range(2):
        shard = synthetic.write_run(tmp_path / f"shard{index}", lengths=(512,), launches=1)
        (shard / RECORDS).write_text("".join([lines[0], *lines[1 + index :: 2]]))
        shards.append(shard)
    merged = merge(shards, tmp_path / "out")
    assert merged.num_records == len(lines)
    assert merged.warnings == ("1 duplicate result dropped",)
    one, two = cases(load(merged.folder)), cases(load(whole))
    keys = ["backend", "mode", "seq_len", "metric"]
    pd.testing.assert_frame_equal(
        one.sort_values(keys, ignore_index=True), two.sort_values(keys, ignore_index=True)
    )


def test_merging_keeps_machines_and_tells_of_torn_lines(tmp_path: Path) -> None:
    one = synthetic.write_run(tmp_path / "1", lengths=(512,), launches=1)
    two = synthetic.write_run(
        tmp_path / "2", lengths=(512,), launches=1, machine={"cpu": "other"}, run="run-2"
    )
    with (two / RECORDS).open("a") as file:
        file.write('{"torn')
    merged = merge([one, two], tmp_path / "out")
    run = load(merged.folder)
    assert len(run.machines) == 2
    assert run.warnings == ()
    assert f"{two / RECORDS}:" in merged.warnings[0]
    again = merge([merged.folder, one], tmp_path / "again")
    assert (again.folder / RECORDS).read_bytes() == (merged.folder / RECORDS).read_bytes()


def test_merging_into_something_is_refused(tmp_path: Path) -> None:
    run = synthetic.write_run(tmp_path / "run", lengths=(512,), launches=1)
    with pytest.raises(ValueError, match=r"out: .* is not empty"):
        merge([run], run)
    with pytest.raises(NoRunError, match="no run here"):
        merge([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    assert merge([run], tmp_path / "empty").num_records > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "run"]
