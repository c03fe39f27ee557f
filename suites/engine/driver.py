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
from typing import Any, Protocol

from suites.engine.continuity import PluginFiles, check_plugins, other_commits
from suites.engine.journal import Journal
from suites.engine.provenance import commit_of
from suites.engine.session import SUITES, Asks, MisuseError, Session, ask_about, check_accepted
from suites.machine.cases import roof_cases, sentinel_case
from suites.plan import Item, cases, order
from suites.processes.heartbeat import HeartbeatReader
from suites.processes.launcher import BACKWARD, Launcher
from suites.processes.outcome import scrub
from suites.processes.signals import terminable
from suites.registry import rules_of
from suites.suite import Plan
from suites.terminal.progress import Summary, label


class Progress(Protocol):
    """Told what a sweep is doing. The times are in seconds; ``None`` = not known yet."""

    def begin(self, folder: Path, total: int, done: int, notices: Sequence[str]) -> None:
        """Take note of the launches in all and of those that the folder holds already."""

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
        within_s: seconds from now; no launch is started that is foretold to end later.
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
        plan, told = prepared(plan, files, launcher)
        every = order(plan, cases(plan))
        broken = told.get("broken", {}).values()
        with journal:
            commit = commit_of(benchmark_dir.parent)
            apart = [*check_plugins(journal, told), *other_commits(journal, commit)]
            write_plan(journal, command, every)
            session = Session(plan, told, files, launcher, journal, commit)
            going_on = _unfinished(journal, session.kept, every)
            journal.reopen(going_on)
            notices = [
                *journal.notices,
                *apart,
                *(f"--plugin: {why}; going on without it" for why in broken),
                *_without_profile(plan, journal, every),
                *_said_of(len(going_on)),
            ]
            done = journal.done
            left = [item for item in every if (item.case.id, item.launch) not in done]
            progress.begin(folder, len(every), len(every) - len(left), notices)
            until = math.inf if within_s is None else started + within_s
            statuses = _run(session, left, progress, plugin_files, until)
    return Summary(
        folder, statuses, len(every) - len(left), time.perf_counter() - started,
        len(left) - statuses.total(),
    )  # fmt: skip


def early_of(plan: Plan) -> tuple[str, ...]:
    """Return what all cases of a sweep would import: a second of each where a model is built.

    Not the compiler where the time to compile is measured: that import is a part of it.
    """
    whole = plan.suite.builds_models(plan)
    compiler = ("torch._dynamo",) if whole and not any(plan.compiles) else ()
    return (BACKWARD, *compiler)


def write_plan(journal: Journal, command: Sequence[str], every: Sequence[Item]) -> None:
    """Write the launches of a sweep into its run's plan."""
    launches = ((item.case.id, label(item.case), item.launch) for item in every)
    journal.plan([scrub(word) for word in command], launches)


# -- before the first launch ---------------------------------------------------------------------


def prepared(plan: Plan, plugins: list[str], launcher: Asks) -> tuple[Plan, Mapping[str, Any]]:
    """Return a sweep with what only a child knows of it, and what a child says of its cases.

    Raises:
        MisuseError: if a backend, a peer or an option is not accepted.
        LaunchError: if no child can be asked.
    """
    if not plan.suite.is_complete(plan):
        plan = completed(plan, ask_about(launcher, [], plugins))
    every = [*roof_cases(plan, single_thread=True), sentinel_case(plan), *cases(plan)]
    told = ask_about(launcher, every, plugins, plan.files)
    check_accepted(told, every)
    return plan.suite.informed(plan, told["cases"]), told


def completed(plan: Plan, told: Mapping[str, Any]) -> Plan:
    """Return a sweep with what a child tells of what is registered.

    Raises:
        MisuseError: if what is chosen is not there.
    """
    try:
        whole: Plan = plan.suite.completed(plan, told)
    except ValueError as error:
        broken = "".join(f"; --plugin: {reason}" for reason in told["broken"].values())
        raise MisuseError(f"--{error}{broken}") from None
    return whole


# -- the sweep -----------------------------------------------------------------------------------


def _run(
    session: Session, left: Sequence[Item], progress: Progress, plugins: PluginFiles, until: float
) -> Counter[str]:
    """Run the launches that are left, one after the other; return how they ended.

    What is foretold to end after `until` is left out, by the clock of `time.perf_counter`.
    """
    statuses: Counter[str] = Counter()
    for position, item in enumerate(left, start=1):
        plugins.check()
        if time.perf_counter() + (session.remaining([item]) or 0.0) > until:
            continue
        progress.starting(item)
        with _hearing(session, item, progress):
            record = session.launch(item)
        statuses[record["status"]] += 1
        remaining = session.remaining(left[position:])
        if remaining is not None:
            remaining = min(remaining, max(0.0, until - time.perf_counter()))
        progress.finished(record, remaining)
    return statuses


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
        f"--resume: {count} of the trainings that are there ran out of time and "
        f"{'goes' if count == 1 else 'go'} on from {'its' if count == 1 else 'their'} checkpoint; "
        "the new record takes the place of the old"
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
        f"--profile: {count} of the launches that are there already have no profile and are "
        "not run again; name another folder to have them profiled"
    ]
