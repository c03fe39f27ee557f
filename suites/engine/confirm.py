"""Measure cases of two versions in alternation: a launch of each, one right after the other.

Each version has a run folder of its own, with records as of any run: the index of a launch is that
of its pair. What a folder holds already is not measured again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from results.schema import MEASUREMENT, Case
from suites.engine.continuity import PluginFiles
from suites.engine.first_launches import ORIGIN
from suites.engine.journal import Journal
from suites.engine.provenance import commit_of
from suites.engine.session import MisuseError, Session, ask_about, check_accepted
from suites.engine.versions import HERE, Version, version_at
from suites.plan import Item
from suites.processes.launcher import BACKWARD, Launcher
from suites.processes.signals import terminable
from suites.suite import Limits

NAMES = ("base", "new")
"""The two sides, and their folders."""


class Finished(NamedTuple):
    """Where a finished run was measured: ids of machines, commits, and of what plug-ins."""

    machines: Collection[str]
    commits: Collection[str]
    plugins: Mapping[str, str] = {}


class Pair(NamedTuple):
    """The records of two launches, side by side."""

    base: Mapping[str, Any]
    new: Mapping[str, Any]


class PairedSession:
    """Both versions, ready to be measured; use it as a context manager.

    Args:
        versions: of `NAMES`.
        folder: holds a run folder for each; made if it does not exist.
        cases: all that may be asked for.
        plugins: files and folders of plug-ins, on both sides.
        budget_s: sampling time per arm, in seconds.
        case_timeout_s: the longest that one launch may take.
        seed: of which side comes first.
        resume: go on with the pairs that the folder holds.

    Raises:
        MisuseError: if a version does not accept a case, measures by another version of the
            measuring code, or is not the one that the folder's pairs are of.
        JournalError: if a folder cannot be used.
        LaunchError: if a version cannot be started.
    """

    def __init__(
        self,
        versions: Mapping[str, Version],
        folder: Path,
        cases: Sequence[Case],
        *,
        plugins: Sequence[Path] = (),
        budget_s: float,
        case_timeout_s: float,
        seed: int = 0,
        resume: bool = False,
    ) -> None:
        self._versions, self._folder, self._cases = versions, folder, cases
        self._plugin_files = PluginFiles(plugins)
        self._plugins = self._plugin_files.paths
        self._limits = Limits(budget_s=budget_s, case_timeout_s=case_timeout_s)
        self._seed, self._resume = seed, resume
        self._sessions: dict[str, Session] = {}
        self._loaded: dict[str, str] = {}
        self._held: dict[tuple[str, str, int], Mapping[str, Any]] = {}
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> PairedSession:
        """Start both versions, and ask each about the cases."""
        with self._exit:
            self._exit.enter_context(terminable())
            for name in NAMES:
                self._start(name)
            self._exit = self._exit.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End both."""
        self._exit.close()

    def _start(self, name: str) -> None:
        version = self._versions[name]
        journal = Journal(self._folder / name, resume=self._resume)
        journal.check_free()
        launcher = self._exit.enter_context(
            Launcher(version.suites, python=version.python, early=(BACKWARD,))
        )
        told = ask_about(launcher, self._cases, self._plugins)
        if (measurement := told.get("measurement", "older than 2")) != MEASUREMENT:
            raise MisuseError(
                f"--{name}-from: its version of the measuring code is {measurement}, this one's "
                f"is {MEASUREMENT}; expected the same, their numbers are not comparable"
            )
        try:
            check_accepted(told, self._cases)
        except MisuseError as error:
            raise MisuseError(f"--{name}-from: {error}") from None
        self._loaded |= told["environment"].get("plugins", {})
        self._exit.enter_context(journal)
        commit = commit_of(version.suites.parent, told["environment"].get("attnbench"))
        # A case that ran out of memory once must have its chance in the next pair.
        session = Session(
            self._limits, told, self._plugins, launcher, journal, commit, foretelling=False
        )
        self._sessions[name] = session
        for record in journal.records:
            if other := [key for key in ORIGIN if record.get(key) != session.origin[key]]:
                raise MisuseError(
                    f"--out: {self._folder} holds pairs of another version ({other[0]} "
                    f"{record.get(other[0])}, here {session.origin[other[0]]}); choose a new one"
                )
            self._held[name, record["case"]["id"], record["launch"]["index"]] = record

    def notes(self, finished: Mapping[str, Finished]) -> list[str]:
        """Say where a version is not the one that a finished run was measured with.

        Args:
            finished: of `NAMES`.

        Raises:
            MisuseError: if a plug-in is not the one that both runs were measured with: the pairs
                would tell nothing of the runs.
        """
        for arm, now in self._loaded.items():
            for name, run in finished.items():
                if (then := run.plugins.get(arm, now)) != now:
                    raise MisuseError(
                        f"--confirm: {name.upper()} was measured with {arm} of {then}, but here "
                        f"both versions have that of {now}; expected the same"
                    )
        origins = {name: self._sessions[name].origin for name in NAMES}
        notes = []
        for name, run in finished.items():
            origin = origins[name]
            if origin["commit"] not in run.commits:
                commits = ", ".join(sorted(c[:12] for c in run.commits)) or "no commit"
                notes.append(
                    f"--{name}-from is at {origin['commit'][:12]}; {name.upper()} was measured at "
                    f"{commits}"
                )
            if origin["machine"] not in run.machines:
                notes.append(f"{name.upper()} was measured on a different machine")
        if all(origins["base"][key] == origins["new"][key] for key in ORIGIN):
            notes.append("both versions are the same")
        return notes

    def measure(self, case: Case, index: int) -> Pair:
        """Launch both sides of a case, in an order that differs from pair to pair.

        Args:
            case: one of those given.
            index: of the pair.
        """
        names = list(NAMES)
        random.Random(f"{self._seed}:{case.id}:{index}").shuffle(names)
        records = {name: self._launch(name, Item(case, index)) for name in names}
        return Pair(*(records[name] for name in NAMES))

    def _launch(self, name: str, item: Item) -> Mapping[str, Any]:
        held = self._held.get((name, item.case.id, item.launch))
        if held is not None:
            return held
        self._plugin_files.check()
        return self._sessions[name].launch(item)


