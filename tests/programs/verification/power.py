"""A slowdown of 10 % in one case is found by `--confirm` in at least 95 % of tries, one of 5 % in
at least 70 %, on a machine with two cores and neighbours.

How: a copy of the packages whose SDPA spins on after each call, for a share of what the call took,
stands against one that is as it was. What `attnbench compare --confirm` measures (pairs of
launches of both versions in alternation, judged after each look) is done again and again, in every
fourth try with a second case that did not change among the suspects. They are suspects because the
two finished runs that it starts from have one launch each, which says nothing.

Failure: fewer tries find the slowdown. How often the case that did not change is called slower is
counted beside it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from results.comparison.changes import Change, Comparison
from results.comparison.compare import compare
from results.comparison.confirmation import Confirmation
from results.records.load import load
from results.schema import Arm, Case
from suites.engine.confirm import NAMES, PairedSession
from suites.engine.driver import run_sweep
from suites.engine.versions import version_at
from suites.speed.suite import SUITE, SpeedPlan
from verification import Measured, Report, Scale
from verification.rates import lower
from verification.sweeps import Quiet

ROOT = Path(__file__).parents[3]
PACKAGES = ("attention", "models", "suites", "results")
SLOWED, PLAIN = "sdpa", "linformer"
SEQ_LEN = 512
BUDGET_S = 0.05
TRIES = {"full": {0.10: 60, 0.05: 30}, "short": {0.10: 1}}
LIMITS = {0.10: 0.95, 0.05: 0.70}

INJECTION = """

def _slowed(attend):
    import time

    def attend_and_spin(self, *args, **kwargs):
        started = time.perf_counter_ns()
        output = attend(self, *args, **kwargs)
        now = time.perf_counter_ns()
        until = now + {share} * (now - started)
        while time.perf_counter_ns() < until:
            pass
        return output

    return attend_and_spin


{cls}.attend = _slowed({cls}.attend)
"""


def version(place: Path, share: float) -> Path:
    """Copy the packages, their SDPA slowed by a share; return the copy's root."""
    for package in PACKAGES:
        leave = shutil.ignore_patterns("__pycache__", "reference")
        shutil.copytree(ROOT / package, place / package, ignore=leave)
    file = place / "attention" / "backends" / SLOWED / "attention.py"
    from attention import registry

    cls = type(registry.build(SLOWED, num_heads=1, head_dim=8)).__name__
    if share:
        file.write_text(file.read_text() + INJECTION.format(share=share, cls=cls))
    return place


def suspicion(place: Path, versions: dict[str, Path]) -> tuple[Comparison, list[Case]]:
    """Run both versions once and compare; return that and the cases."""
    for name, root in versions.items():
        plan = SpeedPlan(
            suite=SUITE, backends=(Arm(SLOWED), Arm(PLAIN)), seq_lens=(SEQ_LEN,),
            modes=("forward",), threads=(2,), budget_s=BUDGET_S,
        )  # fmt: skip
        run_sweep(plan, place / name, progress=Quiet(), benchmark_dir=root / "suites")
    runs = [load(place / name) for name in NAMES]
    found = compare(*runs)
    cases = {r["case"]["id"]: Case.from_json(r["case"]) for r in runs[1].records}
    return found, [cases[change.case_id] for change in found.suspects]


def confirm(
    session: PairedSession, found: Comparison, cases: list[Case], first: int
) -> Comparison:
    """Settle the suspects by pairs, from the index `first` on."""
    known = {case.id: case for case in cases}
    confirmation = Confirmation(found)
    index = first
    while left := confirmation.undecided:
        for case_id in left:
            confirmation.add(*session.measure(known[case_id], index))
        confirmation.close_round()
        index += 1
    return confirmation.result()


def is_slowed(change: Change) -> bool:
    """Say whether a case is the one that was slowed down."""
    return change.name.startswith(SLOWED)


def tries(share: float, count: int, report: Report) -> dict[str, Any]:
    """Try so many times to find a slowdown."""
    found_it = alarms = pairs = 0
    ratios = []
    with tempfile.TemporaryDirectory() as given:
        place = Path(given)
        versions = {
            name: version(place / f"{name}-version", part)
            for name, part in zip(NAMES, (0.0, share), strict=True)
        }
        found, cases = suspicion(place, versions)
        places = {name: version_at(root) for name, root in versions.items()}
        with PairedSession(
            places, place / "pairs", cases, budget_s=BUDGET_S, case_timeout_s=60.0
        ) as session:
            alone = replace(found, changes=tuple(c for c in found.changes if is_slowed(c)))
            for number in range(count):
                start = found if number % 4 == 0 else alone
                got = confirm(session, start, cases, 100 * number)
                slowed = next(filter(is_slowed, got.changes))
                found_it += slowed.verdict == "worse"
                alarms += sum(c.verdict == "worse" for c in got.changes if c is not slowed)
                pairs += slowed.pairs
                ratios.append(slowed.ratio.value)
                report(
                    f"{share:.0%}, try {number + 1}: {slowed.verdict} after {slowed.pairs} pairs, "
                    f"{slowed.ratio.value:.3f} x"
                )
    return {
        "slowdown": share, "tries": count, "found": found_it, "share": found_it / count,
        "bound": lower(found_it, count), "limit": LIMITS[share],
        "mean_pairs": pairs / count, "mean_ratio": sum(ratios) / count, "false": alarms,
    }  # fmt: skip


def measure(scale: Scale, report: Report) -> Measured:
    """Slow one case down and look for it."""
    rows = [tries(share, count, report) for share, count in TRIES[scale].items()]
    worst = min(rows, key=lambda row: row["share"] - row["limit"])
    return Measured(
        figure=f"share of tries that find a slowdown of {worst['slowdown']:.0%}",
        tried=sum(row["tries"] for row in rows),
        failed=sum(row["tries"] - row["found"] for row in rows),
        rate=worst["share"], bound=worst["bound"], limit=worst["limit"], side="at least",
        # One try shows no share: that it finds it at all is what the short form can hold.
        passed=all(
            row["share"] >= row["limit"] if scale == "full" else row["found"] for row in rows
        ),
        details=rows,
    )  # fmt: skip
