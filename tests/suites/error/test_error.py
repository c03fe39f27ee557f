"""Kind error: what its inputs are, what its metrics mean, and a sweep of the suite."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_speed import unchanged_process  # noqa: F401
from helpers_sweep import record as sweep_record
from torch import Tensor

from attention.backends.full import FullAttention
from attention.functional import expand_kv_heads
from results.records.validation import drop_faults
from results.schema import UNITS, Arm, Case, check_record
from suites.arms.build import build_attention
from suites.engine.driver import run_sweep
from suites.engine.session import MisuseError
from suites.error import trained_inputs
from suites.error.inputs import HeavyTailed, Peaked
from suites.error.suite import BASELINES, ERROR_PRESETS, TRAINED
from suites.error.trained_inputs import TrainedSpec, draw_qkv, trained_tensors
from suites.error.weights import exact_log_weights, is_distribution, weights_error
from suites.parsing import parse_backend
from suites.plan import cases, order, plan_sweep
from suites.terminal.progress import describe, label
from suites.training import prepare as run_module
from suites.training import trainer as trainer_module
from suites.training.prepare import prepare
from suites.training.trainer import Trainer
from suites.worker.preflight import inspect_case
from tests.suites.speed.test_speed import case, record, registered  # noqa: F401

pytestmark = pytest.mark.usefixtures("in_process")

BACKENDS = ("bigbird:block_size=8", "full", "linformer:rank=16", "longformer:window=12",
            "performer:num_features=32", "sdpa")  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small only wait for a second one
    yield
    torch.set_num_threads(threads)


def error(backend: str = "sdpa", inputs: str = "gaussian", **changes: Any) -> Case:
    arms = (parse_backend(backend),)
    return case(**{"kind": "error", "inputs": inputs, "arms": arms, **changes})


def logits(of: Case) -> Tensor:
    q, k, _ = (x.double() for x in draw_qkv(of))
    return q @ expand_kv_heads(k, q.shape[1]).mT / math.sqrt(of.head_dim)


# -- what is drawn -------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", ["gaussian:scale=0.3", "gaussian:scale=2",
                                    "low_rank:rank=4,scale=0.5", "low_rank:rank=16",
                                    "heavy_tailed:df=6,scale=0.7"])  # fmt: skip
def test_logits_deviate_by_the_square_of_the_scale(inputs: str):
    of = error(inputs=inputs, num_heads=8, num_kv_heads=8, seq_len=512)
    scale = parse_backend(inputs).options.get("scale", 1.0)
    found = logits(of)
    assert float(found.std()) == pytest.approx(scale**2, rel=0.1)
    assert abs(float(found.mean())) < 0.05 * scale**2
    values = draw_qkv(of)[2]
    assert float(values.std()) == pytest.approx(1.0, rel=0.02)


def test_low_rank_heads_have_the_rank_that_is_asked_for():
    q, k, v = draw_qkv(error(inputs="low_rank:rank=3", num_heads=4, num_kv_heads=2))
    both = torch.cat([q, k.repeat_interleave(2, dim=1)], dim=2).double()
    singular = torch.linalg.svdvals(both)  # of queries and keys together: one subspace
    assert bool((singular[..., 2] > 1).all())
    assert float(singular[..., 3:].max()) < 1e-4
    assert int(torch.linalg.matrix_rank(v[0, 0])) == 16


def test_heavy_tails_are_students():
    case_of_t = error(inputs="heavy_tailed:df=3", seq_len=4096)
    q = draw_qkv(case_of_t)[0].double().flatten()  # 131072 numbers
    # The distribution function of t with 3 degrees of freedom in closed form, at unit variance.
    for at in (-3.0, -1.0, 0.2, 1.5, 4.0):
        t = at * math.sqrt(3.0)
        x = t / math.sqrt(3)
        expected = 0.5 + (x / (1 + x * x) + math.atan(x)) / math.pi
        share = float((q <= at).double().mean())
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / q.numel())
    assert float(q.abs().max()) > 10  # no normal number is


def test_a_fractional_number_of_degrees_has_its_fourth_moment():
    q = HeavyTailed(df=9.5)._student((400_000,), torch.Generator().manual_seed(0)).double()
    assert float(q.var()) == pytest.approx(1.0, rel=0.02)
    assert float((q**4).mean()) == pytest.approx(3 * (9.5 - 2) / (9.5 - 4), rel=0.1)


@pytest.mark.parametrize("causal", [False, True])
def test_a_few_keys_dominate_each_query(causal: bool):
    of = error(inputs="peaked:num_keys=3,strength=10", head_dim=64, seq_len=256, is_causal=causal)
    generator = torch.Generator().manual_seed(0)
    q, k, _ = of_peaked = Peaked(num_keys=3, strength=10).draw(of, generator)
    torch.testing.assert_close(of_peaked[1], draw_qkv(of)[1])
    scores = q.double() @ k.double().mT / 8
    generator.manual_seed(0)
    torch.randn(k.shape, generator=generator)
    chosen = Peaked(num_keys=3, strength=10).chosen(of, generator)  # [B, H, N, 3]
    late = slice(64, None)  # the first queries of a causal call have fewer keys than they look at
    own = scores.gather(3, chosen)[:, :, late]
    assert float(own.mean()) == pytest.approx(10, rel=0.05)
    assert float(own.std()) == pytest.approx(10 * math.sqrt(2 / 64), rel=0.2)
    others = scores.scatter(3, chosen, float("nan"))[:, :, late]
    others = others[~others.isnan()]
    assert abs(float(others.mean())) < 0.2
    assert float(others.std()) == pytest.approx(10 * math.sqrt(3 / 64), rel=0.1)
    assert chosen[:, :, late].sort(dim=3).values.diff(dim=3).min() >= (0 if causal else 1)
    if causal:
        assert bool((chosen <= torch.arange(256)[:, None]).all())
    assert float(k.norm(dim=3).std()) < 1e-5


def test_the_seed_decides_and_nothing_else():
    for inputs in ("gaussian", "peaked", "low_rank", "heavy_tailed"):
        first, again, other = (draw_qkv(error(inputs=inputs, seed=seed))[0] for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_shapes_are_the_cases_own():
    for inputs in ("gaussian", "peaked", "low_rank", "heavy_tailed"):
        of = error(inputs=inputs, batch=2, num_heads=4, num_kv_heads=2, seq_len=24)
        assert [tuple(x.shape) for x in draw_qkv(of)] == [(2, 4, 24, 16), *[(2, 2, 24, 16)] * 2]


# -- of a trained model --------------------------------------------------------------------------


def small_model(spec: TrainedSpec, _store: Path | None = None) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(spec.seed)
    q, k, v = (torch.randn(spec.shape, generator=generator) for _ in range(3))
    return q, k, v


def trained_case(**changes: Any) -> Case:
    heads = {"num_heads": TRAINED.num_heads, "num_kv_heads": TRAINED.num_heads}
    return error(**{"inputs": "trained", "head_dim": TRAINED.head_dim, **heads, **changes})


def test_a_model_is_trained_once_and_read_afterwards(tmp_path, monkeypatch):
    made = []

    def make(spec: TrainedSpec, _store: Path | None = None) -> tuple[Tensor, Tensor, Tensor]:
        made.append(spec)
        return small_model(spec)

    first = trained_tensors(trained_case(), tmp_path, make=make)
    again = trained_tensors(trained_case(seq_len=64), tmp_path, make=make)
    assert len(made) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    trained_tensors(trained_case(is_causal=True), tmp_path, make=make)
    trained_tensors(trained_case(seed=1), tmp_path, make=make)
    assert [(spec.is_causal, spec.seed) for spec in made] == [(False, 0), (True, 0), (False, 1)]
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".pt"] * 3
    monkeypatch.setattr(trained_inputs, "train", make)
    q, _, v = draw_qkv(trained_case(inputs="trained:layer=0", seq_len=40), tmp_path)
    assert torch.equal(q[0], first[0][0, :, :40])
    assert torch.equal(draw_qkv(trained_case(seq_len=40), tmp_path)[2][0], first[2][-1, :, :40])
    assert v.shape == (1, TRAINED.num_heads, 40, TRAINED.head_dim)
    assert len(made) == 3


def test_a_case_keeps_the_tensors_in_the_folder_of_its_run(tmp_path, monkeypatch):
    monkeypatch.setattr(trained_inputs, "train", small_model)
    told = record(trained_case(backend="longformer:window=8"), store=str(tmp_path))
    assert told["status"] == "ok", told["reason"]
    assert len(list(tmp_path.iterdir())) == 1
    facts = prepare(
        trained_inputs.training_case(trained_inputs.spec_of(trained_case())), {}
    ).task.facts
    assert told["arms"][0]["inputs"] == {
        "task": "language", "training": "steps:amount=200,lr=0.002", "batch": 4,
        "model": "encoder:d_model=128,num_heads=4,num_layers=2,positions=rotary", "facts": facts,
    }  # fmt: skip
    assert len(facts["sha256"]) == 64
    written = check_record(sweep_record(trained_case(), arms=told["arms"]))
    assert list(drop_faults(written)) == []
    monkeypatch.delattr(trained_inputs, "train")  # what is there is read
    again = record(trained_case(backend="longformer:window=8"), store=str(tmp_path))
    for name in ("relative_error", "weights_error", "weights_kl"):
        assert again["arms"][0]["metrics"][name] == told["arms"][0]["metrics"][name]


@pytest.mark.parametrize("kind", ["torn", "rate", "measurement", "torch"])
def test_tensors_that_are_torn_or_of_another_training_are_made_anew(
    kind, tmp_path, monkeypatch, capsys
):
    first = trained_tensors(trained_case(), tmp_path, make=small_model)
    (file,) = tmp_path.iterdir()
    if kind == "torn":
        file.write_bytes(file.read_bytes()[:-100])
    elif kind == "rate":
        monkeypatch.setattr(trained_inputs, "RATE", 0.5)
    elif kind == "measurement":
        monkeypatch.setattr(run_module, "MEASUREMENT", -1)
    else:
        monkeypatch.setattr(torch, "__version__", "0.0")
    made = []
    again = trained_tensors(
        trained_case(), tmp_path, make=lambda spec: made.append(spec) or small_model(spec)
    )
    assert len(made) == 1
    assert f"the checkpoint {file.name} " in capsys.readouterr().err
    assert torch.equal(again[0], first[0])
    trained_tensors(trained_case(), tmp_path, make=lambda _spec: pytest.fail("it is there"))


def test_the_training_of_inputs_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(trained_inputs, "STEPS", 4)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_S", 0.0)
    spec = TrainedSpec(1, 2, 8, seq_len=32, is_causal=True, seed=0)
    whole = trained_inputs.train(spec)
    taken = []
    step = Trainer._step

    def counted(self: Trainer, progress: float) -> Tensor:
        taken.append(progress)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return step(self, progress)

    monkeypatch.setattr(Trainer, "_step", counted)
    with pytest.raises(KeyboardInterrupt):
        trained_inputs.train(spec, tmp_path)
    assert all(map(torch.equal, trained_inputs.train(spec, tmp_path), whole))
    assert taken == [0.0, 0.25, 0.5, 0.5, 0.75]


def test_tensors_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the trainer has q of shape"):
        trained_tensors(trained_case(), tmp_path, make=lambda spec: (torch.ones(3),) * 3)
    assert not list(tmp_path.iterdir())


def test_a_text_is_no_longer_than_the_models():
    told = inspect_case(trained_case(seq_len=TRAINED.seq_len + 1))
    assert told["misuse"] is None
    (reason,) = told["unsupported"]
    assert f"a text of {TRAINED.seq_len} tokens; got {TRAINED.seq_len + 1}" in reason
    assert inspect_case(trained_case())["unsupported"] == []


# -- what is measured ----------------------------------------------------------------------------


def dense(of: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return an approximation's weights, exact softmax's, and v: all rows, in float64.

    The weights are the reference's answers to the columns of an identity in place of v.
    """
    attention = build_attention(of.arms[0], of)
    q, k, v = (x.double() for x in draw_qkv(of))
    k, v = expand_kv_heads(k, q.shape[1]), expand_kv_heads(v, q.shape[1])
    columns = torch.eye(of.key_len, dtype=q.dtype).split(of.head_dim, dim=1)
    assert of.key_len % of.head_dim == 0
    weights = torch.cat(
        [
            attention.reference(q, k, c.expand(*k.shape[:2], -1, -1), is_causal=of.is_causal)
            for c in columns
        ],
        dim=3,
    )
    scores = q @ k.mT / math.sqrt(of.head_dim)
    if of.is_causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
    return weights.detach(), scores.softmax(dim=3), v


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", [*BACKENDS, "linformer:rank=16,method=mean_pool"])
def test_metrics_are_those_of_a_dense_computation(backend: str, causal: bool):
    if causal and "linformer" in backend:
        pytest.skip("it has no causal form")
    of = error(backend, "gaussian:scale=0.8", seq_len=64, num_kv_heads=1, is_causal=causal)
    told = record(of)
    assert told["status"] == "ok", told["reason"]
    (arm,) = told["arms"]
    assert arm["gate"]["relative_l2"] <= arm["gate"]["budget"]
    assert arm["cost"]["bytes"] > 0
    found = {name: metric["value"] for name, metric in arm["metrics"].items() if name != "latency"}
    assert all(arm["metrics"][name]["unit"] == UNITS[name] for name in arm["metrics"])
    weights, exact, v = dense(of)
    error_of_weights = float((weights - exact).norm() / exact.norm())
    assert found["weights_error"] == pytest.approx(error_of_weights, rel=1e-9, abs=1e-12)
    out, expected = weights @ v, exact @ v
    error_of_output = float((out - expected).norm() / expected.norm())
    assert found["relative_error"] == pytest.approx(error_of_output, rel=1e-4, abs=2e-6)
    seen = weights > 0
    if backend == "linformer:rank=16":
        assert "weights_kl" not in found
        assert bool((weights < -0.01).any())
        return
    kl = (weights[seen] * (weights[seen] / exact[seen]).log()).sum() / weights[..., 0].numel()
    assert found["weights_kl"] == pytest.approx(float(kl), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("backend", ["sdpa", "full"])
@pytest.mark.parametrize("inputs", ["gaussian:scale=2", "peaked", "low_rank", "heavy_tailed"])
def test_exact_attention_is_no_further_than_rounding(backend: str, inputs: str):
    (arm,) = record(error(backend, inputs))["arms"]
    assert arm["metrics"]["relative_error"]["value"] < 1e-5
    assert arm["metrics"]["weights_error"]["value"] < 1e-12
    assert 0 <= arm["metrics"]["weights_kl"]["value"] < 1e-12


BUDGETS = {
    "longformer": ("window", (4, 16, 64), 16),
    "bigbird": ("block_size", (4, 8, 16), 16),
    "linformer": ("rank", (16, 64, 256), 16),
    "performer": ("num_features", (16, 64, 4096), 4),
}
"""Option, values and D. Performer's heads are narrow: where logits deviate by 1, the variance of a
feature is exponential in |x|² = √D."""


@pytest.mark.parametrize("name", BUDGETS)
def test_a_larger_budget_has_a_smaller_error(name: str):
    option, values, dim = BUDGETS[name]
    means, divergences = [], []
    for value in values:
        found = []
        for seed in range(6):
            of = error(inputs="gaussian:scale=1", seq_len=256, seed=seed, head_dim=dim)
            arm = build_attention(Arm(name, {option: value}), of)
            q, k, _ = draw_qkv(of)
            found.append(weights_error(arm, q, k, is_causal=False, seed=seed))
        means.append(sum(one.relative_l2 for one in found) / len(found))
        divergences.append(sum(one.kl or 0.0 for one in found) / len(found))
    assert means[0] > 1.1 * means[1] > 1.1 * 1.1 * means[2], means
    if name == "linformer":
        assert divergences == [0.0] * 3  # it has none
    else:
        assert divergences[0] > 1.1 * divergences[1] > 1.1 * 1.1 * divergences[2], divergences


def test_rows_are_sampled_and_narrow_heads_take_several_passes():
    of = error("longformer:window=20", "gaussian", seq_len=160)
    arm = build_attention(of.arms[0], of)
    q, k, _ = draw_qkv(of)
    every = weights_error(arm, q, k, is_causal=False, seed=0, rows=160)
    weights, exact, _ = dense(of)
    assert every.rows == 160
    assert every.relative_l2 == pytest.approx(float((weights - exact).norm() / exact.norm()))
    sampled = weights_error(arm, q, k, is_causal=False, seed=0, rows=30)
    assert sampled.rows == 30
    assert sampled.relative_l2 == pytest.approx(every.relative_l2, rel=0.3)
    assert sampled != weights_error(arm, q, k, is_causal=False, seed=1, rows=30)


def test_a_divergence_is_finite_where_softmax_underflows():
    q = torch.full((1, 1, 4, 8), 60.0)
    k = torch.cat([torch.ones(1, 1, 1, 8), -torch.ones(1, 1, 3, 8)], dim=2) * 60
    rows = torch.arange(4)
    logs = exact_log_weights(q.double(), k.double(), 8**-0.5, is_causal=False, rows=rows)
    assert float(logs.exp()[..., 1:].max()) == 0.0
    arm = build_attention(Arm("longformer", {"window": 0}), error(num_heads=1, head_dim=8))
    found = weights_error(arm, q, k, is_causal=False, seed=0)
    # The last three queries read one key alone, whose exact weight is exp of minus this.
    expected = 0.75 * 2 * 60 * 60 * 8 * 8**-0.5
    assert found.kl == pytest.approx(expected)


def test_weights_of_both_signs_or_another_sum_are_no_distribution():
    assert is_distribution(torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    assert not is_distribution(torch.tensor([[0.25, 0.75], [1.1, -0.1]]))
    assert not is_distribution(torch.tensor([[0.25, 0.7]]))


def test_an_output_off_its_reference_on_these_inputs_fails(registered):  # noqa: F811
    class Clipped(FullAttention):
        summary = "right on flat attention alone"

        def attend(self, q, k, v, **how):
            return super().attend(q.clamp(-3, 3), k, v, **how)

    name = registered(Clipped)
    assert record(error(name, "gaussian:scale=0.3"))["status"] == "ok"
    told = record(error(name, "heavy_tailed"))
    assert told["status"] == "failed"
    assert "WrongOutputError" in told["reason"]


# -- misuse --------------------------------------------------------------------------------------

MISUSES = [
    ({"inputs": "uniform"}, "inputs: expected one of gaussian, peaked, .*trained, got 'uniform'"),
    ({"inputs": "gaussian:width=1"}, "inputs: gaussian has no option 'width'; it takes scale"),
    ({"inputs": "gaussian:scale=0"}, "gaussian: scale: expected a number finite and above 0"),
    ({"inputs": "gaussian:scale=-1"}, "scale: expected a number finite and above 0, got -1"),
    ({"inputs": "gaussian:scale=big"}, "scale: expected a number, got 'big'"),
    ({"inputs": "low_rank:rank=17"}, "rank: expected at most the head_dim of 16, got 17"),
    ({"inputs": "low_rank:rank=0"}, "rank: expected at least 1, got 0"),
    ({"inputs": "low_rank:rank=2.5"}, "rank: expected a whole number, got 2.5"),
    ({"inputs": "heavy_tailed:df=2"}, "df: expected a number finite and above 2, got 2"),
    ({"inputs": "peaked:num_keys=129"}, "num_keys: expected at most the 128 keys, got 129"),
    ({"inputs": "peaked:strength=0"}, "strength: expected a number finite and above 0, got 0"),
    ({"inputs": "trained"}, "inputs: trained has num_heads 4, got 2"),
    ({"inputs": "trained:layer=7"}, "trained: layer: expected at most 1, got 7"),
    ({"inputs": "trained:layer=-1"}, "trained: layer: expected at least 0, got -1"),
    ({"inputs": ""}, "expected NAME or NAME:key=value"),
    ({"mode": "training"}, "mode: expected forward, got training"),
    ({"level": "layer"}, "level: expected attention, got layer"),
    ({"key_len": 64}, "key_len: queries and keys are of one sequence; expected 128, got 64"),
    ({"arms": (Arm("sdpa"), Arm("full"))}, "arms: expected one, got 2"),
    ({"kind": "speed"}, "inputs: kind speed makes its own; expected none, got gaussian"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), MISUSES, ids=lambda x: str(x)[:40])
def test_bad_inputs_are_misuse(changes: dict[str, Any], said: str):
    told = inspect_case(replace(error(), **changes))
    with pytest.raises(ValueError, match=said):
        raise ValueError(told["misuse"])


# -- the suite -----------------------------------------------------------------------------------


def test_presets_hold_a_budget_of_every_family_beside_exact_attention():
    for name, preset in ERROR_PRESETS.items():
        grid = plan_sweep(name, suite="error")
        every = cases(grid)
        assert grid.backends[:2] == BASELINES
        assert {"bigbird", "linformer", "longformer", "performer"} < {
            case.arms[0].name for case in every
        }
        assert {case.kind for case in every} == {"error"}
        assert {case.mode for case in every} == {"forward"}
        assert {parse_backend(case.inputs).name for case in every} >= {
            "gaussian", "peaked", "trained",
        }  # fmt: skip
        assert len({case.id for case in every}) == len(every)
        assert set(grid.seq_lens) == set(preset.seq_lens)
    quick = cases(plan_sweep(None, suite="error"))
    assert quick == cases(plan_sweep("quick", suite="error"))


def test_every_case_of_the_presets_is_accepted_and_supported():
    every = {case.id: case for name in ERROR_PRESETS for case in cases(plan_sweep(
        name, suite="error", backends=(Arm("sdpa"),)))}  # fmt: skip
    for of in every.values():
        told = inspect_case(of)
        assert told["misuse"] is None
        assert not told["unsupported"]
    for arm in {arm.label: arm for p in ERROR_PRESETS.values() for arm in p.backends}.values():
        told = inspect_case(error(seq_len=1024, head_dim=64, arms=(arm,)))
        assert told["misuse"] is None
        assert not told["unsupported"]


def test_trained_inputs_come_in_their_own_shape_unless_options_say_otherwise():
    def shapes(**chosen: Any) -> set[tuple[int, int, int]]:
        grid = plan_sweep(
            "quick", suite="error", inputs=(Arm("trained"),), backends=(Arm("sdpa"),), **chosen
        )
        return {(c.num_heads, c.head_dim, c.seq_len) for c in cases(grid)}

    own = (TRAINED.num_heads, TRAINED.head_dim)
    lengths = [n for n in ERROR_PRESETS["quick"].seq_lens if n <= TRAINED.seq_len]
    assert shapes() == {(*own, n) for n in lengths}
    assert shapes(seq_lens=(64, 4096)) == {(*own, 64), (*own, 4096)}
    assert shapes(num_heads=(2,), seq_lens=(64,)) == {(2, 64, 64)}


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"suite": "speed", "inputs": (Arm("gaussian", {"scale": 1}),)},
         "inputs: only with suite error; got gaussian:scale=1"),
        ({"modes": ("forward", "training")}, "mode: suite error is of mode forward; got"),
        ({"levels": ("layer",)}, "level: suite error is of level attention; got layer"),
        ({"profile": True}, "profile: only with suite speed; got suite error"),
        ({"peers": ("linformer",)}, "peers: only with suite peers"),
        ({"models": (Arm("bert-base"),)}, "model: only with suite speed"),
        ({"preset": "million"}, "preset: expected one of quick, .* in suite error, got 'million'"),
    ],
)  # fmt: skip
def test_what_the_suite_would_ignore_is_refused(chosen: dict[str, Any], said: str):
    chosen = {"suite": "error", "preset": None, **chosen}
    with pytest.raises(ValueError, match=said):
        plan_sweep(**chosen)


