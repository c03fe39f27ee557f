"""What the shell offers while a command is typed: names found without importing what they name.

A shell asks at every press of the key, so nothing here imports torch: the names of our backends,
peers, tasks and models are read from the files that hold them, those of plug-ins from their entry
points.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from results.schema import LSTM, RECORDS
from suites.claims.suite import EXPERIMENTS, SCALING
from suites.error.suite import ERROR_PRESETS

ROOT = Path(__file__).parents[2]

_REGISTERED = re.compile(r"^@register\(\s*\"([^\"]+)\"", re.MULTILINE)
_CONFIGURED = re.compile(r"^    \"([^\"]+)\": ModelConfig\(", re.MULTILINE)

MOST_FOLDERS = 1000
"""So many entries of a folder are looked at for runs."""


def _registered(folder: str, group: str) -> list[str]:
    """Return the names that the files of a package register, and those of plug-ins."""
    from importlib.metadata import entry_points  # not where nothing is completed

    found = {
        name
        for file in (ROOT / folder).rglob("*.py")
        for name in _REGISTERED.findall(file.read_text("utf-8"))
    }
    return sorted(found | {point.name for point in entry_points(group=group)})


def backends() -> list[str]:
    """Return the names of backends."""
    return _registered("attention/backends", "attnbench.backends")


def arms() -> list[str]:
    """Return what ``--backend`` takes: backends, and torch's LSTM."""
    return [*backends(), LSTM]


def peers() -> list[str]:
    """Return the names of peers."""
    return _registered("suites/peers/libraries", "attnbench.peers")


def tasks() -> list[str]:
    """Return the names of tasks."""
    return _registered("suites/tasks", "attnbench.tasks")


def claims() -> list[str]:
    """Return the ids of claims."""
    return sorted({*EXPERIMENTS, *SCALING})


def inputs() -> list[str]:
    """Return the names of what suite error draws queries and keys from."""
    return sorted({arm.name for preset in ERROR_PRESETS.values() for arm in preset.inputs})


def models() -> list[str]:
    """Return the names of configurations."""
    return _CONFIGURED.findall((ROOT / "models" / "config.py").read_text("utf-8"))


Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def one_of(names: Callable[[], Iterable[str]]) -> Complete:
    """Return a completion by names."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names() if name.startswith(incomplete)]

    return complete


def several_of(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    """Complete the last of values separated by commas; one that is there already is left out."""
    before, comma, last = incomplete.rpartition(",")
    there = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}")
        for name in names
        if name.startswith(last) and name not in there
    ]


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
