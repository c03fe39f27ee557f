"""The loader: one tidy frame, and a named fault for every line that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import synthetic
from synthetic_quality import few, write_quality

from results.records.load import NoRunError, load
from results.records.tidy import COLUMNS
from results.schema import MEASUREMENT, RECORDS

SMALL: dict[str, Any] = {"lengths": (512, 1024), "launches": 2, "modes": ("forward",)}
TWO = {name: synthetic.SEVEN[name] for name in ("sdpa", "longformer")}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


def append(folder: Path, *texts: str | bytes) -> None:
    with (folder / RECORDS).open("ab") as file:
        for text in texts:
            file.write((text if isinstance(text, bytes) else text.encode()) + b"\n")


def test_frame_has_a_row_per_case_launch_arm_and_metric(tmp_path: Path) -> None:
    run = load(synthetic.write_run(tmp_path, TWO, **SMALL))
    assert list(run.frame.columns) == list(COLUMNS)
    speed = run.frame[run.frame["kind"] == "speed"]
    assert len(speed) == 2 * 2 * 2 * 3  # backends, lengths, launches, metrics
    assert not speed.duplicated(["case_id", "launch", "arm", "metric"]).any()
    row = speed[(speed["backend"] == "sdpa") & (speed["metric"] == "peak_memory")].iloc[0]
    assert (row["unit"], row["value"]) == ("B", 2200 * 512)
    assert run.warnings == ()


def test_value_is_the_median_of_the_samples(tmp_path: Path) -> None:
    run = load(synthetic.write_run(tmp_path, TWO, **SMALL))
    row = run.frame[run.frame["metric"] == "latency"].iloc[0]
    assert row["value"] == sorted(row["samples"])[3]


def test_a_failed_case_is_a_row_with_its_reason(tmp_path: Path) -> None:
    laws = {"full": synthetic.Law(1, 2, fails={512: ("crashed", "killed by signal 9")})}
    run = load(synthetic.write_run(tmp_path, laws, lengths=(512,), launches=1))
    row = run.frame[run.frame["backend"] == "full"].iloc[0]
    assert (row["status"], row["reason"], row["metric"]) == ("crashed", "killed by signal 9", "")


def test_duplicates_are_dropped(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **SMALL)
    count = len(lines(folder))
    append(folder, *[json.dumps(r) for r in lines(folder)[:3]])
    run = load(folder)
    assert len(run.records) == count
    assert run.warnings == ("3 duplicate results dropped",)
    assert len(load(folder, folder).records) == count


def test_another_measurement_is_not_mixed_in(tmp_path: Path) -> None:
    new = synthetic.write_run(tmp_path / "new", TWO, **SMALL)
    old = synthetic.write_run(tmp_path / "old", TWO, **SMALL, measurement=MEASUREMENT - 1, run="o")
    run = load(old, new)
    assert {r["measurement"] for r in run.records} == {MEASUREMENT}
    assert len(run.records) == len(lines(new))
    assert any("older version of the measuring code left out" in w for w in run.warnings)
    assert len(load(old).records) == len(lines(old))


def test_older_times_stand_beside_newer_accuracies(tmp_path: Path) -> None:
    times = synthetic.write_run(tmp_path / "t", TWO, **SMALL, measurement=MEASUREMENT - 1, run="t")
    learnt = write_quality(tmp_path / "l", few())
    run = load(times, learnt)
    assert len(run.records) == len(lines(times)) + len(lines(learnt))
    assert not any("measuring code" in w for w in run.warnings)
    assert {r["measurement"] for r in run.records if r["case"]["kind"] == "speed"} == {
        MEASUREMENT - 1
    }
    newer = synthetic.write_run(tmp_path / "n", TWO, **SMALL, run="n")
    run = load(times, learnt, newer)
    assert "t" not in {r["run"] for r in run.records}  # its roofs and its sentinel neither
    assert any(
        "older version of the measuring code left out (speed, peer)" in w for w in run.warnings
    )


def test_a_machines_peaks_alone_are_kept_beside_others(tmp_path: Path) -> None:
    whole = synthetic.write_run(tmp_path / "w", TWO, **SMALL, run="w")
    roofs = [{**record, "run": "r"} for record in lines(whole) if record["case"]["kind"] == "roof"]
    assert roofs
    (tmp_path / "r").mkdir()
    alone = synthetic.write_records(tmp_path / "r", roofs)
    assert len(load(whole, alone).records) == len(lines(whole)) + len(roofs)


def test_runs_of_several_folders_stand_side_by_side(tmp_path: Path) -> None:
    one = synthetic.write_run(tmp_path / "1", TWO, **SMALL)
    two = synthetic.write_run(
        tmp_path / "2", TWO, **SMALL, run="run-2", machine={**synthetic.MACHINE, "cores": 4}
    )
    run = load(one, two)
    assert run.frame["machine"].nunique() == 2
    assert {m["cores"] for m in run.machines.values()} == {2, 4}


def test_what_is_not_described_is_said(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **SMALL)
    (folder / "machines.jsonl").unlink()
    (folder / "environments.jsonl").write_text("[]\n")
    text = "\n".join(load(folder).warnings)
    assert "machines.jsonl: missing" in text
    assert "environments.jsonl:1: expected an object" in text
    assert "machine " in text
    assert "not described" in text


@pytest.mark.parametrize("content", [None, "", "{}\n"])
def test_no_run_is_an_error_that_names_the_folder(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / RECORDS).write_text(content)
    with pytest.raises(NoRunError, match=str(tmp_path)):
        load(tmp_path)


def test_hostile_strings_become_one_safe_line(tmp_path: Path) -> None:
    laws = {"a\nb\x00\ud800": synthetic.Law(1e-6, 1.0)}
    run = load(synthetic.write_run(tmp_path, laws, **SMALL))
    (name,) = run.frame[run.frame["kind"] == "speed"]["backend"].unique()
    assert name == "a b\N{REPLACEMENT CHARACTER}?"
    name.encode()


def test_the_schema_alone_is_cheap_to_import() -> None:
    code = (
        "import sys, results.schema; print(sorted({'pandas','numpy','torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- records from before a field was there -------------------------------------------------------


def test_records_without_a_precision_read_as_full_precision(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, TWO, **SMALL)
    old = lines(folder)
    ids = [record["case"]["id"] for record in old]
    for record in old:
        del record["case"]["matmul_precision"]
        for arm in record["arms"]:
            assert not arm.keys() & {"compiled", "fixed_size"}
    (folder / RECORDS).write_text("".join(json.dumps(record) + "\n" for record in old))
    run = load(folder)
    assert run.warnings == ()
    assert set(run.frame["matmul_precision"]) == {"highest"}
    assert sorted(set(run.frame["case_id"])) == sorted(set(ids))


def test_a_reduced_precision_is_another_case(tmp_path: Path) -> None:
    plain = synthetic.write_run(tmp_path / "1", TWO, **SMALL)
    other = synthetic.write_run(
        tmp_path / "2", TWO, **SMALL, case={"matmul_precision": "medium"}, run="run-2"
    )
    ids = [{r["case"]["id"] for r in lines(folder)} for folder in (plain, other)]
    assert not ids[0] & ids[1]