def test_a_line_of_progress_names_the_inputs_and_the_error():
    of = error("longformer:window=64", "gaussian:scale=1", seq_len=1024, is_causal=True)
    assert label(of) == "longformer:window=64 on gaussian:scale=1 causal N=1024"
    told = sweep_record(of, latency=0.012)
    told["arms"][0]["metrics"]["relative_error"] = {"unit": "1", "value": 0.12345}
    assert describe(told) == "12 ms  0.0 MiB  error 0.123"


class Quiet:
    """A progress that keeps how many launches there are and were."""

    def begin(self, folder, total, done, notices):
        self.total, self.done = total, done

    def starting(self, item):
        pass

    def finished(self, record, remaining_s):
        pass


@pytest.mark.slow
def test_a_sweep_through_the_driver_and_its_resume(tmp_path):
    grid = plan_sweep(
        "quick", suite="error", seq_lens=(32, 64), num_heads=(2,), head_dims=(8,), threads=(1,),
        backends=(Arm("sdpa"), Arm("linformer", {"rank": 4})), is_causal=True, budget_s=0.01,
        inputs=(Arm("gaussian", {"scale": 1}), Arm("peaked")),
    )  # fmt: skip
    summary = run_sweep(grid, tmp_path, progress=Quiet())
    written = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [(r["case"]["id"], r["launch"]["index"]) for r in written] == [
        (item.case.id, item.launch) for item in order(grid, cases(grid))
    ]
    ours = [check_record(r) for r in written if r["case"]["kind"] == "error"]
    assert len(ours) == 8
    for told in ours:
        of_linformer = told["case"]["arms"][0]["name"] == "linformer"
        assert told["status"] == ("unsupported" if of_linformer else "ok"), told["reason"]
        assert of_linformer == ("causal" in str(told["reason"]))
        if not of_linformer:
            assert set(told["arms"][0]["metrics"]) == {
                "latency", "peak_memory", "relative_error", "weights_error", "weights_kl",
            }  # fmt: skip
    assert summary.statuses["unsupported"] == 4
    lines = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text("".join(lines[:-3]))
    progress = Quiet()
    again = run_sweep(grid, tmp_path, progress=progress, resume=True)
    assert (again.skipped, progress.total) == (len(lines) - 3, len(lines))
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == len(lines)


def test_misuse_ends_a_sweep_before_anything_is_written(tmp_path):
    grid = plan_sweep("quick", suite="error", inputs=(Arm("gaussian", {"scale": 0}),))
    with pytest.raises(MisuseError, match="inputs: gaussian: scale: expected a number"):
        run_sweep(grid, tmp_path / "run", progress=Quiet())
    assert not (tmp_path / "run").exists()
