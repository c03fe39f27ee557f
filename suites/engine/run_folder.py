"""A run's folder: made so that it lasts, and held by one driver at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

LOCK = "lock"
CHILD_LOCK = "lock.child"
CHILD_WAIT_S = 5.0
"""How long a new driver waits for a child that outlived the last one."""


class JournalError(RuntimeError):
    """The folder cannot be used for this run; the message says why and what to do."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder against other drivers.

    Raises:
        JournalError: if another has it, or its file system cannot lock.
    """
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):  # ENOLCK, EOPNOTSUPP
                raise JournalError(
                    f"--out: {folder}: its file system cannot lock files ({error.strerror}), "
                    "so two runs could mix; choose a folder on a local disk"
                ) from None
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise JournalError(
                f"--out: {folder} is in use by {holder}; wait for it, or choose another folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}, started {utc_now()}\n")
        file.flush()
        yield


def wait_for_children(folder: Path) -> None:
    """Wait until no child of an earlier driver lives: it would disturb what is measured.

    Raises:
        JournalError: if one goes on.
    """
    with (folder / CHILD_LOCK).open("a") as file:
        end = time.monotonic() + CHILD_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise JournalError(
                        f"--out: a case of an earlier run in {folder} is still running; "
                        "wait for it, or stop it"
                    ) from None
                time.sleep(0.1)
            else:
                return


def new_folder(wanted: Path) -> Path:
    """Make a folder of this name, or with a number behind it, that nobody else has made.

    Raises:
        JournalError: if it cannot be made.
    """
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            make_folder(folder, exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise JournalError(f"--out: {folder}: {error.strerror}") from error
        return folder
    raise AssertionError("unreachable: numbers do not end")


def make_folder(folder: Path, *, exist_ok: bool = True) -> None:
    """Make a folder and those above it, and make their names last."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=exist_ok)
    for path in missing:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the files' names last too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def utc_now() -> str:
    """Return the time as the records write it: ISO 8601 to the second, ``Z``."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
