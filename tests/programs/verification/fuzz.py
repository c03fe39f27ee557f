"""Whatever stands in a run's files, the readers answer with what they could use and with where and
what the rest is, or with a documented error; nothing else comes out.

How: random records, whole and mutilated, by `fuzz_records`: written in files and loaded, many of
them taken through tables, exports, merge and report. 10^5 here; 10^6 by `make fuzz`.

Failure: an error that is not documented, or a line that is neither used nor named.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from verification import Measured, Report, Scale
from verification.rates import upper

RECORDS = {"full": 100_000, "short": 500}
REPORTS = {"full": 50, "short": 1}
JOBS = 2


def measure(scale: Scale, report: Report) -> Measured:
    """Feed the readers."""
    from fuzz_records import run_task, tasks

    tried, files, faults = RECORDS[scale], 0, []
    # A fork would copy torch's threads half.
    with ProcessPoolExecutor(JOBS, multiprocessing.get_context("spawn")) as pool:
        for task, _, failed in pool.map(run_task, tasks(0, tried, REPORTS[scale])):
            files += 1
            if failed:
                faults.append({"task": str(task), "fault": failed.strip().splitlines()[-1]})
                report(f"{task}: {faults[-1]['fault']}")
    return Measured(
        figure=f"share of files that brought something undocumented ({tried:,} records)",
        tried=files, failed=len(faults), rate=len(faults) / files,
        bound=upper(len(faults), files), limit=0.0, side="at most", passed=not faults,
        details=faults[:20],
    )  # fmt: skip
