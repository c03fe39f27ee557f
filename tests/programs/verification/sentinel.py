"""The control benchmark's own time does not depend on the variant beside it: within 1 % beside
variants of 1 MiB to 1 GiB, forward and training.

How: in processes of their own, as launches are, the sentinel is timed as in every launch
(`suites.measure.sentinel.take_turn`) right behind a call that allocates, writes, multiplies or
trains on 1, 32, 256 or 1,024 MiB, and again when six calls of its own have made the caches and the
processor its own. Of each process the median of the log-ratios over the turns counts, of each arm
their mean over the processes, with Student's t interval. If an arm left the caches cold, the
sentinel would be slower beside it, more so the longer the arm's length, and what the model takes
off a launch would bend exponents. It takes an hour on two cores, most of it for 1,024 MiB.

Failure: beside an arm the mean is off by more than 1 %, and its interval does not reach 1 %.
"""

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from results.statistics.inference import Difference
from verification import Measured, Report, Scale
from verification.pieces import called

KINDS = ("allocate", "write", "matmul", "training")
SIZES = {"full": (1, 32, 256, 1024), "short": (1, 64)}
PROCESSES = {"full": 5, "short": 2}
TURNS = {"full": 150, "short": 10}
LIMIT = 0.01


def ratio_in_process(kind: str, mebibytes: int, turns: int, log: Path) -> float:
    """Return the log of the ratio that a process of its own measures."""
    called(["-m", "verification.beside_sentinel", kind, str(mebibytes), str(turns)], log)
    return float(log.read_text().splitlines()[-1])


def measure(scale: Scale, report: Report) -> Measured:
    """Time the sentinel beside every arm, the arms in random order in each round."""
    arms = [(kind, size) for size in SIZES[scale] for kind in KINDS]
    logs: dict[tuple[str, int], list[float]] = {arm: [] for arm in arms}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(PROCESSES[scale]):
            for kind, size in random.Random(seed).sample(arms, len(arms)):
                got = ratio_in_process(kind, size, TURNS[scale], Path(folder) / "log")
                logs[kind, size].append(got)
    rows: list[dict[str, Any]] = []
    for (kind, size), values in logs.items():
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        mean = Difference(float(np.mean(values)), error, len(values) - 1)
        off = abs(mean.centre)
        rows.append(
            {
                "arm": kind, "mebibytes": size, "processes": len(values),
                "off": math.expm1(mean.centre), "half_width": mean.half_width,
                "is_off": off > LIMIT and off - mean.half_width > LIMIT,
            }
        )  # fmt: skip
        report(f"{kind}, {size} MiB: {rows[-1]['off']:+.2%} ± {mean.half_width:.2%}")
    worst = max(abs(row["off"]) for row in rows)
    widest = max(row["half_width"] for row in rows)
    failed = sum(row["is_off"] for row in rows)
    # A machine so noisy that nothing was learned keeps no promise, and breaks none.
    is_known = widest <= LIMIT or scale == "short"
    passed = False if failed else True if is_known else None
    return Measured(
        figure="furthest from the sentinel's time beside nothing", tried=len(rows), failed=failed,
        rate=worst, bound=None, limit=LIMIT, side="at most", passed=passed, details=rows,
        reason=f"known to ±{widest:.1%} beside every arm",
    )  # fmt: skip
