"""Which code measured: the checkout's commit or the installed version."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def commit_of(root: Path, installed: str | None = None) -> str:
    """Return what code measured: the checkout's commit, else the installed version.

    A checkout with changes that are not committed says so by ``+dirty``.

    Args:
        root: the folder that holds the project's packages.
        installed: the version in the environment of `root`; ``None`` = ask this one.
    """
    if (root / ".git").exists():  # not a repository further up that holds our environment
        state = _git(root, "describe", "--always", "--abbrev=40", "--dirty=+dirty", "--exclude=*")
        if state:
            return state
    if installed is not None:
        return installed
    try:
        return version("attnbench")
    except PackageNotFoundError:
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    """Return what git answers, empty if there is no git or no commit."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
