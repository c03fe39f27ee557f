"""One run folder being filled: a launch of a case becomes a record in its journal.

A sweep has one session; two versions that are compared have one each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from results.schema import MEASUREMENT, SCHEMA, Case, RecordError, check_record
from suites.engine.declared import Declared
from suites.engine.first_launches import ORIGIN, FirstLaunches
from suites.engine.prediction import History
from suites.engine.run_folder import utc_now
from suites.plan import Item
from suites.processes.free_memory import memory_for_case
from suites.processes.launcher import LaunchError, Method
from suites.processes.outcome import Outcome, scrub
from suites.suite import Limits

SUITES = Path(__file__).parents[1]
"""The folder of the suites, as asv takes it."""

TRAINED = "trained"
"""The folder in a run's own that keeps trained models."""

TRACES = "traces"
"""The folder in a run's own that keeps the traces of profiled cases."""

PREFLIGHT_TIMEOUT_S = 600.0
CHILD_GRACE_S = {"forkserver": 15.0, "spawn": 75.0}
"""Seconds beyond a case's own deadline until it is killed from outside; spawn imports torch."""


class MisuseError(ValueError):
    """The sweep cannot be what was asked for; one line that says what is accepted."""


class Asks(Protocol):
    """What runs a request in a process of its own: a `Launcher`, or one on another machine."""

    def ask(
        self,
        request: Mapping[str, Any],
        *,
        timeout_s: float,
        allocator: str = "default",
        method: Method = "forkserver",
    ) -> Outcome:
        """Run one request to its end, whatever that is."""


class Keeps(Protocol):
    """What records are written into: a `Journal`, or one that several sessions share."""

    @property
    def folder(self) -> Path:
        """Where the run lies."""

    @property
    def run(self) -> str:
        """The run's id."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the folder held when it was opened."""

    @property
    def child_lock(self) -> Path:
        """The file of which every child holds a shared lock."""

    def append(self, record: dict[str, Any]) -> None:
        """Write a record and return when it is on the disk."""

    def add_machine(self, content: Mapping[str, Any]) -> str:
        """Describe a machine once and return its address."""

    def add_environment(self, content: Mapping[str, Any]) -> str:
        """Describe an environment once and return its address."""


