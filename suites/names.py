"""Names of backends, peers, tasks and models, found without importing what they name. No torch.

A shell asks for them at every press of the key: they are read from the files that hold them, those
of plug-ins from their entry points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from results.schema import LSTM

ROOT = Path(__file__).parents[1]

_REGISTERED = re.compile(r"^@register\(\s*\"([^\"]+)\"", re.MULTILINE)
_CONFIGURED = re.compile(r"^    \"([^\"]+)\": ModelConfig\(", re.MULTILINE)


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


def models() -> list[str]:
    """Return the names of configurations."""
    return _CONFIGURED.findall((ROOT / "models" / "config.py").read_text("utf-8"))


def suites(ours: Iterable[str]) -> list[str]:
    """Return the names of suites, ours first, and those of installed plug-ins."""
    from importlib.metadata import entry_points  # not where nothing is completed

    every = [*ours, *sorted(point.name for point in entry_points(group="attnbench.suites"))]
    return list(dict.fromkeys(every))
