from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers_sweep import FAKE_SUITES, case, record

import cli
from results.records.load import load
from suites.engine import driver, measuring
from suites.engine.driver import run_sweep
from suites.engine.journal import Journal
from suites.terminal.progress import Summary, closing

pytestmark = pytest.mark.usefixtures("in_process")

OWN_BACKEND = '''
"""A backend of one's own: averages the values it may see."""

import torch

from attention.backends.full import FullAttention
from attention.registry import register


@register("{name}")
class Own(FullAttention):
    """Materialised softmax under another name."""
{body}
'''

WRONG = """
    def attend(self, q, k, v, *, is_causal, key_padding_mask):
        return super().attend(q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask) + 1
"""


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


def one_line_of_misuse(result):
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(run_sweep.__kwdefaults__, "benchmark_dir", FAKE_SUITES)


@pytest.fixture
def run_folder(tmp_path):
    """A run with enough lengths for an exponent."""
    folder = tmp_path / "run"
    with Journal(folder) as journal:
        machine = journal.add_machine({"cpu": "a stand-in", "cores": 2})
        environment = journal.add_environment({"torch": "2"})
        for launch in range(2):
            for name, power in (("full", 2), ("sdpa", 2), ("performer", 1)):
                for seq_len in (512, 1024, 2048, 4096):
                    made = record(case(name, seq_len), launch, latency=1e-7 * seq_len**power)
                    journal.append({**made, "machine": machine, "environment": environment})
    return folder


# -- the group ----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["torch", "pandas", "asv", "numpy", "rich", "attention"])
def test_start_up_does_not_import(module):
    program = f"import sys, cli; assert {module!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_version_is_the_installed_one():
    assert invoke("--version").output.strip().endswith(version("attnbench"))


def test_unknown_command_names_those_there_are():
    said = one_line_of_misuse(invoke("rum"))
    assert "'rum'" in said
    for name in ("check", "doctor", "export", "list", "merge", "report", "run"):
        assert name in said


# -- list, check, doctor ------------------------------------------------------------------------


def test_list_shows_every_backend_and_why_one_is_not_available():
    from attention import names

    result = invoke("list")
    assert result.exit_code == 0
    starts = [line.split()[0] for line in result.output.splitlines() if line[:1].strip()]
    assert starts == names()
    assert "cpu: device: xformers' memory_efficient_attention has no CPU kernel" in result.output


def test_list_as_json_holds_the_declarations():
    from attention import describe, names

    shown = json.loads(invoke("list", "--json").output)
    assert [one["name"] for one in shown] == names()
    for one in shown:
        declared = describe(one["name"])
        assert one["family"] == declared["family"]
        assert one["unavailable"] == declared["unavailable"]


@pytest.mark.usefixtures("registry_restored")
def test_check_passes_a_good_backend_in_a_file(tmp_path):
    file = tmp_path / "good.py"
    file.write_text(OWN_BACKEND.format(name="own_good", body=""))
    result = invoke("check", "--no-timing", file)
    assert result.exit_code == 0, result.output
    assert ", 0 failed" in result.output
    assert "own_good" in result.output


