"""The trainer: what may be spent, the step, exact resume, and the questions of the test split."""

from __future__ import annotations

import json
import math
import resource
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_covering import covering
from helpers_training import (
    LISTOPS,
    SHAPE,
    StoppedError,
    assert_same,
    one_thread,
    stopping_at,
    trained,
    training,
)
from torch.utils.flop_counter import FlopCounterMode

from attention.backends.full import FullAttention
from attention.base import UnsupportedError
from models.objectives import IGNORED
from results.schema import Case
from suites.content_names import corpus_name
from suites.parsing import parse_backend
from suites.tasks.base import Batch, Task
from suites.training import prepare as run_module
from suites.training import trainer as trainer_module
from suites.training.evaluate import Score, evaluate
from suites.training.plan import Plan, plan_from
from suites.training.prepare import prepare, train
from suites.training.trainer import Curve, DivergedError, Trainer, logits_of, loss_of

ARMS = ("sdpa", "full", "longformer:window=4", "bigbird:block_size=4,num_random_blocks=1",
        "linformer:rank=8", "performer:num_features=8", "lstm")  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell of each step, and keep a checkpoint after it."""
    monkeypatch.setattr(trainer_module, "TELL_S", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_S", 0.0)


# -- the plan ------------------------------------------------------------------------------------


def test_a_plan_is_read_as_it_is_written() -> None:
    assert plan_from("steps:amount=400,lr=0.002") == Plan("steps", 400, lr=0.002)
    assert plan_from("operations:amount=1e3").amount == 1000
    text = ("time:amount=1.5,clip=2,floor=0.1,hold=0.5,lr=0.01,pretrain=0.25,warmup=0.1,"
            "weight_decay=0")  # fmt: skip
    assert plan_from(text) == Plan("time", 1.5, 0.01, 0.1, 0.5, 0.1, 0, 2, 0.25)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("epochs:amount=3", ValueError, "steps, time, operations, got 'epochs'"),
        ("steps", TypeError, "needs an amount; got 'steps'"),
        ("steps:lr=0.1", TypeError, "needs an amount"),
        ("steps:amount=3,warmpu=0.1", TypeError, "'warmpu' (did you mean 'warmup'?); accepted: a"),
        ("steps:amount=3,view=time", TypeError, "no option 'view'"),
        ("steps:amount=0", ValueError, "amount: expected a number above 0, got 0"),
        ("steps:amount=-2", ValueError, "amount: expected a number above 0, got -2"),
        ("steps:amount=2.5", ValueError, "amount: expected a whole number of steps, got 2.5"),
        ("steps:amount=nan", TypeError, "amount: expected a number, got 'nan'"),
        ("steps:amount=many", TypeError, "amount: expected a number, got 'many'"),
        ("steps:amount=true", TypeError, "amount: expected a number, got True"),
        ("steps:amount=1+2", TypeError, "amount: expected a number"),
        ("time:amount=1e999", TypeError, "amount: expected a number"),
        ("steps:amount=3,lr=0", ValueError, "lr: expected a number above 0, got 0"),
        ("steps:amount=3,clip=0", ValueError, "clip: expected a number above 0"),
        ("steps:amount=3,warmup=1.1", ValueError, "warmup: expected a number from 0 to 1"),
        ("steps:amount=3,hold=-0.1", ValueError, "hold: expected a number from 0 to 1"),
        ("steps:amount=3,floor=2", ValueError, "floor: expected a number from 0 to 1, got 2"),
        ("steps:amount=3,weight_decay=-1", ValueError, "weight_decay: expected a number from 0"),
        ("steps:amount=3,pretrain=1", ValueError, "pretrain: expected less than 1"),
        ("steps:amount=3,pretrain=-1", ValueError, "pretrain: expected a number from 0 to 1"),
    ],
)
def test_a_plan_that_cannot_be_names_the_argument(
    text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as raised:
        plan_from(text)
    assert said in str(raised.value)


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
def test_an_amount_is_finite(amount: float) -> None:
    with pytest.raises(ValueError, match="amount"):
        Plan("time", amount)


@covering(("warmup", [0.0, 0.1, 1.0]), ("hold", [0.0, 0.6, 1.0]), ("pretrain", [0.0, 0.25]))
def test_the_rate_rises_stays_and_falls_in_each_phase(
    warmup: float, hold: float, pretrain: float
) -> None:
    plan = Plan("steps", 100, lr=0.2, warmup=warmup, hold=hold, floor=0.1, pretrain=pretrain)
    for step in range(100):
        progress = step / 100
        begins, ends = (0.0, pretrain) if progress < pretrain else (pretrain, 1.0)
        share = (progress - begins) / (ends - begins)
        if share < warmup:
            expected = 0.2 * (0.1 + 0.9 * share / warmup)
        elif share < hold or hold == 1.0:
            expected = 0.2
        else:
            falls = max(warmup, hold)
            angle = math.pi / 2 * (share - falls) / (1 - falls)
            expected = 0.2 * (0.1 + 0.9 * math.cos(angle) ** 2)  # (1 + cos 2a) / 2 = cos² a
        assert plan.rate(progress) == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert plan.pretrains(progress) == (step < 100 * pretrain)


# -- the step ------------------------------------------------------------------------------------


def test_steps_are_those_of_a_plain_loop() -> None:
    case = training(training="steps:amount=5,lr=0.01,clip=0.05,weight_decay=0.3,warmup=0.2")
    setup = prepare(case, {})
    model, plan = setup.model, setup.plan
    parameters = dict(model.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    losses, norms = [], []
    for step in range(5):
        batch = setup.task.batch(4, seed=0, index=step, split="train")
        probabilities = model(batch.ids).log_softmax(-1)
        asked = [(b, n) for b, n in (batch.labels != IGNORED).nonzero().tolist()]
        loss = -torch.stack([probabilities[b, n, batch.labels[b, n]] for b, n in asked]).mean()
        grads = torch.autograd.grad(loss, list(parameters.values()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        losses.append(float(loss.detach()))
        norms.append(norm)
        rate = plan.rate(step / 5)
        with torch.no_grad():
            for (name, p), grad in zip(parameters.items(), grads, strict=True):
                g = grad * min(1.0, plan.clip / norm)
                first[name] += 0.1 * (g - first[name])
                second[name] += 0.02 * (g * g - second[name])
                is_matrix = p.dim() == 2 and "tokens" not in name
                p *= 1 - rate * plan.weight_decay * is_matrix
                p -= rate * (first[name] / (1 - 0.9 ** (step + 1))) / (
                    (second[name] / (1 - 0.98 ** (step + 1))).sqrt() + 1e-8
                )  # fmt: skip
    assert min(norms) > plan.clip  # or clipping would not be seen
    done = trained(case)
    assert done.curve.loss == pytest.approx(losses, rel=1e-5)
    for name, p in done.model.named_parameters():
        if not name.endswith("k_proj.bias"):  # softmax takes it out: its gradient is rounding
            torch.testing.assert_close(p, parameters[name], rtol=1e-4, atol=1e-5)


def test_embeddings_biases_and_norms_do_not_decay() -> None:
    case = training("linformer:rank=4", model=f"encoder:{SHAPE},num_token_types=2".replace(
        "sinusoidal", "learned"))  # fmt: skip
    setup = prepare(case, {})
    named = {id(p): name for name, p in setup.model.named_parameters()}
    made = Trainer(setup.model, setup.task, setup.plan, batch=4, seed=0)
    decaying, others = ([named[id(p)] for p in g["params"]]
                        for g in made._optimizer.param_groups)  # fmt: skip
    assert sorted(decaying + others) == sorted(named.values())
    assert [g["weight_decay"] for g in made._optimizer.param_groups] == [0.01, 0.0]
    assert all(name.endswith("weight") and "norm" not in name for name in decaying)
    assert not any("embeddings" in name or "tokens" in name for name in decaying)
    assert any("key_projection" in name for name in decaying)
    assert any(name.endswith("logits.proj.weight") for name in decaying)
    assert all("norm" in n or n.endswith("bias") or "embed" in n or "tokens" in n for n in others)


def test_the_loss_is_of_what_is_asked_alone() -> None:
    setup = prepare(training(), {})
    batch = setup.task.batch(4, seed=0, index=0, split="train")
    asked = batch.labels != IGNORED
    assert 0 < int(asked.sum()) < batch.labels.numel()
    chosen = logits_of(setup.model, batch).log_softmax(-1)[asked]
    mean = -chosen.gather(1, batch.labels[asked][:, None]).mean()
    torch.testing.assert_close(loss_of(setup.model, batch), mean)


def test_padding_is_seen_by_nobody() -> None:
    for is_causal in (False, True):
        for arm in ("sdpa", "longformer:window=4", "linformer:rank=8", "performer:num_features=8"):
            if is_causal and arm.startswith("linformer"):
                continue
            setup = prepare(training(arm, is_causal=is_causal, **LISTOPS), {})
            batch = setup.task.batch(4, seed=0, index=0, split="train")
            padding = ~batch.key_padding_mask
            assert bool(padding.any())
            other = batch._replace(ids=torch.where(padding, batch.ids.max(), batch.ids))
            model = setup.model.eval()
            torch.testing.assert_close(loss_of(model, batch), loss_of(model, other))


def test_an_encoder_decoder_learns_what_its_decoder_writes(tmp_path: Path) -> None:
    corpus = tmp_path / "text"
    corpus.write_bytes(b"the same words again and again. " * 400)
    name = corpus_name(corpus)
    case = training(
        task=f"language:corpus={name},objective=denoise", model=f"encoder_decoder:{SHAPE}",
        training="steps:amount=30,lr=0.01",
    )  # fmt: skip
    setup = prepare(case, {name: corpus})
    batch = setup.task.batch(4, seed=0, index=0, split="train")
    before = setup.model(batch.ids, batch.decoder_ids).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(before, batch.labels.flatten())
    torch.testing.assert_close(loss_of(setup.model, batch), expected)
    done = train(setup, None)
    assert sum(done.curve.loss[-5:]) < 0.7 * sum(done.curve.loss[:5])


def test_products_in_bfloat16_leave_the_weights_in_float32() -> None:
    full = trained(training(training="steps:amount=3"))
    done = trained(training(training="steps:amount=3", dtype="bfloat16"))
    assert {p.dtype for p in done.model.parameters()} == {torch.float32}
    assert done.curve.loss != full.curve.loss
    assert done.curve.loss == pytest.approx(full.curve.loss, rel=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_on_a_gpu_the_same_is_learnt_in_every_dtype(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = training(training="steps:amount=21,lr=0.01", dtype=dtype, device="cuda", batch=16)
    on_cpu = trained(training(training="steps:amount=21,lr=0.01", batch=16))
    done = trained(case)
    assert {p.dtype for p in done.model.parameters()} == {torch.float32}
    tolerance = 1e-3 if dtype == "float32" else 0.1
    assert done.curve.step == on_cpu.curve.step  # no step is lost between two synchronisations
    assert done.curve.loss == pytest.approx(on_cpu.curve.loss, rel=tolerance)
    assert done._scaler.is_enabled() == (dtype == "float16")
    monkeypatch.setattr(trainer_module, "TELL_S", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_S", 0.0)
    with pytest.raises(StoppedError):
        trained(case, tmp_path, tell=stopping_at(16))
    again = trained(case, tmp_path)
    assert again.curve.step == done.curve.step
    assert again.curve.loss == pytest.approx(done.curve.loss, rel=1e-3)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"the loss of step \d+ is (nan|inf)"):
        trained(training(training="steps:amount=50,lr=1e30,warmup=0"), tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- what arms share -----------------------------------------------------------------------------


@pytest.mark.parametrize("is_causal", [False, True])
def test_arms_of_a_seed_start_from_equal_shared_weights(is_causal: bool) -> None:
    exact = dict(prepare(training(is_causal=is_causal), {}).model.named_parameters())
    for arm in ARMS:
        if is_causal and arm.startswith("linformer"):
            continue
        own = dict(prepare(training(arm, is_causal=is_causal), {}).model.named_parameters())
        shared = exact.keys() & own.keys()
        assert {"tokens.weight", "logits.proj.weight"} < shared
        assert [name for name in shared if not torch.equal(own[name], exact[name])] == []
    other = dict(prepare(training(is_causal=is_causal, seed=1), {}).model.named_parameters())
    assert not torch.equal(other["tokens.weight"], exact["tokens.weight"])


def test_arms_of_a_seed_see_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    original = trainer_module.on_device

    def on_device(batch: Batch, device: torch.device) -> Batch:
        seen.append(batch.ids)
        return original(batch, device)

    monkeypatch.setattr(trainer_module, "on_device", on_device)
    for arm in ("sdpa", "linformer:rank=8", "lstm"):
        trained(training(arm))
    first, second, third = (seen[i : i + 4] for i in (0, 4, 8))
    assert len(seen) == 12
    for one, *others in zip(first, second, third, strict=True):
        assert all(torch.equal(one, other) for other in others)
    assert not torch.equal(first[0], first[1])
    trained(training(seed=1))
    assert not torch.equal(seen[12], first[0])


def test_tokens_and_logits_start_with_the_deviation_that_learns() -> None:
    shape = "d_model=64,num_layers=1,num_heads=2"
    for positions, expected in (("sinusoidal", 64**-0.5), ("rotary", 1.0)):
        model = f"encoder:{shape},positions={positions},tied=false"
        std = float(prepare(training(model=model), {}).model.tokens.weight.detach().std())
        assert std == pytest.approx(expected, rel=0.05)
    tied = prepare(training(model=f"encoder:{shape},tied=true"), {}).model
    assert float(tied.tokens.weight.detach().std()) == pytest.approx(64**-0.5, rel=0.05)


# -- the three views -----------------------------------------------------------------------------


def test_equal_steps_are_so_many_steps() -> None:
    for arm in ("sdpa", "linformer:rank=4"):
        assert trained(training(arm, "steps:amount=7")).spent.steps == 7


def counted_ops(case: Case) -> int:
    """Count the products of a step as torch sees them."""
    setup = prepare(case, {})
    batch = setup.task.batch(case.batch, seed=0, index=0, split="train")
    with FlopCounterMode(display=False) as counter:
        loss_of(setup.model.train(), batch).backward()
    return int(counter.get_total_flops())


def test_equal_operations_are_more_steps_for_a_cheaper_arm() -> None:
    changes: dict[str, Any] = {"training": "operations:amount=10", "seq_len": 128}
    assert trained(training("sdpa", **changes)).spent.steps == 10
    exact = prepare(training("sdpa", **changes), {})
    # torch counts no recomputation inside the fused kernel; of these arms it counts all
    assert counted_ops(training("full", **changes)) == prepare(
        training("full", **changes), {}).step_ops  # fmt: skip
    cheap = training("linformer:rank=4", **changes)
    counted = counted_ops(cheap)
    assert prepare(cheap, {}).step_ops == pytest.approx(counted, rel=0.02)
    steps = trained(cheap).spent.steps
    assert steps == math.ceil(10 * exact.exact_ops / prepare(cheap, {}).step_ops) > 10
    assert steps == pytest.approx(10 * exact.exact_ops / counted, abs=1)


def test_operations_are_counted_without_rounding() -> None:
    setup = prepare(training(training="operations:amount=1"), {})
    made = Trainer(setup.model, setup.task, setup.plan, batch=4, seed=0, step_operations=0.1)
    made.run()
    assert made.spent.steps == 10  # a sum of ten tenths is less than one


def test_equal_time_is_the_time_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            self.now += 0.5
            return self.now

        def monotonic(self) -> float:
            return 0.0

    monkeypatch.setattr(trainer_module, "time", Clock())
    for arm in ("sdpa", "linformer:rank=4"):
        done = trained(training(arm, "time:amount=3.2"))
        assert (done.spent.steps, done.spent.seconds) == (7, 3.5)
        assert done.curve.time == [0.5 * step for step in range(1, 8)]
        assert done.tokens_per_s == 7 * 4 * 32 / 3.5


def test_pretraining_takes_its_share_first(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare(training(training="steps:amount=10,pretrain=0.3", **LISTOPS), {})
    asked: list[tuple[str, int, int]] = []
    cls = type(setup.task)
    pretraining, batch = cls.pretraining, cls.batch

    def log_pretraining(self: Any, size: int, *, seed: int, index: int) -> Batch:
        asked.append(("pretraining", seed, index))
        return pretraining(self, size, seed=seed, index=index)

    def log_batch(self: Any, size: int, *, seed: int, index: int, split: Any) -> Batch:
        asked.append((split, seed, index))
        return batch(self, size, seed=seed, index=index, split=split)

    monkeypatch.setattr(cls, "pretraining", log_pretraining)
    monkeypatch.setattr(cls, "batch", log_batch)
    train(setup, None)
    assert asked == [("pretraining" if i < 3 else "train", 0, i) for i in range(10)]


def test_a_task_without_inputs_worth_it_has_no_pretraining() -> None:
    with pytest.raises(UnsupportedError, match="pretrain: recall"):
        prepare(training(training="steps:amount=10,pretrain=0.3"), {})


# -- the curve -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 100, 1000])
def test_a_curve_holds_means_over_equally_many_steps(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "MOST_POINTS", 8)
    curve = Curve()
    for step in range(1, steps + 1):
        curve.add(step, step / 4, float(step * step))
    assert 1 <= len(curve.step) < 8
    assert curve.step == [curve.width * (i + 1) for i in range(len(curve.step))]
    assert curve.step[-1] > steps - curve.width
    assert curve.time == [step / 4 for step in curve.step]
    for step, loss in zip(curve.step, curve.loss, strict=True):
        own = range(step - curve.width + 1, step + 1)
        assert loss == pytest.approx(sum(s * s for s in own) / curve.width)
    assert json.loads(json.dumps(curve.to_json())) == curve.to_json()


# -- exact resume --------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("step", range(1, 8))
def test_a_training_goes_on_exactly_wherever_it_was_interrupted(step: int, tmp_path: Path) -> None:
    case = training(training="steps:amount=7,lr=0.01,pretrain=0.5", **LISTOPS)
    with pytest.raises(StoppedError):
        trained(case, tmp_path, tell=stopping_at(step))
    heard: list[str] = []
    done = trained(case, tmp_path, tell=heard.append)
    assert heard[0].startswith(f"step {step},")  # the last checkpoint was before it
    assert_same(done, trained(case))


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_resumed_exactly(
    arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "MOST_POINTS", 4)  # so that points are joined meanwhile
    case = training(arm, "steps:amount=9,lr=0.01")
    for step in (3, 6, 7):
        with pytest.raises(StoppedError):
            trained(case, tmp_path, tell=stopping_at(step))
    assert_same(trained(case, tmp_path), trained(case))


@pytest.mark.usefixtures("every_step")
def test_ctrl_c_leaves_what_a_resume_goes_on_from(tmp_path: Path) -> None:
    case = training(training="steps:amount=6")
    with pytest.raises(KeyboardInterrupt):
        trained(case, tmp_path, tell=stopping_at(5, KeyboardInterrupt))
    assert [p.name for p in tmp_path.iterdir()] == [f"{case.id}.pt"]
    heard: list[str] = []
    assert_same(trained(case, tmp_path, tell=heard.append), trained(case))
    assert heard[0].startswith("step 5,")


@pytest.mark.usefixtures("every_step")
def test_equal_time_goes_on_with_the_time_that_was_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            self.now += 0.5
            return self.now

        def monotonic(self) -> float:
            return 0.0

    monkeypatch.setattr(trainer_module, "time", Clock())
    case = training(training="time:amount=4")
    with pytest.raises(StoppedError):
        trained(case, tmp_path, tell=stopping_at(6))
    done = trained(case, tmp_path)
    assert (done.spent.steps, done.spent.seconds) == (8, 4.0)
    monkeypatch.undo()


def test_what_is_finished_is_read_and_not_trained_again(tmp_path: Path) -> None:
    case = training()
    first = trained(case, tmp_path)
    heard: list[str] = []
    again = trained(case, tmp_path, tell=heard.append)
    assert_same(first, again)
    assert (heard, again.finished, again.model.training) == ([], True, False)
    assert again.spent == first.spent


def test_a_checkpoint_holds_no_code_and_no_place(tmp_path: Path) -> None:
    case = training()
    trained(case, tmp_path / "store")
    (file,) = (tmp_path / "store").iterdir()
    kept = torch.load(file, weights_only=True)
    assert set(kept) == {"signature", "model", "spent", "curve", "finished"}
    with zipfile.ZipFile(file) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
        assert not any(name.startswith("/") for name in archive.namelist())
    for place in (tmp_path, Path.cwd(), Path.home()):
        assert str(place).encode() not in content


def broken(kind: str, file: Path, case: Case, folder: Path) -> None:
    """Put in place of a good checkpoint what is none of this training."""
    content = file.read_bytes()
    if kind == "empty":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_bytes(b"no checkpoint")
    elif kind == "torn":
        file.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        at = len(content) // 2
        file.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    elif kind == "code":
        torch.save({"model": Path("/"), "signature": ""}, file)
    elif kind == "list":
        torch.save([1, 2], file)
    elif kind == "unsigned":
        kept = torch.load(file, weights_only=True)
        kept.pop("signature")
        torch.save(kept, file)
    else:  # of another rate, seed or shape, under this one's name
        changes: dict[str, Any] = {
            "rate": {"training": "steps:amount=4,lr=0.1"}, "seed": {"seed": 5},
            "shape": {"model": f"encoder:{SHAPE},d_ff=8"},
        }[kind]  # fmt: skip
        other = training(**changes)
        trained(other, folder)
        (folder / f"{other.id}.pt").replace(file)


KINDS = ("empty", "text", "torn", "flipped", "code", "list", "unsigned", "rate", "seed", "shape")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_checkpoint_of_this_training_is_trained_anew(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = training()
    plain = trained(case, tmp_path)
    file = tmp_path / f"{case.id}.pt"
    good = file.read_bytes()
    broken(kind, file, case, tmp_path)
    assert file.read_bytes() != good
    heard: list[str] = []
    done = trained(case, tmp_path, tell=heard.append)
    assert_same(done, plain)
    assert heard[0].startswith(f"the checkpoint {case.id}.pt ")
    assert heard[0].endswith("training starts again")
    assert heard[0] in capsys.readouterr().err
    assert torch.load(file, weights_only=True)["finished"]


def test_another_versions_defaults_are_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = training()
    trained(case, tmp_path)
    setup = prepare(case, {})
    other = replace(setup, plan=replace(setup.plan, hold=0.1))
    heard: list[str] = []
    train(other, tmp_path, heard.append)
    assert "of another training" in heard[0]


def test_what_other_measuring_code_trained_is_trained_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = training()
    trained(case, tmp_path)
    monkeypatch.setattr(run_module, "MEASUREMENT", run_module.MEASUREMENT + 1)
    heard: list[str] = []
    trained(case, tmp_path, tell=heard.append)
    assert "of another training" in heard[0]


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    case = training()
    partial = tmp_path / f"{case.id}.part"
    partial.symlink_to("/dev/full")
    with pytest.raises(OSError, match="cannot be kept: No space left on device") as raised:
        trained(case, tmp_path)
    assert str(tmp_path) not in str(raised.value)
    assert f"{case.id}.pt" in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert_same(trained(case, tmp_path), trained(case))


def test_a_checkpoint_may_be_larger_than_what_a_case_may_print(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, hard))
    try:
        trained(training(), tmp_path)
        assert resource.getrlimit(resource.RLIMIT_FSIZE) == (1 << 12, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size > 1 << 12


# -- the questions -------------------------------------------------------------------------------


def plainly(case: Case, count: int) -> tuple[Score, Any]:
    """Ask `count` sequences of the test split one by one, in plain Python."""
    done = trained(case)
    setup = prepare(case, {})
    score = Score()
    with torch.no_grad():
        for batch in setup.task.test_batches(4, count, seed=0):
            every = logits_of(done.model, batch)
            for row, place in (batch.labels != IGNORED).nonzero().tolist():
                logits, wanted = every[row, place].double(), int(batch.labels[row, place])
                right = int(logits.tolist().index(max(logits.tolist())) == wanted)
                score.labels += 1
                score.correct += right
                score.nats += math.log(sum(math.exp(x) for x in logits)) - float(logits[wanted])
                if batch.groups is not None:
                    group = score.groups[int(batch.groups[row, place])]
                    group[0] += 1
                    group[1] += right
    return score, done.model


@pytest.mark.parametrize("changes", [{}, {"is_causal": True}, LISTOPS])
def test_the_score_is_that_of_a_plain_count(changes: dict[str, Any]) -> None:
    case = training(training="steps:amount=20,lr=0.01", **changes)
    expected, model = plainly(case, 24)
    found = evaluate(model, prepare(case, {}).task, batch=4, seed=0, sequences=24, labels=1)
    assert (found.labels, found.correct) == (expected.labels, expected.correct)
    assert found.nats == pytest.approx(expected.nats, rel=1e-5)
    assert dict(found.groups) == dict(expected.groups)
    assert found.accuracy == expected.correct / expected.labels
    assert found.loss == pytest.approx(expected.nats / expected.labels, rel=1e-5)
    assert found.bits == pytest.approx(found.loss / math.log(2))
    assert not model.training


def test_groups_are_told_in_order_and_only_where_there_are_some() -> None:
    score = Score(labels=3, correct=2)
    assert score.groups_json("distance") is None
    score.groups[7][0], score.groups[7][1] = 2, 1
    score.groups[3][0], score.groups[3][1] = 1, 1
    assert score.groups_json("distance") == {
        "name": "distance", "values": [3, 7], "count": [1, 2], "correct": [1, 1]
    }  # fmt: skip


class Sparse(Task):
    """Asks one label in a sequence, or none at all."""

    name = summary = paper = "sparse"
    vocab_size, chance = 4, 0.25

    def __init__(self, asks: bool) -> None:
        super().__init__(seq_len=8, form="bidirectional")
        self.asks, self.drawn = asks, 0

    def batch(self, size: int, *, seed: int, index: int, split: Any) -> Batch:
        self.drawn += size
        labels = torch.full((size, 8), IGNORED)
        if self.asks:
            labels[:, 2] = 1
        return Batch(torch.zeros(size, 8, dtype=torch.int64), labels)


def test_enough_labels_and_sequences_are_asked_and_no_more() -> None:
    model = prepare(training(), {}).model
    for sequences, labels, expected in ((10, 30, 32), (30, 10, 32), (8, 8, 8), (5, 3, 5)):
        task = Sparse(asks=True)
        score = evaluate(model, task, batch=8, seed=0, sequences=sequences, labels=labels)
        assert (score.labels, task.drawn) == (min(expected, max(sequences, labels)),) * 2


def test_a_test_split_that_asks_nothing_is_an_error() -> None:
    model = prepare(training(), {}).model
    with pytest.raises(ValueError, match="the test split of sparse asks nothing"):
        evaluate(model, Sparse(asks=False), batch=8, seed=0, sequences=8, labels=8)


# -- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "recal"}, "did you mean 'recall'"),
        ({"task": "recall:pairs=3"}, "did you mean 'num_pairs'"),
        ({"task": "recall:num_pairs=40,vocab_size=32"}, "num_pairs"),
        ({"task": "recall:num_pairs=30"}, "seq_len"),
        ({"task": "language:corpus=/etc/passwd"}, "corpus"),
        ({"task": "language:corpus=sha256-0123456789ab"}, "was not given with this command"),
        ({"training": "steps:amount=3,lrr=1"}, "did you mean 'lr'"),
        ({"model": "decoder:d_model=16"}, "asks a model of architecture encoder; got decoder"),
        ({"model": "encoder:d_modle=16"}, "did you mean 'd_model'"),
        ({"model": "encoder:d_model=16,num_heads=3"}, "d_model: expected a multiple of num_heads"),
        ({"model": "encoder:d_model=0"}, "d_model"),
        ({"model": "encoder:d_model=wide"}, "d_model"),
        ({"model": "encoder:d_model=1.5"}, "d_model"),
        ({"model": "encoder:num_layers=0"}, "num_layers"),
        ({"model": "encoder:positions=none"}, "positions"),
        ({"model": "encoder:dropout_p=0.1"}, "dropout_p: not accepted, as a training must"),
        ({"model": "encoder:vocab_size=9"}, "vocab_size: the task gives it; got 9"),
        ({"arms": (parse_backend("longformer:windw=3"),)}, "did you mean 'window'"),
        ({"arms": (parse_backend("lstm:width=3"),)}, "width: lstm takes no option"),
        ({"batch": 0}, "batch: expected at least 1, got 0"),
        ({"dtype": "float64"}, "dtype"),
        ({"dtype": "float16"}, "dtype: float16 is trained on CUDA"),
        ({"compile": True}, "compile: not available for trainings; expected off, got on"),
    ],
)
def test_misuse_names_the_argument_before_anything_is_trained(
    changes: dict[str, Any], said: str
) -> None:
    case = training(**changes)
    for light in (False, True):
        with pytest.raises((TypeError, ValueError)) as raised:
            prepare(case, {}, light=light)
        assert said in str(raised.value)


def test_a_model_of_any_size_is_looked_at_without_its_numbers() -> None:
    model = "encoder:d_model=65536,num_layers=64,num_heads=64"
    setup = prepare(training(model=model), {}, light=True)
    assert setup.model.tokens.weight.is_meta
    assert setup.step_ops > 1e13
    small = training("linformer:rank=4")
    assert prepare(small, {}, light=True).step_ops == prepare(small, {}).step_ops


def test_an_arm_that_cannot_serve_the_form_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="linformer cannot be causal"):
        prepare(training("linformer:rank=4", is_causal=True), {})


def test_an_arm_that_leaves_no_padding_out_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    supports = replace(FullAttention.supports, key_padding=False)
    monkeypatch.setattr(FullAttention, "supports", supports)
    with pytest.raises(UnsupportedError, match="full takes no mask, and a batch is padded"):
        prepare(training("full", **LISTOPS), {})
