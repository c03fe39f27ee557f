"""Run a sweep: ask what each case would be, launch what makes sense, write down how it ended.

This process imports no torch: it holds as little memory as it can, so that a child starts clean,
and everything about backends is asked of a child before the first launch (preflight).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from results.schema import MEASUREMENT, SCHEMA, Arm, Case, RecordError, check_record
from suites.free import memory_for_case
from suites.journal import Journal, utc_now
from suites.launch import Launcher, LaunchError, Method
from suites.outcome import Outcome, scrub
from suites.peer_rows import PeerRow, choose_rows
from suites.prediction import Declared, History
from suites.provenance import commit_of
from suites.sweep import (
    Grid,
    Item,
    cases,
    launch_budget_s,
    order,
    roof_cases,
    sentinel_case,
)

SUITES = Path(__file__).parent
"""The folder of the suites, as asv takes it."""

PREFLIGHT_TIMEOUT_S = 600.0
CHILD_GRACE_S = {"forkserver": 15.0, "spawn": 75.0}
"""Seconds beyond a case's own deadline until it is killed from outside; spawn imports torch."""


class MisuseError(ValueError):
    """The sweep cannot be what was asked for; one line that says what is accepted."""


class Terminated(BaseException):
    """The process is asked to end, as by Ctrl-C: SIGTERM, or SIGHUP of a closed terminal.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.signal = number


class Progress(Protocol):
    """Told what a sweep is doing. The times are in seconds; ``None`` = not known yet."""

    def begin(self, folder: Path, total: int, done: int, notices: Sequence[str]) -> None:
        """Take note of the launches in all and of those that the folder holds already."""

    def starting(self, item: Item) -> None:
        """Take note of what runs now."""

    def finished(self, record: Mapping[str, Any], remaining_s: float | None) -> None:
        """Take note of what is written down, and of the time left."""


@dataclass(frozen=True)
class Summary:
    """What a sweep did.

    Attributes:
        folder: where the records are.
        statuses: of the launches that were added, how many ended how.
        skipped: launches that the folder held already.
        wall_s: seconds in all.
    """

    folder: Path
    statuses: Mapping[str, int]
    skipped: int
    wall_s: float


def run_sweep(
    grid: Grid,
    folder: Path,
    *,
    progress: Progress,
    plugins: Sequence[Path] = (),
    resume: bool = False,
    benchmark_dir: Path = SUITES,
) -> Summary:
    """Measure the grid and append every launch to the journal in `folder`.

    Ctrl-C, SIGTERM and SIGHUP end the case that runs and keep what is done.

    Args:
        grid: the sweep; without backends, all that are registered; without peers, all of them.
        folder: the run's folder.
        progress: told what happens.
        plugins: Python files that register backends or peers.
        resume: go on with the run in `folder`: launches that it holds are skipped.
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
    files = [str(path.resolve()) for path in plugins]
    journal = Journal(folder, resume=resume)
    journal.check_free()
    with _terminable(), Launcher(benchmark_dir) as launcher:
        grid, told = _preflight(grid, files, launcher)
        with journal:
            sweep = _Sweep(grid, told, files, launcher, journal, commit_of(benchmark_dir.parent))
            statuses = sweep.run(progress)
            skipped = len(order(grid, cases(grid))) - sum(statuses.values())
    return Summary(folder, statuses, skipped, time.perf_counter() - started)


# -- before the first launch ---------------------------------------------------------------------


def _preflight(
    grid: Grid, plugins: list[str], launcher: Launcher
) -> tuple[Grid, Mapping[str, Any]]:
    """Return the grid with its backends, and what a child says of its cases."""
    if grid.suite == "peers":
        grid = replace(grid, rows=_rows(grid, _ask(launcher, [], plugins)))
    elif not grid.backends:
        names = _ask(launcher, [], plugins)["names"]
        grid = replace(grid, backends=tuple(Arm(name) for name in names))
    every = [*roof_cases(grid, single_thread=True), sentinel_case(grid), *cases(grid)]
    told = _ask(launcher, every, plugins)
    for case in every:
        if misuse := told["cases"][case.id]["misuse"]:
            raise MisuseError(f"{case.arms[0].label}: {misuse}")
    return grid, told


def _rows(grid: Grid, told: Mapping[str, Any]) -> tuple[PeerRow, ...]:
    """Return the rows that the grid asks for, of those that a child tells of."""
    try:
        return choose_rows(
            [PeerRow.from_json(row) for row in told["peers"]],
            peers=grid.peers,
            backends=grid.backends,
            is_causal=grid.is_causal,
            device=grid.device,
        )
    except ValueError as error:
        broken = "".join(f"; --plugin: {reason}" for reason in told["broken"].values())
        raise MisuseError(f"--{error}{broken}") from None


