"""Deal a sweep to machines: what is compared stays together, and each machine tells of itself.

No Ray here, and no machine: who takes what, in which order, and what becomes of it when a machine
goes away. What a group is, a suite says (`suites.suite.Suite.compared_by`).
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from suites.machine.cases import (
    FEWEST_SENTINELS,
    LAUNCHES_PER_SENTINEL,
    MOST_SENTINELS,
    roof_cases,
    sentinel_case,
)
from suites.plan import Item
from suites.registry import rules_of
from suites.suite import Key, Plan

MOST_TRIES = 2
"""Machines that a launch is given to: one that took both with it is not tried on a third."""

LOOK_S = 0.5
"""Seconds between two looks for what a machine that waits may take."""


@dataclass
class Group:
    """Launches that one machine is to run.

    Attributes:
        setting: what groups of other lengths have in common with this one.
        length: in tokens; 0 = of all lengths.
        items: those left, in the order they are to be run.
        home: the machine that has begun it, by its id; "" = none has.
        kind: what the machine was that was lost with it; "" = none was.
    """

    setting: Key
    length: int
    items: deque[Item] = field(default_factory=deque)
    home: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Place:
    """A machine as the dealer knows it.

    Attributes:
        id: of the machine, as records name it.
        kind: what it is, alike for machines that are interchangeable.
    """

    id: str
    kind: str


def groups_of(
    plan: Plan,
    every: Iterable[Item],
    done: Collection[tuple[str, int]] = (),
    homes: Mapping[str, str] | None = None,
) -> list[Group]:
    """Gather the launches that are left by what is compared; each group keeps the sweep's order.

    Args:
        plan: of the sweep.
        every: all its launches; what tells of a machine is left out.
        done: case ids and launch indices that need not be run.
        homes: case id to the machine that has begun it.
    """
    groups: dict[tuple[Key, int], Group] = {}
    begun: dict[tuple[Key, int], Counter[str]] = defaultdict(Counter)
    for item in every:
        if rules_of(item.case.kind).of_machine:
            continue
        key = plan.suite.compared_by(item.case)
        group = groups.setdefault(key, Group(*key))
        if homes and (home := homes.get(item.case.id)):
            begun[key][home] += 1
        if (item.case.id, item.launch) not in done:
            group.items.append(item)
    for key, count in begun.items():
        groups[key].home = count.most_common(1)[0][0]
    left = [group for group in groups.values() if group.items]
    return sorted(left, key=lambda group: group.length)


class Dealer:
    """Gives groups to machines that ask, one after the other; its methods are for threads.

    Args:
        groups: in rising length.
        arriving: says whether machines may yet join that a group was begun on.
    """

    def __init__(
        self, groups: Sequence[Group], arriving: Callable[[], bool] = lambda: False
    ) -> None:
        self._left = list(groups)
        self._arriving = arriving
        self._held: dict[str, Group] = {}
        self._lost: Counter[tuple[str, int]] = Counter()
        self._places: dict[str, Place] = {}
        self._last: dict[str, Key] = {}
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def over(self) -> bool:
        """Whether every launch is done, or the sweep was stopped."""
        with self._changed:
            return self._stopped or not (self._left or self._held)

    @property
    def left(self) -> list[Item]:
        """The launches that are not done; of one that runs nothing is known here."""
        with self._changed:
            groups = [*self._left, *self._held.values()]
            return [item for group in groups for item in list(group.items)]

    def join(self, place: Place) -> None:
        """Take note of a machine that will ask for groups."""
        with self._changed:
            self._places[place.id] = place
            self._changed.notify_all()

    def leave(self, place: Place) -> None:
        """Take note that a machine is gone; what it held is for others."""
        with self._changed:
            self._places.pop(place.id, None)
            group = self._held.pop(place.id, None)
            if group is not None and group.items:
                group.home, group.kind = "", place.kind
                self._left.insert(0, group)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody wait any longer, and give nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, place: Place) -> Group | None:
        """Return a group for a machine, ``None`` if there is none for it now."""
        with self._changed:
            fit = [] if self._stopped else [g for g in self._left if self._is_for(g, place)]
            if not fit:
                return None
            others = {key for name, key in self._last.items() if name != place.id}
            setting = self._last.get(place.id)

            def rank(group: Group) -> tuple[bool, bool, bool, int]:
                # Whole curves on one machine, as far as nobody waits for it.
                return (
                    group.home != place.id,
                    group.setting != setting,
                    group.setting in others,
                    group.length,
                )

            group = min(fit, key=rank)
            self._left.remove(group)
            self._held[place.id], self._last[place.id] = group, group.setting
            return group

    def await_more(self, place: Place) -> bool:
        """Wait until there may be a group for a machine; say whether to ask for it."""
        with self._changed:
            while not self._stopped and (self._left or self._held):
                if any(self._is_for(group, place) for group in self._left):
                    return True
                self._changed.wait(LOOK_S)
            return False

    def has_for(self, place: Place) -> bool:
        """Say whether there is a group for a machine now."""
        with self._changed:
            return not self._stopped and any(self._is_for(group, place) for group in self._left)

    def items(self, place: Place) -> Iterator[Item]:
        """Walk the launches of the group that a machine holds; each is off it when it is done."""
        group = self._held[place.id]
        while group.items and not self._stopped:
            yield group.items[0]
            with self._changed:
                group.items.popleft()
        with self._changed:
            if not group.items:
                self._held.pop(place.id, None)
            self._changed.notify_all()

    def gives_up(self, item: Item) -> bool:
        """Count a machine that was lost with a launch; say whether it is tried no more."""
        with self._changed:
            key = item.case.id, item.launch
            self._lost[key] += 1
            return self._lost[key] >= MOST_TRIES

    def drop(self, place: Place) -> None:
        """Take the first launch off the group that a machine holds."""
        with self._changed:
            self._held[place.id].items.popleft()

    def _is_for(self, group: Group, place: Place) -> bool:
        """Say whether a machine may take a group now.

        One that was begun waits for its machine as long as that is there; one whose machine was
        lost goes to another of its kind as long as there is one.
        """
        if group.home in self._places:
            return group.home == place.id
        if group.home and self._arriving():
            return False
        if any(other.kind == group.kind for other in self._places.values()):
            return place.kind == group.kind
        return True


class Own:
    """What one machine runs to tell of itself: its roofs and, evenly, its sentinel.

    The sentinel stands first, at every so many launches, and last. The roofs of a launch index
    come before one of the machine's groups each, what is left of them at the end.

    Args:
        plan: of the sweep.
        expected: launches that the machine is likely to run.
        done: case ids and launch indices that it ran already.
    """

    def __init__(self, plan: Plan, expected: int, done: Collection[tuple[str, int]] = ()) -> None:
        self._sentinel = sentinel_case(plan)
        self._next = 1 + max((n for key, n in done if key == self._sentinel.id), default=-1)
        count = max(FEWEST_SENTINELS, min(MOST_SENTINELS, expected // LAUNCHES_PER_SENTINEL))
        self._every = max(1, round(expected / (count - 1)))
        self._since = self._every
        self._roofs = deque(
            [
                item
                for case in roof_cases(plan, single_thread=launch == 0)
                if ((item := Item(case, launch)).case.id, launch) not in done
            ]
            for launch in range(plan.launches)
        )

    def before_group(self) -> Iterator[Item]:
        """Walk what comes before a group."""
        yield from self.before_launch()
        if self._roofs:
            yield from self._roofs.popleft()

    def before_launch(self) -> Iterator[Item]:
        """Walk what comes before a launch, and count it."""
        if self._since >= self._every:
            self._since = 0
            yield self._now()
        self._since += 1

    def at_end(self) -> Iterator[Item]:
        """Walk what comes when there is nothing more for the machine."""
        while self._roofs:
            yield from self._roofs.popleft()
        self._since = 0
        yield self._now()

    def _now(self) -> Item:
        self._next += 1
        return Item(self._sentinel, self._next - 1)
