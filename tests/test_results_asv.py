"""asv's own programs read what the export writes."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic

from results.asv_export import ExportError, export_asv
from results.runs import load

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
    assert "speed.attention_forward.latency" in index["benchmarks"]
    benchmark = index["benchmarks"]["speed.attention_training.peak_memory"]
    assert (benchmark["unit"], benchmark["param_names"]) == ("bytes", ["backend", "seq_len"])
    assert benchmark["params"] == [["'full'", "'sdpa'"], ["512", "16384"]]
    assert len(index["revision_to_hash"]) == 2
    graphs = (out / "asv/html/graphs").rglob("speed.attention_forward.latency.json")
    (graph,) = [p for p in graphs if "summary" not in p.parts]
    (_, first), (_, second) = json.loads(graph.read_text())
    assert first[0] == pytest.approx(synthetic.SEVEN["full"].seconds(512), rel=0.1)
    assert first[1] is None  # out of memory
    assert second[2] == pytest.approx(synthetic.SEVEN["sdpa"].seconds(512), rel=0.1)


def test_compare_reads_two_runs(tmp_path: Path) -> None:
    out = export_asv(load(*two_runs(tmp_path)), tmp_path / "out").parent
    git = ["git", f"--git-dir={out / 'asv/commits.git'}", "log", "--format=%H %s", "--reverse"]
    log = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split(maxsplit=1)[1].split(" of ")[0] for line in log] == [
        "Run run-1",
        "Run run-2",
    ]
    (machine,) = [p.name for p in (out / "asv/results").iterdir() if p.is_dir()]
    names = [line.split()[0] for line in log]
    text = asv(out, "compare", *names, "--machine", machine)
    assert "speed.attention_forward.latency('sdpa', 512)" in text


def test_result_files_follow_asvs_format(tmp_path: Path) -> None:
    laws = {**TWO, "xformers": synthetic.SEVEN["xformers"]}
    out = export_asv(
        load(synthetic.write_run(tmp_path / "run", laws, launches=3)), tmp_path / "out"
    ).parent
    (file,) = (out / "asv/results").glob("*/*-python*.json")
    content = json.loads(file.read_text())
    assert content["version"] == 2
    row = content["results"]["speed.attention_forward.latency"]
    cell = dict(zip(content["result_columns"], row, strict=False))
    backends, lengths = cell["params"]
    at = backends.index("'sdpa'") * len(lengths) + lengths.index("512")
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