class Judge(Protocol):
    """Decides, from the pairs so far, which cases need another one."""

    @property
    def undecided(self) -> Sequence[str]:
        """The ids of those cases."""

    def add(self, base: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Take a pair of one case into account."""

    def close_round(self) -> None:
        """Judge what every undecided case has one more pair of."""


def run_pairs(
    judge: Judge,
    cases: Sequence[Case],
    folder: Path,
    *,
    base_from: Path,
    new_from: Path | None,
    finished: Mapping[str, Finished],
    tell: Callable[[str], None],
    **settings: Any,
) -> None:
    """Measure pairs, one of every undecided case a round, until none is undecided.

    So the pairs of a case lie apart in time, and what disturbs the machine for a while does not
    hit all of them.

    Args:
        judge: says which cases go on.
        cases: what they are.
        folder: holds a run folder for each side.
        base_from: where the old version is (`version_at`).
        new_from: where the new one is; ``None`` = this one.
        finished: where the runs that are compared were measured, by name of the side.
        tell: takes a line for people.
        **settings: of `PairedSession`.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after cleaning up.
        Terminated: on SIGTERM or SIGHUP, after cleaning up.
    """
    by_id = {case.id: case for case in cases}
    if not judge.undecided:
        tell("nothing to confirm: every case is shown not to have become worse")
        return
    versions = {
        "base": version_at(base_from),
        "new": HERE if new_from is None else version_at(new_from),
    }
    index = 0
    with PairedSession(versions, folder, list(by_id.values()), **settings) as session:
        for note in session.notes(finished):
            tell(f"note: {note}")
        while left := judge.undecided:
            tell(f"pair {index + 1}: {len(left)} of {len(by_id)} cases open")
            for case_id in left:
                judge.add(*session.measure(by_id[case_id], index))
            judge.close_round()
            index += 1
    tell(f"pairs: {folder}")
