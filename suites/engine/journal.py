"""The run's folder, written so that it can be killed at any moment: lock, append, sync.

Every record is one line, appended and synced as it ends; one that another takes the place of
(`Journal.reopen`) stands until the whole file is written anew beside it. A line that a crash tore
is cut off when the run is resumed. One driver at a time holds the folder; and a child that
outlived a killed driver keeps the next one waiting, because it would still be using the machine.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from results.schema import (
    ENVIRONMENTS,
    MACHINES,
    PLANS,
    RECORDS,
    NewerSchemaError,
    canonical,
    check_record,
    content_id,
)
from suites.engine.run_folder import (
    CHILD_LOCK,
    JournalError,
    held,
    make_folder,
    sync_folder,
    wait_for_children,
)


class Journal:
    """A run folder, locked and open for appending; use it as a context manager.

    Args:
        folder: made if it does not exist.
        resume: go on with the run that the folder holds, if it holds one.

    Attributes:
        folder: where the run lies.
        records: what the folder held when it was opened, valid records only.
        environments: what it held of these, by their addresses.
        run: the run's id: of the records there, else a new one.
        notices: what was mended or left out on opening, one sentence each.

    Raises:
        JournalError: if the folder holds a run and `resume` is False, if another driver or a
            child of one holds it, or if it cannot be written.
    """

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        self.folder = folder
        self.notices: list[str] = []
        self._resume = resume
        self._files: dict[str, FileIO] = {}
        self._addresses: set[str] = set()
        self._reopened: set[tuple[str, int]] = set()
        self._exit = contextlib.ExitStack()
        self.records: list[dict[str, Any]] = []
        self.environments: dict[str, dict[str, Any]] = {}
        self.run = ""

    def __enter__(self) -> Journal:
        """Lock the folder and read what it holds."""
        with self._exit:
            self._open()
            self._exit = self._exit.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files and give the lock back."""
        self._exit.close()

    @property
    def child_lock(self) -> Path:
        """The file of which every child holds a shared lock for as long as it lives."""
        return (self.folder / CHILD_LOCK).resolve()

    @property
    def done(self) -> set[tuple[str, int]]:
        """The pairs (case id, launch index) that the folder held when it was opened."""
        return {_launch_of(record) for record in self.records} - self._reopened

    def reopen(self, launches: Iterable[tuple[str, int]]) -> None:
        """Take launches as not done: the next record of one stands in place of what is there."""
        self._reopened |= set(launches)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record and return when it is on the disk.

        Raises:
            RecordError: if it is no valid record; nothing is written then.
            OSError: if it cannot be written, or if the file is no longer in the folder; a torn
                line is mended when the run is resumed.
        """
        checked = check_record(dict(record))
        if (launch := _launch_of(checked)) in self._reopened:
            self._replace(launch, checked)
        else:
            self._write(RECORDS, checked)

    def add_machine(self, content: Mapping[str, Any]) -> str:
        """Describe a machine once and return its address."""
        return self._add(MACHINES, content)

    def add_environment(self, content: Mapping[str, Any]) -> str:
        """Describe an environment once and return its address."""
        return self._add(ENVIRONMENTS, content)

    def _add(self, name: str, content: Mapping[str, Any]) -> str:
        address = content_id(content)
        if address not in self._addresses:
            self._write(name, {"id": address, **content})
            self._addresses.add(address)
        return address

    def plan(
        self,
        command: Sequence[str],
        launches: Iterable[tuple[str, str, int]],
        precision: float | None = None,
    ) -> None:
        """Write down what the run is to hold, so that its readers can tell what is missing.

        Args:
            command: that began the sweep.
            launches: case id, name and launch index of each.
            precision: to which its questions are to be answered by launches beyond these;
                ``None`` = there are none.

        Raises:
            OSError: if it cannot be written.
        """
        cases: dict[str, dict[str, Any]] = {}
        for case, name, index in launches:
            one = cases.setdefault(case, {"id": case, "name": name, "launches": []})
            one["launches"].append(index)
        content: dict[str, Any] = {
            "run": self.run, "command": list(command), "cases": list(cases.values()),
        }  # fmt: skip
        if precision is not None:
            content["precision"] = precision
        self._files[PLANS] = self._exit.enter_context(FileIO(self.folder / PLANS, "a+"))
        sync_folder(self.folder)
        if self.records:
            self._mend(PLANS, self._files[PLANS])
        else:  # an earlier sweep was stopped before its first record: its run is none
            self._files[PLANS].truncate(0)
        self._write(PLANS, content)

    def check_free(self) -> None:
        """Check, before anything is made, that the folder holds no run or is to be resumed.

        Raises:
            JournalError: if it holds one that is not to be resumed.
        """
        held = self.folder / RECORDS
        if not self._resume and held.is_file() and held.stat().st_size:
            raise JournalError(
                f"--out: {self.folder} holds a run; add --resume to continue it, "
                "or choose another folder"
            )

    # -- opening ---------------------------------------------------------------------------------

    def _open(self) -> None:
        self.check_free()
        try:
            make_folder(self.folder)
            self._exit.enter_context(held(self.folder))
            wait_for_children(self.folder)
            for name in (RECORDS, MACHINES, ENVIRONMENTS):
                self._files[name] = self._exit.enter_context(FileIO(self.folder / name, "a+"))
            sync_folder(self.folder)
            self._read()
        except OSError as error:
            raise JournalError(f"--out: {self.folder}: {error.strerror}") from error

    def _read(self) -> None:
        for name, file in self._files.items():
            self._mend(name, file)
            file.seek(0)
            for number, line in enumerate(file.read().splitlines(), start=1):
                try:
                    self._take(name, json.loads(line))
                except NewerSchemaError as error:
                    raise JournalError(f"--out: {self.folder / name}: {error}") from None
                except (ValueError, TypeError, RecursionError) as error:
                    self.notices.append(f"{name}:{number} cannot be read ({error}); left out")
        fresh = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"
        self.run = self.records[0]["run"] if self.records else fresh

    def _take(self, name: str, data: Any) -> None:
        if name == RECORDS:
            self.records.append(check_record(data))
        elif isinstance(data, dict):
            address = str(data.get("id") or content_id(data))
            self._addresses.add(address)
            if name == ENVIRONMENTS:
                self.environments[address] = data

    def _mend(self, name: str, file: FileIO) -> None:
        """Cut off a last line without its end: a crash tore it, and nothing may join it."""
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole == len(content):
            return
        try:
            json.loads(content[whole:])
        except (ValueError, RecursionError):
            file.truncate(whole)
            self.notices.append(
                f"{name}: an incomplete last line was removed; its case is measured again"
            )
        else:
            file.write(b"\n")  # append mode: at the end, wherever the file was read
        os.fsync(file.fileno())

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        file = self._files[name]
        line = f"{canonical(content)}\n".encode()
        try:
            while line:  # after a part was written, the next try tells why not more
                line = line[file.write(line) :]
            os.fsync(file.fileno())
            self._check_place(name, file)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder / name)) from error

    def _replace(self, launch: tuple[str, int], record: Mapping[str, Any]) -> None:
        """Write a record in place of what the folder holds of its launch, all or nothing."""
        file = self._files[RECORDS]
        file.seek(0)
        lines = [line for line in file.read().split(b"\n") if line and not _is_of(line, launch)]
        place = self.folder / RECORDS
        partial = place.with_suffix(".part")
        try:
            self._check_place(RECORDS, file)
            with partial.open("wb") as written:
                written.write(b"\n".join([*lines, canonical(record).encode(), b""]))
                written.flush()
                os.fsync(written.fileno())
            partial.replace(place)
            sync_folder(self.folder)
            self._files[RECORDS] = self._exit.enter_context(FileIO(place, "a+"))
        except OSError as error:
            with contextlib.suppress(OSError):  # what is left of it takes room that others need
                partial.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(place)) from error
        self._reopened.discard(launch)

    def _check_place(self, name: str, file: FileIO) -> None:
        """Check that what was written is in the folder: writing to a removed file succeeds.

        Raises:
            OSError: if the name is gone or names another file.
        """
        try:
            there = (self.folder / name).stat()
        except OSError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(file.fileno())):
            raise OSError(
                errno.ESTALE,
                "the file was removed or replaced during the run; what was written to it is lost",
            )


def _launch_of(record: Mapping[str, Any]) -> tuple[str, int]:
    """Return the case's id and the launch's index."""
    return record["case"]["id"], record["launch"]["index"]


def _is_of(line: bytes, launch: tuple[str, int]) -> bool:
    """Say whether a line holds a record of a launch; one that cannot be read holds none."""
    try:
        return _launch_of(check_record(json.loads(line))) == launch
    except (ValueError, TypeError, RecursionError):
        return False