@pytest.mark.usefixtures("registry_restored")
def test_check_shows_what_failed_and_exits_1(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(OWN_BACKEND.format(name="own_wrong", body=WRONG))
    result = invoke("check", "--no-timing", file)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    failed = [line for line in lines if line.startswith("own_wrong  failed")]
    assert failed
    assert f"{len(failed)} failed" in lines[-1]


@pytest.mark.slow
def test_check_prints_python_that_fails_in_the_same_way(tmp_path):
    file = tmp_path / "it's wrong.py"
    file.write_text(OWN_BACKEND.format(name="own_wrong", body=WRONG))
    command = [Path(sys.executable).with_name("attnbench"), "check", "--no-timing", file]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    blocks = re.findall(r"^# own_wrong, (\w+): .*\n((?:.+\n)+)", shown, re.MULTILINE)
    assert [check for check, _ in blocks] == re.findall(r"own_wrong  failed   (\w+)", shown)
    for check, code in blocks[:2]:
        again = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        said = again.stderr.splitlines()[-1].removeprefix("attention.testing.bench.Violation: ")
        assert f"own_wrong  failed   {check}: {said}\n" in shown


@pytest.mark.parametrize("name", ["performr", "no/such/file.py"])
def test_check_of_what_is_not_there_is_misuse(name):
    said = one_line_of_misuse(invoke("check", name))
    assert "did you mean 'performer'" in said or "no file no/such/file.py" in said


def test_doctor_says_what_is_here_and_what_to_do():
    result = invoke("doctor")
    assert result.exit_code == 0
    for topic in ("versions:", "cpu:", "threads:", "load:", "frequency:", "memory:",
                  "sdpa on cpu: flash:", "xformers:", "backend performer:"):  # fmt: skip
        assert topic in result.output
    import torch

    assert torch.__version__ in result.output
    for line, following in zip(*[result.output.splitlines()[i:] for i in (0, 1)], strict=False):
        if line.startswith("!"):
            assert following.startswith("    → ")


# -- run ----------------------------------------------------------------------------------------

QUICK = ("--launches", 1, "--mode", "forward", "--seq-len", "16,32", "--threads", 1)


def test_run_writes_records_and_a_line_per_case(tmp_path, fake):
    folder = tmp_path / "run"
    result = invoke("run", *QUICK, "--backend", "linear", "--backend", "raises", "--out", folder)
    assert result.exit_code == 0
    assert f"results: {folder}" in result.stdout
    assert f"report:  {folder / 'report.html'}" in result.stdout
    assert (folder / "report.md").is_file()
    (own,) = [line for line in result.stdout.splitlines() if line.startswith("linear ")]
    assert own.split()[:2] == ["linear", "own"]
    assert result.stdout.endswith(
        "Did not run here: raises (RuntimeError: no luck at 16, in ~).\n"
    )
    assert "2 failed, 3 ok" in result.stdout  # the roof is among them
    told = result.stderr.splitlines()
    assert told[0] == f"5 processes into {folder}"
    assert sum("linear forward N=16  ok  16 µs" in line for line in told) == 1
    assert sum("failed  RuntimeError: no luck" in line for line in told) == 2
    assert all("left" in line for line in told[1:-1])
    assert len((folder / "records.jsonl").read_text().splitlines()) == 5


def test_without_a_report_the_run_says_how_to_write_one(tmp_path, fake):
    result = invoke("run", *QUICK, "--backend", "linear", "--no-report", "--out", tmp_path)
    assert result.stdout.endswith(f"report:  attnbench report {tmp_path}\n")
    assert not (tmp_path / "report.html").exists()


def test_run_options_reach_the_cases(tmp_path, fake):
    invoke(
        "run", "--backend", "linear:seconds=1e-6,many=1+2+3", "--seq-len", "8,16", "--mode",
        "training", "--level", "layer,block", "--dtype", "bfloat16", "--batch", 2, "--num-heads",
        4, "--head-dim", 32, "--causal", "--threads", 1, "--allocator", "retained", "--compile",
        "--launches", 2, "--seed", 7, "--case-timeout", 9, "--out", tmp_path,
    )  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    speed = [r["case"] for r in records if r["case"]["kind"] == "speed"]
    assert len(speed) == 2 * 2 * 2
    assert {(c["seq_len"], c["level"]) for c in speed} == {
        (n, level) for n in (8, 16) for level in ("layer", "block")
    }
    expected = {
        "mode": "training", "dtype": "bfloat16", "batch": 2, "num_heads": 4, "head_dim": 32,
        "is_causal": True, "threads": 1, "allocator": "retained", "compile": True, "seed": 7,
    }  # fmt: skip
    assert all(c[key] == value for c in speed for key, value in expected.items())
    assert speed[0]["arms"][0]["options"] == {"seconds": 1e-6, "many": [1, 2, 3]}


def test_run_without_out_makes_a_folder_of_the_time(tmp_path, fake, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("run", *QUICK, "--backend", "linear").exit_code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("Z-quick")


def test_runs_of_one_second_have_folders_of_their_own(tmp_path, fake, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "datetime", Clock)
    one_line_of_misuse(invoke("run", *QUICK, "--backend", "nothing"))
    assert not (tmp_path / "runs").exists()
    for _ in range(2):
        assert invoke("run", *QUICK, "--backend", "linear").exit_code == 0
    found = {p.name: len(load(p).records) for p in (tmp_path / "runs").iterdir()}
    assert found == {"20260102T030405Z-quick": 3, "20260102T030405Z-quick-2": 3}


def test_the_commands_that_follow_can_be_pasted(tmp_path, monkeypatch):
    folder = tmp_path / "my run; it's"
    command = f"attnbench report {shlex.quote(str(folder))}"
    assert shlex.split(command)[2:] == [str(folder)]
    assert closing(Summary(folder, {"ok": 1}, 0, 1.0)).endswith(command)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "run_sweep", stopped)
    said = invoke("run", *QUICK, "--out", folder).stderr
    assert shlex.split(said.splitlines()[-1])[-2:] == ["--out", str(folder)]


def test_run_into_a_folder_that_holds_one_needs_resume(tmp_path, fake):
    arguments = ("run", *QUICK, "--backend", "linear", "--out", tmp_path / "run")
    assert invoke(*arguments, "--resume").exit_code == 0  # on nothing: starts fresh
    assert "add --resume" in one_line_of_misuse(invoke(*arguments))
    again = invoke(*arguments, "--resume")
    assert again.exit_code == 0
    assert "nothing to measure" in again.stdout


def test_run_of_an_unknown_backend_names_the_near_one(tmp_path):
    said = one_line_of_misuse(invoke("run", "--backend", "performr", "--out", tmp_path / "run"))
    assert said.startswith("attnbench run: performr: ")
    assert "did you mean 'performer'" in said
    assert not (tmp_path / "run").exists()


def test_run_of_an_unknown_option_of_a_backend_names_the_valid_ones(tmp_path):
    said = one_line_of_misuse(
        invoke("run", "--backend", "longformer:windw=3", "--out", tmp_path / "run")
    )
    assert "did you mean 'window'" in said
    assert "dilation" in said


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        (["--preset", "fast"], "quick"),
        (["--suite", "tasks"], "speed"),
        (["--mode", "forward,decoding"], "training"),
        (["--level", "stack"], "layer"),
        (["--device", "tpu"], "cuda"),
        (["--dtype", "int8"], "bfloat16"),
        (["--allocator", "jemalloc"], "retained"),
        (["--matmul-precision", "low"], "medium"),
        (["--compile", "maybe"], "off"),
        (["--seq-len", "512,,1024"], "16k"),
        (["--seq-len", "0"], "16k"),
        (["--seq-len", "1.5"], "16k"),
        (["--seq-len", "2048m"], "the longest length, 1,073,741,824"),
        (["--batch", "-1"], "1<=x<="),
        (["--launches", "0"], "1<=x<=1000"),
        (["--seed", "-1"], "0<=x"),
        (["--case-timeout", "0"], "0<x"),
        (["--shard", "3/2"], "i/n"),
        (["--sample-time", "0"], "0<x<=600"),
        (["--budget", "soon"], "4m, 1h30m or 90s"),
        (["--budget", "4m", "--cluster", "127.0.0.1:1"], "not with --cluster"),
        (["--backend", "full:window"], "NAME:key=value"),
        (["--backend", "identity"], "baseline"),
        (["--plugin", "missing.py"], "missing.py"),
        (["--prset", "quick"], "--preset"),
        (["--unknown"], "--seq-len"),
        (["extra"], "extra"),
    ],
)
def test_misuse_of_run_is_one_line_that_says_what_is_accepted(arguments, accepted, tmp_path):
    said = one_line_of_misuse(invoke("run", "--out", tmp_path / "run", *arguments))
    assert accepted in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_run_with_a_plugin_measures_its_backend(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN_BACKEND.format(name="mine", body=""))
    result = invoke(
        "run", *QUICK, "--plugin", file, "--backend", "mine", "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    assert "mine forward N=32  ok" in result.stderr
    written = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in written]
    (found,) = (r for r in records if r["case"]["seq_len"] == 32)
    assert found["arms"][0]["gate"]["relative_l2"] <= found["arms"][0]["gate"]["budget"]


