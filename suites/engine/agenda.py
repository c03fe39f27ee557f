"""What a sweep launches next: the launches it began with, then what its planner chooses.

No torch, and numpy only with a planner.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from results.schema import Case
from suites.plan import Item
from suites.suite import Plan
from suites.terminal.standing import Standing

if TYPE_CHECKING:
    from suites.engine.planner import Launched, Outlook, Planner


class Agenda:
    """The launches of a sweep, or of a machine's part of it, that are to come.

    Args:
        items: those it begins with, in order.
        planner: chooses what comes after them; ``None`` = nothing does.
        records: what was measured before.

    Attributes:
        num_left_out: launches of those it began with that were not started for want of time.
    """

    def __init__(
        self,
        items: Iterable[Item],
        planner: Planner | None = None,
        records: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._queue = deque(items)
        self._planner = planner
        self._measured: dict[str, list[Launched]] = defaultdict(list)
        self._without: set[str] = set()
        self._outlook: Outlook | None = None
        self.num_left_out = 0
        for record in records:
            self.add(record)

    @property
    def left(self) -> Sequence[Item]:
        """The launches that are known to come."""
        return tuple(self._queue)

    @property
    def asks(self) -> bool:
        """Whether the launches that it began with are done, and questions are asked."""
        return self._outlook is not None

    def take(self) -> Item:
        """Return what comes next, and take it off."""
        return self._queue.popleft()

    def leave_out(self, item: Item) -> None:
        """Take note that a launch is foretold to end too late: its case is launched no more."""
        self._without.add(item.case.id)
        self.num_left_out += not self.asks

    def add(self, record: Mapping[str, Any]) -> None:
        """Take note of what was measured."""
        if self._planner is None:
            return
        from suites.engine.planner import Launched

        self._measured[record["case"]["id"]].append(Launched.from_record(record))

    def plan(self, within_s: float) -> int:
        """Choose further launches, once there are none; return how many.

        Args:
            within_s: seconds that are left.
        """
        if self._planner is None or self._queue:
            return 0
        self._outlook = self._planner.outlook(self._measured)
        self._queue.extend(
            self._planner.next(self._measured, within_s=within_s, without=self._without)
        )
        return len(self._queue)

    def standing(self, budget_s: float | None) -> Standing | None:
        """Return how far the questions were answered when launches were last chosen.

        Args:
            budget_s: seconds of the sweep; ``None`` = no limit.

        Returns:
            ``None`` without a planner; no questions yet while the first launches are to come.
        """
        if self._planner is None:
            return None
        if self._outlook is None:
            return Standing(0, (), None, budget_s)
        unanswered = tuple(
            f"{one.words} ({one.known} of {one.wanted})" for one in self._outlook.open
        )
        return Standing(len(self._outlook.questions), unanswered, self._outlook.seconds, budget_s)


def planner_of(plan: Plan, cases: Sequence[Case]) -> Planner | None:
    """Return the planner of a sweep; ``None`` where its launches alone decide."""
    if plan.precision is None:
        return None
    from suites.engine.planner import Planner

    return Planner.of(plan, cases, plan.precision)
