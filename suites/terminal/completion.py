"""What the shell offers in place of a path while a command is typed: runs, backends. No torch."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from results.schema import RECORDS
from suites.names import backends
from suites.parameters import one_of

MOST_FOLDERS = 1000
"""So many entries of a folder are looked at for runs."""


def backend_or_path(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a backend's name, else a path."""
    found = one_of(backends)(ctx, param, incomplete)
    return found or [CompletionItem(incomplete, type="file")]


class RunFolder(click.Path):
    """A folder that is there; the shell offers those that hold a run first.

    These are the ones beside what was typed, and at first those in ``runs`` too.
    """

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False, path_type=Path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the runs that begin so; where there is none, leave folders to the shell."""
        place, slash, _ = incomplete.rpartition("/")
        places = [f"{place}{slash}"] if slash else ["", "runs/"]
        found = [run for place in places for run in _runs_in(place) if run.startswith(incomplete)]
        return [CompletionItem(run) for run in found] or [CompletionItem(incomplete, type="dir")]


def _runs_in(place: str) -> list[str]:
    """Return the run folders in a folder, which ends in a slash or is the current one."""
    folder = Path(place).expanduser()
    try:
        entries = [entry for _, entry in zip(range(MOST_FOLDERS), folder.iterdir(), strict=False)]
        return sorted(f"{place}{e.name}" for e in entries if (e / RECORDS).is_file())
    except OSError:  # no such folder, or not ours to read
        return []
