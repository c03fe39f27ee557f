"""Kind task: a training, its questions and the cost of a call, in one record."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_speed import unchanged_process  # noqa: F401
from helpers_sweep import wait_until
from helpers_training import LISTOPS, SHAPE, one_thread, stopping_at, trained, training

from attention.base import Attention
from models import TransformerModel
from results.records.load import load
from results.schema import CONDITIONS, MEASUREMENT, UNITS, Case, check_record
from suites.content_names import corpus_name, folder_name
from suites.engine.journal import Journal
from suites.kind import Request
from suites.measure.process import TimeLimitError
from suites.quality.kind import run
from suites.tasks import registry
from suites.training import trainer as trainer_module
from suites.training.evaluate import evaluate
from suites.training.prepare import prepare, train
from suites.training.trainer import Trainer
from suites.worker.preflight import inspect_case
from suites.worker.run import answer
from tests.suites.tasks.test_lra import LISTOPS as LRA_FILES
from tests.suites.tasks.test_lra import listops_rows, written

pytestmark = pytest.mark.usefixtures("in_process")

ALWAYS = {"accuracy", "loss", "training_time", "training_steps", "training_ops", "throughput",
          "latency", "peak_memory"}  # fmt: skip


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("sequences", "labels"):  # of the test split; fewer than there are
        monkeypatch.setitem(evaluate.__kwdefaults__, name, 64)
    with one_thread():
        yield


def asked(case: Case, **more: Any) -> dict[str, Any]:
    """Answer a request for a case; its end as a whole record."""
    request = {"do": "case", "case": case.to_json(), "budget_s": 0.005, "deadline_s": 60.0}
    ended = answer({**request, "memory_limit": None, "plugins": [], **more})["record"]
    record = {
        "schema": 1, "measurement": MEASUREMENT, "run": "r", "machine": "m", "environment": "e",
        "commit": "c", "case": case.to_json(), "log_tail": None,
        "launch": {"index": 0, "order": 0, "started": "2025-01-01T00:00:00Z", "wall_s": 1.0,
                   "load": 0.1, "predicted": {"latency": None, "peak_memory": None}},
        **ended,
    }  # fmt: skip
    return check_record(json.loads(json.dumps(record, allow_nan=False)))


def learnt(record: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a record says that no clock decides."""
    assert record["status"] == "ok", record["reason"]
    (arm,) = record["arms"]
    names = ("accuracy", "loss", "training_steps", "training_ops", "bits_per_byte", "state_bytes")
    values = {n: arm["metrics"][n]["value"] for n in names if n in arm["metrics"]}
    quality = dict(arm["quality"])
    curve = {name: quality["curve"][name] for name in ("step", "loss")}
    return values, {**quality, "curve": curve}


