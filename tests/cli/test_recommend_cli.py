"""`attnbench recommend`: forms, exit codes, misuse, the reference records, the lines of Python."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from helpers_recommend import FOUR, Law, a_run, add_errors, add_recall
from hypothesis import given
from hypothesis import strategies as st

import attention
import cli
import results
from results.analysis.series import SERIES, points
from results.recommendation.prediction import at_any_length
from results.recommendation.snippet import BUDGETS, NEEDS_LENGTH, parse_options, python_lines
from results.records.load import NoRunError, load
from results.records.reference_runs import REFERENCE, reference_folders
from results.schema import Arm
from results.text.amounts import parse_size, write_size
from suites.parsing import parse_backend
from suites.plan import cases, plan_sweep

ROOT = Path(__file__).parents[2]
ASKED = ("--seq-len", "4k")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(
        cli.main, ["recommend", *map(str, arguments)], catch_exceptions=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("recommend") / "run")


# -- the command ---------------------------------------------------------------------------------


def test_an_answer_is_exit_code_0(folder: Path) -> None:
    got = invoke(*ASKED, folder)
    assert (got.exit_code, got.stderr) == (0, "")
    assert got.stdout.startswith(
        "Question: at 4,096 tokens, forward pass, bidirectional, cpu.\nResults: "
    )
    assert f"{folder}, Example CPU 2.5 GHz, 2 cores, 2026-01-05;" in " ".join(got.stdout.split())
    assert "Answer, exact: sdpa, 1" in got.stdout
    assert "Answer, not exact: longformer, 4" in got.stdout  # by the evidence that ships
    assert "masked text 1.97 bits/byte, sdpa 2.08" in got.stdout
    assert "not your machine" not in got.stdout


def test_no_answer_is_exit_code_1_with_what_would_have_to_give(folder: Path) -> None:
    got = invoke(*ASKED, "--max-error", "0.01", "--max-memory", "5MB", folder)
    assert got.exit_code == 1
    assert "Answer, exact: none qualifies by memory." in got.stdout
    assert "sdpa qualifies with --max-memory 8.2MB" in got.stdout
    again = invoke(*ASKED, "--max-error", "0.01", "--max-memory", "8.2MB", folder)
    assert again.exit_code == 0
    assert invoke(*ASKED, "--mode", "training", folder).exit_code == 1


def test_every_option_reaches_the_question(tmp_path: Path) -> None:
    case = {
        "is_causal": True, "dtype": "bfloat16", "batch": 2, "num_heads": 4, "num_kv_heads": 4,
        "head_dim": 32, "threads": 1, "allocator": "retained", "compile": True,
    }  # fmt: skip
    run = a_run(tmp_path / "run", {"sdpa": FOUR["sdpa"]}, case=case)
    add_recall(run, {"sdpa": (1.0, 1.0)}, is_causal=True)
    options = (
        "--mode", "forward", "--use", "scratch",
        "--causal", "--max-error", "0.1", "--min-recall", "0.9", "--max-memory", "1GiB",
        "--error-inputs", "gaussian:scale=1", "--recall-task", "recall:num_pairs=4",
        "--dtype", "bfloat16", "--batch", "2", "--num-heads", "4", "--head-dim", "32",
        "--threads", "1", "--allocator", "retained", "--matmul-precision", "highest",
        "--compile", "on", "--device", "cpu",
    )  # fmt: skip
    asked = json.loads(invoke(*ASKED, *options, run, "--json").stdout)["question"]
    assert asked == {
        "seq_len": 4096, "mode": "forward", "use": "scratch", "device": "cpu", "is_causal": True,
        "max_error": 0.1, "min_recall": 0.9, "max_memory": 2**30,
        "error_inputs": "gaussian:scale=1", "recall_task": "recall:num_pairs=4",
        "setting": {
            "dtype": "bfloat16", "batch": 2, "num_heads": 4, "head_dim": 32, "threads": 1,
            "allocator": "retained", "matmul_precision": "highest", "compile": True,
        },
    }  # fmt: skip
    named = {p.name for p in cli.main.commands["recommend"].params}
    assert {o.lstrip("-").replace("-", "_") for o in options if o.startswith("--")} <= {
        *named, "causal", "compile",
    }  # fmt: skip


def test_the_commands_that_are_printed_are_accepted(folder: Path, tmp_path: Path) -> None:
    """Each is read by the command line as it stands, and asks for what is missing."""
    plugin = tmp_path / "my backends.py"
    plugin.write_text("")
    mine = a_run(tmp_path / "run", {"sdpa": FOUR["sdpa"], "mine": Law(1e-6, 1.0, error=0.3)},
                 case={"threads": 1})  # fmt: skip
    for arguments in (["--threads", "1"], ["--use", "finetune", "--max-memory", "1GB"],
                      ["--causal", "--mode", "training", "--compile", "on"]):  # fmt: skip
        got = invoke(*ASKED, *arguments, "--plugin", plugin, mine, "--json").stdout
        question = json.loads(got)["question"]
        said = invoke(*ASKED, *arguments, "--plugin", plugin, mine).stdout
        for line in re.findall(r"^ *attnbench (run .*|recommend .*)$", said, re.MULTILINE):
            name, *words = shlex.split(line)
            params = cli.main.commands[name].make_context(name, [*words]).params
            assert params["plugins"] == (plugin,)
            if name == "run":
                (case,) = cases(_grid(words))
                assert (case.kind, case.inputs, case.arms[0].label) == ("error", "trained", "mine")
            else:
                assert params["measure"]
                asked = invoke(*[w for w in words if w != "--measure"], mine, "--json").stdout
                assert json.loads(asked)["question"] == question
        assert "attnbench run" in said or "attnbench recommend" in said


def _grid(words: list[str]) -> Any:
    """Return the sweep of a command's options, as the command line makes it."""
    chosen = cli.main.commands["run"].make_context("run", [*words]).params
    rest = ("plugins", "resume", "out", "cluster", "cluster_kind", "within_s", "no_report")
    return plan_sweep(**{name: value for name, value in chosen.items() if name not in rest})


