"""Claims about what a small model learns: by the trainer, tasks and text of suite quality."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from attention import registry as backends
from attention.base import UnsupportedError
from models import MultiheadAttention, TransformerModel
from results.schema import Arm, Case
from suites.claims.experiments import Found, Lab, experiment
from suites.quality.rows import architecture_of, budgets
from suites.quantized import schemes
from suites.quantized.kind import model_bytes
from suites.tasks import registry as tasks
from suites.tasks.base import Task
from suites.training.evaluate import evaluate
from suites.training.model import config_for, draw_model
from suites.training.plan import Plan
from suites.training.prepare import Setup, prepare, train
from suites.training.trainer import Trainer

RECALL = Arm("recall", {"num_pairs": 8})
RECALL_STEPS = "steps:amount=500,lr=0.002"
"""As suite quality trains it causally, at 32 tokens in batches of 32: it is solved so."""

POSITIONS_STEPS, WEIGHTS_STEPS, OBJECTIVES_STEPS = 200, 120, 30
"""Of the trainings on text."""

TEST_SEED = 0


def _case(
    lab: Lab, task: Arm, arm: Arm, *, form: str, seq_len: int, batch: int, training: str
) -> Case:
    return Case(
        kind="task", level="model", mode="training", arms=(arm,), batch=batch, num_heads=0,
        num_kv_heads=0, head_dim=0, seq_len=seq_len, key_len=seq_len, device=lab.device,
        dtype="float32", is_causal=form == "causal", threads=lab.threads, allocator="default",
        compile=False, seed=lab.seed, model=architecture_of(task, form), task=task.label,
        training=training,
    )  # fmt: skip


def _recall(lab: Lab, arm: Arm, change: Callable[[Setup], None] = lambda _: None) -> Any:
    """Train recall; return its score on the test split."""
    case = _case(lab, RECALL, arm, form="causal", seq_len=32, batch=32, training=RECALL_STEPS)
    setup = prepare(case, {})
    change(setup)
    train(setup, None)
    return evaluate(setup.model, setup.task, batch=64, seed=TEST_SEED)


@experiment("long-range")
def recall_by_distance(lab: Lab) -> Found:
    """Train recall of 8 pairs in 32 tokens, with exact attention and a window of 4."""
    lines: dict[str, list[tuple[float, float]]] = {}
    values: dict[str, float] = {}
    for arm in (Arm("sdpa"), Arm("longformer", {"window": 4})):
        score = _recall(lab, arm)
        groups = sorted(score.groups.items())
        lines[arm.label] = [(d, right / asked) for d, (asked, right) in groups]
        far = [counts for d, counts in groups if d >= groups[-1][0] / 2]
        right, asked = sum(r for _, r in far), sum(a for a, _ in far)
        values[f"{arm.name}_far_accuracy"] = right / asked
    return Found(values, ("distance (tokens)", "accuracy"), lines)


@experiment("shared-qk")
def tied_projections(lab: Lab) -> Found:
    """Train recall with one projection for queries and keys, and with two."""

    def tie(setup: Setup) -> None:
        layers = [m for m in setup.model.modules() if isinstance(m, MultiheadAttention)]
        assert layers
        for layer in layers:
            layer.qkv.k_proj = layer.qkv.q_proj

    apart = _recall(lab, Arm("sdpa")).accuracy
    tied = _recall(lab, Arm("sdpa"), tie).accuracy
    lab.seeded()
    layer = MultiheadAttention(d_model=64, num_heads=4)
    x = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(lab.seed))

    def skew() -> float:
        q, k, _ = layer.qkv(x, x)
        scores = (q @ k.transpose(2, 3)).detach()
        return float((scores - scores.transpose(2, 3)).norm() / (2 * scores.norm()))

    asymmetry = skew()
    layer.qkv.k_proj = layer.qkv.q_proj
    values = {
        "apart_accuracy": apart, "tied_accuracy": tied, "lost_accuracy": apart - tied,
        "apart_asymmetry": asymmetry, "tied_asymmetry": skew(),
    }  # fmt: skip
    return Found(values)


def _language(lab: Lab, seq_len: int, **options: Any) -> Task:
    label = Arm("language", options).label
    return tasks.build(label, seq_len=seq_len, form="causal", files={})


def _trained(lab: Lab, model: TransformerModel, task: Task, *, steps: int, batch: int) -> None:
    plan = Plan("steps", steps, lr=0.002)
    Trainer(model.to(lab.device), task, plan, batch=batch, seed=lab.seed).run()


@experiment("sinusoidal")
def longer_than_trained(lab: Lab) -> Found:
    """Train text at 64 tokens by each kind of position; ask it at 64, 128 and 256."""
    lengths = (64, 128, 256)
    task = _language(lab, lengths[0])
    lines: dict[str, list[tuple[float, float]]] = {}
    for positions in ("sinusoidal", "learned", "rotary"):
        config = config_for(f"decoder:positions={positions}", task).scaled(max_len=lengths[-1])
        _, model = draw_model(Arm("sdpa"), config, lab.seed)
        _trained(lab, model, task, steps=POSITIONS_STEPS, batch=32)
        lines[positions] = []
        for n in lengths:
            score = evaluate(
                model, _language(lab, n), batch=32, seed=TEST_SEED, sequences=128, labels=1
            )
            lines[positions].append((n, score.bits))
    values = {f"{p}_at_4": points[-1][1] / points[0][1] for p, points in lines.items()}
    return Found(values, ("tokens asked at, trained at 64", "bits per byte"), lines)


@experiment("quantization")
def fewer_bits(lab: Lab) -> Found:
    """Train text briefly, then keep the weights of the linear layers in fewer bits."""
    task = _language(lab, 128)
    config = config_for("decoder:d_model=128,num_layers=3,num_heads=4", task)
    _, model = draw_model(Arm("sdpa"), config, lab.seed)
    _trained(lab, model, task, steps=WEIGHTS_STEPS, batch=16)
    model.eval()
    sizes: dict[str, int] = {}
    bits: dict[str, float] = {}
    missing = []
    for weights in ("float32", "bfloat16", "int8", "int4"):
        if reasons := schemes.unsupported_reasons(weights, model, lab.device):
            missing += reasons
            continue
        kept = copy.deepcopy(model)
        schemes.keep(weights, kept, lab.device)
        sizes[weights] = model_bytes(kept)
        score = evaluate(kept, task, batch=32, seed=TEST_SEED, sequences=256, labels=1)
        bits[weights] = score.bits
    if "int8" not in sizes or "int4" not in sizes:
        raise UnsupportedError("; ".join(missing))
    values = {}
    for weights in ("int8", "int4"):
        values[f"{weights}_bytes_to_bfloat16"] = sizes[weights] / sizes["bfloat16"]
        values[f"{weights}_bits_to_bfloat16"] = bits[weights] / bits["bfloat16"]
    lines = {"by weights": [(sizes[w] / 2**20, bits[w]) for w in sizes]}
    return Found(values, ("model (MiB)", "bits per byte"), lines)


OBJECTIVES = (("next", "causal"), ("masked", "bidirectional"), ("denoise", "bidirectional"))


@experiment("objectives")
def all_objectives_train(lab: Lab) -> Found:
    """Train each objective on text for a few steps, with every backend that supports it."""
    worst: dict[str, float] = {}
    count = 0
    for objective, form in OBJECTIVES:
        task = Arm("language", {"objective": objective})
        for arm in (*budgets(64), Arm("full")):
            if backends.get(arm.name).unavailable_reasons(lab.device):
                continue
            case = _case(
                lab, task, arm, form=form, seq_len=64, batch=16,
                training=f"steps:amount={OBJECTIVES_STEPS},lr=0.002",
            )  # fmt: skip
            try:
                setup = prepare(case, {})
            except UnsupportedError:
                continue
            loss = train(setup, None).curve.loss
            left = sum(loss[-5:]) / sum(loss[:5])
            worst[objective] = max(worst.get(objective, 0.0), left)
            count += 1
    values = {f"{objective}_loss_left": left for objective, left in worst.items()}
    return Found({**values, "trainings": count})
