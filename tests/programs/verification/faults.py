"""A driver killed at any moment loses no finished case, leaves no file unreadable and nothing that
goes on measuring, and `--resume` ends with the table of an unbroken run, each repetition once.

How: kill -9 of the driver at random moments of a sweep whose cases end well and badly and leave
processes behind, then `--resume` to its end; compared with the same sweep undisturbed
(`helpers_faults.kill_and_resume`).

Failure: at a moment, a launch that had been told of is not in the folder, a whole line is not
JSON, a process lives on for more than 5 s, or after the resume a launch is missing, double or
different.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

from verification import Measured, Report, Scale
from verification.rates import upper

MOMENTS = {"full": 50, "short": 3}


def measure(scale: Scale, report: Report) -> Measured:
    """Kill and resume, moment by moment."""
    from helpers_faults import kill_and_resume, unbroken

    tried, failed, harm = MOMENTS[scale], 0, Counter[str]()
    seen = Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        whole = unbroken(Path(place) / "whole")
        for moment in range(tried):
            found = kill_and_resume(Path(place) / str(moment), random.Random(moment), whole)
            failed += bool(found.harm)
            harm.update(found.harm)
            seen.update(alive=found.alive, printed=found.printed, kept=found.kept, torn=found.torn)
            if found.harm or moment % 10 == 9:
                report(f"{moment + 1} of {tried} moments: {found.harm or 'nothing lost'}")
    kinds = ("lost", "unreadable", "orphans", "duplicates", "different")
    row = {
        "moments": tried,
        "while_running": seen["alive"],
        "launches_told_of": seen["printed"],
        "records_kept": seen["kept"],
        "torn_last_lines": seen["torn"],
        **{kind: harm[kind] for kind in kinds},
    }
    return Measured(
        figure="share of moments at which something went wrong", tried=tried, failed=failed,
        rate=failed / tried, bound=upper(failed, tried), limit=0.0, side="at most",
        passed=failed == 0, details=[row],
    )  # fmt: skip
