"""A sweep of plug-in backends through the driver, and the records it leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.schema import RECORDS, Arm
from suites.engine.driver import run_sweep
from suites.speed.suite import SUITE, SpeedPlan

HERE = Path(__file__).parent


class Quiet:
    """Takes note of nothing."""

    def begin(self, *_told: Any) -> None:
        pass

    def starting(self, *_told: Any) -> None:
        pass

    def finished(self, *_told: Any) -> None:
        pass


def records_of(
    arms: Sequence[Arm], folder: Path, plugin: str, **axes: Any
) -> list[dict[str, Any]]:
    """Run a sweep of `arms` with a plug-in of this package; return its records of kind speed.

    Raises:
        AssertionError: if a launch did not end well.
    """
    given: dict[str, Any] = {
        "seq_lens": (64,), "modes": ("forward",), "num_heads": (1,), "head_dims": (16,), **axes,
    }  # fmt: skip
    plan = SpeedPlan(suite=SUITE, backends=tuple(arms), **given)
    run_sweep(plan, folder, progress=Quiet(), plugins=[HERE / plugin])
    lines = (folder / RECORDS).read_text().splitlines()
    found = [r for r in map(json.loads, lines) if r["case"]["kind"] == "speed"]
    for record in found:
        if record["status"] != "ok":
            raise AssertionError(f"{record['case']['arms']}: {record['reason']}")
    return found
