"""Seeded synthetic records of kinds task, error and quantized whose truth is known."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import ENVIRONMENT, MACHINE, write_records

from results.schema import (
    ENVIRONMENTS,
    MACHINES,
    MEASUREMENT,
    SCHEMA,
    UNITS,
    Arm,
    Case,
    content_id,
)

DISTANCES = (4, 8, 16, 32, 64, 128, 256)
PER_GROUP = 500
RECALL = "recall:num_pairs=4"
TEXT = "text:corpus=stdlib"
MODEL = "decoder:d_model=64,num_layers=2,num_heads=4"
STEPS = "steps:amount=400,lr=0.002"
SECONDS = "time:amount=60,lr=0.002"
CHANCE = 1 / 16


@dataclass(frozen=True)
class Learner:
    """How one synthetic backend learns.

    Attributes:
        at: distance to the share of answers that are right.
        spread: standard deviation of that between seeds, of all distances together.
        bits: per byte, of text.
        costs: latency (s), peak memory (B), decoding state (B, 0 = none).
        fails: status and reason, of every seed; empty = it learns.
        only_seeds: those that succeed; None = all.
    """

    at: Callable[[float], float] = lambda distance: 1.0
    spread: float = 0.0
    bits: float = 2.1
    costs: tuple[float, int, int] = (4e-3, 1 << 21, 1 << 18)
    fails: tuple[str, str] | tuple[()] = ()
    only_seeds: Sequence[int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None


def window(distance: float) -> float:
    """Answers within 48 tokens, and chance beyond."""
    return 0.995 if distance <= 48 else CHANCE


SIX: Mapping[str, Learner] = {
    "full": Learner(costs=(6e-3, 1 << 24, 1 << 18), bits=2.10),
    "sdpa": Learner(lambda d: 0.998, 0.001, costs=(4e-3, 1 << 21, 1 << 18), bits=2.12),
    "xformers": Learner(fails=("unsupported", "xformers needs CUDA")),
    "longformer": Learner(window, 0.02, 2.18, (2.5e-3, 3 << 20, 1 << 16)),
    "linformer": Learner(fails=("failed", "loss is not finite | at *step* 12")),
    "performer": Learner(lambda d: CHANCE, 0.004, 2.45, (3e-3, 1 << 20, 1 << 14)),
}  # fmt: skip


def task_records(
    learners: Mapping[str, Learner] = SIX,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    task: str = RECALL,
    trainings: Sequence[str] = (STEPS,),
    distances: Sequence[float] = DISTANCES,
    group: str = "distance",
    seed: int = 0,
    run: str = "quality-1",
    machine: Mapping[str, Any] = MACHINE,
    quality: Mapping[str, Any] | None = None,
    **case: Any,
) -> list[dict[str, Any]]:
    """Return the records of a task; `quality` replaces entries of every arm's."""
    rng = np.random.default_rng(seed)
    records = []
    for training in trainings:
        for key, learner in learners.items():
            for one in seeds:
                made = _case(
                    "task", learner.name or key, learner.options, task=task, training=training,
                    seed=one, **{"model": MODEL, **case},
                )  # fmt: skip
                failed = learner.fails
                if learner.only_seeds is not None and one not in learner.only_seeds:
                    failed = ("timeout", "took longer than 600 s")
                if failed:
                    records.append(_record(run, machine, made, [], *failed))
                    continue
                shift = learner.spread * float(rng.standard_normal())
                arm = _task_arm(learner, task, distances, group, shift, made)
                arm["quality"].update(quality or {})
                records.append(_record(run, machine, made, [arm]))
    return records


