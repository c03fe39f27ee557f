"""Kind context: the ranks of a case, what is refused, and a sweep through the driver."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from helpers_sweep import wait_until

from attention.backends.longformer import LongformerAttention
from cli import main
from results.schema import CONTEXT, CONTEXT_MODE, Arm, Case, check_record
from suites.context_parallel.kind import threads_of
from suites.context_parallel.suite import CONTEXT_PRESETS
from suites.plan import cases, plan_sweep
from suites.worker.preflight import inspect_case
from suites.worker.run import answer


@pytest.fixture(autouse=True)
def _server(request: pytest.FixtureRequest) -> None:
    """Start ranks from a real process; all else needs none."""
    is_slow = request.node.get_closest_marker("slow") is not None
    request.getfixturevalue("one_server" if is_slow else "in_process")


CASE = Case(
    kind=CONTEXT, level="attention", mode=CONTEXT_MODE, arms=(Arm("longformer", {"window": 8}),),
    batch=1, num_heads=2, num_kv_heads=2, head_dim=8, seq_len=65, key_len=65, device="cpu",
    dtype="float32", is_causal=True, threads=2, allocator="default", compile=False, seed=0,
    ranks=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ask(case: Case, **more: Any) -> dict[str, Any]:
    request = {"do": "case", "case": case.to_json(), "budget_s": 0.01, "deadline_s": 100.0}
    found = answer({**request, "memory_limit": None, "plugins": [], **more})["record"]
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_a_case_is_timed_counted_and_held_against_the_reference() -> None:
    found = ask(CASE)
    assert found["status"] == "ok", found["reason"]
    whole = {
        "schema": 1, "measurement": 2, "run": "r", "machine": "m", "environment": "e",
        "case": CASE.to_json(), "launch": {"index": 0}, **found,
    }  # fmt: skip
    check_record(whole)
    (arm,) = found["arms"]
    assert arm["kernel"].startswith("tiled_band")
    assert arm["gate"]["relative_l2"] <= arm["gate"]["budget"]
    assert arm["gate"]["gradient"]["relative_l2"] <= arm["gate"]["gradient"]["budget"]
    metrics = {name: metric.get("value") for name, metric in arm["metrics"].items()}
    halo = 8 * 2 * 2 * 8 * 4  # W keys and values of 2 heads × 8 in float32, from the left alone
    assert metrics["exchanged_forward"] == metrics["exchanged_formula"] == halo
    assert metrics["exchanged_bytes"] == 2 * halo
    assert metrics["peak_memory"] >= 0
    assert min(arm["metrics"]["latency"]["samples"]) > 0
    assert arm["cost"] is None


@pytest.mark.slow
def test_the_ranks_end_with_the_time_of_the_case() -> None:
    before = ranks_there()
    found = ask(replace(CASE, seq_len=1 << 14, key_len=1 << 14, arms=(Arm("sdpa"),)), deadline_s=6)
    assert found["status"] == "timeout"
    assert found["reason"].endswith("while running the ranks")
    wait_until(lambda: ranks_there() <= before)


def ranks_there() -> set[int]:
    """Return the processes that are ranks."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"context_rank" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


WRONG = """
from attention.backends.sdpa import SDPAAttention
from attention.registry import register

@register("off_by_rank")
class OffByRank(SDPAAttention):
    def attend_across(self, part):
        return super().attend_across(part) + part.exchange.rank
"""


@pytest.mark.slow
@pytest.mark.usefixtures("registry_restored")
def test_a_rank_that_is_wrong_says_so(tmp_path: Path) -> None:
    """And a backend from a file is known to the ranks."""
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    found = ask(replace(CASE, arms=(Arm("off_by_rank"),)), plugins=[str(file)])
    assert found["status"] == "failed"
    assert found["reason"].startswith(
        "WrongOutputError: rank 1: reference check: off_by_rank: output differs"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "training"}, "mode: expected context_parallel, got training"),
        ({"ranks": 66}, "ranks: expected 1 to 65"),
        ({"ranks": 0}, "ranks: expected 1 to 65"),
        ({"key_len": 60}, "key_len: expected 65 as seq_len, got 60"),
        ({"compile": True}, "compile: expected False, got True"),
        ({"kind": "speed"}, "kind speed runs in one process; got context_parallel over 2 ranks"),
        ({"kind": "speed", "mode": "forward"}, "got forward over 2 ranks"),
        ({"arms": (Arm("longformer", {"windw": 8}),)}, "windw"),
    ],
)
def test_misuse_is_named(changes: dict[str, Any], said: str) -> None:
    told = inspect_case(replace(CASE, **changes))
    assert said in told["misuse"]


def test_what_cannot_be_cut_is_unsupported() -> None:
    (why,) = inspect_case(replace(CASE, arms=(Arm("bigbird"),)))["unsupported"]
    assert "bigbird cannot be cut over ranks (its random blocks lie anywhere" in why
    (device,) = inspect_case(replace(CASE, device="cuda"))["unsupported"][-1:]
    assert "ranks: 2 need as many GPUs; torch sees" in device
    told = inspect_case(CASE)
    assert (told["misuse"], told["unsupported"]) == (None, [])
    assert told["time_exponent"] == LongformerAttention.time_exponent


def test_ranks_share_the_threads() -> None:
    shared = [threads_of(replace(CASE, threads=t, ranks=r)) for t, r in ((8, 2), (2, 4), (1, 1))]
    assert shared == [4, 1, 1]


# -- the sweep ------------------------------------------------------------------------------------


def test_a_preset_shows_both_scalings() -> None:
    for name, preset in CONTEXT_PRESETS.items():
        every = cases(plan_sweep(name, suite="context"))
        assert {c.kind for c in every} == {CONTEXT}
        assert {c.ranks for c in every} == set(preset.ranks)
        assert len(every) == len(preset.backends) * len(preset.ranks) * len(preset.seq_lens)
        shares = [{c.seq_len / c.ranks for c in every if c.ranks == r} for r in preset.ranks[:3]]
        assert set.intersection(*shares)  # weak: as many tokens a rank
        for case in every:
            assert inspect_case(case)["misuse"] is None


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", "context", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mode", "forward"), "--mode: suite context measures a training step"),
        (("--compile", "on"), "--compile: suite context measures a training step"),
        (("--ranks", "4", "--seq-len", "2"), "--ranks: expected 1 to 2"),
        (("--preset", "million"), "'million' is not one of 'quick', 'standard'"),
        (("--suite", "speed"), "--suite: context is named already; got speed"),
    ],
)
def test_misuse_of_the_command_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = run(*arguments, "--out", str(tmp_path / "run"))
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_sweep_measures_the_ranks_and_has_a_chapter(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run(
        "--ranks", "2", "--seq-len", "64", "--backend", "performer:num_features=8", "--backend",
        "bigbird", "--num-heads", "2", "--head-dim", "8", "--threads", "1",
        "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    ends = {
        (r["case"]["arms"][0]["name"], r["case"]["ranks"]): r["status"]
        for r in records if r["case"]["kind"] == CONTEXT
    }  # fmt: skip
    assert ends == {
        ("performer", 2): "ok", ("bigbird", 2): "unsupported",
    }  # fmt: skip
    assert "performer:num_features=8 over 2 ranks N=64  ok" in done.output
    assert "B/token exchanged" in done.output
    assert os.fspath(tmp_path) not in (out / "records.jsonl").read_text()
    written = CliRunner().invoke(main, ["report", str(out), "--format", "md"])
    assert written.exit_code == 0, written.output
    assert "# Context parallelism: " in (out / "report.md").read_text()