def ask_about(
    launcher: Asks,
    every: Sequence[Case],
    plugins: list[str],
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Ask a child what it makes of cases: machine, environment, misuse, support and cost.

    Raises:
        LaunchError: if it does not answer.
    """
    request = {
        "do": "preflight", "cases": [c.to_json() for c in every], "plugins": plugins,
        "files": dict(files or {}),
    }  # fmt: skip
    # Always by the fork server: spawn would pass the cases as one argument, which has a limit.
    outcome = launcher.ask(request, timeout_s=PREFLIGHT_TIMEOUT_S)
    if outcome.record is None:
        printed = f"\n{outcome.log_tail}" if outcome.log_tail else ""
        raise LaunchError(f"the worker cannot describe the cases: {outcome.reason}{printed}")
    return outcome.record


def check_accepted(told: Mapping[str, Any], every: Iterable[Case]) -> None:
    """Check that a child accepts the cases it was asked about.

    Raises:
        MisuseError: naming the first that it does not, and what is wrong with a plug-in's folder,
            whose kind it may be of.
    """
    folders = [why for path, why in told.get("broken", {}).items() if Path(path).is_dir()]
    for case in every:
        if misuse := told["cases"][case.id]["misuse"]:
            broken = "".join(f"; --plugin: {why}" for why in folders)
            raise MisuseError(f"{case.arms[0].label}: {misuse}{broken}")


class Session:
    """A journal, the launcher whose cases fill it, and what was seen so far.

    Args:
        limits: of a launch, and what it is told.
        told: what `ask_about` gave for every case that is launched.
        plugins: files and folders of plug-ins.
        launcher: runs the cases.
        journal: open; what it holds already predicts what is to come.
        commit: which code measures.
        foretelling: keep a case from being started that is foretold not to fit or to end.
        history: what was seen on machines like this one; ``None`` = of what the journal holds.
        look: tells of the machine that a case is about to run on its load and the bytes that the
            case may have; ``None`` = it is this one.
    """

    def __init__(
        self,
        limits: Limits,
        told: Mapping[str, Any],
        plugins: list[str],
        launcher: Asks,
        journal: Keeps,
        commit: str,
        *,
        foretelling: bool = True,
        history: History | None = None,
        look: Callable[[Case], tuple[float, int | None]] | None = None,
    ) -> None:
        self._limits, self._plugins = limits, plugins
        self._launcher, self._journal = launcher, journal
        self._machine: Mapping[str, Any] = told["machine"]
        self._declared = {key: Declared.from_json(case) for key, case in told["cases"].items()}
        self._history = History(self._declared) if history is None else history
        self._foretelling = foretelling
        self._look = look or self._look_here
        self.origin: Mapping[str, Any] = {
            "schema": SCHEMA,
            "measurement": MEASUREMENT,
            "run": journal.run,
            "machine": journal.add_machine(told["machine"]),
            "environment": journal.add_environment(told["environment"]),
            "commit": commit,
        }
        self._firsts = FirstLaunches(self.origin)
        for record in journal.records:
            self._firsts.add(record)
            if history is None:
                self._history.add(record)
        self._next_order = len(journal.records)
        self._free: int | None = None  # for the next case, as last seen

    @property
    def kept(self) -> Path:
        """The folder in which trainings keep their checkpoints."""
        return self._journal.folder.resolve() / TRAINED

    @property
    def heartbeat(self) -> Path:
        """The file in which a case that takes long says how it goes."""
        return self.kept / "now"

    def launch(self, item: Item) -> dict[str, Any]:
        """Bring one launch to its end, and return its record when it is on the disk.

        Raises:
            LaunchError: if no case can be started.
            OSError: if it cannot be written.
        """
        return self._keep(self._settle(item))

    def give_up(self, item: Item, reason: str) -> dict[str, Any]:
        """Write down that a launch crashed whose machine went away with it.

        Raises:
            OSError: if it cannot be written.
        """
        launch = {
            "index": item.launch, "order": self._next_order, "started": utc_now(), "wall_s": 0.0,
            "load": 0.0, "predicted": self._history.foretold(item.case),
        }  # fmt: skip
        return self._keep(
            {
                **self.origin, "case": item.case.to_json(), "launch": launch, "arms": [],
                "status": "crashed", "reason": reason, "log_tail": None,
            }
        )  # fmt: skip

    def _keep(self, record: dict[str, Any]) -> dict[str, Any]:
        self._journal.append(record)
        self._history.add(record)
        self._firsts.add(record)
        self._next_order += 1
        return record

    def remaining(self, items: Sequence[Item]) -> float | None:
        """Estimate the seconds that `items` will take, ``None`` while nothing is known."""
        return self._history.remaining(
            items,
            timeout_s=self._limits.case_timeout_s,
            free_bytes=self._free,
            foretelling=self._foretelling,
        )

    def _settle(self, item: Item) -> dict[str, Any]:
        """Bring one launch to its end, by running it or by saying why not."""
        case, started = item.case, utc_now()
        load, free = self._look(case)
        self._free = free
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
            return {**self.origin, "case": case.to_json(), "launch": launch, **ending}

        if reasons := self._declared[case.id].unsupported:
            return record(0.0, status="unsupported", reason="; ".join(reasons))
        if self._foretelling:
            objection = self._history.objection(
                case, timeout_s=self._limits.case_timeout_s, free_bytes=free
            )
            if objection is not None:
                return record(0.0, status="not_run", reason=objection)
        outcome = self._launch(item, free)
        made = record(outcome.wall_s, **_ending(outcome))
        try:
            return check_record(made)
        except RecordError as error:
            reason = f"the worker's answer is not a valid result: {error}"
            return record(outcome.wall_s, reason=reason, log_tail=outcome.log_tail)

    def _look_here(self, case: Case) -> tuple[float, int | None]:
        """Return this machine's load, and the bytes that a case may have."""
        return os.getloadavg()[0], memory_for_case(case, self._machine)

    def _launch(self, item: Item, memory_limit: int | None) -> Outcome:
        case, deadline = item.case, self._limits.case_timeout_s
        method: Method = "spawn" if case.device == "cuda" else "forkserver"
        request = {
            "do": "case",
            "case": case.to_json(),
            "budget_s": self._limits.budget_s,
            "with_latency": self._limits.times(case),
            "profile": self._limits.profile,
            "traces": str(self._journal.folder.resolve() / TRACES),
            "deadline_s": deadline,
            "memory_limit": memory_limit,
            "plugins": self._plugins,
            "store": str(self.kept),
            "files": dict(self._limits.files),
            "heartbeat": str(self.heartbeat),
            "lock": str(self._journal.child_lock),
            **self._firsts.fields(item),
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
    ours = {*ORIGIN, "schema", "run", "case", "launch"}
    return {k: v for k, v in answer.items() if k not in ours} | {"log_tail": tail}
