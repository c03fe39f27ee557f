"""Two sweeps of the same code, one after the other, differ beyond their intervals in at most 7 %
of their exponents, ratios and crossovers.

How: pairs of whole quick sweeps (`attnbench run --preset quick`) on this machine, ten in the full
form, some 9 minutes each. Of both sweeps of a pair the model of launches gives every exponent of
time, the ratios of neighbouring backends at every length, and, where a backend that is not exact
crosses a baseline in one of them, its lead there in both. What all launches of one run have in
common is in no interval: this is the test that sees it. The run folders are kept, and the next
call goes on where the last one ended; `--pairs N` and `--within 1h` choose how much is done.

Failure: the difference is beyond the 95 % interval of the difference.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from results.statistics.launches import fit_series
from verification import Measured, Report, Scale, not_tried
from verification.pieces import Pieces, called, read, write
from verification.rates import upper
from verification.two_runs import (
    agreements,
    agrees,
    crossover_leads,
    exponents,
    ratios,
    series_of,
)

PAIRS = {"full": 10, "short": 1}
DIFFER = 0.07
SWEEP = {
    "full": ("--preset", "quick"),
    "short": (
        "--preset", "quick", "--backend", "sdpa", "--backend", "linformer", "--seq-len", "128,256",
        "--mode", "forward", "--launches", "3", "--sample-time", "0.02",
    ),
}  # fmt: skip
SIDES = ("first", "second")
USUAL_S = {"full": 280.0, "short": 30.0}
"""What a sweep takes, as long as none is done."""
KINDS = ("exponent", "ratio", "crossover")


def done_of(folder: Path) -> Path:
    """Return the file that says that a sweep is done, and in how many seconds."""
    return folder.with_suffix(".json")


def sweep(folder: Path, scale: Scale) -> float:
    """Run a sweep, or what is left of it; return its seconds."""
    if (ended := read(done_of(folder))) is not None:
        return float(ended["seconds"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    seconds = called(
        ["-m", "cli", "run", *SWEEP[scale], "--resume", "--out", folder],
        folder.with_suffix(".log"),
    )
    write(done_of(folder), {"seconds": seconds})
    return seconds


def compared(first: Path, second: Path) -> dict[str, tuple[int, int]]:
    """Return of each kind of figure how many both runs have, and how many differ.

    Series that were measured at the same lengths are compared.
    """
    by_key = [{one.key: one for one in series_of(folder)} for folder in (first, second)]
    shared = [
        key for key, one in by_key[0].items()
        if key in by_key[1] and by_key[1][key].lengths == one.lengths
    ]  # fmt: skip
    runs = [[of_run[key] for key in shared] for of_run in by_key]
    cells = [fit_series([one.launches for one in series]) for series in runs]
    counts = {}
    for kind, figures in (("exponent", exponents), ("ratio", ratios)):
        agree = agreements(*(figures(*pair) for pair in zip(runs, cells, strict=True)))
        counts[kind] = (len(agree), len(agree) - sum(agree))
    leads = [agrees(*pair) for pair in crossover_leads(runs[0], *cells)]
    counts["crossover"] = (len(leads), len(leads) - sum(leads))
    return counts


def measure(scale: Scale, report: Report, pieces: Pieces | None = None) -> Measured:
    """Run pairs of sweeps, or what is left of them, and compare each pair."""
    pieces = pieces or Pieces()
    pairs = pieces.count or PAIRS[scale]
    place = pieces.folder / f"repeated_runs-{scale}"
    usual_s, took = USUAL_S[scale], []
    rows: list[dict[str, Any]] = []
    for number in range(1, pairs + 1):
        folders = [place / f"{number:02}-{side}" for side in SIDES]
        is_done = all(done_of(folder).is_file() for folder in folders)
        if not is_done and not pieces.has_time_for(2 * usual_s):
            break
        seconds = [sweep(folder, scale) for folder in folders]
        took += seconds
        usual_s = median(took)
        counts = compared(*folders)
        row: dict[str, Any] = {"pair": number, "minutes": sum(seconds) / 60}
        for kind, (tries, differ) in counts.items():
            row |= {f"{kind}_tries": tries, f"{kind}_differ": differ}
        rows.append(row)
        report(f"pair {number}: {row}")
    if len(rows) < pairs:
        return not_tried(
            f"{len(rows)} of {pairs} pairs are done, a pair takes {2 * usual_s / 60:.0f} "
            f"minutes; the same call goes on"
        )
    total: Counter[str] = Counter()
    for row in rows:
        total.update({key: value for key, value in row.items() if "_" in key})
    tries = sum(total[f"{kind}_tries"] for kind in KINDS)
    differ = sum(total[f"{kind}_differ"] for kind in KINDS)
    shares = ", ".join(f"{total[f'{k}_differ']} of {total[f'{k}_tries']} {k}s" for k in KINDS)
    return Measured(
        figure="share of exponents, ratios and crossovers that differ",
        tried=tries, failed=differ, rate=differ / tries, bound=upper(differ, tries),
        limit=DIFFER, side="at most",
        # One pair of small sweeps shows no share: there, that most agree.
        passed=differ / tries <= DIFFER if scale == "full" else differ <= tries / 2,
        details=rows, reason=f"{shares} differ",
    )  # fmt: skip
