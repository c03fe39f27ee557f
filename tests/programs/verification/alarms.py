"""The same code compared with itself: less than 1 % of its cases are called slower (95 % bound).

How: pairs of runs of the same code on this machine, one after the other, each with 48 real cases
(six backends, eight lengths, forward) of five launches, from which on any case may be judged;
every pair is compared at the default setting, as `attnbench compare BASE NEW` does. 480 cases over
ten pairs, of which one may raise an alarm.

Failure: the upper 95 % bound of the share of cases that are called slower is above 1 %. Cases
called faster are counted beside it: they are as false.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from statistics import median

from results.comparison.compare import compare
from results.records.load import load
from results.schema import Arm
from suites.engine.driver import run_sweep
from suites.speed.suite import SUITE, SpeedPlan
from verification import Measured, Report, Scale
from verification.rates import upper
from verification.sweeps import Quiet

BACKENDS = ("full", "sdpa", "longformer", "bigbird", "linformer", "performer")
LENGTHS = {"full": (64, 96, 128, 160, 192, 224, 256, 320), "short": (64, 128)}
PAIRS = {"full": 10, "short": 1}
LAUNCHES = 5
BUDGET_S = 0.03
LIMIT = 0.01


def run(folder: Path, scale: Scale) -> None:
    """Run the cases once."""
    plan = SpeedPlan(
        suite=SUITE, backends=tuple(map(Arm, BACKENDS)), seq_lens=LENGTHS[scale],
        modes=("forward",), threads=(2,), launches=LAUNCHES, budget_s=BUDGET_S,
    )  # fmt: skip
    run_sweep(plan, folder, progress=Quiet())


def measure(scale: Scale, report: Report) -> Measured:
    """Compare runs of the same code."""
    tried = alarms = faster = 0
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for pair in range(PAIRS[scale]):
            folders = [Path(place) / f"{pair}-{side}" for side in ("base", "new")]
            for folder in folders:
                run(folder, scale)
            found = compare(*map(load, folders))
            row = {
                "cases": len(found.changes),
                "slower": len(found.regressions),
                "faster": found.count("better"),
                "no_change": found.count("no change"),
                "inconclusive": found.count("inconclusive"),
                "median_half_width": median(
                    math.sqrt(c.ratio.high / c.ratio.low) - 1 for c in found.changes
                ),
            }
            rows.append(row)
            tried += row["cases"]
            alarms += row["slower"]
            faster += row["faster"]
            report(f"pair {pair + 1}: {row}")
    bound = upper(alarms, tried)
    return Measured(
        figure="share of cases called slower", tried=tried, failed=alarms, rate=alarms / tried,
        bound=bound, limit=LIMIT, side="at most",
        # One pair has too few cases for the bound: there, not one may be called slower.
        passed=bound <= LIMIT if scale == "full" else alarms == 0,
        details=rows,
        reason=f"{faster} called faster" if faster else "",
    )  # fmt: skip
