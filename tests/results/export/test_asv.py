"""asv's own programs read what the export writes."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic

from results.export.asv import ExportError, export_asv
from results.records.load import load

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

TWO = {name: synthetic.SEVEN[name] for name in ("full", "sdpa")}


def asv(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "asv", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def two_runs(tmp_path: Path) -> list[Path]:
    later = {"run": "run-2", "started": "2026-02-01T00:00:00Z", "seed": 3}
    shape = {"lengths": (512, 16384), "launches": 2}
    return [
        synthetic.write_run(tmp_path / "1", TWO, **shape),
        synthetic.write_run(tmp_path / "2", TWO, **shape, **later),
    ]


def test_publish_makes_its_site(tmp_path: Path) -> None:
    configuration = export_asv(load(*two_runs(tmp_path)), tmp_path / "out")
    out = configuration.parent
    assert "Couldn't find" not in asv(out, "publish")
    index = json.loads((out / "asv/html/index.json").read_text())
    assert index["project"] == "attnbench"
    assert "attention.forward.latency" in index["benchmarks"]
    benchmark = index["benchmarks"]["attention.training.peak_memory"]
    assert (benchmark["unit"], benchmark["param_names"]) == ("bytes", ["backend", "tokens"])
    assert benchmark["params"] == [["'full'", "'sdpa'"], ["  512", "16384"]]
    assert len(index["revision_to_hash"]) == 2
    graphs = (out / "asv/html/graphs").rglob("attention.forward.latency.json")
    (graph,) = [p for p in graphs if "summary" not in p.parts]
    (_, first), (_, second) = json.loads(graph.read_text())
    assert first[0] == pytest.approx(synthetic.SEVEN["full"].seconds(512), rel=0.1)
    assert first[1] is None  # out of memory
    assert second[2] == pytest.approx(synthetic.SEVEN["sdpa"].seconds(512), rel=0.1)


def tags(out: Path) -> dict[str, str]:
    """Return the tags of an export: name to what the commit says."""
    git = ["git", f"--git-dir={out / 'asv/commits.git'}"]
    command = [*git, "for-each-ref", "--format=%(refname:short) %(subject)", "refs/tags"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split(maxsplit=1) for line in listed.splitlines())


def test_compare_and_show_read_two_runs_by_their_tags(tmp_path: Path) -> None:
    out = export_asv(load(*two_runs(tmp_path)), tmp_path / "out").parent
    commit = "1234567890abcdef1234567890abcdef12345678"
    assert tags(out) == {
        "12345678": f"Run run-1 of commit {commit}",
        "12345678-2": f"Run run-2 of commit {commit}",  # measured again, by the same machine
    }
    text = asv(out, "compare", "12345678", "12345678-2")
    row = next(r for r in text.splitlines() if "attention.forward.latency('sdpa',   512)" in r)
    assert re.search(r"3\.\d+(±[\d.]+)?ms", row)
    assert "[example-cpu-2.5-ghz-2-cores/cpu-float32]" in row or "| Before" in text
    shown = asv(out, "show", "12345678")
    assert "attention.forward.latency [example-cpu-2.5-ghz-2-cores/cpu-float32]" in shown
    assert re.search(r"full\s+3?\S*.*failed", shown), shown


GPU = {"cpu": "Host CPU", "cores": 16, "ram_bytes": 2**37, "os": "Linux", "gpu": "Example GPU"}


def test_machines_that_measured_one_commit_stand_at_one_point(tmp_path: Path) -> None:
    shape = {"lengths": (512, 1024), "launches": 2}
    old, new = "a" * 40, "b" * 40
    on_gpu = {"machine": GPU, "case": {"device": "cuda", "dtype": "bfloat16"}}
    folders = [
        synthetic.write_run(
            tmp_path / run, TWO, run=run, commit=commit, started=f"2026-0{month}-01T00:00:00Z",
            **shape, **extra,
        )
        for run, commit, month, extra in (
            ("cpu-old", old, 1, {}), ("gpu-old", old, 3, on_gpu),
            ("cpu-new", new, 2, {}), ("gpu-new", new, 4, on_gpu),
            ("unknown", None, 5, {}),
        )
    ]  # fmt: skip
    out = export_asv(load(*folders), tmp_path / "out").parent
    assert tags(out) == {
        "aaaaaaaa": f"Runs cpu-old, gpu-old of commit {old}",
        "bbbbbbbb": f"Runs cpu-new, gpu-new of commit {new}",
        "unknown": "Run unknown",
    }
    files = sorted(str(p.relative_to(out / "asv/results"))[:-5] for p in
                   (out / "asv/results").glob("*/*-*.json"))  # fmt: skip
    assert [re.sub(r"/[0-9a-f]{8}-", " ", file) for file in files] == [
        *["example-cpu-2.5-ghz-2-cores cpu-float32"] * 3,
        *["example-gpu cuda-bfloat16"] * 2,
    ]
    about = json.loads((out / "asv/results/example-gpu/machine.json").read_text())
    assert about["ram"] == "128 GiB"
    assert about["cpu"] == "Host CPU"


def test_runs_of_one_commit_share_a_point_where_none_measures_again(tmp_path: Path) -> None:
    shape = {"lengths": (512,), "launches": 1}
    folders = [
        synthetic.write_run(tmp_path / run, TWO, run=run, modes=modes, started=started, **shape)
        for run, modes, started in (
            ("speed", ("forward", "training"), "2026-01-01T00:00:00Z"),
            ("steps", ("decode",), "2026-01-02T00:00:00Z"),
            ("again", ("forward",), "2026-01-03T00:00:00Z"),
        )
    ]
    out = export_asv(load(*folders), tmp_path / "out").parent
    commit = "1234567890abcdef1234567890abcdef12345678"
    assert tags(out) == {
        "12345678": f"Runs speed, steps of commit {commit}",
        "12345678-2": f"Run again of commit {commit}",
    }


def test_what_was_chosen_is_no_axis_of_the_table(tmp_path: Path) -> None:
    shape = {"lengths": (512,), "launches": 1}
    folders = [
        synthetic.write_run(tmp_path / str(i), TWO, run=f"run-{i}", case=case, **shape)
        for i, case in enumerate(
            ({}, {"threads": 1, "allocator": "retained"}, {"is_causal": True, "threads": 1})
        )
    ]
    out = export_asv(load(*folders), tmp_path / "out").parent
    described = json.loads((out / "asv/results/benchmarks.json").read_text())
    del described["version"]
    assert {tuple(one["param_names"]) for one in described.values()} == {("backend", "tokens")}
    contents = [json.loads(p.read_text()) for p in (out / "asv/results").glob("*/*-cpu-*.json")]
    assert sorted(content["env_name"] for content in contents) == [
        "cpu-float32-allocator-retained",  # what most records have is not named
        "cpu-float32-causal-yes",
        "cpu-float32-threads-2",
    ]
    (causal,) = [c["params"] for c in contents if c["params"]["causal"] == "yes"]
    assert (causal["threads"], causal["heads"], causal["batch"]) == ("1", "8x64", "1")
    assert (causal["keys"], causal["model"], causal["torch"]) == ("as queries", "none", "2.13.0")


def test_two_environments_of_one_machine_stay_apart(tmp_path: Path) -> None:
    shape = {"lengths": (512,), "launches": 1, "modes": ("forward",)}
    folders = [
        synthetic.write_run(
            tmp_path / blas, TWO, seed=i, environment={**synthetic.ENVIRONMENT, "blas": blas},
            **shape,
        )
        for i, blas in enumerate(("mkl", "openblas"))
    ]  # fmt: skip
    for line in (folders[1] / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        record["launch"]["index"] += 1
        with (folders[0] / "records.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    out = export_asv(load(*folders), tmp_path / "out").parent
    files = list((out / "asv/results").glob("*/*-cpu-float32-*.json"))
    assert len(files) == 2
    contents = [json.loads(file.read_text()) for file in files]
    assert len({content["params"]["environment"] for content in contents}) == 2
    assert len({content["commit_hash"] for content in contents}) == 1


def test_two_settings_never_share_a_file(tmp_path: Path) -> None:
    models = ["m:a=" + "é1" * 140, "m:a=" + "é1" * 141, "m:b=1", "m:b:1"]
    folders = [
        synthetic.write_run(
            tmp_path / str(i), TWO, lengths=(512,), launches=1, run=f"run-{i}", seed=i,
            case={"level": "model", "model": model},
        )
        for i, model in enumerate(models)
    ]  # fmt: skip
    run = load(*folders)
    run.frame["run"] = "one"  # all at one point
    out = export_asv(run, tmp_path / "out").parent
    contents = [json.loads(p.read_text()) for p in (out / "asv/results").glob("*/*-cpu-*.json")]
    named = {content["params"]["model"] for content in contents}
    assert len(named) == len({content["env_name"] for content in contents}) == len(models)
    assert {"m:b=1", "m:b:1"} < named
    asv(out, "publish")  # which makes folders of these names


def test_machines_of_one_kind_are_told_apart(tmp_path: Path) -> None:
    folders = [
        synthetic.write_run(
            tmp_path / str(ram), TWO, lengths=(512,), launches=1, run=f"run-{ram}",
            machine={**synthetic.MACHINE, "ram_bytes": ram << 30},
        )
        for ram in (16, 32)
    ]  # fmt: skip
    out = export_asv(load(*folders), tmp_path / "out").parent
    names = sorted(p.name for p in (out / "asv/results").iterdir() if p.is_dir())
    assert len(names) == 2
    assert all(re.fullmatch(r"example-cpu-2\.5-ghz-2-cores-[0-9a-f]{6}", n) for n in names), names


def test_a_decoding_run_has_the_metrics_of_its_mode_alone(tmp_path: Path) -> None:
    folder = synthetic.write_run(
        tmp_path / "run", TWO, lengths=(512,), launches=1, modes=("decode", "forward")
    )
    out = export_asv(load(folder), tmp_path / "out").parent
    described = json.loads((out / "asv/results/benchmarks.json").read_text())
    del described["version"]
    assert sorted(described) == [
        "attention.decode.latency", "attention.decode.state_bytes", "attention.forward.latency",
        "attention.forward.peak_memory", "attention.forward.relative_error",
    ]  # fmt: skip
    state = described["attention.decode.state_bytes"]
    assert (state["unit"], state["pretty_name"]) == ("bytes", "attention decode: state")
    assert described["attention.decode.latency"]["code"].startswith("Time per token, at level")


def test_result_files_follow_asvs_format(tmp_path: Path) -> None:
    laws = {**TWO, "xformers": synthetic.SEVEN["xformers"]}
    out = export_asv(
        load(synthetic.write_run(tmp_path / "run", laws, launches=3)), tmp_path / "out"
    ).parent
    (file,) = (out / "asv/results").glob("*/*-cpu-float32.json")
    content = json.loads(file.read_text())
    assert content["version"] == 2
    row = content["results"]["attention.forward.latency"]
    cell = dict(zip(content["result_columns"], row, strict=False))
    backends, lengths = cell["params"]
    at = backends.index("'sdpa'") * len(lengths) + lengths.index("  512")
    assert cell["stats_ci_99_a"][at] < cell["result"][at] < cell["stats_ci_99_b"][at]
    assert len(cell["samples"][at]) == 21
    assert cell["result"][backends.index("'full'") * len(lengths) + lengths.index("16384")] is None
    assert math.isnan(cell["result"][backends.index("'xformers'") * len(lengths)])
    assert json.loads((file.parent / "machine.json").read_text())["machine"] == file.parent.name


def test_the_export_can_be_made_anew_and_is_the_same(tmp_path: Path) -> None:
    run = load(*two_runs(tmp_path))
    out = export_asv(run, tmp_path / "out").parent
    before = {p: p.read_bytes() for p in (out / "asv/results").rglob("*.json")}
    export_asv(run, out)
    assert {p: p.read_bytes() for p in (out / "asv/results").rglob("*.json")} == before


def test_a_strangers_configuration_is_not_overwritten(tmp_path: Path) -> None:
    run = load(synthetic.write_run(tmp_path / "run", TWO, lengths=(512,), launches=1))
    theirs = tmp_path / "asv.conf.json"
    theirs.write_text('{"project": "theirs"}')
    with pytest.raises(ExportError, match="another project's"):
        export_asv(run, tmp_path)
    assert theirs.read_text() == '{"project": "theirs"}'


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    laws = {"../../evil": synthetic.SEVEN["sdpa"]}
    folder = synthetic.write_run(
        tmp_path / "run", laws, lengths=(512,), launches=1, run="../../evil", started="never",
        machine={"cpu": "../../evil"}, environment={"python": "../../evil"},
    )  # fmt: skip
    out = export_asv(load(folder), tmp_path / "out").parent
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "run"]
    asv(out, "publish")
    (machine,) = [p.name for p in (out / "asv/results").iterdir() if p.is_dir()]
    assert machine.startswith("evil-")
    assert sorted(p.name for p in out.iterdir()) == ["asv", "asv.conf.json"]
