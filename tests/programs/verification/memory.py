"""Allocations of known size are measured within 1 % or 1 MiB, whichever is more, on a CPU,
whatever was measured before them.

How: tensors of 1 MiB to 1 GiB with every page touched, returned by the call, freed within it, or
two at once of which one stays, measured by `suites.measure.memory.peak_memory` one after another
in one process, in several random orders. Then through the whole pipeline: a plug-in's backend
that fills so many MiB, swept twice in different orders, and the peaks of the records.

Failure: a peak is further off than that, or two peaks of one case in two orders are further apart.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from results.schema import Arm
from suites.measure.memory import peak_memory
from verification import Measured, Report, Scale
from verification.hold import MIB, filled
from verification.sweeps import records_of

SIZES = {"full": (1, 2, 5, 16, 33, 64, 100, 256, 512, 1024), "short": (1, 5, 33, 128)}
SWEPT = {"full": ((1, 1), (8, 1), (8, 2), (64, 1), (100, 2), (512, 1), (512, 2)),
         "short": ((33, 2), (128, 1))}  # fmt: skip
"""MiB of a tensor, and tensors at once."""
ORDERS = {"full": 3, "short": 2}


def tolerance(expected: int) -> float:
    """Return the bytes that a peak may be off."""
    return max(MIB, expected / 100)


def kept(mebibytes: int, device: str) -> Callable[[], Tensor]:
    """Return a call that returns what it allocates: its peak is that."""
    return lambda: filled(mebibytes, device)


def freed(mebibytes: int, device: str) -> Callable[[], None]:
    """Return a call that allocates and frees: its peak is the tensor."""

    def call() -> None:
        filled(mebibytes, device)

    return call


def temporary(mebibytes: int, device: str) -> Callable[[], Tensor]:
    """Return a call that needs as much again while it makes its result: its peak is both."""

    def call() -> Tensor:
        first = filled(mebibytes, device)
        return first + first

    return call


KINDS: dict[str, tuple[Callable[[int, str], Callable[[], object]], int]] = {
    "kept": (kept, 1),
    "freed": (freed, 1),
    "temporary": (temporary, 2),
}
"""Name to the maker of the call, and how many times its size its peak is."""


def measured_in_orders(sizes: tuple[int, ...], orders: int, device: str) -> list[dict[str, Any]]:
    """Measure every kind and size in several random orders in this process."""
    cases = [(kind, size) for kind in KINDS for size in sizes]
    for make, _ in KINDS.values():
        make(1, device)()  # pages in the code that it runs
    rows = []
    for order in range(orders):
        random.Random(order).shuffle(cases)
        for kind, size in cases:
            make, times = KINDS[kind]
            peak = peak_memory(make(size, device), device)
            rows.append({"path": f"call, {kind}", "order": order, "size": size * MIB,
                         "expected": times * size * MIB, "peak": peak})  # fmt: skip
    return rows


def swept(shapes: tuple[tuple[int, int], ...]) -> list[dict[str, Any]]:
    """Measure through two sweeps, whose seeds order the cases differently."""
    arms = [Arm("hold", {"mebibytes": size, "count": count}) for size, count in shapes]
    rows = []
    for order in range(2):
        with tempfile.TemporaryDirectory() as folder:
            found = records_of(
                arms, Path(folder) / "run", "hold_plugin.py", budget_s=0.01, seed=order
            )
        for record in found:
            options = record["case"]["arms"][0]["options"]
            size, count = options["mebibytes"] * MIB, options["count"]
            peak = record["arms"][0]["metrics"]["peak_memory"]["value"]
            rows.append({"path": f"sweep, {count} at once", "order": order, "size": size,
                         "expected": size * count, "peak": peak})  # fmt: skip
    return rows


def apart(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return, per case, how far its peaks in different orders are apart, and what is expected."""
    peaks: dict[tuple[str, int], list[int]] = {}
    expected = {}
    for row in rows:
        key = (row["path"], row["size"])
        peaks.setdefault(key, []).append(row["peak"])
        expected[key] = row["expected"]
    return [(max(found) - min(found), expected[key]) for key, found in peaks.items()]


def measure(scale: Scale, report: Report) -> Measured:
    """Allocate, and compare."""
    rows = measured_in_orders(SIZES[scale], ORDERS[scale], "cpu")
    report(f"{len(rows)} peaks in one process, up to {_worst(rows):.2f} of the tolerance off")
    rows += swept(SWEPT[scale])
    failed = sum(abs(row["peak"] - row["expected"]) > tolerance(row["expected"]) for row in rows)
    gaps = apart(rows)
    disturbed = sum(gap > tolerance(expected) for gap, expected in gaps)
    widest = max(gap / tolerance(expected) for gap, expected in gaps)
    report(f"in different orders up to {widest:.2f} of the tolerance apart")
    return Measured(
        figure="furthest from the truth, as a share of what is allowed",
        tried=len(rows) + len(gaps), failed=failed + disturbed, rate=_worst(rows),
        bound=None, limit=1.0, side="at most",
        passed=not failed and not disturbed, details=_summary(rows),
        reason=f"{disturbed} cases depend on the order" if disturbed else "",
    )  # fmt: skip


def _worst(rows: list[dict[str, Any]]) -> float:
    return max(abs(row["peak"] - row["expected"]) / tolerance(row["expected"]) for row in rows)


def _summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per path and size: the range of its peaks."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        one = found.setdefault(
            (row["path"], row["size"]),
            {"path": row["path"], "size": row["size"], "expected": row["expected"], "tried": 0,
             "lowest": row["peak"], "highest": row["peak"]},
        )  # fmt: skip
        one["tried"] += 1
        one["lowest"] = min(one["lowest"], row["peak"])
        one["highest"] = max(one["highest"], row["peak"])
    return list(found.values())