def test_run_of_a_broken_plugins_backend_is_misuse(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("1 / 0")
    said = one_line_of_misuse(
        invoke("run", "--plugin", file, "--backend", "mine", "--out", tmp_path / "run")
    )
    assert "ZeroDivisionError" in said


# -- report, merge, export ----------------------------------------------------------------------


def test_report_writes_both_formats_into_the_run(run_folder):
    result = invoke("report", run_folder)
    assert result.exit_code == 0
    paths = [Path(line) for line in result.output.splitlines()]
    assert paths == [run_folder / "report.html", run_folder / "report.md"]
    assert "performer" in paths[0].read_text()


def test_report_writes_one_format_where_it_is_told(run_folder, tmp_path):
    result = invoke("report", run_folder, "--format", "md", "--out", tmp_path / "here.md")
    assert result.output.split() == [str(tmp_path / "here.md")]
    assert "performer" in (tmp_path / "here.md").read_text()


def test_merge_joins_and_drops_duplicates(run_folder, tmp_path):
    result = invoke("merge", run_folder, run_folder, "--out", tmp_path / "whole")
    assert result.exit_code == 0
    assert f"24 results in {tmp_path / 'whole'}" in result.output
    said = one_line_of_misuse(invoke("merge", run_folder, "--out", run_folder))
    assert "expected a new folder" in said


@pytest.mark.parametrize("table", ["cases", "scaling", "crossover"])
def test_export_prints_a_table(run_folder, table):
    as_csv = invoke("export", run_folder, "--table", table, "--format", "csv").output
    rows = json.loads(invoke("export", run_folder, "--table", table, "--format", "json").output)
    assert as_csv.splitlines()[0].split(",")[:2] == list(rows[0])[:2]
    assert len(rows) > 0
    assert {row["backend"] for row in rows} & {"full", "performer"}


@pytest.mark.parametrize("delimiter", [";", "tab"])
def test_export_writes_csv_for_spreadsheets_with_decimal_commas(run_folder, tmp_path, delimiter):
    out = tmp_path / "launches.csv"
    dialect = ("--delimiter", delimiter, "--decimal", ",")
    result = invoke("export", run_folder, "--table", "launches", *dialect, "--out", out)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out, sep="\t" if delimiter == "tab" else delimiter, decimal=",")
    assert len(table) == 24
    assert table["latency"].dtype == "float64"
    assert (table["latency"] > 0).any()