def _ask(launcher: Launcher, every: Sequence[Case], plugins: list[str]) -> dict[str, Any]:
    request = {"do": "preflight", "cases": [c.to_json() for c in every], "plugins": plugins}
    # Always by the fork server: spawn would pass the cases as one argument, which has a limit.
    outcome = launcher.ask(request, timeout_s=PREFLIGHT_TIMEOUT_S)
    if outcome.record is None:
        printed = f"\n{outcome.log_tail}" if outcome.log_tail else ""
        raise LaunchError(f"the suites cannot be asked about the cases: {outcome.reason}{printed}")
    return outcome.record


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that they clean up as Ctrl-C does.

    One that is ignored, as SIGHUP is under nohup, stays so; a second one does not disturb the
    clean-up.
    """
    previous: dict[int, Any] = {}

    def end(number: int, _frame: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


# -- the sweep -----------------------------------------------------------------------------------


class _Sweep:
    """The state of a running sweep."""

    def __init__(
        self,
        grid: Grid,
        told: Mapping[str, Any],
        plugins: list[str],
        launcher: Launcher,
        journal: Journal,
        commit: str,
    ) -> None:
        self._grid, self._plugins = grid, plugins
        self._launcher, self._journal = launcher, journal
        self._machine: Mapping[str, Any] = told["machine"]
        self._broken: Sequence[str] = list(told.get("broken", {}).values())
        self._declared = {key: Declared.from_json(case) for key, case in told["cases"].items()}
        self._history = History(self._declared)
        self._origin = {
            "schema": SCHEMA,
            "measurement": MEASUREMENT,
            "run": journal.run,
            "machine": journal.add_machine(told["machine"]),
            "environment": journal.add_environment(told["environment"]),
            "commit": commit,
        }
        for record in journal.records:
            self._history.add(record)
        self._next_order = len(journal.records)

    def run(self, progress: Progress) -> Counter[str]:
        """Run every launch that the journal does not hold; return how they ended."""
        every = order(self._grid, cases(self._grid))
        done = self._journal.done
        left = [item for item in every if (item.case.id, item.launch) not in done]
        broken = [f"--plugin: {reason}; going on without it" for reason in self._broken]
        notices = [*self._journal.notices, *broken, *self._without_profile(every)]
        progress.begin(self._journal.folder, len(every), len(every) - len(left), notices)
        statuses: Counter[str] = Counter()
        for position, item in enumerate(left, start=1):
            progress.starting(item)
            record = self._settle(item)
            self._journal.append(record)
            self._history.add(record)
            self._next_order += 1
            statuses[record["status"]] += 1
            progress.finished(record, self._history.remaining(left[position:]))
        return statuses

    def _without_profile(self, every: Sequence[Item]) -> list[str]:
        """Say how many launches the journal holds without the profile that is asked for."""
        asked = {(item.case.id, item.launch) for item in every if self._grid.profile}
        count = sum(
            record["case"]["kind"] == "speed"
            and record["status"] == "ok"
            and (record["case"]["id"], record["launch"]["index"]) in asked
            and not any("profile" in arm for arm in record["arms"])
            for record in self._journal.records
        )
        if not count:
            return []
        return [
            f"--profile: {count} of the launches that are there already have no profile and are "
            "not run again; name another folder to have them profiled"
        ]

    def _settle(self, item: Item) -> dict[str, Any]:
        """Bring one launch to its end, by running it or by saying why not."""
        case, started, load = item.case, utc_now(), os.getloadavg()[0]
        predicted = self._history.foretold(case)

        def record(wall_s: float, **ending: Any) -> dict[str, Any]:
            launch = {
                "index": item.launch,
                "order": self._next_order,
                "started": started,
                "wall_s": round(wall_s, 4),
                "load": round(load, 2),
                "predicted": predicted,
            }
            ending = {"status": "failed", "reason": None, "log_tail": None, "arms": []} | ending
            return {**self._origin, "case": case.to_json(), "launch": launch, **ending}

        if reasons := self._declared[case.id].unsupported:
            return record(0.0, status="unsupported", reason="; ".join(reasons))
        free = memory_for_case(case, self._machine)
        objection = self._history.objection(
            case, timeout_s=self._grid.case_timeout_s, free_bytes=free
        )
        if objection is not None:
            return record(0.0, status="not_run", reason=objection)
        outcome = self._launch(case, free)
        made = record(outcome.wall_s, **_ending(outcome))
        try:
            return check_record(made)
        except RecordError as error:
            reason = f"the answer is no record: {error}"
            return record(outcome.wall_s, reason=reason, log_tail=outcome.log_tail)

    def _launch(self, case: Case, memory_limit: int | None) -> Outcome:
        method: Method = "spawn" if case.device == "cuda" else "forkserver"
        deadline = self._grid.case_timeout_s
        request = {
            "do": "case",
            "case": case.to_json(),
            "budget_s": launch_budget_s(self._grid, case),
            "profile": self._grid.profile,
            "deadline_s": deadline,
            "memory_limit": memory_limit,
            "plugins": self._plugins,
            "lock": str(self._journal.child_lock),
        }
        return self._launcher.ask(
            request,
            timeout_s=deadline + CHILD_GRACE_S[method],
            allocator=case.allocator,
            method=method,
        )


def _ending(outcome: Outcome) -> dict[str, Any]:
    """Return the part of a record that the child, or its end, decides."""
    if outcome.record is None:
        return {"status": outcome.status, "reason": outcome.reason, "log_tail": outcome.log_tail}
    answer = outcome.record
    tail = None if answer.get("status") == "ok" else outcome.log_tail
    if isinstance(answer.get("reason"), str):
        answer = {**answer, "reason": scrub(answer["reason"])}
    own = {"schema", "measurement", "run", "machine", "environment", "commit", "case", "launch"}
    return {k: v for k, v in answer.items() if k not in own} | {"log_tail": tail}