def _task_arm(
    learner: Learner,
    task: str,
    distances: Sequence[float],
    group: str,
    shift: float,
    case: Case,
) -> dict[str, Any]:
    latency, memory, state = learner.costs
    steps = np.linspace(1, 400, 60)
    is_text = task.startswith("text")
    floor = learner.bits * np.log(2) if is_text else 0.05
    losses = floor + 3.0 * np.exp(-steps / 80) + abs(shift)
    correct = [round(PER_GROUP * min(1.0, max(0.0, learner.at(d) + shift))) for d in distances]
    metrics: dict[str, float] = {
        "loss": float(losses[-1]), "training_time": 400 * latency * 3, "training_steps": 400,
        "training_ops": 3e12, "throughput": 1e4 / latency / 100, "peak_memory": memory,
    }  # fmt: skip
    if is_text:
        metrics["bits_per_byte"] = learner.bits + shift
    else:
        metrics["accuracy"] = sum(correct) / (PER_GROUP * len(distances))
    if state and case.is_causal:
        metrics["state_bytes"] = state
    return {
        "kernel": "synthetic", "gate": None, "cost": None,
        "metrics": {
            **{k: {"unit": UNITS[k], "value": v} for k, v in metrics.items()},
            "latency": {"unit": "s", "samples": [latency * f for f in (1.0, 1.01, 0.99)]},
        },
        "quality": {
            "metric": "bits_per_byte" if is_text else "accuracy",
            "chance": 1 / 256 if is_text else CHANCE,
            "groups": None if is_text else {
                "name": group, "values": list(distances), "correct": correct,
                "count": [PER_GROUP] * len(distances)},
            "curve": {"step": [int(s) for s in steps], "time": [float(s) * 0.03 for s in steps],
                      "loss": [float(v) for v in losses]},
            "parameters": 120_000, "task": {"num_pairs": 4, "vocab_size": 32},
            "facts": {"corpus": "stdlib", "sha256": "ab" * 32, "bytes": 11_000_000,
                      "zlib": 2.31, "xz": 2.05, "test_bytes": 500_000} if is_text else {},
        },
    }  # fmt: skip


# -- error ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """How one approximation trades: ``error = scale · budget^-power``, time by the budget."""

    budget: str
    budgets: Sequence[int]
    scale: float
    power: float
    seconds: float
    others: Mapping[str, Any] = field(default_factory=dict)
    has_kl: bool = True

    def error(self, budget: float, hardness: float) -> float:
        return self.scale * hardness * budget**-self.power


FAMILIES: Mapping[str, Family] = {
    "longformer": Family("window", (32, 64, 128, 256), 4.0, 0.6, 1e-8),
    "linformer": Family("rank", (64, 128, 256), 9.0, 0.3, 6e-9, has_kl=False),
    "performer": Family("num_features", (32, 128, 512), 1.5, 0.5, 8e-9),
}
INPUTS: Mapping[str, float] = {
    "gaussian:scale=1": 1.0, "peaked:keys=4": 3.0, "low_rank:rank=8": 0.4,
    "heavy_tailed:df=3": 2.0,
}  # fmt: skip
"""Distribution to how hard it is."""

EXACT = {"full": 4e-8, "sdpa": 1.5e-8}
"""Seconds per N²."""


def error_records(
    families: Mapping[str, Family] = FAMILIES,
    *,
    inputs: Mapping[str, float] = INPUTS,
    lengths: Sequence[int] = (512, 1024, 2048),
    exact: Mapping[str, float] = EXACT,
    fails: Mapping[str, tuple[str, str]] | None = None,
    run: str = "error-1",
    **case: Any,
) -> list[dict[str, Any]]:
    """Return the records of a sweep over families, budgets, inputs and lengths."""
    records = []
    shape = {"level": "attention", "model": "", "batch": 1, "num_heads": 8, "num_kv_heads": 8,
             "head_dim": 64, **case}  # fmt: skip
    for spelled, hardness in inputs.items():
        for n in lengths:
            for key, seconds in exact.items():
                made = _case("error", key, {}, n, inputs=spelled, **shape)
                records.append(_record(run, MACHINE, made, [_error_arm(1e-7, seconds * n * n, n)]))
            for key, family in families.items():
                for budget in family.budgets:
                    options = {**family.others, family.budget: budget}
                    made = _case("error", key, options, n, inputs=spelled, **shape)
                    if fails and key in fails:
                        records.append(_record(run, MACHINE, made, [], *fails[key]))
                        continue
                    error = family.error(budget, hardness)
                    arm = _error_arm(error, family.seconds * budget * n + 1e-4, n,
                                     family.has_kl, budget)  # fmt: skip
                    records.append(_record(run, MACHINE, made, [arm]))
    return records


