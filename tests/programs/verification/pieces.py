"""Long measurements in pieces: a folder keeps what is done, another call goes on from there."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "runs" / "verification"
"""Where long measurements keep what is done, a folder each."""


@dataclass(frozen=True)
class Pieces:
    """How much of a long measurement is done in this call.

    Attributes:
        count: pairs or repetitions in all; ``None`` = as many as the promise says.
        within_s: seconds; what is foretold to end later is left for another call.
        folder: keeps what is done.
        started: when this call began, by the monotonic clock.
    """

    count: int | None = None
    within_s: float = math.inf
    folder: Path = FOLDER
    started: float = field(default_factory=time.monotonic)

    def has_time_for(self, seconds: float) -> bool:
        """Say whether what takes so long would end in time."""
        return time.monotonic() - self.started + seconds <= self.within_s


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program that imports this project, with some variables."""
    paths = [str(ROOT), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


def called(
    command: Sequence[str | Path], log: Path, *, where: Path = ROOT, **variables: str
) -> float:
    """Run a program of this environment's Python to its end; return its seconds.

    Args:
        command: arguments of Python.
        log: file for what it writes.
        where: the folder it runs in.
        variables: of its environment, more than this process has.

    Raises:
        RuntimeError: if it fails, with the last lines of its log.
    """
    started = time.monotonic()
    with log.open("w") as file:
        ended = subprocess.run(
            [sys.executable, *map(str, command)], cwd=where, env=environment(**variables),
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if ended.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{command[0]}: exit code {ended.returncode}\n{last}")
    return time.monotonic() - started


def read(file: Path) -> dict[str, Any] | None:
    """Return what a piece gave; ``None`` = it was not done."""
    return json.loads(file.read_text()) if file.is_file() else None


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Keep what a piece gave: whole or not at all."""
    partly = file.with_suffix(".partly")
    partly.write_text(json.dumps(content, indent=1) + "\n")
    partly.replace(file)
