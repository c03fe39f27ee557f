"""What changed between two runs: a ratio a case, and a verdict over the whole table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from results.comparison.backend_changes import BackendChange
from results.comparison.pairing import Place, Side
from results.comparison.verdicts import REGRESSIONS, THRESHOLD, Verdict
from results.metrics import METRICS
from results.statistics.intervals import Estimate, estimate
from results.statistics.launches import Cell, time_of

_NONE = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Change:
    """One case in both runs.

    Attributes:
        machine: on which it is in the new run.
        case_id: of the case.
        arm: place of the contestant in the case.
        name: backend, options, mode and length, and the setting where it differs in the table.
        base, new: what was measured.
        ratio: new over base with its 95 % interval; above 1 is worse.
        p: of so large a difference where there is none, adjusted for the number of cases; NaN
            where it was not tested.
        verdict: see the module.
        reason: why there is no verdict, or what it rests on.
        pairs: pairs of launches taken side by side that it rests on; 0 = the two runs alone.
        resolution: a difference up to this is none, in the metric's unit.
        backend: with its options.
        mode: of the case.
        threshold: the fraction from which on a change of this case matters.
        smallest: the smallest change that could have been seen, as a ratio; NaN = none.
        cells: of both runs, by the model of launches; None where a side has fewer than two.
    """

    machine: str
    case_id: str
    arm: int
    name: str
    base: Side
    new: Side
    ratio: Estimate = _NONE
    p: float = math.nan
    verdict: Verdict = "inconclusive"
    reason: str = ""
    pairs: int = 0
    resolution: float = 0.0
    backend: str = ""
    mode: str = ""
    threshold: float = THRESHOLD
    smallest: float = math.nan
    cells: tuple[Cell, Cell] | None = None

    @property
    def values(self) -> tuple[Estimate, Estimate]:
        """What either run took, base first; NaN where it measured nothing.

        With a sentinel in the launches: at the machine's mean speed over both runs.
        """
        if self.cells is not None and not self.pairs:
            return time_of(self.cells[0]), time_of(self.cells[1])
        base, new = (
            estimate(side.launches) if side.launches else _NONE for side in (self.base, self.new)
        )
        return base, new

    @property
    def key(self) -> Place:
        """Machine, case and arm."""
        return self.machine, self.case_id, self.arm

    @property
    def is_regression(self) -> bool:
        """Whether this case alone makes the comparison fail."""
        return self.verdict in REGRESSIONS

    @property
    def may_be_worse(self) -> bool:
        """Whether it is worse, or not shown not to be."""
        if self.new.launches and self.new.reason and not self.base.reason:
            return True  # some launches of the new run alone did not end well
        if self.verdict != "inconclusive":
            return self.is_regression
        return bool(self.base.launches) and not self.ratio.high < 1 + self.threshold


@dataclass(frozen=True)
class Comparison:
    """Two runs, case by case.

    Attributes:
        metric: what is compared.
        threshold: the fraction from which on a change matters.
        changes: the cases that both runs hold, in the order of the new one.
        backends: what changed in whole backends, over their cases.
        thresholds: of single backends, in place of `threshold`.
        differences: what differs between the runs: a name, the old value, the new one.
        notes: what was left out, and what to keep in mind, one sentence each.
    """

    metric: str
    threshold: float
    changes: tuple[Change, ...]
    differences: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    backends: tuple[BackendChange, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def regressions(self) -> list[Change]:
        """The cases that make the comparison fail."""
        return [change for change in self.changes if change.is_regression]

    @property
    def worse_backends(self) -> list[BackendChange]:
        """The backends that make the comparison fail."""
        return [change for change in self.backends if change.is_regression]

    @property
    def is_regression(self) -> bool:
        """Whether a case or a backend became worse."""
        return bool(self.regressions or self.worse_backends)

    @property
    def undecided(self) -> list[Change]:
        """The cases without a verdict that may have become worse."""
        return [change for change in self.suspects if change.verdict == "inconclusive"]

    @property
    def suspects(self) -> list[Change]:
        """The cases that may have become worse: all but those shown not to have."""
        return [change for change in self.changes if change.may_be_worse]

    def word(self, verdict: Verdict) -> str:
        """Return what a verdict is called."""
        compared = METRICS[self.metric]
        return {"worse": compared.worse, "better": compared.better}.get(verdict, verdict)

    def count(self, verdict: Verdict) -> int:
        """Return how many cases have a verdict."""
        return sum(change.verdict == verdict for change in self.changes)
