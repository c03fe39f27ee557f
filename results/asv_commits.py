"""The repository that asv wants: one empty commit a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from results.checks import clean

BRANCH = "main"

_LATEST = datetime(2100, 1, 1, tzinfo=UTC)


class ExportError(ValueError):
    """The folder or the machine does not allow the export; the message says what is missing."""


def make_commits(repository: Path, frame: pd.DataFrame) -> dict[str, tuple[str, int]]:
    """Make the repository; return run to (commit hash, its date in seconds)."""
    git = shutil.which("git")
    if git is None:
        raise ExportError("git: not installed; asv needs a repository of commits to publish")
    _git(git, ["init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(repository)])
    # git checks that a commit's tree is there, though the empty one is known to all.
    at = f"--git-dir={repository}"
    tree = _git(git, [at, "hash-object", "-t", "tree", "-w", os.devnull])
    starts = {run: seconds(part["started"].min()) for run, part in frame.groupby("run")}
    commits: dict[str, tuple[str, int]] = {}
    parent: list[str] = []
    for run in sorted(starts, key=lambda r: (starts[r], r)):
        of = " ".join(c for c in frame[frame["run"] == run]["commit"].unique() if c)
        date = f"@{starts[run]} +0000"
        name = _git(
            git,
            [at, "commit-tree", tree, *parent],
            stdin=f"Run {run}{f' of commit {of}' if of else ''}\n",
            date=date,
        )
        commits[run], parent = (name, starts[run]), ["-p", name]
    if parent:
        _git(git, [at, "update-ref", f"refs/heads/{BRANCH}", parent[1]])
    return commits


def _git(git: str, arguments: Sequence[str], *, stdin: str = "", date: str = "") -> str:
    """Run git untouched by the caller's repository and settings; return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        environment[f"GIT_{who}_NAME"] = "attnbench"
        environment[f"GIT_{who}_EMAIL"] = "attnbench@localhost"
        if date:
            environment[f"GIT_{who}_DATE"] = date
    done = subprocess.run(
        [git, *arguments],
        env=environment,
        input=stdin,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ExportError(f"git: {clean(done.stderr)[:200]}")
    return done.stdout.strip()


def seconds(started: str) -> int:
    """Return an ISO time as seconds since 1970, 0 where it is none."""
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        return 0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, int(min(moment, _LATEST).timestamp()))
