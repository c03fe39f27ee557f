"""What the tests of sweep, journal, launcher, driver and command share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from results.schema import MEASUREMENT, SCHEMA, Arm, Case

FAKE_SUITES = Path(__file__).parent / "fake_suites"
"""Suites whose backends misbehave on request, without torch."""


def case(name: str = "linear", seq_len: int = 64, **changes: Any) -> Case:
    """Return a speed case of the stand-in suites; options of the arm by ``options``."""
    options = changes.pop("options", {})
    values: dict[str, Any] = {
        "kind": "speed", "level": "attention", "mode": "forward", "arms": (Arm(name, options),),
        "batch": 1, "num_heads": 8, "num_kv_heads": 8, "head_dim": 64, "seq_len": seq_len,
        "key_len": seq_len, "device": "cpu", "dtype": "float32", "is_causal": False, "threads": 1,
        "allocator": "default", "compile": False, "seed": 0,
    }  # fmt: skip
    return Case(**{**values, **changes})


def record(of: Case, launch: int = 0, *, latency: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Return a record as the driver writes it."""
    metrics = {
        "latency": {"unit": "s", "samples": [latency], "cache": "warm"},
        "peak_memory": {"unit": "B", "value": changes.pop("peak", 1024)},
    }
    return {
        "schema": SCHEMA, "measurement": MEASUREMENT, "run": "r", "machine": "m",
        "environment": "e", "commit": "c", "case": of.to_json(),
        "launch": {"index": launch, "order": 0, "started": "2025-01-01T00:00:00Z",
                   "wall_s": changes.pop("wall_s", 2.0), "load": 0.1},
        "status": "ok", "reason": None, "log_tail": None, "arms": [{"metrics": metrics}],
        **changes,
    }  # fmt: skip


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and was not yet reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: if it does not come true in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def pids_in(file: Path) -> list[int]:
    """Return the process ids that a stand-in wrote, once it has."""
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 2)
    return [int(pid) for pid in file.read_text().split()]


def processes_of(parent: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found
