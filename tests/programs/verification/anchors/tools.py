"""Run a tool once on all functions, as its users do by default; what it took and what it states.

Of every function a tool states a time and how far that scatters; from those a user takes the
error of the time, as the tool's own documentation has it: half of asv's 99 % interval over 2.58,
pyperf's and pytest-benchmark's standard deviation over the root of the number of values. Ours come
from the model of launches.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from results.statistics.inference import Difference, summed
from results.statistics.launches import contrast, fit_series, slope_weights
from results.statistics.scatter import MOST_DF
from verification.pieces import ROOT, called
from verification.two_runs import exponents, series_of

HERE = Path(__file__).parent


class Grid(NamedTuple):
    """What is timed: every backend at every length, forward.

    Attributes:
        backends: by name.
        lengths: in tokens.
        is_short: whether pyperf starts two processes instead of twenty, and we launch three times.
    """

    backends: tuple[str, ...]
    lengths: tuple[int, ...]
    is_short: bool = False

    @property
    def variable(self) -> dict[str, str]:
        """The environment variable that tells `functions.asked`."""
        return {"VERIFICATION_GRID": json.dumps(self[:2])}


class Stated(NamedTuple):
    """What a tool states after one run.

    Attributes:
        slopes: the exponent of each backend.
        times: the log of its time at the longest length.
    """

    slopes: dict[str, Difference]
    times: dict[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON content."""
        return {name: {b: list(d) for b, d in part.items()}
                for name, part in self._asdict().items()}  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Stated:
        """Read what `to_json` returned."""
        return cls(*({b: Difference(*d) for b, d in content[name].items()}
                     for name in cls._fields))  # fmt: skip


def stated_of(grid: Grid, logs: Mapping[tuple[str, int], Difference]) -> Stated:
    """Return exponents by propagation of the errors of independent times."""
    weights = slope_weights(grid.lengths).tolist()
    slopes = {}
    for backend in grid.backends:
        parts = [logs[backend, length] for length in grid.lengths]
        slopes[backend] = summed(
            sum(w * part.centre for w, part in zip(weights, parts, strict=True)),
            [((w * part.error) ** 2, part.df) for w, part in zip(weights, parts, strict=True)],
        )
    return Stated(slopes, {b: logs[b, grid.lengths[-1]] for b in grid.backends})


def log_of(value: float, error: float, df: int) -> Difference:
    """Return the log of a time with its error, from those in seconds."""
    return Difference(math.log(value), error / value, max(1, min(MOST_DF, df)))


def attnbench(grid: Grid, folder: Path) -> tuple[float, Stated]:
    """Run preset quick on these backends, forward, as long as its planner says."""
    backends = [word for name in grid.backends for word in ("--backend", name)]
    lengths = ",".join(map(str, grid.lengths))
    seconds = called(
        ["-m", "cli", "run", "--preset", "quick", *backends, "--seq-len", lengths,
         "--mode", "forward", "--resume", "--out", folder / "run",
         *(("--launches", "3", "--sample-time", "0.02") if grid.is_short else ())],
        folder / "log",
    )  # fmt: skip
    series = series_of(folder / "run")
    cells = fit_series([one.launches for one in series])
    slopes = {one.name: found for one, found in zip(
        series, exponents(series, cells).values(), strict=True)}  # fmt: skip
    times = {one.name: contrast([(1.0, own[-1])])
             for one, own in zip(series, cells, strict=True)}  # fmt: skip
    return seconds, Stated(slopes, times)