def test_export_writes_a_file(run_folder, tmp_path):
    out = tmp_path / "cases.parquet"
    result = invoke("export", run_folder, "--format", "parquet", "--out", out)
    assert result.output.strip() == str(out)
    assert out.stat().st_size > 0


def test_export_for_asv_writes_its_files_into_the_run(run_folder):
    result = invoke("export", run_folder, "--format", "asv")
    assert result.exit_code == 0, result.output
    assert Path(result.output.strip()) == run_folder / "asv.conf.json"
    assert (run_folder / "asv.conf.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        (["report"], "DIR"),
        (["report", "no/such/folder"], "no/such/folder"),
        (["report", "EMPTY"], "no run here"),
        (["report", "RUN", "--format", "pdf"], "'html', 'md'"),
        (["report", "RUN", "RUN"], "--out"),
        (["merge", "RUN"], "--out"),
        (["merge", "EMPTY", "--out", "NEW"], "no run here"),
        (["export", "RUN", "--table", "all"], "'cases', 'launches', 'scaling'"),
        (["export", "RUN", "--format", "xml"], "'csv', 'json', 'parquet', 'asv'"),
        (["export", "RUN", "--format", "parquet"], "out"),
        (["export", "RUN", "--format", "asv", "--table", "cases"], "--table"),
        (["export", "RUN", "RUN", "--format", "asv"], "--out"),
        (["export", "RUN", "--decimal", ","], "--decimal: expected another mark than --delimiter"),
        (["export", "RUN", "--delimiter", ":"], "',', ';', 'tab', '|'"),
        (
            ["export", "RUN", "--format", "json", "--decimal", ","],
            "--decimal: goes with --format",
        ),
        (["check"], "NAME"),
        (["list", "--yaml"], "--json"),
    ],
)
def test_misuse_of_the_other_commands_is_one_line(arguments, accepted, run_folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    places = {"RUN": str(run_folder), "EMPTY": str(empty), "NEW": str(tmp_path / "new")}
    said = one_line_of_misuse(invoke(*[places.get(a, a) for a in arguments]))
    assert accepted in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), (False,)),
        (("--compile",), (True,)),
        (("--compile", "--causal"), (True,)),
        (("--compile", "off,on"), (False, True)),
        (("--compile", "off"), (False,)),
    ],
)
def test_compile_is_a_flag_and_an_axis(arguments, expected):
    context = cli.main.commands["run"].make_context("run", list(arguments))
    assert context.params["compiles"] == expected


def test_precision_is_an_axis_in_torchs_words():
    run = cli.main.commands["run"]
    given = run.make_context("run", ["--matmul-precision", "highest,medium"])
    assert given.params["matmul_precisions"] == ("highest", "medium")
    assert run.make_context("run", []).params["matmul_precisions"] == ("highest",)


# -- where the time goes -------------------------------------------------------------------------


def test_a_profiled_sweep_is_told_in_the_report(tmp_path, fake):
    arguments = [
        "run",
        "--seq-len",
        "16",
        "--mode",
        "forward",
        "--launches",
        "1",
        "--threads",
        "1",
    ]
    out = tmp_path / "run"
    assert invoke(*arguments, "--backend", "linear", "--profile", "--out", out).exit_code == 0
    assert invoke("report", out, "--format", "md").exit_code == 0
    text = (out / "report.md").read_text()
    (row,) = [
        r for r in text.splitlines() if r.startswith("| linear | forward | 16 | 16.0 µs | – ")
    ]
    assert " | 75 % | " in row
    assert "Matrix products by shape" not in text
