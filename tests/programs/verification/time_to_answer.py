"""attnbench says the exponents of six forward functions within ± 0.10, and the ratio of the
fastest two within ± 8.5 %, in a fifth of the time that plain asv, pyperf and pytest-benchmark
take to do so.

How: each tool times the same functions on this machine, at the four lengths of preset quick, as
its users run it by default: `attnbench run --preset quick` with its planner; `asv run` with its
default repeats, in two processes a function; pyperf's `Runner.bench_func` with its default 20
processes; pytest-benchmark in one process. Ten repetitions of each, one after the other in random
order. From the time and the spread that a tool states for each function follow an exponent and a
ratio with a 95 % interval, by propagation of errors (`verification.anchors.tools`). Two figures
count. How often do these intervals hold the mean of all repetitions of the same tool? Since that
mean holds the repetition itself, its distance is taken √(R/(R-1)) as far. And how long does it
take until the answer holds: as many runs as the real scatter between repetitions asks for,
(1.96 · scatter / half-width)², one at least, times the minutes of a run. The scatter of the
exponents is the root mean square over the six functions. All repetitions take hours, by far the
most of them pyperf's: `--repetitions N` and `--within 1h` do a part, and the next call goes on.
Needs attnbench[verify].

Failure: a tool has the answer in less than five times our minutes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from results.statistics.inference import Difference, summed
from verification import Measured, Report, Scale, not_tried
from verification.anchors.tools import TOOLS, Grid, Stated, missing
from verification.pieces import Pieces, read, write

GRIDS = {
    "full": Grid(
        ("full", "sdpa", "longformer", "bigbird", "linformer", "performer"),
        (512, 1024, 2048, 4096),
    ),
    "short": Grid(("sdpa", "linformer"), (64, 128), is_short=True),
}
REPETITIONS = {"full": 10, "short": 1}
USUAL_S = {"attnbench": 150.0, "asv": 300.0, "pyperf": 2400.0, "pytest-benchmark": 60.0}
"""What a run takes, as long as none is done."""
EXPONENT, RATIO = 0.10, 0.085
AHEAD = 5.0
Z = 1.96


def repetitions(
    scale: Scale, count: int, pieces: Pieces, report: Report
) -> dict[str, list[tuple[float, Stated]]]:
    """Run every tool so often, or what is left of it; return seconds and what was stated."""
    place, grid = pieces.folder / f"time_to_answer-{scale}", GRIDS[scale]
    usual = dict(USUAL_S)
    done: dict[str, list[tuple[float, Stated]]] = {name: [] for name in TOOLS}
    for number in range(1, count + 1):
        for name in random.Random(number).sample(list(TOOLS), len(TOOLS)):
            file = place / f"{number:02}-{name}.json"
            content = read(file)
            if content is None:
                if not pieces.has_time_for(usual[name]):
                    continue
                folder = file.with_suffix("")
                folder.mkdir(parents=True, exist_ok=True)
                seconds, stated = TOOLS[name](grid, folder)
                content = {"seconds": seconds, "stated": stated.to_json()}
                write(file, content)
                report(f"{number}: {name} took {seconds / 60:.1f} minutes")
            done[name].append((content["seconds"], Stated.from_json(content["stated"])))
            usual[name] = median(seconds for seconds, _ in done[name])
    return done


def fastest_two(done: Mapping[str, Sequence[tuple[float, Stated]]]) -> tuple[str, str]:
    """Return the fastest two functions at the longest length, over all tools and repetitions."""
    stated = [one for some in done.values() for _, one in some]
    names = stated[0].times
    means = {name: fmean(one.times[name].centre for one in stated) for name in names}
    first, second, *_ = sorted(names, key=means.__getitem__)
    return first, second


def scatter_of(values: Sequence[float]) -> float:
    """Return the standard deviation between repetitions; NaN of one."""
    centre = fmean(values)
    if len(values) < 2:
        return math.nan
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))


def coverage_of(some: Sequence[Difference]) -> list[bool]:
    """Say of each interval whether it holds the mean of all; of one alone nothing is known."""
    count, centre = len(some), fmean(one.centre for one in some)
    if count < 2:
        return []
    further = math.sqrt(count / (count - 1))
    return [further * abs(one.centre - centre) <= one.half_width for one in some]


def row_of(
    tool: str, some: Sequence[tuple[float, Stated]], two: tuple[str, str]
) -> dict[str, Any]:
    """Return a row of the table of tools."""
    minutes = median(seconds for seconds, _ in some) / 60
    slopes = {name: [stated.slopes[name] for _, stated in some] for name in some[0][1].slopes}
    leads = []
    for _, stated in some:
        ahead, behind = (stated.times[name] for name in two)
        parts = [(one.error**2, one.df) for one in (ahead, behind)]
        leads.append(summed(behind.centre - ahead.centre, parts))
    scatters = [scatter_of([one.centre for one in own]) for own in slopes.values()]
    slope_scatter = math.sqrt(fmean(s**2 for s in scatters))
    lead_scatter = scatter_of([one.centre for one in leads])
    held = [is_held for own in slopes.values() for is_held in coverage_of(own)]
    leads_held = coverage_of(leads)
    needed = max(1.0, (Z * slope_scatter / EXPONENT) ** 2, (Z * lead_scatter / RATIO) ** 2)
    return {
        "tool": tool, "repetitions": len(some), "minutes": minutes,
        "slope_stated": median(one.half_width for own in slopes.values() for one in own),
        "slope_real": Z * slope_scatter,
        "slope_coverage": sum(held) / len(held) if held else math.nan,
        "ratio_stated": median(one.half_width for one in leads),
        "ratio_real": Z * lead_scatter,
        "ratio_coverage": sum(leads_held) / len(leads_held) if leads_held else math.nan,
        "runs_needed": needed if math.isfinite(slope_scatter) else math.nan,
        "minutes_to_answer": minutes * needed if math.isfinite(slope_scatter) else math.nan,
    }  # fmt: skip


def measure(scale: Scale, report: Report, pieces: Pieces | None = None) -> Measured:
    """Run every tool again and again, or what is left of it."""
    pieces = pieces or Pieces()
    if lacking := missing():
        return not_tried(f"{', '.join(lacking)}: not installed; pip install attnbench[verify]")
    count = pieces.count or REPETITIONS[scale]
    done = repetitions(scale, count, pieces, report)
    ready = min(map(len, done.values()))
    if not ready:
        return not_tried("no repetition of all tools is done; the same call goes on")
    two = fastest_two(done)
    rows = [row_of(tool, some, two) for tool, some in done.items()]
    for row in rows:
        report(
            f"{row['tool']}: {row['minutes']:.1f} min a run, exponents ±{row['slope_stated']:.3f} "
            f"stated, ±{row['slope_real']:.3f} real, cover {row['slope_coverage']:.0%}; "
            f"{row['minutes_to_answer']:.1f} min to the answer"
        )
    if ready < count:
        reason = f"{ready} of {count} repetitions of all tools are done; the same call goes on"
        return not_tried(reason)
    if scale == "short":  # one repetition tells no scatter: that every tool ran
        return Measured(
            figure="tools that gave exponents", tried=len(rows), failed=0, rate=float(len(rows)),
            bound=None, limit=float(len(TOOLS)), side="at least", unit="tools",
            passed=all(math.isfinite(row["slope_stated"]) for row in rows), details=rows,
        )  # fmt: skip
    ours = rows[0]["minutes_to_answer"]
    others = [row["minutes_to_answer"] / ours for row in rows[1:]]
    return Measured(
        figure="times as long that the quickest other tool takes to the answer",
        tried=sum(map(len, done.values())), failed=sum(times < AHEAD for times in others),
        rate=min(others), bound=None, limit=AHEAD, side="at least", unit="×",
        passed=min(others) >= AHEAD, details=rows,
    )  # fmt: skip
