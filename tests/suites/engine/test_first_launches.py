from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_sweep import case, record

from results.schema import check_record
from suites.engine import driver
from suites.engine.first_launches import MEMORY_LAUNCHES, ORIGIN, FirstLaunches
from suites.parsing import parse_backend
from suites.plan import Item, plan_sweep
from suites.terminal.progress import Summary

ONE = case()
PRINTS = {"output": {"projections": [1.0, -1.0], "norm": 1.5, "allowed": 1e-6}}


def first(launch: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the record of a launch that compared its output."""
    told = record(ONE, launch, **changes)
    for arm in told["arms"]:
        arm["gate"] = {"relative_l2": 1e-7, "budget": 1e-6, "rows": 2, "fingerprint": PRINTS}
        arm["metrics"]["latency"]["warm_up"] = {"calls": 5, "converged": True, "needed": 3}
    return check_record(told)


def fields_after(*records: dict[str, Any], launch: int = 4) -> dict[str, Any]:
    firsts = FirstLaunches(record(ONE))
    for told in records:
        firsts.add(told)
    return firsts.fields(Item(ONE, launch))


def test_a_launch_behind_a_first_is_told_what_that_found_out():
    assert fields_after() == {}
    told = fields_after(first(1), first(2))
    assert told["first"]["launch"] == 1
    assert told["first"]["arms"] == [{"warm_up_calls": 3, "fingerprint": PRINTS}]
    assert json.loads(json.dumps(told)) == told


def test_memory_is_measured_in_the_first_three_launches():
    told = [fields_after(first(), launch=n)["with_memory"] for n in range(5)]
    assert told == [True] * MEMORY_LAUNCHES + [False] * (5 - MEMORY_LAUNCHES)


@pytest.mark.parametrize("name", ORIGIN)
def test_a_launch_of_another_version_or_machine_is_no_first(name: str):
    assert fields_after({**first(), name: 99}) == {}


def test_a_launch_that_failed_is_no_first_and_the_next_one_is():
    failed = {**record(ONE), "status": "timeout", "reason": "late", "arms": []}
    assert fields_after(failed) == {}
    assert fields_after(failed, first(1))["first"]["launch"] == 1
    assert fields_after(record(ONE)) == {}  # nor one of before there were any


class Quiet:
    def begin(self, *_: object) -> None: ...

    def starting(self, *_: object) -> None: ...

    def finished(self, *_: object) -> None: ...


PLUGIN = """
import os
from pathlib import Path
from attention.backends.full import FullAttention
from attention.registry import register

@register("drifting")
class Drifting(FullAttention):
    def attend(self, *args, **kwargs):
        out = super().attend(*args, **kwargs)
        seen = Path({seen!r})
        if not seen.exists():
            seen.write_text(str(os.getpid()))
        return out if seen.read_text() == str(os.getpid()) else out * {factor}
"""


def swept(folder: Path, factor: float, launches: int, *, resume: bool = False) -> Summary:
    """Measure a backend whose output is another from its second process on."""
    plugin = folder / "drifting.py"
    if not resume:
        plugin.write_text(PLUGIN.format(seen=str(folder / "seen"), factor=factor))
    grid = plan_sweep(
        "quick", backends=(parse_backend("drifting"),), seq_lens=(64,), modes=("training",),
        launches=launches, threads=(1,), budget_s=0.01,
    )  # fmt: skip
    return driver.run_sweep(
        grid, folder / "run", progress=Quiet(), plugins=[plugin], resume=resume
    )


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run/records.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("without_roofs")
def test_a_backend_whose_output_is_another_in_its_second_process_fails_there(tmp_path: Path):
    swept(tmp_path, 1.001, 3)
    told = written(tmp_path)
    assert [r["status"] for r in told] == ["ok", "failed", "failed"], told
    assert all("differs from that of the first process by 0.001" in r["reason"] for r in told[1:])


@pytest.mark.slow
@pytest.mark.usefixtures("without_roofs")
def test_later_launches_are_lean_and_a_resumed_run_goes_on_so(tmp_path: Path):
    swept(tmp_path, 1.0, 2)
    swept(tmp_path, 1.0, 5, resume=True)
    told = written(tmp_path)
    assert [r["status"] for r in told] == ["ok"] * 5, told
    (whole, *lean) = (r["arms"][0] for r in told)
    assert {"latency", "peak_memory", "relative_error"} == set(whole["metrics"])
    assert [a["gate"]["same_as_launch"] for a in lean] == [0] * 4
    assert {a["gate"]["difference"] for a in lean} == {0.0}
    assert ["peak_memory" in a["metrics"] for a in lean] == [True, True, False, False]
    assert not any("relative_error" in a["metrics"] for a in lean)
