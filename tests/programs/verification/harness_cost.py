"""The harness adds less than 5 µs to a sample on a CPU.

How: a call that does nothing is timed as a case is, in processes of its own. Two costs: what the
clock's own readings add to the time of a sample, the median of the samples, which every report
shows as the empty case; and what a sample takes in all, from the first call that is a sample to
the last, with the calls around it, the order drawn anew and the looks at the spread.

Failure: in a process, either is 5 µs or more.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from verification import Measured, Report, Scale

LIMIT_S = 5e-6
PROCESSES = {"full": 10, "short": 2}
CODE = """
import json, statistics, time
from suites.measure.clock import sample_in_turn
from suites.measure.roofs import Repeated, empty_latency
from suites.measure.timers import HostTimer

def in_all():
    calls = []
    note = Repeated(lambda: calls.append(time.perf_counter_ns()))
    # So short a budget that every call is a sample.
    timing, = sample_in_turn([note], HostTimer(), budget_s=0.002, seed=0)
    count = len(timing.samples)
    return (calls[-1] - calls[-count]) / (count - 1) * 1e-9

taken = empty_latency(HostTimer(), budget_s=0.25, seed=0)
got = {"samples": taken.samples, "in_all": statistics.median(in_all() for _ in range(20))}
print(json.dumps(got))
"""


def measure(scale: Scale, report: Report) -> Measured:
    """Time an empty call in processes of its own."""
    rows = []
    for process in range(PROCESSES[scale]):
        said = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120
        )
        got = json.loads(said.stdout)
        row = {
            "process": process,
            "added": statistics.median(got["samples"]),
            "slowest": max(got["samples"]),
            "in_all": got["in_all"],
        }
        report(f"adds {1e6 * row['added']:.2f} µs; {1e6 * row['in_all']:.2f} µs in all")
        rows.append(row)
    worst = max(max(row["added"], row["in_all"]) for row in rows)
    failed = sum(max(row["added"], row["in_all"]) >= LIMIT_S for row in rows)
    return Measured(
        figure="largest cost of a sample in all", tried=len(rows), failed=failed,
        rate=worst, bound=None, limit=LIMIT_S, side="at most", unit="s",
        passed=failed == 0, details=rows,
    )  # fmt: skip
