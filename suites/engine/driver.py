"""Run a sweep: ask what each case would be, launch what makes sense, write down how it ended.

This process imports no torch: it holds as little memory as it can, so that a child starts clean,
and everything about backends is asked of a child before the first launch (preflight).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from suites.engine.agenda import Agenda, planner_of
from suites.engine.continuity import PluginFiles, check_plugins, other_commits
from suites.engine.journal import Journal
from suites.engine.preparation import prepared
from suites.engine.provenance import commit_of
from suites.engine.session import SUITES, Session
from suites.plan import Item, cases, order
from suites.processes.heartbeat import HeartbeatReader
from suites.processes.launcher import BACKWARD, Launcher
from suites.processes.outcome import scrub
from suites.processes.signals import terminable
from suites.registry import rules_of
from suites.suite import Plan
from suites.terminal.progress import Summary, label
from suites.terminal.standing import Standing


class Progress(Protocol):
    """Told what a sweep is doing. The times are in seconds; ``None`` = not known yet."""

    def begin(self, folder: Path, total: int, done: int, notices: Sequence[str]) -> None:
        """Take note of the launches in all and of those that the folder holds already."""

    def planned(self, count: int, standing: Standing, remaining_s: float | None) -> None:
        """Take note of so many further launches, how far questions are answered, the time left."""

    def starting(self, item: Item) -> None:
        """Take note of what runs now."""

    def working(self, line: str) -> None:
        """Take note of what a case that takes long says of itself."""

    def finished(self, record: Mapping[str, Any], remaining_s: float | None) -> None:
        """Take note of what is written down, and of the time left."""


def run_sweep(
    plan: Plan,
    folder: Path,
    *,
    progress: Progress,
    plugins: Sequence[Path] = (),
    resume: bool = False,
    command: Sequence[str] = (),
    within_s: float | None = None,
    benchmark_dir: Path = SUITES,
) -> Summary:
    """Measure a sweep and append every launch to the journal in `folder`.

    Ctrl-C, SIGTERM and SIGHUP end the case that runs and keep what is done.

    Args:
        plan: the sweep.
        folder: the run's folder.
        progress: told what happens.
        plugins: Python files that register backends or peers, and folders of suites.
        resume: go on with the run in `folder`: launches that it holds are skipped. They may have
            been sampled for another time.
        command: that began the sweep, without ``--resume`` and ``--out``: the run's plan has it.
        within_s: seconds from now; no launch is started that is foretold to end later. ``None``
            = as the plan says, its first rounds in any case.
        benchmark_dir: the suites.

    Raises:
        MisuseError: if a backend, a peer or an option is not accepted.
        JournalError: if the folder cannot be used.
        LaunchError: if no case can be started at all.
        OSError: if a record or a temporary file cannot be written; what is done is kept.
        KeyboardInterrupt: on Ctrl-C, after cleaning up.
        Terminated: on SIGTERM or SIGHUP, after cleaning up.
    """
    started = time.perf_counter()
    plugin_files = PluginFiles(plugins)
    files = plugin_files.paths
    journal = Journal(folder, resume=resume)
    journal.check_free()
    with terminable(), Launcher(benchmark_dir, early=early_of(plan)) as launcher:
        plan, told, left_out = prepared(plan, files, launcher)
        every = order(plan, cases(plan))
        broken = told.get("broken", {}).values()
        with journal:
            commit = commit_of(benchmark_dir.parent)
            apart = [*check_plugins(journal, told), *other_commits(journal, commit)]
            write_plan(journal, command, every, plan.precision)
            session = Session(plan, told, files, launcher, journal, commit)
            going_on = _unfinished(journal, session.kept, every)
            journal.reopen(going_on)
            notices = [
                *journal.notices,
                *apart,
                *(f"--plugin: {why}; going on without it" for why in broken),
                *left_out,
                *_without_profile(plan, journal, every),
                *_said_of(len(going_on)),
            ]
            done = journal.done
            left = [item for item in every if (item.case.id, item.launch) not in done]
            progress.begin(folder, len(every), len(every) - len(left), notices)
            agenda = Agenda(left, planner_of(plan, cases(plan)), journal.records)
            clock = _Clock(started, within_s, plan.within_s)
            statuses = _run(session, agenda, progress, plugin_files, clock)
    return Summary(
        folder, statuses, len(every) - len(left), time.perf_counter() - started,
        agenda.num_left_out, agenda.standing(clock.budget_s),
    )  # fmt: skip


def early_of(plan: Plan) -> tuple[str, ...]:
    """Return what all cases of a sweep would import: a second of each where a model is built.

    Not the compiler where the time to compile is measured: that import is a part of it.
    """
    whole = plan.suite.builds_models(plan)
    compiler = ("torch._dynamo",) if whole and not any(plan.compiles) else ()
    return (BACKWARD, *compiler)


def write_plan(
    journal: Journal, command: Sequence[str], every: Sequence[Item], precision: float | None
) -> None:
    """Write the launches that a sweep begins with, and its precision, into its run's plan."""
    launches = ((item.case.id, label(item.case), item.launch) for item in every)
    journal.plan([scrub(word) for word in command], launches, precision)