# -- the record ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    "arm", ["sdpa", "longformer:window=4", "performer:num_features=8", "lstm"]
)
def test_a_record_says_what_was_learnt_and_what_it_cost(
    arm: str, is_causal: bool, tmp_path: Path
) -> None:
    case = training(arm, "steps:amount=12,lr=0.01", is_causal=is_causal)
    record = asked(case)
    assert (record["status"], record["reason"]) == ("ok", None)
    (found,) = record["arms"]
    metrics, quality = found["metrics"], found["quality"]
    assert set(metrics) == ALWAYS | ({"state_bytes"} if is_causal else set())
    assert all(metric["unit"] == UNITS[name] for name, metric in metrics.items())
    assert set(record["conditions"]) <= {*CONDITIONS, "gpu_throttled"}
    assert metrics["training_steps"]["value"] == 12
    assert metrics["training_ops"]["value"] == 12 * prepare(case, {}).step_ops
    tokens = 12 * case.batch * case.seq_len
    assert metrics["throughput"]["value"] == pytest.approx(
        tokens / metrics["training_time"]["value"])  # fmt: skip
    assert len(metrics["latency"]["samples"]) >= 1
    assert min(metrics["latency"]["samples"]) > 0
    task = prepare(case, {}).task
    assert quality["chance"] == task.chance
    assert quality["metric"] == "accuracy"
    assert quality["task"] == json.loads(json.dumps(task.settings))
    assert quality["facts"] == {}
    assert quality["parameters"] == sum(p.numel() for p in prepare(case, {}).model.parameters())
    groups = quality["groups"]
    assert groups["name"] == "distance"
    assert sum(groups["correct"]) / sum(groups["count"]) == metrics["accuracy"]["value"]
    assert groups["values"] == sorted(set(groups["values"]))
    curve = quality["curve"]
    assert curve["step"] == list(range(1, 13))
    assert curve["time"] == sorted(curve["time"])
    assert curve["time"][-1] == pytest.approx(metrics["training_time"]["value"], abs=1e-3)
    assert all(math.isfinite(loss) for loss in curve["loss"])
    assert found["gate"] is not None
    with Journal(tmp_path / "run") as journal:
        machine = journal.add_machine({"cpu": "a stand-in", "cores": 2})
        environment = journal.add_environment({"torch": "2"})
        journal.append({**record, "machine": machine, "environment": environment})
    read = load(tmp_path / "run")
    assert not read.warnings
    row = read.frame[read.frame["metric"] == "accuracy"].iloc[0]
    assert row["value"] == metrics["accuracy"]["value"]
    assert (row["task"], row["training"]) == (case.task, case.training)


def test_state_is_counted_of_what_a_decoder_keeps() -> None:
    """Keys and values of 32 tokens, 2 layers, width 16, in float32: an exact arm's state."""
    record = asked(training(is_causal=True))
    assert record["arms"][0]["metrics"]["state_bytes"]["value"] >= 2 * 2 * 32 * 16 * 4
    lstm = asked(training("lstm", is_causal=True))
    fewer = lstm["arms"][0]["metrics"]["state_bytes"]["value"]
    assert fewer < record["arms"][0]["metrics"]["state_bytes"]["value"] / 4


def text_file(folder: Path) -> tuple[str, dict[str, str]]:
    corpus = folder / "my text"
    corpus.write_bytes(b"".join(b"line %d of a text that is learnt\n" % i for i in range(2000)))
    name = corpus_name(corpus)
    return name, {name: str(corpus)}


@pytest.mark.parametrize(
    ("objective", "architecture", "is_causal"),
    [("next", "decoder", True), ("masked", "encoder", False),
     ("denoise", "encoder_decoder", False)],
)  # fmt: skip
def test_text_is_learnt_by_every_architecture(
    objective: str, architecture: str, is_causal: bool, tmp_path: Path
) -> None:
    name, files = text_file(tmp_path)
    case = training(
        "longformer:window=4", "steps:amount=15,lr=0.01", is_causal=is_causal,
        task=f"language:corpus={name},objective={objective}", model=f"{architecture}:{SHAPE}",
    )  # fmt: skip
    record = asked(case, files=files)
    assert record["status"] == "ok", record["reason"]
    (found,) = record["arms"]
    metrics, quality = found["metrics"], found["quality"]
    assert metrics["bits_per_byte"]["value"] == pytest.approx(
        metrics["loss"]["value"] / math.log(2))  # fmt: skip
    assert ("state_bytes" in metrics) == is_causal
    assert quality["metric"] == "bits_per_byte"
    assert quality["groups"] is None
    assert quality["facts"]["corpus"] == name
    assert quality["facts"]["sha256"].startswith(name.removeprefix("sha256-"))
    assert quality["curve"]["loss"][-1] < quality["curve"]["loss"][0]
    assert str(tmp_path) not in json.dumps(record)


