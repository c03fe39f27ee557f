"""A thread for each machine of a cluster: it asks the dealer what comes next, and has it run.

A machine that joins late is found by looking, and takes what is left.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results.schema import MACHINES, Case, content_id
from suites.cluster import facts, link
from suites.cluster.answering import agenda_of
from suites.cluster.deal import Dealer, Own, Place, groups_of
from suites.cluster.link import LostError, Node, Remote
from suites.cluster.shared import SharedHistory, SharedJournal, machines_of_kind
from suites.cluster.telling import Telling
from suites.engine.continuity import check_plugins, other_commits
from suites.engine.declared import Declared
from suites.engine.driver import early_of, write_plan
from suites.engine.journal import Journal
from suites.engine.preparation import prepared
from suites.engine.provenance import commit_of
from suites.engine.session import SUITES, MisuseError, Session, ask_about, check_accepted
from suites.machine.cases import roof_cases
from suites.plan import Item, cases, order
from suites.processes.launcher import LaunchError
from suites.registry import rules_of
from suites.suite import Plan

LOOK_S = 1.0
"""Seconds between two looks for machines that have joined."""
ARRIVAL_S = 60.0
"""How long what was begun on a machine waits for it."""
END_S = 5.0
"""How long a machine has to end in order."""
NOBODY_S = 60.0
"""How long a sweep waits for a machine where it has none."""


class Machines:
    """The machines of a sweep, each with a thread, and the state that the threads share.

    Args:
        plan: the sweep.
        journal: not yet open.
        plugins: files and folders of plug-ins, of this machine.
        telling: told what happens.
        benchmark_dir: the suites on the machines; ``None`` = those that are installed there.
        command: that began the sweep.

    Attributes:
        skipped: launches that the journal held already.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        plugins: list[str],
        telling: Telling,
        benchmark_dir: Path | None,
        command: Sequence[str],
    ) -> None:
        self._command = command
        self._plan, self._journal, self._plugins = plan, journal, plugins
        self._telling, self._benchmark_dir = telling, benchmark_dir
        self._here = facts.facts_here()
        self._dealer: Dealer | None = None
        self._shared: SharedJournal
        self._cases: list[Case] = []
        self._commit = ""
        self._opened = 0.0
        self._opening = threading.Lock()
        self._histories: dict[str, SharedHistory] = {}
        self._of_machine: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self._measured: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self._seen: dict[tuple[str, int], threading.Thread] = {}
        self._remotes: dict[tuple[str, int], Remote] = {}
        self._held: set[tuple[str, int]] = set()
        self._serving: set[str] = set()
        self._refused: list[str] = []
        self._only_answers = False
        self._began: set[str] = set()
        self._answered: set[str] = set()
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._changed = threading.Event()
        self.skipped = 0

    # -- the driver's own thread ---------------------------------------------------------------

    def go(self, look: Any, count: int) -> None:
        """Run the sweep to its end.

        Args:
            look: returns the machines that are there.
            count: of those that are there now.
        """
        self._count = count
        alone_since = time.monotonic()
        while self._error is None:
            try:
                there = look()
            except LostError as error:
                raise LaunchError(f"--cluster: {error}") from None
            for node in there:
                self._meet(node)
            if self._dealer is not None and self._dealer.over:
                break
            threads = [thread for thread in self._seen.values() if thread.is_alive()]
            if self._held:
                alone_since = time.monotonic()
            elif not threads and self._dealer is None and self._refused:
                raise MisuseError(f"--cluster: no machine can be used: {'; '.join(self._refused)}")
            elif time.monotonic() - alone_since > NOBODY_S:
                why = f" ({'; '.join(self._refused)})" if self._refused else ""
                raise LaunchError(
                    f"--cluster: no machine was available for this sweep within {NOBODY_S:g} s: "
                    f"they are gone or in use by others{why}"
                )
            self._changed.wait(LOOK_S)
            self._changed.clear()
        while self._is_answering() and self._error is None:
            self._changed.wait(LOOK_S)
            self._changed.clear()
        if self._error is not None:
            raise self._error

    def _is_answering(self) -> bool:
        """Say whether machines still measure, or may join, after the last group was dealt."""
        if self._serving or (self._only_answers and self._held):
            return True
        return bool(self._began - self._answered) and self._arriving()

    def close(self) -> None:
        """End what still runs on the machines, and then the journal."""
        self._stopped.set()
        if self._dealer is not None:
            self._dealer.stop()
        if self._error is None and sys.exc_info()[0] is None:
            until = time.monotonic() + END_S
            for thread in self._seen.values():
                thread.join(max(0.0, until - time.monotonic()))
        for remote in list(self._remotes.values()):
            remote.end()
        for thread in self._seen.values():
            thread.join()
        if self._dealer is not None:
            self._journal.__exit__(None, None, None)

    def _meet(self, node: Node) -> None:
        """Start a thread for a machine that was not there before."""
        key = (node.node, node.part)
        if key not in self._seen:
            thread = threading.Thread(target=self._serve, args=(node,), daemon=True)
            self._seen[key] = thread
            thread.start()

    def _arriving(self) -> bool:
        """Say whether a machine may yet join that something was begun on."""
        return time.monotonic() - self._opened < ARRIVAL_S

    # -- a machine's thread --------------------------------------------------------------------

    def _serve(self, node: Node) -> None:
        """Have a machine run what the dealer gives it, until it is gone or nothing is left."""
        try:
            self._serve_to_end(node)
        except LostError as error:
            if not self._stopped.is_set():
                self._refused.append(f"{node.name}: {error}")
                self._telling.note(f"--cluster: {node.name} is left out: {error}")
        except BaseException as error:
            self._error = self._error or error
        finally:
            self._changed.set()

    def _serve_to_end(self, node: Node) -> None:
        there = facts.facts_of(node, self._stopped.is_set)
        if other := facts.differing(self._here, there):
            raise LostError(other)
        if self._plan.device == "cpu" and node.cpus < (most := max(self._plan.threads)):
            raise LostError(
                f"it has {node.cpus} CPU{'s'[: node.cpus != 1]}, and cases of this sweep have "
                f"{most} threads (--threads)"
            )
        remote = Remote(
            node, stopped=self._stopped.is_set, benchmark_dir=self._benchmark_dir,
            plugins=self._plugins, early=early_of(self._plan),
        )  # fmt: skip
        self._remotes[node.node, node.part] = remote
        try:
            gpus, niceness = remote.ready()
            self._held.add((node.node, node.part))  # its preflight may take minutes
            told = self._told_by(remote)
            described = {**told["machine"], "node": link.mark_of(node, gpus)}
            remote.meet(described)
            session = self._session(remote, told, described)
            place = Place(session.origin["machine"], content_id(told["machine"]))
            self._telling.note(f"{node.name} is machine {place.id[:8]}{_said_of(niceness)}")
            self._work(node, place, session)
            remote.close()
        finally:
            self._held.discard((node.node, node.part))
            remote.end()

    def _told_by(self, remote: Remote) -> dict[str, Any]:
        """Ask a machine about the cases; the first one also decides what the cases are."""
        with self._opening:
            if self._dealer is None:
                return self._open(remote)
        try:
            told = ask_about(remote, self._cases, self._plugins)
            check_accepted(told, self._cases)
        except (MisuseError, LaunchError) as error:
            raise LostError(str(error)) from None
        return told

    def _open(self, remote: Remote) -> dict[str, Any]:
        """Complete the plan, open the journal and make the groups that are dealt."""
        try:
            plan, told, left_out = prepared(self._plan, self._plugins, remote)
        except LaunchError as error:  # of this machine; the next one opens
            raise LostError(str(error)) from None
        self._plan = plan
        self._cases = [*roof_cases(plan, single_thread=True), *cases(plan)]
        every = order(plan, cases(plan))
        self._journal.__enter__()
        try:
            self._commit = commit_of(SUITES.parent)
            apart = [
                *check_plugins(self._journal, told), *other_commits(self._journal, self._commit),
            ]  # fmt: skip
            self._shared = SharedJournal(self._journal)
            homes: dict[str, str] = {}
            done = self._journal.done
            for record in self._journal.records:
                homes[record["case"]["id"]] = record["machine"]
                self._measured[record["machine"]].append(record)
                self._of_machine[record["machine"]].add(
                    (record["case"]["id"], record["launch"]["index"])
                )
            groups = groups_of(plan, every, done, homes)
            wanted = [item for item in every if not rules_of(item.case.kind).of_machine]
            write_plan(self._journal, self._command, wanted, plan.precision)
            left = sum(len(group.items) for group in groups)
            self._only_answers = plan.precision is not None and not groups
            self._began = set(homes.values()) if plan.precision is not None else set()
            self.skipped = len(wanted) - left
            broken = told.get("broken", {}).values()
            notices = [
                *self._journal.notices,
                *apart,
                *(f"--plugin: {why}; going on without it" for why in broken),
                *left_out,
            ]
            self._telling.begin(self._journal.folder, len(wanted), self.skipped, notices)
            self._opened = time.monotonic()
            self._dealer = Dealer(groups, self._arriving)
        except BaseException:
            self._dealer = None
            self._journal.__exit__(None, None, None)
            raise
        return dict(told)

    def _session(
        self, remote: Remote, told: Mapping[str, Any], described: Mapping[str, Any]
    ) -> Session:
        """Return a session of a machine, which knows what its like have seen."""
        kind = content_id(told["machine"])
        with self._opening:
            if kind not in self._histories:
                declared = {key: Declared.from_json(one) for key, one in told["cases"].items()}
                history = SharedHistory(declared)
                alike = machines_of_kind(self._shared.folder / MACHINES, kind)
                for record in self._shared.records:
                    if record["machine"] in alike:
                        history.add(record)
                self._histories[kind] = history
        return Session(
            self._plan, {**told, "machine": described}, self._plugins, remote, self._shared,
            self._commit, history=self._histories[kind], look=remote.look,
        )  # fmt: skip

    def _work(self, node: Node, place: Place, session: Session) -> None:
        """Run groups, and between them what tells of the machine, until nothing is left."""
        dealer = self._dealer
        assert dealer is not None
        own = Own(self._plan, self._of_machine[place.id])
        # A machine that is back before it was missed: its own thread ends first.
        while place.id in self._serving and not self._stopped.wait(LOOK_S):
            pass
        self._serving.add(place.id)
        dealer.join(place)
        try:
            self._answer(place, session)  # what a run that is resumed left open
            self._answered.add(place.id)
            while dealer.await_more(place):
                began = False
                while (group := dealer.take(place)) is not None:
                    began = True
                    self._of_itself(session, own.before_group())
                    for item in dealer.items(place):
                        self._run(node, place, session, item)
                    del group
                self._answer(place, session)
                if began and not self._stopped.is_set():
                    self._of_itself(session, own.at_end())
        finally:
            dealer.leave(place)
            self._serving.discard(place.id)

    def _answer(self, place: Place, session: Session) -> None:
        """Launch what answers the questions of a machine, as long as it has no group to run."""
        dealer = self._dealer
        assert dealer is not None
        agenda = agenda_of(self._plan, cases(self._plan), self._measured[place.id])
        while agenda is not None and not self._stopped.is_set() and not dealer.has_for(place):
            count = agenda.plan(math.inf)
            if (standing := agenda.standing(None)) is not None:
                self._telling.planned(place.id, count, standing)
            if not count:
                return
            while agenda.left and not self._stopped.is_set():
                agenda.add(self._tell(agenda.take(), session))

    def _of_itself(self, session: Session, items: Any) -> None:
        """Run what tells of a machine."""
        for item in items:
            if self._stopped.is_set():
                return
            self._telling.more(1)
            self._tell(item, session)
            self._of_machine[session.origin["machine"]].add((item.case.id, item.launch))

    def _run(self, node: Node, place: Place, session: Session, item: Item) -> None:
        """Run a launch; where the machine goes away with it, see who is to run it then.

        Raises:
            LostError: if the machine went away.
        """
        dealer = self._dealer
        assert dealer is not None
        try:
            self._tell(item, session)
        except LostError as error:
            if not self._stopped.is_set() and dealer.gives_up(item):
                record = session.give_up(
                    item, f"two machines were lost while it ran, the last: {error}"
                )
                dealer.drop(place)
                self._finished(record, session)
            raise

    def _tell(self, item: Item, session: Session) -> Mapping[str, Any]:
        """Run a launch, tell of it and return its record."""
        self._telling.starting(item)
        record = session.launch(item)
        self._measured[record["machine"]].append(record)
        self._finished(record, session)
        return record

    def _finished(self, record: Mapping[str, Any], session: Session) -> None:
        dealer = self._dealer
        assert dealer is not None
        self._telling.finished(record, session, lambda: dealer.left, len(self._serving))


def _said_of(niceness: int) -> str:
    """Say that what is measured gives way to others; Ray starts its workers so."""
    if niceness <= 0:
        return ""
    return f", of niceness {niceness}: start Ray with RAY_worker_niceness=0"
