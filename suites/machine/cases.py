"""The cases that tell of a machine, in every suite: its roofs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from results.schema import Arm, Case
from suites.suite import CaseRules, Plan
from suites.words import precision

_PEAKS = {
    "matmul_rate": ("matmul", "GFLOP/s"),
    "exp_rate": ("exponentials", "G/s"),
    "bandwidth": ("bandwidth", "GB/s"),
}
"""Peaks that the progress line names, in words, with the unit of 10⁹."""


class RoofRules(CaseRules):
    """Of the cases that measure a machine's peaks."""

    kind = "roof"
    foretold_by: Literal["nothing"] = "nothing"
    of_machine = True

    def label(self, case: Case) -> str:
        """Name a roof by its setting."""
        threads = f"{case.threads} thread{'s'[: case.threads != 1]}"
        return f"peaks of the machine {case.dtype}{precision(case)} {threads}"

    def describe(self, record: Mapping[str, Any]) -> str:
        """Write the peaks."""
        metrics = record["arms"][0]["metrics"]
        return ", ".join(
            f"{words} {max(metrics[name]['samples']) / 1e9:.3g} {unit}"
            for name, (words, unit) in _PEAKS.items()
            if name in metrics
        )


def roof_cases(plan: Plan, *, single_thread: bool) -> list[Case]:
    """Return the cases that measure this machine's peaks in the settings of a sweep.

    Args:
        plan: the sweep.
        single_thread: add the peaks of one thread, for every setting that has more.
    """
    threads = sorted({*plan.threads, *([1] if single_thread and plan.device == "cpu" else [])})
    return [
        Case(
            kind="roof", level="attention", mode="forward", arms=(Arm("roof"),),
            batch=0, num_heads=0, num_kv_heads=0, head_dim=0, seq_len=0, key_len=0,
            device=plan.device, dtype=dtype, is_causal=False, threads=count,
            allocator=allocator, compile=False, seed=plan.seed, matmul_precision=kept,
        )
        for dtype in plan.dtypes
        for kept in plan.precisions(dtype)
        for allocator in plan.allocators
        for count in threads
    ]  # fmt: skip