def test_a_folder_of_long_range_arena_is_learnt(tmp_path: Path) -> None:
    header = b"Source\tTarget\r\n"
    contents = {n: header + b"".join(listops_rows(s, 60)) for s, n in enumerate(LRA_FILES)}
    folder = written(tmp_path / "lra", contents)
    name = folder_name(folder)
    case = training(
        task=f"lra:data={name}", seq_len=64, training="steps:amount=4,pretrain=0.5", batch=8
    )
    record = asked(case, files={name: str(folder)})
    assert record["status"] == "ok", record["reason"]
    assert record["arms"][0]["metrics"]["training_steps"]["value"] == 4


def test_equal_seeds_give_equal_results_and_others_other() -> None:
    first, again, other = (learnt(asked(training(seed=seed))) for seed in (3, 3, 4))
    assert first == again
    assert first[1]["curve"] != other[1]["curve"]
    assert first[1]["groups"]["count"] == other[1]["groups"]["count"]  # asked the same


def test_a_result_does_not_hang_on_what_ran_before() -> None:
    first = learnt(asked(training("performer:num_features=8")))
    torch.manual_seed(99)
    trained(training(seed=7))
    assert learnt(asked(training("performer:num_features=8"))) == first


@pytest.mark.parametrize("arm", ["sdpa", "linformer:rank=8", "lstm"])
def test_bfloat16_is_measured_in_bfloat16(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = []
    original = TransformerModel.to

    def to(self: TransformerModel, *args: Any, **kwargs: Any) -> Any:
        dtypes.extend(a for a in args if isinstance(a, torch.dtype))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TransformerModel, "to", to)
    record = asked(training(arm, dtype="bfloat16"))
    assert record["status"] == "ok", record["reason"]
    assert dtypes == [torch.bfloat16]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("arm", ["sdpa", "longformer:window=8", "performer:num_features=16"])
def test_a_training_on_a_gpu_ends_as_a_record(arm: str, dtype: str, tmp_path: Path) -> None:
    model = "decoder:d_model=64,num_heads=2,num_layers=2,positions=rotary,tied=false"
    case = training(
        arm, "steps:amount=20,lr=0.003", device="cuda", dtype=dtype, is_causal=True, model=model
    )
    record = asked(case, store=str(tmp_path))
    assert record["status"] == "ok", record["reason"]
    assert set(record["arms"][0]["metrics"]) == ALWAYS | {"state_bytes"}
    assert learnt(asked(case, store=str(tmp_path)))[1]["curve"] == learnt(record)[1]["curve"]


# -- other ends ----------------------------------------------------------------------------------


def test_an_arm_that_cannot_is_unsupported_with_the_reason() -> None:
    case = training("linformer:rank=8", is_causal=True)
    record = asked(case)
    assert record["status"] == "unsupported"
    assert "linformer cannot be causal" in record["reason"]
    told = inspect_case(case, {})
    assert (told["misuse"], told["unsupported"]) == (None, [record["reason"]])


def test_a_training_that_diverges_fails_with_the_step(tmp_path: Path) -> None:
    record = asked(training(training="steps:amount=50,lr=1e30,warmup=0"), store=str(tmp_path))
    assert record["status"] == "failed"
    assert record["reason"].startswith("DivergedError: the loss of step ")


def test_a_full_disk_is_the_reason(tmp_path: Path) -> None:
    case = training()
    (tmp_path / f"{case.id}.part").symlink_to("/dev/full")
    record = asked(case, store=str(tmp_path))
    assert record["status"] == "failed"
    assert "cannot be kept: No space left on device" in record["reason"]
    assert str(tmp_path) not in record["reason"]
    assert asked(case, store=str(tmp_path))["status"] == "ok"


@pytest.mark.slow
def test_a_training_beyond_its_time_says_where_it_was() -> None:
    record = asked(training(training="steps:amount=1000000"), deadline_s=2.0)
    assert record["status"] == "timeout"
    assert record["reason"].endswith("while training")