def _error_arm(
    error: float, seconds: float, n: int, has_kl: bool = True, budget: int = 0
) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "latency": {"unit": "s", "samples": [seconds, seconds * 1.01, seconds * 0.99]},
        "peak_memory": {"unit": "B", "value": 4096 * n},
        "relative_error": {"unit": "1", "value": error, "rows": 256},
        "weights_error": {"unit": "1", "value": 1.5 * error},
    }
    if has_kl:
        metrics["weights_kl"] = {"unit": "nat", "value": error**2}
    ops = 2048 * n * (budget or n)
    return {
        "kernel": "synthetic", "gate": {"relative_l2": 1e-7, "budget": 1e-6, "rows": 64},
        "cost": {"pattern_ops": ops, "executed_ops": ops, "exponentials": ops // 256,
                 "bytes": 8192 * n},
        "metrics": metrics,
    }  # fmt: skip


# -- quantized -----------------------------------------------------------------------------------

WEIGHTS: Mapping[str, tuple[float, float, float, float] | tuple[str, str]] = {
    "float32": (4.0, 1e-2, 0.0, 2.10),
    "bfloat16": (2.0, 8e-3, 2e-3, 2.101),
    "int8": (1.0, 1.2e-2, 9e-3, 2.104),
    "int4": ("unsupported", "no kernel for int4 weights on this CPU"),
}
"""Weights to bytes a parameter, latency, output difference and bits per byte, or why not."""


def quantized_records(
    weights: Mapping[str, Any] = WEIGHTS, *, run: str = "quantized-1", **case: Any
) -> list[dict[str, Any]]:
    """Return the records of the schemes."""
    records = []
    for name, told in weights.items():
        shape = {"task": TEXT, "training": STEPS, "model": MODEL, **case}
        made = _case("quantized", "sdpa", {}, weights=name, **shape)
        if len(told) == 2:
            records.append(_record(run, MACHINE, made, [], *told))
            continue
        size, latency, difference, bits = told
        values = {
            "parameter_bytes": size * 120_000, "output_difference": difference,
            "bits_per_byte": bits, "peak_memory": 1 << 22,
        }  # fmt: skip
        metrics: dict[str, Any] = {k: {"unit": UNITS[k], "value": v} for k, v in values.items()}
        metrics["latency"] = {"unit": "s", "samples": [latency] * 3}
        arm = {"kernel": "synthetic", "gate": None, "cost": None, "metrics": metrics}
        records.append(_record(run, MACHINE, made, [arm]))
    return records


def few() -> list[dict[str, Any]]:
    """Return a handful of records of every kind."""
    two = {name: SIX[name] for name in ("sdpa", "longformer")}
    family = {"longformer": Family("window", (32, 64), 4.0, 0.6, 1e-8)}
    return [
        *task_records(two, seeds=(0,)), *task_records(two, seeds=(0,), task=TEXT),
        *error_records(family, inputs={"gaussian:scale=1": 1.0}, lengths=(512,)),
        *quantized_records(),
    ]  # fmt: skip