def test_measure_runs_what_is_missing_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First times, at shorter lengths too; then the quality of those of which none is known."""
    plugin, ran = tmp_path / "mine.py", []
    plugin.write_text("")

    def sweep(words: list[str]) -> None:
        ran.append(words)
        out = Path(words[words.index("--out") + 1])
        grid = _grid(words[1:])
        assert grid.suite.name == ("error" if "error" in words[:2] else "speed")
        if grid.suite.name == "speed":
            laws = {"sdpa": FOUR["sdpa"], "mine": Law(1e-6, 1.0, error=0.3)}
            a_run(out, laws, lengths=tuple(grid.seq_lens))
        else:
            assert [a.name for a in grid.backends] == ["mine"]
            add_errors(a_run(out, {"mine": FOUR["sdpa"]}, lengths=(8,)), {"mine": 0.2},
                       inputs="trained", lengths=(1024,))  # fmt: skip

    monkeypatch.setattr(cli, "_sweep", sweep)
    out = tmp_path / "out"
    got = invoke("--seq-len", "2k", "--measure", "--plugin", plugin, "--out", out)
    assert got.exit_code == 0
    assert "--launches" in ran[0]
    assert [words[:5] for words in ran] == [
        ["run", "--mode", "forward", "--seq-len", "512,1024,2048"],
        ["run", "error", "--inputs", "trained", "--seq-len"],
    ]
    assert all(words[words.index("--plugin") + 1] == str(plugin) for words in ran)
    assert "Answer, not exact: mine, " in got.stdout
    assert "error 0.20 on trained inputs (1,024 tokens)" in got.stdout
    assert "shipped" not in got.stdout


def test_json_is_one_object_on_standard_output(folder: Path) -> None:
    got = invoke(*ASKED, folder, "--json")
    told = json.loads(got.stdout)
    assert (told["exact"]["backend"], told["other"]["backend"]) == ("sdpa", "longformer")
    assert (told["reference"], told["folders"]) == (False, [str(folder)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "forward"], "Missing option '--seq-len'"),
        (["--seq-len", "0"], "expected tokens as 16384, 16k or 1m, got '0'"),
        ([*ASKED, "--use", "decode", "--mode", "forward"], "--use: decode goes with mode decode"),
        ([*ASKED, "--out", "x"], "--out: goes with --measure"),
        (["--seq-len", "64", "--mode", "backward"], "'backward' is not one of 'forward'"),
        ([*ASKED, "--device", "tpu"], "'tpu' is not one of 'cpu', 'cuda'"),
        ([*ASKED, "--max-error", "-1"], "--max-error: expected a finite number above 0, got -1.0"),
        ([*ASKED, "--max-error", "nan"], "--max-error: expected a finite number above 0"),
        ([*ASKED, "--min-recall", "2"], "--min-recall: expected a finite number above 0 up to 1"),
        ([*ASKED, "--max-memory", "4 apples"], "--max-memory: expected an amount above 0 such as"),
        ([*ASKED, "--max-memory", ""], "--max-memory: expected an amount above 0"),
        ([*ASKED, "--error-inputs", ""], "--error-inputs: expected a name"),
        ([*ASKED, "--max-latency", "3"], "No such option '--max-latency'"),
        ([*ASKED, "no-such-folder"], "'no-such-folder' does not exist"),
        ([*ASKED, "tests"], "no run here (no records.jsonl)"),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    got = invoke(*arguments)
    assert (got.exit_code, got.stdout) == (2, "")
    assert said in got.stderr
    assert len(got.stderr.splitlines()) == 1


def test_what_was_left_out_is_told_on_standard_error(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    with (run / "records.jsonl").open("a") as file:
        file.write("torn\n")
    got = invoke(*ASKED, run)
    assert got.exit_code == 0
    assert got.stderr.startswith("note: ")


# -- the reference records -----------------------------------------------------------------------


@pytest.mark.slow
def test_without_a_folder_the_reference_records_answer_and_say_whose_they_are() -> None:
    got = invoke(*ASKED)
    assert (got.exit_code, got.stderr) == (0, "")
    assert got.stdout.count(" in Python:") == 1
    said = " ".join(got.stdout.split())
    machine = next(iter(load(*reference_folders()).machines.values()))
    assert f"Results: {machine['cpu']}" in said
    assert "shipped with attnbench, not your machine" in said
    assert "attnbench recommend --seq-len 4096 --measure" in said


def test_the_reference_records_lie_where_the_package_is() -> None:
    folders = reference_folders()
    assert len(folders) >= 5
    assert all(f.is_relative_to(REFERENCE) for f in folders)
    assert REFERENCE == ROOT / "results" / "reference"


def test_an_installation_without_them_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoRunError, match="no reference results here; give a run folder"):
        reference_folders(tmp_path)


@pytest.mark.slow
def test_measured_values_lie_in_the_interval_of_what_is_said_without_them() -> None:
    """Leave each length of the reference records out: inner ones are interpolated over twice the
    gap, the longest is predicted."""
    run = load(
        *(f for f in reference_folders() if "models" not in f.name and "peers" not in f.name)
    )
    table = points(replace(run, frame=run.frame[run.frame["level"] == "attention"]))
    declared = {"latency": "expected_time", "peak_memory": "expected_memory"}
    hits: dict[tuple[str, str], list[bool]] = {}
    for key, part in table[table["metric"].isin(declared)].groupby([*SERIES, "metric"]):
        rows = [r for r in part.to_dict("records") if math.isfinite(r["ci_low"])]
        rows.sort(key=lambda r: r["seq_len"])
        for i in range(2, len(rows)):
            rest, own = rows[:i] + rows[i + 1 :], rows[i]
            got = at_any_length(rest, own["seq_len"], declared[key[-1]])
            if got.known:
                hit = got.low <= own["ci_high"] and own["ci_low"] <= got.high
                hits.setdefault((key[-1], got.basis), []).append(hit)
    assert len(hits["latency", "interpolated"]) > 50
    assert len(hits["latency", "predicted"]) > 15
    for told in hits.values():
        assert sum(told) / len(told) > 0.85


@pytest.mark.slow
def test_the_answer_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys, cli\n"
        f"cli.main(['recommend', *{ASKED!r}, {str(folder)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"longformer" in done.stdout


# -- amounts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("4GiB", 2**32), ("500MB", 5 * 10**8), ("1.5 kB", 1500), ("7", 7),
     ("7B", 7), ("0.5MiB", 2**19), (" 2TB ", 2 * 10**12), ("4.1GB", 4_100_000_000)],
)  # fmt: skip
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "0", "0.1B", "4G", "4gb", "1e9", "nan", "inf", "4GB4", "٤GB",
             "9" * 30, "1.GB", "4\nGB"],
)  # fmt: skip
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(ValueError, match="expected an amount above 0 such as 4GB, 4GiB"):
        parse_size(text)


@given(st.integers(1, 10**18))
def test_an_amount_is_read_as_it_is_written(size: int) -> None:
    assert parse_size(write_size(size)) == size


# -- the lines of Python -------------------------------------------------------------------------

SMALL = {
    "device": "cpu", "dtype": "float32", "batch": 2, "num_heads": 4, "num_kv_heads": 4,
    "head_dim": 16, "is_causal": False, "matmul_precision": "highest", "compile": False,
}  # fmt: skip
OPTIONS = {
    "longformer": "dilation=1+1+2+2,window=8", "bigbird": "block_size=16,num_random_blocks=1",
    "linformer": "method=mean_pool,rank=8", "performer": "features=relu,num_features=32",
}  # fmt: skip


def runs_here(name: str, mode: str, is_causal: bool) -> bool:
    about = attention.describe(name)
    needed = ["causal" if is_causal else "bidirectional"]
    needed += ["state"] if mode == "decode" else []
    return not about["unavailable"]["cpu"] and all(about[n] for n in needed)


CALLS = [
    (name, options, mode, is_causal)
    for name in attention.names()
    for options in ("", *([OPTIONS[name]] if name in OPTIONS else []))
    for mode, is_causal in (
        ("forward", False), ("forward", True), ("training", False), ("training", True),
        ("decode", True),
    )
    if runs_here(name, mode, is_causal)
]  # fmt: skip


def run_lines(lines: str) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(compile(lines, "recommended.py", "exec"), scope)
    return scope


@pytest.mark.parametrize(("name", "options", "mode", "is_causal"), CALLS)
def test_the_lines_run_and_use_what_won(
    name: str, options: str, mode: str, is_causal: bool
) -> None:
    setting = {**SMALL, "is_causal": is_causal}
    scope = run_lines(python_lines(name, options, setting=setting, mode=mode, seq_len=48))
    assert scope["attend"].name == name
    for option, value in parse_options(options).items():
        assert f"{option}={value}".replace("[", "").split(",")[0] in scope[
            "attend"
        ].extra_repr().replace("(", "").replace("'", ""), option  # fmt: skip
    assert scope["out"].shape == (2, 4, 1 if mode == "decode" else 48, 16)
    assert torch.isfinite(scope["out"]).all()
    assert scope["out"].requires_grad == (mode == "training")
    if mode == "decode":
        assert scope["state"].lengths.tolist() == [49, 49]
    if mode == "forward":
        direct = scope["attend"](scope["q"], scope["k"], scope["v"], is_causal=is_causal)
        torch.testing.assert_close(scope["out"], direct)


def test_what_is_written_out_are_the_defaults() -> None:
    for name, budget in BUDGETS.items():
        options = attention.get(name).options()
        assert {key: options[key].default for key in budget} == budget
    lines = python_lines("longformer", "", setting=SMALL, mode="forward", seq_len=48)
    assert 'attention.build("longformer", num_heads=4, head_dim=16, window=256)' in lines


def test_every_backend_is_tried() -> None:
    tried = {name for name, *_ in CALLS}
    assert tried == {
        n for n in attention.names() if any(runs_here(n, "forward", c) for c in (False, True))
    }
    assert {name for name, _, mode, _ in CALLS if mode == "decode"} >= {"sdpa", "performer"}


def test_the_backends_that_need_a_length_are_known() -> None:
    needed = {
        name: {n for n, p in attention.get(name).options().items()
               if p.default is inspect.Parameter.empty} - {"num_heads", "head_dim"}
        for name in attention.names()
    }  # fmt: skip
    assert {n for n, missing in needed.items() if missing} == set(NEEDS_LENGTH)
    assert all(needed[n] == {"seq_len"} for n in NEEDS_LENGTH)


@pytest.mark.parametrize("mode", ["forward", "training", "decode"])
def test_the_lines_follow_the_setting(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    before = torch.get_float32_matmul_precision()
    setting = {
        **SMALL, "dtype": "bfloat16", "num_kv_heads": 2, "is_causal": True,
        "matmul_precision": "medium", "compile": mode != "decode",
    }  # fmt: skip
    lines = python_lines("sdpa", "", setting=setting, mode=mode, seq_len=32)
    try:
        scope = run_lines(lines)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert compiled == ([scope["attend"]] if mode != "decode" else [])
    assert scope["k"].shape[1] == 2
    assert scope["out"].dtype == scope["q"].dtype == torch.bfloat16


@pytest.mark.parametrize("mode", ["forward", "training", "decode"])
def test_on_a_gpu_everything_is_there(mode: str) -> None:
    setting = {**SMALL, "device": "cuda", "dtype": "float16", "is_causal": True}
    lines = python_lines("performer", "", setting=setting, mode=mode, seq_len=32)
    assert '.to("cuda", torch.float16)' in lines
    made = [line for line in lines.splitlines() if "randn" in line or "init_state" in line]
    assert all('device="cuda", dtype=torch.float16' in line for line in made)
    assert len(made) == (3 if mode == "decode" else 1)


@pytest.mark.parametrize(("backend", "mode"), [*itertools.product(FOUR, ["forward", "training"])])
def test_the_lines_that_are_printed_run(tmp_path: Path, backend: str, mode: str) -> None:
    case = {"num_heads": 2, "num_kv_heads": 2, "head_dim": 8}
    run = a_run(tmp_path / "run", {backend: Law(1e-6, 1.0)}, lengths=(32, 64), modes=(mode,),
                case=case)  # fmt: skip
    if backend == "longformer":
        got = invoke("--seq-len", 48, "--mode", mode, run)
        block = got.stdout[got.stdout.index(f"{backend} in Python:") :].splitlines()[1:]
        lines = "\n".join(line[4:] for line in block if line.startswith("    ") or not line)
    else:  # no answer: they learn far less
        ranking = results.recommend(results.load(run).frame, seq_len=48, mode=mode).ranking
        assert ranking is not None
        lines = ranking.python(ranking.candidates[0])
    assert run_lines(lines)["out"].shape == (1, 2, 48, 8)


OPTION_TEXTS = st.dictionaries(
    st.sampled_from(["window", "rank", "method", "dilation", "scale"]),
    st.sampled_from(["1", "0.5", "true", "None", "mean_pool", "1+2+4", "a+b", "1e-3", "inf"]),
)


@given(OPTION_TEXTS)
def test_options_are_read_as_the_command_line_reads_them(options: dict[str, str]) -> None:
    text = ",".join(f"{k}={v}" for k, v in options.items())
    arm = parse_backend(f"x:{text}") if text else Arm("x")
    assert parse_options(text) == arm.options


@pytest.mark.parametrize(
    "options",
    ["window", "=3", "window=", "a b=1", "lambda=1", "num_heads=3", "w=1,w=2", "é=1",
     "__import__('os')=1", "w=1~0123abcd"],
)  # fmt: skip
def test_options_that_are_no_python_are_not_written(options: str) -> None:
    lines = python_lines("sdpa", options, setting=SMALL, mode="forward", seq_len=8)
    assert lines.startswith("# sdpa: ")
    assert len(lines.splitlines()) == 1
    run_lines(lines)


@given(st.text(), st.text())
def test_a_strangers_words_stay_words(name: str, value: str) -> None:
    """Whatever a record calls a backend or an option's value: text in the lines, never code."""
    lines = python_lines(name, f"x={value}", setting=SMALL, mode="forward", seq_len=8)
    tree = compile(lines, "recommended.py", "exec")
    assert set(tree.co_names) <= {
        "torch", "attention", "attend", "build", "randn", "q", "k", "v", "no_grad", "out",
    }  # fmt: skip
