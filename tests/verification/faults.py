"""A driver killed at any moment loses no finished case, leaves no file unreadable and nothing that
goes on measuring, and `--resume` ends with the table of an unbroken run, each launch once.

How: kill -9 at random moments of a sweep whose backends are stand-ins, then `--resume` to its end,
and again from the start: `helpers_faults.kill_and_resume`.

Failure: at one of these moments, any of that is not so.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from verification import Measured, Report, Scale
from verification.rates import upper

MOMENTS = {"full": 50, "short": 3}


def measure(scale: Scale, report: Report) -> Measured:
    """Kill and resume, moment by moment."""
    from helpers_faults import kill_and_resume

    tried, rows = MOMENTS[scale], []
    for moment in range(tried):
        fault = ""
        with tempfile.TemporaryDirectory() as folder:
            try:
                kill_and_resume(Path(folder), seed=moment)
            except AssertionError as error:
                fault = str(error) or "an assertion without a word"
        if fault:
            report(f"moment {moment}: {fault}")
        row: dict[str, Any] = {"moment": moment, "fault": fault}
        rows.append(row)
        if moment % 10 == 9:
            report(f"{moment + 1} moments")
    failed = sum(bool(row["fault"]) for row in rows)
    return Measured(
        figure="share of moments at which something was lost", tried=tried, failed=failed,
        rate=failed / tried, bound=upper(failed, tried), limit=0.0, side="at most",
        passed=failed == 0, details=[row for row in rows if row["fault"]],
    )  # fmt: skip