def claim_records(
    found: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    shown: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return records of kind claim: by claim and value, a number a seed.

    Args:
        found: the values; ``None`` = a claim that holds and one that does not.
        shown: what their figures show; ``None`` = a line.
    """
    found = found or {
        "head-dim": {"ops_ratio": [1.0, 1.0], "time_ratio": [0.99, 1.01]},
        "dropout-place": {
            "row_sums_deviation_fused": [0.14, 0.15], "row_sums_deviation_layer": [0.1, 0.11],
        },
    }  # fmt: skip
    shown = shown or {"axes": ["heads", "time (s)"], "lines": {"fused": [[1, 1e-3], [8, 1e-2]]}}
    records = []
    for claim, values in found.items():
        for seed in range(max(map(len, values.values()), default=1)):
            case = _case(
                "claim", "claim", {}, 0, level="attention", batch=1, task=claim, is_causal=False,
                seed=seed,
            )  # fmt: skip
            metrics = {n: {"unit": "1", "value": x[seed]} for n, x in values.items()}
            arm = {"kernel": "", "gate": None, "cost": None, "metrics": metrics, "claim": shown}
            records.append(_record("run", MACHINE, case, [arm]))
    return records


def context_records(
    laws: Mapping[str, Callable[[int, int], tuple[float, int]]],
    *,
    ranks: Sequence[int] = (1, 2, 4),
    seq_lens: Sequence[int] = (1024, 2048, 4096),
    launches: int = 3,
    formula: float = 1.0,
    fails: Mapping[str, tuple[str, str]] | None = None,
    **case: Any,
) -> list[dict[str, Any]]:
    """Return records of kind context.

    Args:
        laws: by backend, ranks and length to seconds of a step and bytes of a forward pass.
        ranks: numbers of ranks.
        seq_lens: lengths.
        launches: of each case.
        formula: what the formula says of the bytes, in those.
        fails: backends that fail, to their status and reason.
        case: further fields.
    """
    records = []
    every = [*laws, *(fails or {})]
    for backend, count, length in itertools.product(every, ranks, seq_lens):
        made = _case(
            "context", backend, {}, length, level="attention", batch=1, ranks=count,
            **{"mode": "context_parallel", "num_heads": 8, "num_kv_heads": 8, "head_dim": 64,
               "is_causal": False, **case},
        )  # fmt: skip
        for launch in range(launches):
            if backend not in laws:
                ended = _record("run", MACHINE, made, [], *(fails or {})[backend])
            else:
                seconds, sent = laws[backend](count, length)
                values = {
                    "peak_memory": length * 4096 // count, "exchanged_bytes": 2 * sent,
                    "exchanged_forward": sent, "exchanged_formula": int(sent * formula),
                }  # fmt: skip
                metrics: dict[str, Any] = {n: {"unit": "B", "value": v} for n, v in values.items()}
                metrics["latency"] = {"unit": "s", "samples": [seconds * (1 + 0.01 * launch)]}
                arm = {"kernel": "k", "gate": None, "cost": None, "metrics": metrics}
                ended = _record("run", MACHINE, made, [arm])
            ended["launch"] = {**ended["launch"], "index": launch}
            records.append(ended)
    return records


# -- folders -------------------------------------------------------------------------------------


def write_quality(folder: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write a run folder of these records and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in ((MACHINES, MACHINE), (ENVIRONMENTS, ENVIRONMENT)):
        (folder / file).write_text(json.dumps({"id": content_id(content), **content}) + "\n")
    return write_records(folder, records)


def _case(kind: str, name: str, options: Mapping[str, Any], n: int = 256, **fields: Any) -> Case:
    base: dict[str, Any] = {
        "level": "model", "mode": "forward", "batch": 32, "num_heads": 0, "num_kv_heads": 0,
        "head_dim": 0, "seq_len": n, "key_len": n, "device": "cpu", "dtype": "float32",
        "is_causal": True, "threads": 2, "allocator": "default", "compile": False, "seed": 0,
    }  # fmt: skip
    return Case(kind=kind, arms=(Arm(name, dict(options)),), **{**base, **fields})  # type: ignore[arg-type]


def _record(
    run: str, machine: Mapping[str, Any], case: Case, arms: list[dict[str, Any]],
    status: str = "ok", reason: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "schema": SCHEMA, "measurement": MEASUREMENT, "run": run, "commit": None,
        "machine": content_id(machine), "environment": content_id(ENVIRONMENT),
        "case": case.to_json(),
        "launch": {"index": 0, "order": 0, "started": "2026-01-05T10:00:00Z", "wall_s": 1.0,
                   "load": 0.1},
        "status": status, "reason": reason, "log_tail": None, "arms": arms,
    }  # fmt: skip
