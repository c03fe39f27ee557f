"""Kill a sweep at a random moment, go on with it, and say what was lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers_sweep import FAKE_SUITES, is_alive, processes_of

from results.records.load import load

BACKENDS = (
    "linear", "sleeps:seconds=0.1", "quadratic", "leaves_daemon", "is_killed", "raises",
    "out_of_memory",
)  # fmt: skip
"""What the sweep is of: cases that end well, badly, and leave processes behind."""

MARK = "ATTNBENCH_TEST_MARK"

PROGRAM = """
import sys
from pathlib import Path
from suites.engine.driver import run_sweep
from suites.terminal.progress import Console
from suites.parsing import parse_backend
from suites.plan import plan_sweep
grid = plan_sweep("quick", backends=tuple(map(parse_backend, sys.argv[3:])), seq_lens=(16, 32),
                 modes=("forward",), launches=2, threads=(1,), case_timeout_s=20.0)
suites, folder = Path(sys.argv[1]), Path(sys.argv[2])
run_sweep(grid, folder, progress=Console(), resume=True, benchmark_dir=suites)
"""

GONE_WITHIN_S = 5.0

Table = dict[tuple[str, int], tuple[str, Any]]
"""(case id, launch) to status and latencies."""


@dataclass(frozen=True)
class Unbroken:
    """A run that nothing disturbed.

    Attributes:
        table: what it found.
        launches: that it made.
        start: seconds until the first was told of.
        each: seconds of a launch, on average.
    """

    table: Table
    launches: int
    start: float
    each: float


@dataclass(frozen=True)
class Faults:
    """What killing a sweep did to it.

    Attributes:
        moment: seconds from its start until it was killed.
        alive: whether it was still running then.
        printed: launches that it had told of by then.
        kept: records in the folder by then.
        torn: 1 if the last line was torn, which is allowed.
        lost: launches told of that were not in the folder, records gone after the resume.
        unreadable: lines, but a torn last one, that are no JSON; after the resume, warnings.
        orphans: processes of the run, or its reaper, that lived on.
        duplicates: launches that are there more than once in the end.
        different: launches that the resumed run lacks, has too many, or has otherwise.
    """

    moment: float
    alive: bool
    printed: int
    kept: int
    torn: int
    lost: int
    unreadable: int
    orphans: int
    duplicates: int
    different: int

    @property
    def harm(self) -> dict[str, int]:
        """What must not be: empty when the run survived."""
        bad = ("lost", "unreadable", "orphans", "duplicates", "different")
        return {name: getattr(self, name) for name in bad if getattr(self, name)}


def unbroken(folder: Path) -> Unbroken:
    """Run the sweep undisturbed."""
    told, began = [], time.monotonic()
    with subprocess.Popen(_command(folder), stderr=subprocess.PIPE) as driver:
        assert driver.stderr is not None
        told = [time.monotonic() - began for line in driver.stderr if line.startswith(b"[")]
    assert driver.returncode == 0
    each = (told[-1] - told[0]) / (len(told) - 1)
    return Unbroken(_table(folder), len(told), told[0], each)


def kill_and_resume(folder: Path, rng: random.Random, whole: Unbroken) -> Faults:
    """Kill -9 the driver of a sweep at a random moment, resume it, and compare.

    Args:
        folder: a new one, for this run.
        rng: chooses the moment: after how many launches, and how long after the last of them.
        whole: the same sweep, undisturbed.
    """
    after, mark = rng.randrange(whole.launches), f"{rng.getrandbits(128):032x}"
    further = rng.uniform(0.0, whole.each if after else whole.start)
    folder.mkdir(parents=True)
    log, run = folder / "log", folder / "run"
    with log.open("wb") as stream:
        environment = {**os.environ, MARK: mark}
        driver = subprocess.Popen(_command(run), stderr=stream, env=environment)
        began = time.monotonic()
        while _told(log) < after and driver.poll() is None:
            time.sleep(0.005)
        time.sleep(further)
        moment, alive = time.monotonic() - began, driver.poll() is None
        reapers = processes_of(driver.pid)
        driver.kill()
        driver.wait()
    orphans = _outliving(mark, reapers)
    printed = _told(log)
    file = run / "records.jsonl"
    before = file.read_bytes() if file.exists() else b""
    finished = before[: before.rfind(b"\n") + 1]
    kept = finished.count(b"\n")
    unreadable = sum(not _is_json(line) for line in finished.splitlines())
    subprocess.run(_command(run), check=True, stderr=subprocess.DEVNULL, timeout=120)
    after = file.read_bytes()
    lost = max(0, printed - kept) + (0 if after.startswith(finished) else kept)
    pairs = Counter(_key(record) for record in map(json.loads, after.splitlines()))
    table = _table(run)
    different = sum(table.get(k) != whole.table.get(k) for k in {*table, *whole.table})
    return Faults(
        moment=moment,
        alive=alive,
        printed=printed,
        kept=kept,
        torn=int(len(finished) != len(before)),
        lost=lost,
        unreadable=unreadable + len(load(run).warnings),
        orphans=len(orphans),
        duplicates=sum(count - 1 for count in pairs.values()),
        different=different,
    )


def carrying(mark: str) -> list[int]:
    """Return the living processes whose environment holds the test's mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"{MARK}={mark}".encode() in variables and is_alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def _outliving(mark: str, others: list[int]) -> list[int]:
    """Return what still lives a while after the driver's end; end it, so that nothing stays."""
    end = time.monotonic() + GONE_WITHIN_S
    while True:
        left = carrying(mark) + [pid for pid in others if is_alive(pid)]
        if not left:
            return []
        if time.monotonic() > end:
            for pid in left:
                os.kill(pid, 9)
            return left
        time.sleep(0.05)


def _told(log: Path) -> int:
    """Count the launches that a driver has told of."""
    return sum(line.startswith(b"[") for line in log.read_bytes().splitlines())


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(FAKE_SUITES), str(folder), *BACKENDS]


def _key(record: dict[str, Any]) -> tuple[str, int]:
    return record["case"]["id"], record["launch"]["index"]


def _table(folder: Path) -> Table:
    """Read a run."""
    return {
        _key(r): (r["status"], [a["metrics"].get("latency", {}).get("samples") for a in r["arms"]])
        for r in load(folder).records
    }


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
