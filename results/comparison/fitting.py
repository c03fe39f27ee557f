"""What the launches of two runs say of each case, by the one model of launches.

The cases of a backend and mode in both runs are one series of `results.statistics.launches`: its
cells are run × length, and what changed in a case is the contrast of its two cells. So three
launches of a case need not tell their own scatter: those of all its lengths do, in both runs.

*With a sentinel in the launches* the model takes off what the series follows of it, β times what
the sentinels of the two cells differ by: of the noise between launches, and of what the machine
changed between the runs. What may be left of the machine's change M (the ratio of the sentinels in
both runs, over their common cases) is (1 − β) · M, since β is estimated within the runs: that is
added to the standard error of a case, and taken off a backend that is held against the sentinel
(`Fitted.taken` is β). *Without one* β is 0, so that the whole of M counts there, from separate
cases of the sentinel if the runs have some. Either way M counts once. What is assumed: nothing but
the machine changes the sentinel.

*Two machines, or two versions of torch*, are compared as they are: what their sentinels differ by
is not one machine's change (`machine.is_alike`). The sentinels of both runs are set to one mean,
so that they tell of the noise between launches alone, and the whole of M counts as without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from results.statistics.inference import Difference
from results.statistics.launches import Cell, Launches, contrast, fit_series, residual_squares


@dataclass(frozen=True)
class Fitted:
    """A case in both runs as the model sees it.

    Attributes:
        base, new: its cells.
        difference: log of new / base, with the launches' error alone.
        taken: the share of the machine's change that `difference` is free of: β of its series; 0
            without a sentinel, and where the sentinels do not compare.
    """

    base: Cell
    new: Cell
    difference: Difference
    taken: float


Sides = tuple[Launches, Launches]
"""Of a case: the launches of BASE and of NEW, two or more a side."""


def fit(series: Sequence[Sequence[Sides]], *, is_alike: bool = True) -> list[list[Fitted]]:
    """Fit series of cases that two runs share.

    Args:
        series: those of a setting; of each its cases.
        is_alike: whether what the sentinels of both runs differ by is the machine's own change.
    """
    if not is_alike:
        series = _levelled(series)
    cells = fit_series([[side for case in cases for side in case] for cases in series])
    return [
        [
            _fitted(case, base, new, taken=is_alike)
            for case, base, new in zip(cases, own[::2], own[1::2], strict=True)
        ]
        for cases, own in zip(series, cells, strict=True)
    ]


def _levelled(series: Sequence[Sequence[Sides]]) -> list[list[Sides]]:
    """Return the cases with sentinels that are 1 in the geometric mean of each run."""
    every = [case for cases in series for case in cases]
    levels = []
    for run in (0, 1):
        logs = np.log(np.concatenate([case[run].sentinels for case in every]))
        known = logs[np.isfinite(logs)]
        levels.append(math.exp(float(known.mean())) if len(known) else 1.0)
    return [
        [
            (replace(base, sentinels=base.sentinels / levels[0]),
             replace(new, sentinels=new.sentinels / levels[1]))
            for base, new in cases
        ]
        for cases in series
    ]  # fmt: skip


def _fitted(case: Sides, base: Cell, new: Cell, *, taken: bool) -> Fitted:
    of_series = contrast([(1.0, new), (-1.0, base)])
    of_case = Difference(of_series.centre, *_own_error(case, new))
    # A case may scatter more than its series does: then it keeps its own.
    difference = max(of_series, of_case, key=lambda d: d.error)
    return Fitted(base, new, difference, new.series.coefficient if taken else 0.0)


def _own_error(case: Sides, cell: Cell) -> tuple[float, int]:
    """Return the standard error of a case by its own launches alone, and its degrees of freedom.

    Of the launches, what is left once the sentinel's part is taken off.
    """
    squares = sum(residual_squares(side, cell.series) for side in case)
    df = sum(len(side.values) - 1 for side in case)
    return math.sqrt(squares / df * sum(1 / len(side.values) for side in case)), df
