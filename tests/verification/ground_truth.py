"""Work of known duration is measured within 1 %.

How: a loop spins until a clock that the harness does not use has gone on by 50 µs to 20 ms. What
is compared is the median of the samples with the nominal duration plus the cost of a call, which
is the median of an empty one by the same path. Twice: by the clock's own path alone
(`suites.measure.clock.sample_in_turn`), and through the whole pipeline, as a backend of a plug-in
in a sweep, from the record that it leaves; there an empty call is the same backend told to spin
for no time, and durations begin at 1 ms, since a module's call scatters by microseconds.

Failure: a median is further than 1 % from that.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from results.schema import Arm
from suites.measure.clock import HostTimer, sample_in_turn
from suites.measure.roofs import Repeated
from verification import Measured, Report, Scale
from verification.rates import upper
from verification.spin import spin
from verification.sweeps import records_of

TOLERANCE = 0.01
DURATIONS_US = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
SWEPT_US = (1000, 5000, 20000)
BUDGET_S = {"full": 0.5, "short": 0.1}
REPEATS = {"full": 3, "short": 1}


def by_clock(microseconds: int, budget_s: float, seed: int) -> list[float]:
    """Return samples of a spin, in seconds."""
    work = Repeated(lambda: spin(1000 * microseconds))
    (timing,) = sample_in_turn([work], HostTimer(), budget_s=budget_s, seed=seed)
    return timing.samples


def by_sweep(budget_s: float, launches: int) -> list[tuple[int, int, float]]:
    """Return (microseconds, launch, median latency in seconds) of a sweep's records."""
    arms = [Arm("spin", {"microseconds": us}) for us in (0, *SWEPT_US)]
    with tempfile.TemporaryDirectory() as folder:
        found = records_of(
            arms, Path(folder) / "run", "spin_plugin.py", budget_s=budget_s, launches=launches
        )
    return [
        (
            record["case"]["arms"][0]["options"]["microseconds"],
            record["launch"]["index"],
            statistics.median(record["arms"][0]["metrics"]["latency"]["samples"]),
        )
        for record in found
    ]


def measure(scale: Scale, report: Report) -> Measured:
    """Spin, and compare."""
    budget_s, repeats = BUDGET_S[scale], REPEATS[scale]
    rows: list[dict[str, Any]] = []

    def add(path: str, us: int, seconds: float, empty: float) -> None:
        off = seconds / (us * 1e-6 + empty) - 1
        rows.append(
            {"path": path, "nominal": us * 1e-6, "call": empty, "median": seconds, "off": off}
        )
        report(f"{path}, {us} µs: off by {off:+.2%}")

    for seed in range(repeats):
        empty = statistics.median(by_clock(0, budget_s / 10, seed))
        for us in DURATIONS_US:
            add("clock", us, statistics.median(by_clock(us, budget_s, seed)), empty)
    swept = by_sweep(budget_s, repeats)
    empty = statistics.median(s for us, _, s in swept if us == 0)
    for us, _, seconds in sorted(swept):
        if us:
            add("sweep", us, seconds, empty)
    failed = sum(abs(row["off"]) > TOLERANCE for row in rows)
    return Measured(
        figure="furthest median from the truth", tried=len(rows), failed=failed,
        rate=max(abs(row["off"]) for row in rows), bound=None, limit=TOLERANCE, side="at most",
        passed=failed == 0, details=rows,
        reason=f"up to {upper(failed, len(rows)):.2g} of such medians may be off"
        if failed else "",
    )  # fmt: skip
