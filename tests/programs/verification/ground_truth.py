"""Work of known duration is measured within 1 %.

How: a loop spins until a clock that the harness does not use has gone on by 50 µs to 20 ms, and
notes by that clock what it became: on a busy machine the loop is interrupted, and then it really
took longer. Each sample is compared with what was noted in its call, plus the cost of a call,
which is the median of an empty one by the same path; the median of the samples' deviations counts,
over those whose loop was not interrupted, if there are three. Twice: by the clock's own path alone
(`suites.measure.clock.sample_in_turn`), and through the whole pipeline, as a backend of a plug-in
in a sweep, from the record that it leaves; there an empty call is the same backend told to spin
for no time, and durations begin at 20 ms: after a long spin a module's call runs on cold caches
and costs up to 0.1 ms, where the empty one costs 5 µs; users pay for that too.

Failure: the median deviation is more than 1 %.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from results.schema import Arm
from suites.measure.clock import sample_in_turn
from suites.measure.roofs import Repeated
from suites.measure.timers import HostTimer
from verification import Measured, Report, Scale
from verification.spin import spin
from verification.sweeps import records_of

TOLERANCE = {"full": 0.01, "short": 0.02}
"""The short form runs on whatever machine tests run on: it finds a fault, it proves no promise."""
DURATIONS_US = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
SWEPT_US = {"full": (20000, 50000, 100000), "short": (50000, 100000)}
"""On a slow processor a call on cold caches costs 0.2 ms: the hundredth part of the shortest,
which only the full form, on a machine chosen for it, has to keep."""
BUDGET_S = {"full": 0.5, "short": 0.1}
ALL_SAMPLES = 5000
"""With a budget of so many calls at most, every call after the warm-up is a sample."""
ON_TIME, LEAST_ON_TIME = 1.002, 3
"""A loop that took so much longer was interrupted; without it, so many samples must be left."""
REPEATS = {"full": 3, "short": 3}
"""The full form judges each; the short one, which may run beside others, the middle one."""


class Taken(NamedTuple):
    """Samples, and what was spun in each of them, in seconds."""

    microseconds: int
    samples: list[float]
    spun: list[float]

    @property
    def median(self) -> float:
        """The latency, as a report has it."""
        return statistics.median(self.samples)

    def off(self, empty: float) -> float:
        """Return the median deviation of the samples, `empty` being the cost of a call."""
        pairs = list(zip(self.samples, self.spun, strict=True))
        on_time = [pair for pair in pairs if pair[1] <= ON_TIME * self.microseconds * 1e-6]
        chosen = on_time if len(on_time) >= LEAST_ON_TIME else pairs
        return statistics.median(sample / (spun + empty) - 1 for sample, spun in chosen)


def of_samples(spun: list[int], warm_up: int, every: int, count: int) -> list[int]:
    """Return those of all calls' durations that were timed: one of `every`, after the warm-up."""
    return spun[warm_up:][every - 1 :: every][:count]


def by_clock(microseconds: int, budget_s: float, seed: int) -> Taken:
    """Spin by the clock's own path."""
    spun: list[int] = []
    work = Repeated(lambda: spun.append(spin(1000 * microseconds)))
    budget_s = min(budget_s, ALL_SAMPLES * max(microseconds, 1) * 1e-6)
    (timing,) = sample_in_turn([work], HostTimer(), budget_s=budget_s, seed=seed)
    known = of_samples(spun, timing.warm_up.calls, timing.every, len(timing.samples))
    return Taken(microseconds, timing.samples, [1e-9 * ns for ns in known])


def by_sweep(scale: Scale) -> list[Taken]:
    """Spin as a plug-in's backend in a sweep, one `Taken` a launch."""
    budget_s, launches = BUDGET_S[scale], REPEATS[scale]
    taken = []
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        log.mkdir()
        arms = [Arm("spin", {"microseconds": us, "log": str(log)}) for us in (0, *SWEPT_US[scale])]
        found = records_of(
            arms, Path(place) / "run", "spin_plugin.py", budget_s=budget_s, launches=launches
        )
        for us in (0, *SWEPT_US[scale]):
            own = [r for r in found if r["case"]["arms"][0]["options"]["microseconds"] == us]
            own.sort(key=lambda record: record["launch"]["index"])
            for record, file in zip(own, sorted(log.glob(f"{us}-*")), strict=True):
                latency = record["arms"][0]["metrics"]["latency"]
                every = memoryview(file.read_bytes()).cast("q").tolist()
                spun = of_samples(
                    every, latency["warm_up"]["calls"], latency["every"], len(latency["samples"])
                )
                taken.append(Taken(us, latency["samples"], [1e-9 * ns for ns in spun]))
    return taken


def measure(scale: Scale, report: Report) -> Measured:
    """Spin, and compare."""
    budget_s, repeats = BUDGET_S[scale], REPEATS[scale]
    rows: list[dict[str, Any]] = []

    def add(path: str, got: Taken, empty: float) -> None:
        spun, off = statistics.median(got.spun), got.off(empty)
        rows.append(
            {
                "path": path, "nominal": got.microseconds * 1e-6, "spun": spun, "call": empty,
                "median": got.median, "off": off,
            }
        )  # fmt: skip
        report(f"{path}, {got.microseconds} µs, became {1e6 * spun:.1f}: off by {off:+.2%}")

    for seed in range(repeats):
        empty = by_clock(0, budget_s, seed).median
        for us in DURATIONS_US:
            add("clock", by_clock(us, budget_s, seed), empty)
    swept = by_sweep(scale)
    empty = statistics.median(got.median for got in swept if not got.microseconds)
    for got in swept:
        if got.microseconds:
            add("sweep", got, empty)
    judged = [abs(row["off"]) for row in rows] if scale == "full" else _middle(rows)
    failed = sum(off > TOLERANCE[scale] for off in judged)
    return Measured(
        figure="furthest median deviation from the truth", tried=len(judged), failed=failed,
        rate=max(judged), bound=None, limit=TOLERANCE[scale], side="at most",
        passed=failed == 0, details=rows,
    )  # fmt: skip


def _middle(rows: list[dict[str, Any]]) -> list[float]:
    """Return the middle one of the deviations of each path and duration."""
    found: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        found.setdefault((row["path"], row["nominal"]), []).append(abs(row["off"]))
    return [statistics.median(one) for one in found.values()]