# -- the sweep -----------------------------------------------------------------------------------


class _Clock(NamedTuple):
    """When a sweep began, by `time.perf_counter`, and the seconds it may take.

    Attributes:
        started: when.
        chosen_s: that the whole of it may take; ``None`` = no limit.
        usual_s: likewise of its preset, which never cuts the first rounds short: they are what
            any run has.
    """

    started: float
    chosen_s: float | None
    usual_s: float | None

    @property
    def budget_s(self) -> float | None:
        """The seconds that it may take; ``None`` = no limit."""
        return self.usual_s if self.chosen_s is None else self.chosen_s

    def left_s(self, *, asks: bool) -> float:
        """Return the seconds that are left, for the first rounds or for what questions ask."""
        budget = self.budget_s if asks else self.chosen_s
        return math.inf if budget is None else self.started + budget - time.perf_counter()


def _run(
    session: Session, agenda: Agenda, progress: Progress, plugins: PluginFiles, clock: _Clock
) -> Counter[str]:
    """Run what is on the agenda, one launch after the other; return how they ended.

    What is foretold to end too late is left out.
    """
    statuses: Counter[str] = Counter()
    if agenda.left and (standing := agenda.standing(clock.budget_s)):
        progress.planned(0, standing, session.remaining(agenda.left))
    while agenda.left or _plan(agenda, progress, clock):
        item = agenda.take()
        plugins.check()
        if (session.remaining([item]) or 0.0) > clock.left_s(asks=agenda.asks):
            agenda.leave_out(item)
            continue
        progress.starting(item)
        with _hearing(session, item, progress):
            record = session.launch(item)
        agenda.add(record)
        statuses[record["status"]] += 1
        remaining = session.remaining(agenda.left)
        if remaining is not None:
            remaining = min(remaining, max(0.0, clock.left_s(asks=agenda.asks)))
        progress.finished(record, remaining)
    return statuses


def _plan(agenda: Agenda, progress: Progress, clock: _Clock) -> bool:
    """Let the agenda choose further launches, and tell of it; return whether there are any."""
    left_s = clock.left_s(asks=True)
    count = agenda.plan(left_s)
    if standing := agenda.standing(clock.budget_s):
        needed = standing.remaining_s
        remaining = None if needed is None else max(0.0, min(needed, left_s))
        progress.planned(count, standing, remaining)
    return count > 0


def _hearing(
    session: Session, item: Item, progress: Progress
) -> contextlib.AbstractContextManager[Any]:
    """Listen to a case that says how it goes; beside one that is only timed, nothing wakes up."""
    if not rules_of(item.case.kind).reports_progress:
        return contextlib.nullcontext()
    return HeartbeatReader(session.heartbeat, progress.working)


def _unfinished(journal: Journal, store: Path, every: Sequence[Item]) -> list[tuple[str, int]]:
    """Return the launches that ran out of time and left a checkpoint to go on from."""
    late = {
        (record["case"]["id"], record["launch"]["index"])
        for record in journal.records if record["status"] == "timeout"
    }  # fmt: skip
    return [
        (item.case.id, item.launch)
        for item in every
        if (item.case.id, item.launch) in late
        and (name := rules_of(item.case.kind).checkpoint(item.case)) is not None
        and (store / name).is_file()
    ]


def _said_of(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"--resume: {count} unfinished training{'s' if count != 1 else ''} will continue from "
        f"{'its checkpoint' if count == 1 else 'their checkpoints'} and replace the old result"
    ]


def _without_profile(plan: Plan, journal: Journal, every: Sequence[Item]) -> list[str]:
    """Say how many launches the journal holds without the profile that is asked for."""
    asked = {
        (item.case.id, item.launch)
        for item in every
        if plan.profile and not rules_of(item.case.kind).of_machine
    }
    count = sum(
        record["status"] == "ok"
        and (record["case"]["id"], record["launch"]["index"]) in asked
        and not any("profile" in arm for arm in record["arms"])
        for record in journal.records
    )
    if not count:
        return []
    return [
        f"--profile: {count} finished measurement{'s have' if count != 1 else ' has'} no profile "
        "and will not be repeated; use another folder (--out) to profile everything"
    ]
