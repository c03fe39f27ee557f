from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asv import runner, util
from asv.runner import BENCHMARK_RUN_SCRIPT

from results.schema import MEASUREMENT, Arm, Case
from suites.speed.presets import PRESETS

ROOT = Path(__file__).parents[2]
SUITES = ROOT / "suites"

CASE = Case(
    kind="speed", level="attention", mode="forward", arms=(Arm("sdpa"),), batch=1, num_heads=2,
    num_kv_heads=2, head_dim=16, seq_len=128, key_len=128, device="cpu", dtype="float32",
    is_causal=False, threads=2, allocator="default", compile=False, seed=0,
)  # fmt: skip


class Interpreter:
    """What asv's launchers need of an environment."""

    name = "this"

    def __init__(self) -> None:
        self.env_vars = {
            "ASV_PYTHONPATH": str(ROOT),
            "ATTNBENCH_DRIVER_PID": str(os.getpid()),
            "PYTHONWARNINGS": "error",
        }

    def run(self, args: list[str], **options: Any) -> Any:
        return util.check_output([sys.executable, *args], **options)


@pytest.fixture(scope="module", params=["ForkServer", "Spawner"])
def launcher(request: pytest.FixtureRequest) -> Iterator[Any]:
    started = getattr(runner, request.param)(Interpreter(), str(SUITES))
    assert started.preimport() == (True, "")  # it prints nothing, warnings being errors
    yield started
    started.close()


def run(launcher: Any, folder: Path, name: str, **parameters: Any) -> tuple[str, int, Any]:
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    out, code = launcher.run(
        name=name,
        params_str=json.dumps(parameters),
        profile_path="None",
        result_file_name=str(result),
        timeout=100,
        cwd=str(folder),
    )
    return out, code, json.loads(result.read_text()) if result.exists() else None


def ask(launcher: Any, folder: Path, **request: Any) -> dict[str, Any]:
    out, code, data = run(
        launcher, folder, "benchmarks.Driven.measure_request", request={**request, "plugins": []}
    )
    assert code == 0, out
    return dict(data)


def test_asv_discovers_exactly_what_is_meant(tmp_path: Path):
    found = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, BENCHMARK_RUN_SCRIPT, "discover", str(SUITES), str(found)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "ASV_PYTHONPATH": str(ROOT)},
    )
    every = sorted(json.loads(found.read_text()), key=lambda one: str(one["name"]))
    grid, beside, step, error = every
    assert error["name"] == "benchmarks.ErrorAtBudget.track_relative_error"
    assert (error["type"], error["unit"]) == ("track", "relative L2")
    assert error["param_names"] == ["backend", "inputs"]
    assert step["name"] == "benchmarks.DecodeStep.measure_latency"
    assert step["param_names"] == ["backend", "context"]
    assert beside["name"] == "benchmarks.BesidePeers.measure_latency"
    assert beside["param_names"] == ["beside", "mode"]
    assert grid["name"] == "benchmarks.AttentionSpeed.measure_latency"
    assert (grid["type"], grid["unit"]) == ("time", "seconds")
    assert grid["version"] == str(MEASUREMENT)
    assert grid["param_names"] == ["backend", "seq_len", "mode"]
    assert grid["timeout"] > 60
    assert not {"setup_cache_key", "number", "repeat", "rounds"} & grid.keys()


def test_asv_accepts_the_benchmarks_signatures(tmp_path: Path):
    subprocess.run(
        [sys.executable, BENCHMARK_RUN_SCRIPT, "check", str(SUITES)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "ASV_PYTHONPATH": str(ROOT)},
    )


def test_grid_is_that_of_the_quick_preset():
    import attention
    from suites.benchmarks import AttentionSpeed

    backends, lengths, modes = AttentionSpeed.params
    assert list(backends) == [n for n in attention.names() if n in backends]
    assert len(backends) == 7
    assert lengths == PRESETS["quick"].seq_lens
    assert modes == PRESETS["quick"].modes


