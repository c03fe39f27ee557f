"""Cases of kind speed, and what the worker answers of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from results.schema import (
    SCHEMA,
    Arm,
    Case,
    check_record,
)
from suites.worker.run import answer

CASE = Case(
    kind="speed", level="attention", mode="forward", arms=(Arm("sdpa"),), batch=1, num_heads=2,
    num_kv_heads=2, head_dim=16, seq_len=128, key_len=128, device="cpu", dtype="float32",
    is_causal=False, threads=1, allocator="default", compile=False, seed=0,
)  # fmt: skip


def case(*names: str, **changes: Any) -> Case:
    arms = tuple(Arm(name) for name in names) or CASE.arms
    if "seq_len" in changes:
        changes.setdefault("key_len", changes["seq_len"])
    return replace(CASE, arms=changes.pop("arms", arms), **changes)


def ask(of: Case, **more: Any) -> dict[str, Any]:
    request = {"do": "case", "case": of.to_json(), "budget_s": 0.02, "deadline_s": 60.0}
    answered = answer({**request, "memory_limit": None, "plugins": [], **more})
    record = answered["record"]
    whole = {
        "schema": SCHEMA, "measurement": 1, "run": "r", "machine": "m", "environment": "e",
        "case": of.to_json(), "launch": {"index": 0}, **record,
    }  # fmt: skip
    check_record(whole)  # what the child says, the readers accept
    assert answered["number"] == 1
    assert (record["reason"] is None) == (record["status"] == "ok")
    assert "\n" not in (record["reason"] or "")
    return dict(answered)


def record(of: Case, **more: Any) -> dict[str, Any]:
    return dict(ask(of, **more)["record"])


def told_of(*cases: Case, plugins: tuple[str, ...] = ()) -> dict[str, Any]:
    request = {"do": "preflight", "cases": [c.to_json() for c in cases], "plugins": list(plugins)}
    return dict(answer(request)["record"])


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """Let what an answer sets in its process not outlive the test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    gc.unfreeze()