def test_a_file_that_fails_to_close_in_time_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(*_arguments: Any) -> None:
        try:
            raise TimeLimitError("exceeded 1 s")
        finally:
            raise RuntimeError("unexpected pos 43328")

    monkeypatch.setattr(Trainer, "_step", torn)
    record = asked(training())
    assert (record["status"], record["reason"]) == ("timeout", "exceeded 1 s while training")


def test_an_output_that_is_off_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Attention.forward

    def forward(self: Attention, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs) * (1.0 if self.training else 1.5)

    monkeypatch.setattr(Attention, "forward", forward)
    record = asked(training("full"))
    assert record["status"] == "failed"
    assert record["reason"].startswith("WrongOutputError")


@pytest.mark.slow
def test_stages_are_told_in_their_order() -> None:
    told: list[str] = []
    run(training(), Request(budget_s=0.005, stage=told.append))
    assert told == ["building", "training", "evaluating the test split", "timing"]


# -- what is kept --------------------------------------------------------------------------------


def test_a_second_launch_measures_the_same_weights(tmp_path: Path) -> None:
    case = training("bigbird:block_size=4,num_random_blocks=1")
    first = asked(case, store=str(tmp_path))
    again = asked(case, store=str(tmp_path))
    assert learnt(first) == learnt(again)
    times = [r["arms"][0]["metrics"]["training_time"]["value"] for r in (first, again)]
    assert times[0] == times[1]
    assert [p.name for p in tmp_path.iterdir()] == [f"{case.id}.pt"]


def test_ctrl_c_leaves_no_answer_and_a_resume_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "TELL_S", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_S", 0.0)
    case = training(training="steps:amount=8,pretrain=0.25", **LISTOPS)
    with pytest.raises(KeyboardInterrupt):
        train(prepare(case, {}), tmp_path, stopping_at(5, KeyboardInterrupt))
    assert learnt(asked(case, store=str(tmp_path))) == learnt(asked(case))


KILLED = """
import json, sys, torch
from pathlib import Path
from results.schema import Case
from suites.kind import Request
from suites.quality.kind import run
from suites.training import trainer
torch.set_num_threads(1)
trainer.CHECKPOINT_S = trainer.TELL_S = 0.0
case = Case.from_json(json.loads(sys.argv[1]))
run(case, Request(budget_s=0.005, store=Path(sys.argv[2]), heartbeat=Path(sys.argv[3])))
"""


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    case = training(training="steps:amount=400,lr=0.01")
    store, now = tmp_path / "trained", tmp_path / "trained" / "now"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, json.dumps(case.to_json()), str(store), str(now)],
        cwd=Path(__file__).parents[3], env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        wait_until((store / f"{case.id}.pt").exists, 60)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    kept = torch.load(store / f"{case.id}.pt", weights_only=True)
    assert 1 <= kept["spent"]["steps"] < 400
    assert not kept["finished"]
    record = asked(case, store=str(store))
    assert learnt(record) == learnt(asked(case))
    assert record["arms"][0]["metrics"]["training_time"]["value"] > kept["spent"]["seconds"]
    assert not list(store.glob("*.part"))


def test_how_it_goes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "TELL_S", 0.0)
    now = tmp_path / "trained" / "now"
    assert asked(training(training="steps:amount=8"), heartbeat=str(now))["status"] == "ok"
    _, line = now.read_text().splitlines()
    assert line.startswith("step 8, 100 % of steps, loss ")
    assert line.endswith(" tokens/s")


def test_every_task_without_files_is_trained_in_both_forms() -> None:
    """Each at the length of its own, the shortest training: nothing of a task surprises one."""
    for described in registry.describe():
        name = described["name"]
        if name in ("lra", "language", "listops"):
            continue
        for is_causal in (False, True):
            seq_len = described["seq_len"] + (name == "copy")
            case = training(task=name, seq_len=seq_len, is_causal=is_causal, batch=2)
            setup = prepare(case, {})
            done = train(setup, None)
            assert (done.spent.steps, done.model.config.vocab_size) == (4, setup.task.vocab_size)
