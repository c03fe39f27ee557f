"""Where a version of the project is that measures: a checkout, an environment, or its Python."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from suites.engine.session import SUITES, MisuseError

ENTRY = "benchmarks.py"

_WHERE = "import suites; print(suites.__path__[0])"
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Version:
    """What a side is measured with.

    Attributes:
        python: the interpreter.
        suites: the folder of the suites; the packages beside it are those that are measured.
    """

    python: str
    suites: Path


HERE = Version(sys.executable, SUITES)


def version_at(path: Path) -> Version:
    """Find a version: a checkout, an environment with attnbench in it, or that one's Python.

    A checkout that has an environment of its own, ``.venv``, is measured with it, else with this
    process's.

    Raises:
        MisuseError: if it is none of these.
    """
    if (path / "suites" / ENTRY).is_file():
        its_python = path / ".venv" / "bin" / "python"
        python = str(its_python.absolute()) if its_python.is_file() else sys.executable
        return Version(python, path.resolve() / "suites")
    python_file = path / "bin" / "python" if path.is_dir() else path
    if not python_file.is_file():
        raise MisuseError(
            f"{path} is neither a checkout (a folder with suites/{ENTRY}) nor an environment "
            "(a folder with bin/python) nor a Python"
        )
    python = str(python_file.absolute())  # not resolved: a link decides which environment it is
    try:
        done = subprocess.run(
            [python, "-I", "-c", _WHERE], capture_output=True, text=True, timeout=_PATIENCE_S,
            check=False, cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MisuseError(f"{path} cannot be run as a Python: {error}") from None
    suites = Path(done.stdout.strip())
    if done.returncode or not (suites / ENTRY).is_file():
        raise MisuseError(f"{path} has no attnbench: {' '.join(done.stderr.split())[-200:]}")
    return Version(python, suites)