def asv(grid: Grid, folder: Path) -> tuple[float, Stated]:
    """Run plain asv in this environment, with its default repeats and processes."""
    suite = folder / "benchmarks"
    suite.mkdir(exist_ok=True)
    (suite / "__init__.py").touch()
    (suite / "forward.py").write_text((HERE / "for_asv.py").read_text())
    config = {
        "version": 1, "project": "functions", "repo": ".", "branches": ["HEAD"],
        "environment_type": "existing", "benchmark_dir": "benchmarks", "results_dir": "results",
        "env_dir": "env", "html_dir": "html",
    }  # fmt: skip
    (folder / "asv.conf.json").write_text(json.dumps(config))
    commit = _commit(folder)
    variables = {
        **grid.variable, "HOME": str(folder),
        "ASV_PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE.parents[1]))),
    }  # fmt: skip
    called(["-m", "asv", "machine", "--yes", "--machine", "here"], folder / "machine.log",
           where=folder, **variables)  # fmt: skip
    seconds = called(
        ["-m", "asv", "run", "--python=same", "--set-commit-hash", commit, "--machine", "here"],
        folder / "log", where=folder, **variables,
    )  # fmt: skip
    (file,) = (folder / "results" / "here").glob(f"{commit[:8]}-*.json")
    content = json.loads(file.read_text())
    row = dict(zip(
        content["result_columns"], content["results"]["forward.Forward.time_forward"], strict=False
    ))  # fmt: skip
    keys = [(b, n) for b in grid.backends for n in grid.lengths]
    ends = zip(row["result"], row["stats_ci_99_a"], row["stats_ci_99_b"], strict=True)
    logs = {
        key: log_of(middle, (high - low) / 2 / 2.576, MOST_DF)
        for key, (middle, low, high) in zip(keys, ends, strict=True)
    }
    return seconds, stated_of(grid, logs)


def _commit(folder: Path) -> str:
    """Make the folder a repository with a commit, which asv asks for; return its hash."""

    def git(*words: str) -> str:
        said = subprocess.run(
            ["git", "-c", "user.name=none", "-c", "user.email=none@localhost", *words],
            cwd=folder, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return said.stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "none")
    return git("rev-parse", "HEAD")


def pyperf(grid: Grid, folder: Path) -> tuple[float, Stated]:
    """Run pyperf's script with its default processes and values."""
    import pyperf as library

    file = folder / "pyperf.json"
    file.unlink(missing_ok=True)
    seconds = called(
        [HERE / "for_pyperf.py", "--output", file,
         "--inherit-environ", "PYTHONPATH,VERIFICATION_GRID",
         *(("--processes", "2") if grid.is_short else ())],
        folder / "log", **grid.variable,
    )  # fmt: skip
    logs = {}
    for benchmark in library.BenchmarkSuite.load(str(file)).get_benchmarks():
        backend, length = benchmark.get_name().split()
        count = benchmark.get_nvalue()
        error = benchmark.stdev() / math.sqrt(count)
        logs[backend, int(length)] = log_of(benchmark.mean(), error, count - 1)
    return seconds, stated_of(grid, logs)


def pytest_benchmark(grid: Grid, folder: Path) -> tuple[float, Stated]:
    """Run pytest-benchmark in one process with its default rounds."""
    file = folder / "benchmark.json"
    seconds = called(
        ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", "/dev/null",
         "--rootdir", folder, "--import-mode=importlib", HERE / "for_pytest_benchmark.py",
         f"--benchmark-json={file}"],
        folder / "log", where=folder, **grid.variable,
    )  # fmt: skip
    logs = {}
    for one in json.loads(file.read_text())["benchmarks"]:
        stats, asked = one["stats"], one["params"]
        error = stats["stddev"] / math.sqrt(stats["rounds"])
        logs[asked["backend"], asked["length"]] = log_of(stats["mean"], error, stats["rounds"] - 1)
    return seconds, stated_of(grid, logs)


TOOLS: Mapping[str, Callable[[Grid, Path], tuple[float, Stated]]] = {
    "attnbench": attnbench,
    "asv": asv,
    "pyperf": pyperf,
    "pytest-benchmark": pytest_benchmark,
}


def missing(modules: Sequence[str] = ("pyperf", "pytest_benchmark")) -> list[str]:
    """Return what is not installed of what the tools need."""
    from importlib.util import find_spec

    return [name for name in modules if find_spec(name) is None]
