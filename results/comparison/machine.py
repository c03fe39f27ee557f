"""By how much a machine changed between two runs: its sentinel, the same work in every version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from results.records.load import Run
from results.schema import SENTINEL
from results.statistics.inference import Difference
from results.statistics.launches import Launches, contrast, fit_series

LIBRARIES = ("torch", "blas", "cuda", "driver", "flags", "glibc")
"""Of an environment: what the sentinel's own work is done by."""

_Times = Mapping[tuple[str, str, int], Sequence[float]]
"""Of a sentinel, by the device, case and arm that it was timed in."""


def is_alike(base: Run, new: Run, there: str, here: str) -> bool:
    """Whether what the sentinels of two runs differ by is the machine's own change.

    That is so on one machine, with the same libraries: another torch may do the same work faster.

    Args:
        base: what it was.
        new: what it is.
        there: the machine in BASE.
        here: in NEW.
    """
    return there == here and _libraries(base, there) == _libraries(new, here)


def _libraries(run: Run, machine: str) -> set[str]:
    frame = run.frame
    addresses = frame[frame["machine"] == machine]["environment"].unique()
    known = [run.environments.get(address, {}) for address in addresses]
    return {repr([environment.get(name) for name in LIBRARIES]) for environment in known}


def moved(base: Run, new: Run, there: str, here: str) -> Difference | None:
    """Return the log of new / base of a machine's sentinel; None = the runs have none in common.

    Where launches carry one, the mean over the cases of a device that both runs have, since it is
    the same work in each; else a separate case of the sentinel. Of several, the one that moved
    most.

    Args:
        base: what it was.
        new: what it is.
        there: the machine in BASE.
        here: in NEW.
    """
    before, after = (_in_launches(run, m) for run, m in ((base, there), (new, here)))
    by_device: dict[str, list[tuple[str, str, int]]] = {}
    for case in before:
        if case in after:
            by_device.setdefault(case[0], []).append(case)
    found = [_apart(before, after, cases) for cases in by_device.values()]
    if not found:
        before, after = (_separate(run, m) for run, m in ((base, there), (new, here)))
        found = [_apart(before, after, [case]) for case in before if case in after]
    return max(found, key=lambda d: abs(d.centre), default=None)


def _apart(before: _Times, after: _Times, cases: Sequence[tuple[str, str, int]]) -> Difference:
    """Return the mean change over cases, which share one variance."""
    sides = [Launches.of(times[case]) for case in cases for times in (before, after)]
    (cells,) = fit_series([sides])
    weight = 1 / len(cases)
    signs = (-weight, weight) * len(cases)
    return contrast(list(zip(signs, cells, strict=True)))


def _in_launches(run: Run, machine: str) -> _Times:
    frame = run.frame
    rows = frame[(frame["machine"] == machine) & (frame["sentinel"] > 0)]
    return _by_case(rows, "sentinel")


def _separate(run: Run, machine: str) -> _Times:
    frame = run.frame
    is_sentinel = (frame["kind"] == SENTINEL) & (frame["metric"] == "latency")
    rows = frame[is_sentinel & (frame["machine"] == machine) & (frame["value"] > 0)]
    return _by_case(rows, "value")


def _by_case(rows: pd.DataFrame, column: str) -> _Times:
    parts = rows.groupby(["device", "case_id", "arm"], sort=False)[column]
    return {(str(device), str(case), int(arm)): list(part) for (device, case, arm), part in parts}
