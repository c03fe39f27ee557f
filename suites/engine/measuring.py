"""What the commands that measure share: where a run is written, and how they end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from suites.engine.run_folder import JournalError, new_folder
from suites.engine.session import MisuseError
from suites.processes.launcher import LaunchError
from suites.processes.signals import Terminated
from suites.terminal.group import StoppedError, message_of
from suites.terminal.stream import Stream

RUNS = Path("runs")
"""Where a run without a folder of its own goes."""


@contextmanager
def measuring(
    ctx: click.Context,
    out: Path | None,
    name: str,
    *,
    failed: str,
    error_type: type[StoppedError] = StoppedError,
    end: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Give a command the folder of its run, and end the command if it cannot go on.

    Ctrl-C ends it with 130, SIGTERM and SIGHUP with 128 and their number; what is done is kept.

    Args:
        ctx: of the command.
        out: the folder that was named; ``None`` = a new one in `RUNS`.
        name: of a new folder, behind the time.
        failed: what cannot be done, where no process can be started or nothing be written.
        error_type: of that; it has the exit code.
        end: called at the end, before anything is said.

    Raises:
        click.UsageError: for what the measuring code does not accept.
        StoppedError: beginning with `failed`.
    """
    folder = out or RUNS
    try:
        with _run_folder(out, name) as folder:
            yield folder
    except (MisuseError, JournalError) as error:
        raise click.UsageError(str(error), ctx) from None
    except (LaunchError, OSError) as error:
        raise error_type(f"{failed}: {message_of(error)}", ctx) from None
    except (KeyboardInterrupt, Terminated) as error:
        end()
        Stream(sys.stderr).write(
            f"stopped; what is done lies in {folder}\n"
            f"go on with the same command and --resume --out {shlex.quote(str(folder))}\n"
        )
        ctx.exit(128 + error.signal if isinstance(error, Terminated) else 130)
    finally:
        end()


@contextmanager
def _run_folder(out: Path | None, name: str) -> Iterator[Path]:
    """Give the folder of a run: the one that was named, else a new one, gone if it stays empty."""
    if out is not None:
        yield out
        return
    made = [] if RUNS.exists() else [RUNS]
    folder = new_folder(RUNS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}")
    try:
        yield folder
    finally:
        for path in (folder, *made):
            with suppress(OSError):  # it holds something
                path.rmdir()


def without_place(words: Sequence[str]) -> Iterator[str]:
    """Yield the words of a command line but ``--resume`` and ``--out`` with its folder."""
    left = iter(words)
    for word in left:
        if word == "--out":
            next(left, None)
        elif word != "--resume" and not word.startswith("--out="):
            yield word
