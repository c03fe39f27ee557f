"""Runs whose right recommendation is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import synthetic
from synthetic import ENVIRONMENT, MACHINE, Law, read_records, write_records, write_run

from results.records.load import load
from results.schema import MEASUREMENT, SCHEMA, Arm, Case, content_id

LENGTHS = (512, 1024, 2048, 4096)

FOUR: Mapping[str, Law] = {
    "sdpa": Law(1e-8, 2.0, memory=(2000.0, 1.0)),
    "longformer": Law(1e-5, 1.0, error=0.3, memory=(5000.0, 1.0)),
    "linformer": Law(4e-6, 1.0, error=0.5, memory=(4000.0, 1.0)),
    "performer": Law(2e-5, 1.0, error=0.05, memory=(6000.0, 1.0)),
}  # fmt: skip
"""At 4,096 tokens: linformer 16 ms, longformer 41 ms, performer 82 ms, sdpa 168 ms; errors 0.5,
0.3, 0.05, 1e-7; MB 16.4, 20.5, 24.6, 8.2."""

QUIET: Mapping[str, Any] = {
    "lengths": LENGTHS[-2:], "noise": 0.01, "sample_noise": 0.001, "modes": ("forward",),
    "roof": None,
}  # fmt: skip


def a_run(folder: Path, laws: Mapping[str, Law] = FOUR, **changes: Any) -> Path:
    """Write a run of these laws; other arguments as of `synthetic.write_run`."""
    return write_run(folder, laws, **{**QUIET, **changes})


def frame_of(*folders: Path) -> pd.DataFrame:
    return load(*folders).frame


def add_recall(
    folder: Path,
    scores: Mapping[str, Sequence[float]],
    *,
    task: str = "recall:num_pairs=4",
    training: str = "steps:amount=400,lr=0.002",
    seq_len: int = 64,
    options: Mapping[str, Any] | None = None,
    status: str = "ok",
    is_causal: bool = False,
    machine: Mapping[str, Any] = MACHINE,
    first_seed: int = 0,
    num_labels: int = 0,
) -> Path:
    """Add records of kind task to a run: backend to its accuracy with seeds 0, 1, ….

    Args:
        folder: a run.
        scores: what each backend reached.
        task: of the cases, as the next four.
        training: likewise.
        seq_len: likewise.
        options: of the backends.
        status: of all; without "ok" there are no results.
        is_causal: of the cases.
        machine: where they were taken.
        first_seed: in place of 0.
        num_labels: of each accuracy; 0 = the records do not say.
    """
    records = []
    for backend, reached in scores.items():
        for seed, accuracy in enumerate(reached, first_seed):
            shape = {
                "level": "model", "num_heads": 0, "num_kv_heads": 0, "head_dim": 0, "batch": 32,
                "task": task, "training": training, "model": "encoder:d_model=64", "seed": seed,
                "is_causal": is_causal,
            }  # fmt: skip
            metrics = {"accuracy": {"unit": "1", "value": accuracy},
                       "training_steps": {"unit": "1", "value": 400}}  # fmt: skip
            made = _record("task", backend, options, seq_len, shape, metrics, status, machine)
            if num_labels and made["arms"]:
                made["arms"][0]["quality"] = {"groups": {
                    "name": "distance", "values": [1], "correct": [round(num_labels * accuracy)],
                    "count": [num_labels]}}  # fmt: skip
            records.append(made)
    return write_records(folder, [*read_records(folder), *records])


def add_errors(
    folder: Path,
    errors: Mapping[str, float],
    *,
    inputs: str = "gaussian:scale=1",
    lengths: Sequence[int] = LENGTHS[-2:],
    options: Mapping[str, Any] | None = None,
    is_causal: bool = False,
    **case: Any,
) -> Path:
    """Add records of kind error to a run: backend to its error, the same at all lengths."""
    records = []
    for backend, error in errors.items():
        for n in lengths:
            shape = {"inputs": inputs, "is_causal": is_causal, **case}
            metrics = {"relative_error": {"unit": "1", "value": error}}
            records.append(_record("error", backend, options, n, shape, metrics, "ok", MACHINE))
    return write_records(folder, [*read_records(folder), *records])


def _record(
    kind: str,
    backend: str,
    options: Mapping[str, Any] | None,
    seq_len: int,
    shape: Mapping[str, Any],
    metrics: Mapping[str, Any],
    status: str,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": kind, "level": "attention", "mode": "forward", "batch": 1, "num_heads": 8,
        "num_kv_heads": 8, "head_dim": 64, "seq_len": seq_len, "key_len": seq_len,
        "device": "cpu", "dtype": "float32", "is_causal": False, "threads": 2,
        "allocator": "default", "compile": False, "seed": 0,
    }  # fmt: skip
    case = Case(arms=(Arm(backend, dict(options or {})),), **{**fields, **shape})
    arm = {"kernel": "", "gate": None, "cost": None, "metrics": metrics}
    return {
        "schema": SCHEMA, "measurement": MEASUREMENT, "run": "quality-1", "commit": None,
        "machine": content_id(machine), "environment": content_id(ENVIRONMENT),
        "case": case.to_json(),
        "launch": {"index": 0, "order": 0, "started": "2026-01-05T10:00:00Z", "wall_s": 1.0,
                   "load": 0.1},
        "status": status, "reason": None if status == "ok" else "what went wrong",
        "log_tail": None, "arms": [arm] if status == "ok" else [],
    }  # fmt: skip


__all__ = ["FOUR", "LENGTHS", "Law", "a_run", "add_errors", "add_recall", "frame_of", "synthetic"]
