"""The repository that asv wants: one empty commit a point of its history, with a tag.

Runs of the same commit of attnbench stand at one point; one that measures again what its machine
measured there makes another. Where a run does not know its commit, the run is the point.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from results.text.clean import clean

BRANCH = "main"

_LATEST = datetime(2100, 1, 1, tzinfo=UTC)


class ExportError(ValueError):
    """The folder or the machine does not allow the export; the message says what is missing."""


@dataclass
class _Point:
    """A point of the history.

    Attributes:
        commit: of attnbench; "" = not known.
        start: of its first run, in seconds.
        sources: its (machine, run).
        cases: its (machine, case).
    """

    commit: str
    start: int
    sources: list[tuple[str, str]] = field(default_factory=list)
    cases: set[tuple[str, str]] = field(default_factory=set)

    @property
    def message(self) -> str:
        runs = sorted({run for _, run in self.sources})
        of = f" of commit {self.commit}" if self.commit else ""
        return f"Run{'s'[: len(runs) != 1]} {', '.join(runs)}{of}"


def make_commits(repository: Path, frame: pd.DataFrame) -> dict[tuple[str, str], tuple[str, int]]:
    """Make the repository; return (machine, run) to (commit hash, its date in seconds).

    Each commit has a tag: the first digits of attnbench's commit, or else the run's name.
    """
    git = shutil.which("git")
    if git is None:
        raise ExportError("git: not installed; asv needs a repository of commits to publish")
    _git(git, ["init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(repository)])
    # git checks that a commit's tree is there, though the empty one is known to all.
    at = f"--git-dir={repository}"
    tree = _git(git, [at, "hash-object", "-t", "tree", "-w", os.devnull])
    commits: dict[tuple[str, str], tuple[str, int]] = {}
    parent: list[str] = []
    tags = {BRANCH, "head"}
    for point in _points(frame):
        name = _git(
            git,
            [at, "commit-tree", tree, *parent],
            stdin=f"{point.message}\n",
            date=f"@{point.start} +0000",
        )
        tag = _free(slug(point.commit[:8] or point.sources[0][1]), tags)
        _git(git, [at, "update-ref", f"refs/tags/{tag}", name])
        commits |= dict.fromkeys(point.sources, (name, point.start))
        parent = ["-p", name]
    if parent:
        _git(git, [at, "update-ref", f"refs/heads/{BRANCH}", parent[1]])
    return commits


def _points(frame: pd.DataFrame) -> list[_Point]:
    """Return the points in the order of their starts."""
    sources = []
    for (machine, run), part in frame.groupby(["machine", "run"]):
        known = {c for c in part["commit"] if c}
        commit = known.pop() if len(known) == 1 else ""
        cases = {(machine, case) for case in part["case_id"]}
        sources.append((seconds(part["started"].min()), run, machine, commit, cases))
    points: list[_Point] = []
    latest: dict[str, _Point] = {}
    for start, run, machine, commit, cases in sorted(sources, key=lambda s: s[:3]):
        what = commit or f"run {run}"
        point = latest.get(what)
        if point is None or point.cases & cases:
            point = latest[what] = _Point(commit, start)
            points.append(point)
        point.sources.append((machine, run))
        point.cases |= cases
    return points


def _free(name: str, taken: set[str]) -> str:
    """Return a tag's name that none has yet, and take it."""
    number, tag = 1, name
    while tag in taken:
        number += 1
        tag = f"{name}-{number}"
    taken.add(tag)
    return tag


def slug(text: str, longest: int = 40) -> str:
    """Return a stranger's text as a name for a file, a tag or a machine."""
    name = re.sub(
        r"(?<!\d)\.|\.(?!\d)|[^a-z0-9.]", " ", text.lower()
    )  # a dot within a number stays
    return "-".join(name.split())[:longest].strip("-.") or "unnamed"


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
