"""By how much a machine changed between two runs: its sentinel, the same work in every version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from results.records.load import Run
from results.schema import SENTINEL
from results.statistics.inference import Difference
from results.statistics.launches import Launches, contrast, fit_series

_Times = Mapping[tuple[str, int], Sequence[float]]
"""Of a sentinel, by the case and arm that it was timed in."""


def moved(base: Run, new: Run, there: str, here: str) -> Difference | None:
    """Return the log of new / base of a machine's sentinel; None = the runs have none in common.

    Where launches carry one, the mean over the cases that both runs have, since it is the same
    work in each. Else of the separate cases of the sentinel the one that moved most.

    Args:
        base: what it was.
        new: what it is.
        there: the machine in BASE.
        here: in NEW.
    """
    before, after = (_in_launches(run, m) for run, m in ((base, there), (new, here)))
    if shared := [case for case in before if case in after]:
        return _apart(before, after, shared)
    before, after = (_separate(run, m) for run, m in ((base, there), (new, here)))
    alone = [_apart(before, after, [case]) for case in before if case in after]
    return max(alone, key=lambda d: abs(d.centre), default=None)


def _apart(before: _Times, after: _Times, cases: Sequence[tuple[str, int]]) -> Difference:
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
    parts = rows.groupby(["case_id", "arm"], sort=False)[column]
    return {(str(case), int(arm)): list(part) for (case, arm), part in parts}