@pytest.mark.parametrize("allocated", [1, 2])
def test_request_gives_a_record(launcher: Any, tmp_path: Path, allocated: int):
    lock = tmp_path / "lock.child"
    answered = ask(
        launcher, tmp_path, do="case", case=CASE.to_json(), budget_s=0.02, deadline_s=60.0,
        memory_limit=allocated * 2**31, lock=str(lock),
    )  # fmt: skip
    record = answered["record"]
    assert record["status"] == "ok", record["reason"]
    assert answered["samples"] == record["arms"][0]["metrics"]["latency"]["samples"]
    assert answered["number"] == 1
    assert lock.exists()


def test_preflight_request(launcher: Any, tmp_path: Path):
    record = ask(launcher, tmp_path, do="preflight", cases=[CASE.to_json()])["record"]
    assert record["cases"][CASE.id]["cost"][0]["pattern_ops"] > 0
    assert "sdpa" in record["names"]


def test_plugin_of_a_request(launcher: Any, tmp_path: Path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        textwrap.dedent(
            """
            from attention import FullAttention, register

            @register("mine")
            class Mine(FullAttention):
                pass
            """
        )
    )
    case = Case.from_json({**CASE.to_json(), "arms": [{"name": "mine", "options": {}}]})
    _, code, data = run(
        launcher, tmp_path, "benchmarks.Driven.measure_request",
        request={
            "do": "case", "case": case.to_json(), "budget_s": 0.02, "deadline_s": 60.0,
            "plugins": [str(plugin)],
        },
    )  # fmt: skip
    assert code == 0
    assert data["record"]["status"] == "ok", data["record"]["reason"]


def test_out_of_memory_in_a_child(launcher: Any, tmp_path: Path):
    case = Case.from_json(
        {**CASE.to_json(), "arms": [{"name": "full", "options": {}}], "seq_len": 16384,
         "key_len": 16384}
    )  # fmt: skip
    answered = ask(
        launcher, tmp_path, do="case", case=case.to_json(), budget_s=0.02, deadline_s=60.0,
        memory_limit=2**28,
    )  # fmt: skip
    assert answered["record"]["status"] == "out_of_memory"
    reason = answered["record"]["reason"]
    assert reason == "could not allocate 2.00 GiB while timing; 256.0 MiB were free"
    assert answered["samples"] == [0.0]


def test_children_of_one_server_do_not_share_what_they_changed(launcher: Any, tmp_path: Path):
    one, two = (Case.from_json({**CASE.to_json(), "threads": n}) for n in (1, 2))
    for case in (one, two, one):
        request = {"case": case.to_json(), "budget_s": 0.02, "deadline_s": 60.0}
        assert ask(launcher, tmp_path, do="case", **request)["record"]["status"] == "ok"


def test_grid_point_as_asv_runs_it(launcher: Any, tmp_path: Path):
    index = 5 * 8  # sdpa, 512, forward
    _, code, data = run(launcher, tmp_path, f"benchmarks.AttentionSpeed.measure_latency-{index}")
    assert code == 0
    assert data["number"] == 1
    assert len(data["samples"]) >= 3
    assert data["record"]["arms"][0]["kernel"]


def test_step_as_asv_runs_it(launcher: Any, tmp_path: Path):
    index = 6 * 2  # sdpa, 1024
    _, code, data = run(launcher, tmp_path, f"benchmarks.DecodeStep.measure_latency-{index}")
    assert code == 0
    (arm,) = data["record"]["arms"]
    assert arm["metrics"]["state_bytes"]["value"] > 2 * 1024 * 8 * 64 * 4


def test_every_backend_that_decodes_has_its_step():
    import attention
    from suites.benchmarks import DecodeStep

    backends, _ = DecodeStep.params
    assert list(backends) == [n for n in attention.names() if attention.describe(n)["state"]]


def test_unsupported_grid_point_is_skipped(launcher: Any, tmp_path: Path):
    index = 6 * 8  # xformers, 512, forward
    out, code, data = run(launcher, tmp_path, f"benchmarks.AttentionSpeed.measure_latency-{index}")
    assert code == 0, out
    assert data != data  # NaN: asv shows n/a
