"""Which launches come next, so that a run's questions are answered within little time. No torch.

Three rounds of every case first; then a few seconds' worth of launches at a time, to the cases
that shorten the open intervals most per second (`results.statistics.allocation`), until every
question is answered or the time is spent. Pure: what comes next follows from what was measured and
the seed alone, so a sweep that is resumed goes on as it would have.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from results.schema import Case, canonical, sentinel_of
from results.statistics.allocation import allocate, seconds_of_next
from results.statistics.launches import Launches, fit_series
from results.statistics.questions import BASELINES, Curve, Point, Question, Targets, questions_of
from suites.plan import Item, group, round_of
from suites.registry import rules_of
from suites.suite import BASE_ROUNDS, Plan

BATCH_S = 12.0
"""Seconds of launches that are chosen at once; then all is estimated anew."""

_SHOWN = ("dtype", "batch", "num_heads", "head_dim", "threads", "allocator", "compile", "seed")
"""Fields of a case that its label does not say: they tell settings apart where they differ."""


class Launched(NamedTuple):
    """What a launch of a case gave.

    Attributes:
        launch: its index.
        latency_s: median of a call's seconds; NaN = it did not succeed.
        sentinel_s: median of the sentinel's seconds beside it; NaN = there was none.
        wall_s: seconds that the whole launch took.
    """

    launch: int
    latency_s: float
    sentinel_s: float
    wall_s: float

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Launched:
        """Return what a record says of its launch, of its first arm."""
        latency = beside = math.nan
        if record["status"] == "ok":
            metric = record["arms"][0]["metrics"].get("latency", {})
            if samples := metric.get("samples"):
                latency, beside = median(samples), sentinel_of(metric)
        launch = record["launch"]
        return cls(launch["index"], latency, beside, float(launch.get("wall_s") or 0.0))

    @property
    def is_ok(self) -> bool:
        """Whether it gave a time."""
        return self.latency_s > 0


Measured = Mapping[str, Sequence[Launched]]
"""Case id to what its launches gave, in any order."""


class Outlook(NamedTuple):
    """How far a sweep's questions are answered.

    Attributes:
        questions: all, answered ones too.
        seconds: that the launches are foretold to take that answer those that are open; ``None``
            = more launches would not.
    """

    questions: tuple[Question, ...]
    seconds: float | None

    @property
    def open(self) -> tuple[Question, ...]:
        """The questions that are open."""
        return tuple(question for question in self.questions if question.is_open)


class Planner:
    """Says what a sweep is to launch next.

    Args:
        cases: of the sweep, those that are timed; roofs are the driver's.
        targets: how exactly questions are to be answered.
        base_rounds: launches of every case before questions are asked.
        batch_s: seconds of launches that are chosen at once.
        seed: of the orders.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        targets: Targets,
        *,
        base_rounds: int = BASE_ROUNDS,
        batch_s: float = BATCH_S,
        seed: int = 0,
    ) -> None:
        self._cases = {case.id: case for case in cases}
        self._targets, self._seed = targets, seed
        self._base_rounds, self._batch_s = base_rounds, batch_s
        self._series = group(cases)
        shown = ({f"{name} {getattr(case, name)}" for case in cases} for name in _SHOWN)
        self._told_apart = [
            name for name, values in zip(_SHOWN, shown, strict=True) if len(values) > 1
        ]

    @classmethod
    def of(cls, plan: Plan, cases: Sequence[Case], precision: float) -> Planner:
        """Return the planner of a sweep whose questions are answered to a precision.

        Cases that a sweep launches less often than others ask no questions.
        """
        timed = [case for case in cases if plan.suite.launches_of(plan, case) >= plan.launches]
        return cls(timed, Targets.at(precision), base_rounds=plan.launches, seed=plan.seed)

    def base(self) -> list[Item]:
        """Return the launches of the rounds that come first, in their order."""
        every = list(self._cases.values())
        return [
            Item(case, launch)
            for launch in range(self._base_rounds)
            for case in round_of(every, launch, self._seed)
        ]

    def next(
        self,
        measured: Measured,
        *,
        within_s: float = math.inf,
        without: Collection[str] = (),
    ) -> list[Item]:
        """Return what is to be launched next: what a round lacks, else a batch; nothing = done.

        Args:
            measured: what was launched so far.
            within_s: seconds that are left: nothing is chosen that is foretold to end later.
            without: ids of cases that are not to be launched again.
        """
        done = {(key, one.launch) for key, launches in measured.items() for one in launches}
        lacking = [
            item
            for item in self.base()
            if (item.case.id, item.launch) not in done
            and item.case.id not in without
            and (not (there := measured.get(item.case.id)) or _seconds_of_next(there) <= within_s)
        ]
        if lacking:
            return [item for item in lacking if item.launch == lacking[0].launch]
        costs = self._costs(measured, without)
        chosen = allocate(
            self.questions(measured), costs, batch_s=self._batch_s, within_s=within_s
        ).keys
        keys = [str(key) for key in chosen]
        random.Random(f"{self._seed}:{len(done)}").shuffle(keys)
        indices = Counter(
            {key: 1 + max(one.launch for one in measured[key]) for key in dict.fromkeys(keys)}
        )
        items = []
        for key in keys:
            items.append(Item(self._cases[key], indices[key]))
            indices[key] += 1
        return items

    def outlook(self, measured: Measured) -> Outlook:
        """Return how far the questions are answered, and how long the others will take."""
        questions = self.questions(measured)
        got = allocate(questions, self._costs(measured, ()))
        return Outlook(tuple(questions), got.seconds if got.is_enough else None)

    def questions(self, measured: Measured) -> list[Question]:
        """Return the questions of what was measured, answered and open ones."""
        curves: list[Curve] = []
        by_setting: dict[str, list[list[Case]]] = defaultdict(list)
        for series in self._series.values():
            timed = [c for c in series if any(one.is_ok for one in measured.get(c.id, ()))]
            if timed:
                by_setting[_setting(timed[0], but=("mode",))].append(timed)
        for part in by_setting.values():
            fitted = fit_series([[_launches(measured[c.id]) for c in series] for series in part])
            for series, cells in zip(part, fitted, strict=True):
                points = {
                    case.seq_len: Point(case.id, cell)
                    for case, cell in zip(series, cells, strict=True)
                }
                first, arm = series[0], series[0].arms[0]
                curves.append(
                    Curve(
                        arm.label, _setting(first), self._place(first),
                        arm.name if arm.name in BASELINES else "", points,
                    )
                )  # fmt: skip
        return questions_of(curves, self._targets)

    def _place(self, case: Case) -> str:
        """Name a case's mode and setting for people: ``forward causal, threads 2``."""
        rules = rules_of(case.kind)
        label = rules.label(case).removeprefix(rules.arms_label(case))
        others = [f"{name} {getattr(case, name)}" for name in self._told_apart]
        return ", ".join([label.rpartition(" N=")[0].strip(), *others])

    def _costs(self, measured: Measured, without: Collection[str]) -> dict[Any, float]:
        """Return the seconds of one more launch of each case that may have one.

        One that failed, in any launch, gets no more.
        """
        return {
            key: _seconds_of_next(launches)
            for key, launches in measured.items()
            if key in self._cases and key not in without and all(one.is_ok for one in launches)
        }


def _seconds_of_next(launches: Sequence[Launched]) -> float:
    return seconds_of_next((one.launch, one.wall_s) for one in launches)


def _launches(launches: Sequence[Launched]) -> Launches:
    """Return the launches that succeeded as the model takes them."""
    times = sorted(one for one in launches if one.is_ok)
    return Launches.of((one.latency_s for one in times), (one.sentinel_s for one in times))


def _setting(case: Case, but: Collection[str] = ()) -> str:
    """Return what is equal for cases that are compared: all but the arms and the length."""
    left_out = {"id", "arms", "seq_len", "key_len", *but}
    content = {key: value for key, value in case.to_json().items() if key not in left_out}
    return canonical({**content, "crossed": case.key_len if case.key_len != case.seq_len else 0})
