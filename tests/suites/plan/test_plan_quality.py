"""Suites quality and quantized before anything runs: grid, cases, misuse, time left, words."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from helpers_covering import covering
from helpers_sweep import record as sweep_record
from helpers_training import training

import cli
from attention import registry as backends
from results.schema import Arm, Case
from suites.content_names import corpus_name, folder_name
from suites.engine.declared import Declared
from suites.engine.prediction import History
from suites.error.suite import ERROR_PRESETS
from suites.parsing import parse_backend
from suites.plan import Item, cases, order, plan_sweep, series_id
from suites.quality.rows import FOR_OTHERS, Chosen, TaskRow, budgets, rows_for
from suites.registry import find
from suites.tasks import registry
from suites.terminal.options import suite_options
from suites.terminal.progress import Console, describe, label
from suites.training.plan import VIEWS, plan_from
from suites.worker.preflight import inspect_case

pytestmark = pytest.mark.usefixtures("in_process")

TRAINING_PRESETS = {name: find(name).presets for name in ("quality", "quantized")}
PRESETS = [(suite, name) for suite, presets in TRAINING_PRESETS.items() for name in presets]


def quality(*tasks: str, preset: str | None = None, **chosen: Any) -> list[Case]:
    """Return the cases of a sweep of suite quality."""
    named = tuple(map(parse_backend, tasks))
    return cases(plan_sweep(preset, **{"suite": "quality", "tasks": named, **chosen}))


def only(every: list[Case], name: str) -> Any:
    """Return what all cases have of a field."""
    (value,) = {getattr(case, name) for case in every}
    return value


# -- grid and cases ------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "name"), PRESETS)
def test_a_preset_is_the_product_of_its_rows(suite: str, name: str) -> None:
    preset = TRAINING_PRESETS[suite][name]
    every = cases(plan_sweep(name, suite=suite))
    expected = sum(
        len(row.forms) * len(row.pretrain) * len(row.arms) * preset.seeds
        * max(1, len(preset.weights))
        for row in preset.rows
    )  # fmt: skip
    assert len(every) == len({case.id for case in every}) == expected
    assert {case.kind for case in every} == {"task" if suite == "quality" else "quantized"}
    assert {(c.level, c.mode, c.num_heads, c.head_dim) for c in every} == {
        ("model", "training", 0, 0)
    }
    assert {case.seed for case in every} == set(range(preset.seeds))
    assert {case.weights for case in every} == set(preset.weights or ("",))
    for case in every:
        plan = plan_from(case.training)
        assert plan.view == "steps"
        assert case.key_len == case.seq_len
        assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        pytest.param(*preset, marks=[pytest.mark.slow] * (preset[1] == "full"))
        for preset in PRESETS
    ],
)
def test_every_case_of_a_preset_is_accepted(suite: str, name: str) -> None:
    every = [c for c in cases(plan_sweep(name, suite=suite)) if c.seed == 0]
    for case in every:
        told = inspect_case(case, {})
        assert told["misuse"] is None, case
        cannot = [arm for arm in ("linformer",) if case.is_causal and case.arms[0].name == arm]
        assert bool(told["unsupported"]) == bool(cannot), (case, told["unsupported"])


def test_each_option_reaches_the_cases() -> None:
    every = quality(
        "induction:num_letters=20", forms=("causal",), view="time", amount=2.5, lr=0.01,
        pretrain=0.25, num_seeds=2, seed=5, models=(Arm("small", {"d_model": 32}),), batches=(8,),
        seq_lens=(48,), backends=(Arm("full"), Arm("lstm")), threads=(1,), dtypes=("bfloat16",),
    )  # fmt: skip
    assert len(every) == 4
    assert only(every, "task") == "induction:num_letters=20"
    assert only(every, "is_causal") is True
    plan = plan_from(only(every, "training"))
    assert (plan.view, plan.amount, plan.lr, plan.pretrain) == ("time", 2.5, 0.01, 0.25)
    assert (only(every, "batch"), only(every, "seq_len")) == (8, 48)
    assert parse_backend(only(every, "model")) == Arm("decoder", {"d_model": 32})
    assert {case.arms[0].name for case in every} == {"full", "lstm"}
    assert {case.seed for case in every} == {5, 6}
    assert (only(every, "dtype"), only(every, "threads")) == ("bfloat16", 1)


@pytest.mark.parametrize("view", VIEWS)
def test_views_differ_in_what_is_equal_alone(view: str) -> None:
    usual = quality("recall", num_seeds=1)
    every = quality("recall", num_seeds=1, view=view)
    for one, other in zip(usual, every, strict=True):
        plans = plan_from(one.training), plan_from(other.training)
        assert plans[1].view == view
        assert plans[0] == replace(plans[1], view="steps", amount=plans[0].amount)
        if view == "operations":  # those of exact attention in as many steps
            assert plans[1].amount == plans[0].amount
        assert replace(one, training="") == replace(other, training="")


def test_a_whole_amount_of_steps_is_written_whole() -> None:
    assert "amount=20," in only(quality("copy", amount=20.0), "training")


def test_a_model_keeps_what_its_task_says_beside_what_is_chosen() -> None:
    row = TaskRow(Arm("recall"), 16, 10, 1.0, shape={"d_model": 32, "num_layers": 3})
    preset = replace(TRAINING_PRESETS["quality"]["quick"], rows=(row,))
    (changed,) = rows_for(preset, Chosen(shape={"d_model": 8}))
    assert changed.shape == {"d_model": 8, "num_layers": 3}


def test_budgets_are_possible_at_every_length() -> None:
    for seq_len in (1, 3, 16, 64, 256, 4096):
        arms = {arm.name: arm.options for arm in TaskRow(Arm("recall"), seq_len, 10, 1.0).arms}
        assert "sdpa" in arms
        assert 1 <= arms["linformer"]["rank"] <= seq_len
        assert 1 <= arms["longformer"]["window"] <= seq_len
        assert 1 <= arms["bigbird"]["block_size"] <= seq_len


@pytest.mark.parametrize(
    ("objective", "forms", "architectures"),
    [("next", {True}, {"decoder"}), ("masked", {False}, {"encoder"}),
     ("denoise", {False}, {"encoder_decoder"})],
)  # fmt: skip
def test_an_objective_is_trained_in_the_form_it_has(
    objective: str, forms: set[bool], architectures: set[str]
) -> None:
    every = quality(f"language:objective={objective}", num_seeds=1)
    assert {case.is_causal for case in every} == forms
    assert {parse_backend(case.model).name for case in every} == architectures


def test_a_task_of_a_plug_in_has_a_row_too() -> None:
    assert {case.task for case in quality("their_own:depth=3")} == {"their_own:depth=3"}


def test_files_are_named_by_their_content(tmp_path: Path) -> None:
    corpus = tmp_path / "my text"
    corpus.write_bytes(b"text " * 100)
    grid = plan_sweep(None, suite="quality", tasks=(Arm("language"), Arm("recall")), corpus=corpus)
    name = corpus_name(corpus)
    assert grid.files == {name: str(corpus)}
    assert {case.task for case in cases(grid)} == {f"language:corpus={name}", "recall"}
    assert not any(str(tmp_path) in json.dumps(case.to_json()) for case in cases(grid))
    (tmp_path / "lra").mkdir()
    (tmp_path / "lra" / "a.tsv").write_text("Source\tTarget\n1\t1\n")
    grid = plan_sweep(None, suite="quality", tasks=(Arm("lra"),), lra_data=tmp_path / "lra")
    assert {case.task for case in cases(grid)} == {f"lra:data={folder_name(tmp_path / 'lra')}"}


@pytest.mark.parametrize("count", [2, 5, 9])
def test_shards_are_the_whole_sweep_and_share_nothing(count: int) -> None:
    whole = {case.id for case in cases(plan_sweep("standard", suite="quality"))}
    parts = [
        [case.id for case in cases(plan_sweep("standard", suite="quality", shard=(i, count)))]
        for i in range(1, count + 1)
    ]
    assert Counter(id_ for part in parts for id_ in part) == Counter(whole)


def test_every_training_is_launched_once_and_none_waits_for_another() -> None:
    grid = plan_sweep("quick", suite="quality")
    items = order(grid, cases(grid))
    trainings = [item for item in items if item.case.kind == "task"]
    launched = Counter((item.case.id, item.launch) for item in trainings)
    assert launched == Counter((case.id, 0) for case in cases(grid))
    assert len({series_id(item.case) for item in trainings}) == len(trainings)


# -- misuse --------------------------------------------------------------------------------------


def misuse(*arguments: Any) -> str:
    """Return the one line that a command ends with."""
    result = CliRunner().invoke(cli.main, ["run", *map(str, arguments)], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quality", "--preset", "scaling"], "is not one of 'quick', 'standard', 'full'"),
        (["quantized", "--preset", "full"], "'full' is not"),
        (["quality", "--seq-len", "64,128"], "--seq-len: a training has one; got 2"),
        (["quality", "--batch", "4,8"], "--batch: a training has one; got 2"),
        (["quality", "--model", "small", "--model", "small:d_model=8"],
         "--model: a training has one; got 2"),
        (["quality", "--model", "bert-base"], "--model: with suite quality expected s"),
        (["quality", "--causal"], "--causal: a training has none of its own"),
        (["quality", "--mode", "forward"], "--mode: a training has none of its own"),
        (["quality", "--level", "layer"], "--level: a training has none of its own"),
        (["quality", "--num-heads", "4"], "--num-heads: a training has none"),
        (["quality", "--head-dim", "4"], "--head-dim: a training has none"),
        (["quality", "--compile"], "--compile: a training has none"),
        (["quality", "--checkpointing"], "--checkpointing: a training has none"),
        (["quality", "--allocator", "retained"], "--allocator: a training has none"),
        (["quality", "--matmul-precision", "high"], "--matmul-precision: a training"),
        (["quality", "--profile"], "--profile: only with suite speed"),
        (["quality", "--peers", "linformer"], "--peers: only with suite peers"),
        (["quality", "--inputs", "gaussian"], "--inputs: only with suite error"),
        (["quality", "--weights", "int8"], "--weights: only with suite quantized"),
        (["--task", "recall"], "--task: only with suite quality or quantized"),
        (["peers", "--form", "causal"], "--form: only with suite quality or quantized"),
        (["error", "--equal", "time"], "--equal: only with suite quality"),
        (["--amount", "4"], "--amount: only with suite quality"),
        (["--lr", "0.1"], "--lr: only with suite quality"),
        (["--pretrain", "0"], "--pretrain: only with suite quality"),
        (["--seeds", "2"], "--seeds: only with suite quality"),
        (["quality", "--form", "both"], "causal"),
        (["quality", "--equal", "epochs"], "operations"),
        (["quality", "--amount", "0"], "0<x"),
        (["quality", "--amount", "-3"], "0<x"),
        (["quality", "--amount", "nan"], "'--amount': nan is not in the range"),
        (["quality", "--lr", "nan"], "'--lr': nan is not in the range"),
        (["quality", "--lr", "0"], "'--lr'"),
        (["quality", "--pretrain", "1"], "0<=x<1"),
        (["quality", "--pretrain", "nan"], "'--pretrain': nan is not in the range"),
        (["quality", "--seeds", "0"], "1<=x<=1000"),
        (["quality", "--task", "recall:pairs"], "NAME:key=value"),
        (["quality", "--corpus", "missing.txt"], "missing.txt"),
        (["quality", "--lra-data", "missing"], "missing"),
        (["quantized", "--weights", "int3"], "int4"),
        (["quality", "--equal", "time", "--amount", "100", "--case-timeout", "60"],
         "--case-timeout: 60 s are too few for 100 s of training (--amount) and what is measured "
         "then; expected at least 130"),
        (["quality", "--equal", "time", "--amount", "2000000"],
         "--amount: 2e+06 s of training are beyond any --case-timeout"),
        (["--case-timeout", "nan"], "'--case-timeout': nan is not in the range"),
    ],
)  # fmt: skip
def test_misuse_names_the_option(arguments: list[str], said: str, tmp_path: Path) -> None:
    line = misuse(*arguments, "--out", tmp_path / "run")
    assert said in line
    assert not (tmp_path / "run").exists()


def test_a_file_that_cannot_be_learnt_is_misuse(tmp_path: Path) -> None:
    empty, full, folder = tmp_path / "empty", tmp_path / "full", tmp_path / "folder"
    empty.touch()
    full.write_text("text")
    folder.mkdir()
    run = ("quality", "--out", tmp_path / "run")
    assert "--corpus: empty: expected text to learn, got an empty file" in misuse(
        *run, "--task", "language", "--corpus", empty)  # fmt: skip
    assert "--corpus: no task here reads it; add --task language" in misuse(
        *run, "--preset", "quick", "--task", "recall", "--corpus", full)  # fmt: skip
    assert "--lra-data: folder: expected .tsv files in this folder, got none" in misuse(
        *run, "--task", "lra", "--lra-data", folder)  # fmt: skip
    (folder / "a.tsv").touch()
    assert "--lra-data: no task here reads it; add --task lra" in misuse(
        *run, "--task", "recall", "--lra-data", folder)  # fmt: skip
    assert "only with suite quality" in misuse("--corpus", full)
    assert "only with suite quality" in misuse("--lra-data", folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("chosen", "limit"),
    [
        ({}, 3600.0),
        ({"view": "time", "amount": 100.0}, 3600.0),
        ({"view": "time", "amount": 10_000.0}, 15_120.0),
        ({"view": "time", "amount": 900_000.0}, 1e6),
        ({"amount": 10_000.0}, 3600.0),
        ({"view": "time", "amount": 100.0, "case_timeout_s": 130.0}, 130.0),
        ({"amount": 100.0, "case_timeout_s": 5.0}, 5.0),
    ],
)
def test_a_case_has_time_for_a_training_of_stated_seconds(
    chosen: dict[str, Any], limit: float
) -> None:
    assert plan_sweep("quick", suite="quality", **chosen).case_timeout_s == limit


@pytest.mark.parametrize("name", ["amount", "lr", "pretrain"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_misuse_in_python_too(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected a number, got {value}"):
        quality("recall", **{name: value})


@pytest.mark.parametrize(
    ("task", "chosen", "said"),
    [
        ("recal", {}, "did you mean 'recall'"),
        ("recall:num_pair=3", {}, "did you mean 'num_pairs'"),
        ("recall:num_pairs=40,vocab_size=32", {}, "num_pairs"),
        ("recall:num_pairs=0", {}, "num_pairs"),
        ("recall", {"seq_lens": (3,)}, "seq_len"),
        ("recall", {"amount": 2.5}, "amount: expected a whole number of steps, got 2.5"),
        ("recall", {"dtypes": ("float64",)}, "dtype"),
        ("recall", {"dtypes": ("float16",)}, "dtype: float16 is trained on CUDA"),
        ("recall", {"models": (Arm("small", {"d_model": 30, "num_heads": 4}),)}, "d_model"),
        ("recall", {"models": (Arm("small", {"width": 4}),)}, "width: no such value"),
        ("recall", {"backends": (Arm("performr"),)}, "did you mean 'performer'"),
        ("recall", {"backends": (Arm("longformer", {"windw": 3}),)}, "did you mean 'window'"),
        ("language:objective=nxt", {}, "objective"),
        ("language:corpus=here.txt", {}, "corpus: expected stdlib or"),
        ("needle:depth=2", {}, "depth"),
    ],
)
def test_impossible_trainings_are_misuse_before_the_first(
    task: str, chosen: dict[str, Any], said: str
) -> None:
    (told, *others) = (inspect_case(case, {})["misuse"] for case in quality(task, **chosen))
    assert said in told
    assert "\n" not in told
    assert all(others)


def test_a_folder_that_a_task_reads_is_asked_for() -> None:
    with pytest.raises(ValueError, match="lra-data: task lra reads a folder"):
        quality("lra")


def test_a_broken_folder_is_misuse_before_the_first(tmp_path: Path) -> None:
    for name in ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv"):
        (tmp_path / name).write_text("Source\tTarget\n[MAX 1 2 ]\tmany\n")
    grid = plan_sweep(None, suite="quality", tasks=(Arm("lra"),), lra_data=tmp_path, num_seeds=1)
    case = cases(grid)[0]
    told = inspect_case(case, {name: Path(path) for name, path in grid.files.items()})
    assert re.search(r"basic_\w+\.tsv", told["misuse"])
    assert "many" in told["misuse"]


# -- how long it takes ---------------------------------------------------------------------------


def took(case: Case, wall_s: float, status: str = "ok") -> dict[str, Any]:
    made = sweep_record(case, wall_s=wall_s, status=status)
    return made if status == "ok" else {**made, "arms": [], "reason": "why"}


def test_a_training_is_foretold_by_its_likes() -> None:
    case = training()
    history = History({})
    assert history.wall(case) is None
    assert history.remaining([Item(case, 0)]) is None
    history.add(took(training(is_causal=True), 30.0))
    assert history.wall(case) == 30.0  # the same task in the other form
    assert history.wall(training(task="needle", seq_len=256)) is None
    history.add(took(training("lstm", seed=3), 8.0))
    history.add(took(training("full", seed=3), 12.0))
    assert history.wall(case) == 10.0  # other arms in this form
    history.add(took(training(seed=1), 6.0))
    history.add(took(training(seed=2), 4.0))
    assert history.wall(case) == 5.0  # other seeds of this arm
    history.add(took(case, 7.0))
    assert history.wall(case) == 7.0
    assert history.remaining([Item(case, 1), Item(training(seed=9), 0)]) == pytest.approx(
        7.0 + (6.0 + 4.0 + 7.0) / 3)  # fmt: skip


def test_a_training_of_another_budget_is_no_like() -> None:
    history = History({})
    history.add(took(training(training="steps:amount=4"), 2.0))
    assert history.wall(training(training="steps:amount=400")) is None
    history.add(took(training(batch=8), 3.0))
    assert history.wall(training(batch=16)) is None


def test_what_cannot_run_takes_no_time() -> None:
    case, cannot = training(), training("linformer:rank=4", is_causal=True)
    history = History({cannot.id: Declared(unsupported=("no",))})
    history.add(took(training(seed=1), 6.0))
    history.add({**took(cannot, 0.0, "unsupported")})
    assert history.remaining([Item(case, 0), Item(cannot, 0)]) == 6.0


def test_no_training_is_kept_from_being_started() -> None:
    case = training()
    history = History({})
    history.add(took(training(seed=1), 60.0, "timeout"))
    history.add(took(training(seed=2), 1.0, "out_of_memory"))
    assert history.objection(case, timeout_s=1.0, free_bytes=1) is None
    assert history.foretold(case) == {"latency": None, "peak_memory": None}


# -- what people see -----------------------------------------------------------------------------


def test_labels_and_results_in_words() -> None:
    case = training("longformer:window=4", task="recall:num_pairs=8", is_causal=True, seed=2)
    assert label(case) == "longformer:window=4 recall:num_pairs=8 causal N=32 seed 2"
    kept = replace(case, kind="quantized", weights="int8", is_causal=False)
    assert "in int8" in label(kept)
    assert "bidirectional" in label(kept)
    made = sweep_record(case, latency=0.012)
    metrics = made["arms"][0]["metrics"]
    metrics |= {
        "accuracy": {"unit": "1", "value": 0.987}, "training_time": {"unit": "s", "value": 12.34},
        "training_steps": {"unit": "1", "value": 400},
    }  # fmt: skip
    assert describe(made) == "98.7 % right  400 steps in 12.3 s  12 ms  0.0 MiB"
    metrics["bits_per_byte"] = {"unit": "bit/B", "value": 2.1234}
    assert describe(made).startswith("2.123 bits/byte  400 steps")
    failed = took(case, 1.0, "failed")
    assert describe({**failed, "reason": "DivergedError: x"}) == "DivergedError: x"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_what_a_training_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    console = Console(stream)
    console.begin(Path("x"), 1, 0, [])
    console.starting(Item(training(), 0))
    console.working("step 40, 10 % of steps, loss 1.234, 5,000 tokens/s\x1b[2J")
    shown = stream.getvalue().rpartition("\x1b[2K")[2]
    assert "step 40, 10 % of steps, loss 1.234, 5,000 tokens/s" in shown
    assert "\x1b[2J" not in shown
    console.starting(Item(training(seed=1), 0))
    assert "step 40" not in stream.getvalue().rpartition("\x1b[2K")[2]


def test_a_log_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from suites.terminal import progress

    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    console = Console(stream)
    console.begin(Path("x"), 1, 0, [])
    console.starting(Item(training(), 0))
    for seconds in range(1, 71):
        now[0] = 100.0 + seconds
        console.working(f"step {seconds}")
    assert stream.getvalue().splitlines()[1:] == ["    step 30", "    step 60"]


def test_defaults_in_the_options_are_those_of_the_suites_presets() -> None:
    def shown(suite: str, name: str) -> Any:
        groups = suite_options(find(suite)).values()
        (option,) = (o for group in groups for o in group if o.name == name)
        return option.show_default

    seconds = [one.case_timeout_s for one in ERROR_PRESETS.values()]
    assert shown("error", "case_timeout_s") == f"{seconds[0]:g}; full {seconds[-1]:g}"
    assert shown("quality", "case_timeout_s") == "3600; full 14400"
    assert shown("error", "launches") == "1; full 3"
    assert (shown("quality", "launches"), shown("quality", "num_seeds")) == ("1", "3")
    assert shown("quantized", "num_seeds") == "1"
    assert shown("error", "num_heads") == "4"


# -- list ----------------------------------------------------------------------------------------


def listed(*arguments: str) -> Any:
    return CliRunner().invoke(cli.main, ["list", *arguments], catch_exceptions=False)


def test_list_shows_every_task_with_its_options() -> None:
    shown = listed("--tasks").stdout
    for row in FOR_OTHERS:
        forms = " and ".join(row.forms)
        line = f"  trained {forms}: {row.task.label}, N={row.seq_len}, {row.steps} steps\n"
        assert line in shown
    for described in registry.describe():
        assert re.search(rf"^{described['name']}  \(", shown, re.MULTILINE)
        assert described["paper"] in shown
        for option in described["options"]:
            assert option in shown
    assert "depth=0.0+0.1" in shown  # as the command line reads it
    assert "options: data\n" in shown  # lra needs it
    assert "?." not in shown


def test_list_of_tasks_as_json_is_all_that_they_declare() -> None:
    assert json.loads(listed("--tasks", "--json").stdout) == json.loads(
        json.dumps(registry.describe()))  # fmt: skip


@pytest.mark.parametrize("pair", [("--tasks", "--peers"), ("--models", "--tasks")])
def test_two_lists_at_once_are_misuse(pair: tuple[str, str]) -> None:
    result = listed(*pair)
    assert result.exit_code == 2
    assert all(option in result.stderr for option in pair)


@covering(
    ("seq_len", [32, 64, 128, 256]),
    ("is_causal", [False, True]),
    ("name", ["longformer", "bigbird"]),
)
def test_a_pattern_has_a_quarter_of_exact_attentions_keys(
    name: str, is_causal: bool, seq_len: int
) -> None:
    arm = next(arm for arm in budgets(seq_len) if arm.name == name)
    attend = backends.build(name, num_heads=1, head_dim=seq_len, **arm.options)
    q = torch.zeros(1, 1, seq_len, seq_len)
    weights = attend.reference(q, q, torch.eye(seq_len)[None, None], is_causal=is_causal)
    seen = float((weights > 0).sum())
    every = seq_len * (seq_len + 1) / 2 if is_causal else seq_len**2
    assert 0.23 < seen / every < 0.29


def test_a_form_leaves_the_rows_that_have_it() -> None:
    causal = quality("recall", forms=("causal",), num_seeds=1)
    assert {(case.is_causal, case.batch) for case in causal} == {(True, 32)}
    both = quality("recall", num_seeds=1)
    assert {(case.is_causal, case.batch) for case in both} == {(True, 32), (False, 64)}
    full = cases(plan_sweep("full", suite="quality", forms=("causal",)))
    assert all(case.is_causal for case in full)
    assert {case.task for case in full if case.task.startswith("language")} == {"language"}


def test_a_named_task_keeps_the_form_it_is_asked_in() -> None:
    cases_of = quality(
        "language", "language:objective=masked", forms=("bidirectional",), num_seeds=1
    )
    assert {case.task for case in cases_of} == {"language", "language:objective=masked"}
