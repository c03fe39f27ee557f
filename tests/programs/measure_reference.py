"""Measure the reference results of this machine, all of them, one sweep after the other.

    make reference                                  # hours; again: goes on where it was
    make reference REFERENCE="--only speed,decode"  # some of the sweeps
    make reference REFERENCE="--within 2h"          # what fits; the next call goes on

`SWEEPS` is what is measured. Each is a run under ``runs/reference/``, which `--resume` goes on
with; one that is whole is copied to ``results/reference/<machine>/<sweep>/``, the files that the
documentation is built from, and is not measured again while the measurement stays the same: a
checkout elsewhere on such a machine goes on with the others. A disturbed machine and changed code
are refused before anything is measured: results of one table are of one commit and of a machine
that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.schema import MEASUREMENT
from results.text.settings import machine_name

ROOT = Path(__file__).resolve().parents[2]
FILES = ("environments.jsonl", "machines.jsonl", "records.jsonl")
"""What is kept of a run."""
DONE = "reference.json"
"""In the folder of a whole sweep: its command, commit, and the seconds it took."""
LEAST_S = 60.0
"""A sweep is not begun or gone on with when less time is left."""
HARMLESS = ("gpu", "xformers")
"""Topics of the doctor that disturb no measurement on a CPU."""

_LINEAR = ("longformer", "bigbird", "linformer", "performer")
_COMPILED = tuple(
    word for name in ("sdpa", "longformer", "bigbird", "performer")
    for word in ("--backend", name, "--backend", f"{name}:kernel=compiled")
)  # fmt: skip
_MANY = tuple(word for name in (*_LINEAR, "sdpa") for word in ("--backend", name))


@dataclass(frozen=True)
class Sweep:
    """A run of the reference results.

    Attributes:
        name: of its folder.
        minutes: it takes on two cores, as long as none is done here.
        page: of docs/ that shows it.
        arguments: of `attnbench run`, without the folder.
    """

    name: str
    minutes: float
    page: str
    arguments: tuple[str, ...]


SWEEPS = (
    Sweep(
        "speed", 75, "performance.md",
        ("--preset", "standard", "--seq-len", "512,1024,2048,4096,8192", "--precision", "5%",
         "--budget", "75m"),
    ),
    Sweep(
        "scaling", 45, "performance_long.md",
        ("--preset", "standard", "--mode", "forward", "--case-timeout", "60", "--precision", "5%",
         "--seq-len", "4096,8192,16384,32768,65536,131072", "--budget", "45m"),
    ),
    Sweep("million", 5, "performance_long.md", ("--preset", "million", "--launches", "3")),
    Sweep("decode", 10, "performance_decoding.md", ("--preset", "decode", "--launches", "5")),
    Sweep(
        "decode-block", 4, "performance_decoding.md",
        ("--preset", "decode", "--level", "block", "--backend", "sdpa", "--backend", "longformer",
         "--backend", "performer", "--seq-len", "512,2048,8192,16384"),
    ),
    Sweep("models", 35, "performance_models.md", ("--preset", "models", "--launches", "5")),
    Sweep("peers", 31, "performance_peers.md", ("peers", "--launches", "5")),
    Sweep(
        "short", 10, "performance_peers.md",
        ("peers", "--peers", "torch-sdpa", "--seq-len", "64,128,256,512,1024,2048",
         "--launches", "10"),
    ),
    Sweep(
        "short-causal", 8, "performance_peers.md",
        ("peers", "--peers", "torch-sdpa", "--seq-len", "64,128,256,512,1024,2048",
         "--launches", "10", "--causal"),
    ),
    Sweep(
        "settings", 8, "performance_settings.md",
        (*_MANY, "--seq-len", "4096", "--dtype", "float32,bfloat16", "--threads", "1,2",
         "--matmul-precision", "highest,medium", "--launches", "3"),
    ),
    Sweep(
        "threads", 12, "performance_settings.md",
        (*_MANY, "--seq-len", "512,4096", "--threads", "1,2", "--allocator", "default,retained",
         "--launches", "7"),
    ),
    Sweep(
        "compile", 4, "performance_settings.md",
        ("--preset", "standard", "--seq-len", "2048", "--compile", "off,on", "--launches", "3"),
    ),
    Sweep(
        "compiled", 20, "performance_settings.md",
        (*_COMPILED, "--seq-len", "512,2048,8192", "--precision", "5%", "--budget", "20m"),
    ),
    Sweep(
        "profile", 8, "kernels.md",
        (*_MANY, "--seq-len", "8192", "--dtype", "float32,bfloat16", "--mode", "forward,training",
         "--profile", "--launches", "3"),
    ),
    Sweep("context", 8, "context_parallel.md", ("context",)),
    Sweep("claims", 30, "claims.md", ("claims", "--preset", "standard")),
    Sweep("error", 8, "quality_error.md", ("error", "--preset", "standard")),
    Sweep(
        "error-512-2048", 4, "quality_error.md",
        ("error", "--preset", "standard", "--seq-len", "512,2048"),
    ),
    Sweep("quantized", 4, "quality_text.md", ("quantized",)),
    Sweep("quality", 75, "quality.md", ("quality", "--preset", "standard")),
    Sweep(
        "text", 80, "quality_text.md",
        ("quality", "--task", "language", "--task", "language:objective=masked",
         "--task", "language:objective=denoise"),
    ),
)  # fmt: skip


class Reference:
    """The sweeps, and how far each of them is.

    Args:
        runs: the folder of the runs.
        kept: the folder that whole ones are copied to, one of this machine.
        sweeps: that are asked for.
        command: what starts attnbench.
        within_s: when to stop, in seconds from now; ``None`` = when all is done.
    """

    def __init__(
        self,
        runs: Path,
        kept: Path,
        sweeps: Sequence[Sweep],
        command: Sequence[str],
        *,
        within_s: float | None = None,
    ) -> None:
        self._runs, self._kept, self._sweeps = runs, kept, sweeps
        self._command, self._began = command, time.monotonic()
        self._within_s = within_s

    def done(self, sweep: Sweep) -> Mapping[str, object] | None:
        """Return what is known of a whole sweep; ``None`` = it is not whole."""
        file = self._kept / sweep.name / DONE
        if not file.exists():
            return None
        said: dict[str, object] = json.loads(file.read_text())
        same = (said["arguments"], said["measurement"]) == (list(sweep.arguments), MEASUREMENT)
        return said if same else None

    @property
    def left(self) -> list[Sweep]:
        """Sweeps that are not whole."""
        return [sweep for sweep in self._sweeps if self.done(sweep) is None]

    def run(self) -> list[str]:
        """Run what is left, as far as the time goes.

        Returns:
            The names of sweeps that failed.
        """
        failed = []
        for number, sweep in enumerate(waiting := self.left):
            minutes = sum(one.minutes for one in waiting[number:])
            say(
                f"== {sweep.name}, for docs/{sweep.page}: {len(waiting) - number} of "
                f"{len(self._sweeps)} sweeps left, about {duration(60 * minutes)} in all"
            )
            if (seconds := self._seconds_left()) < LEAST_S:
                say(f"no time left of --within; the same command goes on with {sweep.name}")
                break
            if not self._run(sweep, seconds):
                failed.append(sweep.name)
        return failed

    def _seconds_left(self) -> float:
        spent = time.monotonic() - self._began
        return float("inf") if self._within_s is None else self._within_s - spent

    def _run(self, sweep: Sweep, seconds: float) -> bool:
        """Run a sweep, and keep it if it is whole; return whether it did not fail."""
        folder = self._runs / sweep.name
        began = time.monotonic()
        limit = ["--budget", f"{int(seconds)}s"] if seconds < 60 * sweep.minutes else []
        words = [*self._command, "run", *without_budget(sweep.arguments, limit), *limit,
                 "--resume", "--no-report", "--out", str(folder)]  # fmt: skip
        code = subprocess.run(words, cwd=ROOT, check=False).returncode
        if code:
            say(f"{sweep.name}: exit code {code}; the same command goes on with it")
            return False
        if limit:
            return True  # it may have ended for want of time: the next call tells
        took = time.monotonic() - began
        self._keep(sweep, took)
        return True

    def _keep(self, sweep: Sweep, seconds: float) -> None:
        """Copy a whole sweep's records, say how they came about, and list it in the README."""
        target = self._kept / sweep.name
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy(self._runs / sweep.name / name, target / name)
        told = {
            "arguments": list(sweep.arguments), "commit": commit(), "measurement": MEASUREMENT,
            "seconds": round(seconds, 1),
        }  # fmt: skip
        (target / DONE).write_text(json.dumps(told, indent=1) + "\n")
        (self._kept / "README.md").write_text(readme(self._kept))
        say(f"{sweep.name}: kept in {target.relative_to(self._kept.parent)}")


def readme(kept: Path) -> str:
    """Return the page of a machine's results: what each sweep was measured with, and when."""
    lines = [
        f"# {kept.name}",
        "",
        "`make reference` (tests/programs/measure_reference.py) measures these results, and",
        "docs/build_measured.py and docs/build_claims.py fill the pages of docs/ that show them.",
        "A sweep without a command is of an earlier measurement. Results of two measurements are",
        "not compared with each other (CHANGELOG.md, under Measurement).",
        "",
        f"- Machine: {machine_of(kept)}",
        "",
        "| sweep | date | measurement | commit | shown by | command |",
        "| :-- | :-- | :-- | :-- | :-- | :-- |",
    ]
    for sweep in SWEEPS:
        if not (kept / sweep.name / "records.jsonl").exists():
            continue
        first = first_of(kept / sweep.name / "records.jsonl")
        run = first["run"]
        done = kept / sweep.name / DONE
        told = json.loads(done.read_text()) if done.exists() else {}
        command = f"`attnbench run {' '.join(told['arguments'])}`" if told else ""
        lines.append(
            f"| {sweep.name} | {run[:4]}-{run[4:6]}-{run[6:8]} | {first['measurement']} | "
            f"{told.get('commit') or first['commit'][:8]} | {sweep.page} | {command} |"
        )
    return "\n".join([*lines, ""])


def machine_of(kept: Path) -> str:
    """Return the machine and the versions of one of its sweeps, in words."""
    folder = min(file.parent for file in kept.glob("*/machines.jsonl"))
    about, versions = (
        first_of(folder / name) for name in ("machines.jsonl", "environments.jsonl")
    )
    named = {"torch": "torch", "python": "Python", "blas": "BLAS:", "flags": "instructions:"}
    words = (f"{word} {versions[name]}" for name, word in named.items() if versions.get(name))
    return ", ".join((machine_name(about), f"{about.get('cores')} cores", *words))


def first_of(file: Path) -> dict[str, Any]:
    """Return the first line of a file of JSON lines."""
    with file.open(encoding="utf-8") as lines:
        first: dict[str, Any] = json.loads(lines.readline())
    return first


def without_budget(arguments: Sequence[str], limit: Sequence[str]) -> list[str]:
    """Return a sweep's arguments, without their budget where another one takes its place."""
    if not limit or "--budget" not in arguments:
        return list(arguments)
    at = arguments.index("--budget")
    return [*arguments[:at], *arguments[at + 2 :]]


def disturbances(findings: Iterable[Mapping[str, str]]) -> list[str]:
    """Return what the doctor found that would disturb a measurement here."""
    return [
        f"{one['topic']}: {one['text']}; {one['advice']}"
        for one in findings
        if one["level"] == "problem" and one["topic"] not in HARMLESS
    ]


def name_of(cpu: str, cores: int) -> str:
    """Return the folder's name of a machine: ``epyc-2-cores`` of an AMD EPYC with two cores."""
    words = re.findall(r"[A-Za-z0-9]+", re.sub(r"\([^)]*\)", " ", cpu))
    known = [w for w in words if w.lower() in ("epyc", "xeon", "core", "ryzen", "graviton", "m")]
    return f"{(known or words or ['cpu'])[0].lower()}-{cores}-cores"


def duration(seconds: float) -> str:
    """Return a time in words: ``3 h 20 min``."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def seconds_of(text: str) -> float:
    """Return the seconds of ``90m`` or ``2h``."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: as 90m, 2h or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


def commit() -> str:
    """Return the commit that is checked out; with ``+dirty`` if files differ from it."""
    head = git("rev-parse", "--short=8", "HEAD")
    but_results = ("--", ".", ":!results/reference")
    changed = git("status", "--porcelain", "--untracked-files=no", *but_results)
    return f"{head}+dirty" if changed else head


def git(*words: str) -> str:
    """Return what git prints."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def chosen(text: str) -> list[Sweep]:
    """Return the sweeps of these names.

    Raises:
        argparse.ArgumentTypeError: if there is none of a name.
    """
    by_name = {sweep.name: sweep for sweep in SWEEPS}
    names = text.split(",")
    if unknown := [name for name in names if name not in by_name]:
        raise argparse.ArgumentTypeError(f"no sweep {', '.join(unknown)}: {', '.join(by_name)}")
    return [by_name[name] for name in by_name if name in names]


def main() -> int:
    """Measure the reference results of this machine."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=chosen, default=list(SWEEPS), metavar="NAME,…",
                        help=f"of {', '.join(sweep.name for sweep in SWEEPS)}")  # fmt: skip
    parser.add_argument("--within", type=seconds_of, metavar="TIME", help="as 90m or 2h")
    parser.add_argument("--machine", metavar="NAME", help="of the folder; default: by the CPU")
    parser.add_argument("--list", action="store_true", help="what is done and what is left")
    parser.add_argument(
        "--despite", action="store_true",
        help="measure although the machine is disturbed or files were changed",
    )  # fmt: skip
    options = parser.parse_args()
    attnbench = [sys.executable, "-m", "cli"]
    told = subprocess.run([*attnbench, "doctor", "--json"], cwd=ROOT, capture_output=True,
                          text=True, check=False).stdout  # fmt: skip
    cpu = next((one["text"] for one in json.loads(told) if one["topic"] == "cpu"), "cpu")
    machine = options.machine or name_of(cpu, os.cpu_count() or 1)
    reference = Reference(
        ROOT / "runs" / "reference", ROOT / "results" / "reference" / machine, options.only,
        attnbench, within_s=options.within,
    )  # fmt: skip
    if options.list:
        for sweep in options.only:
            state = "left" if (done := reference.done(sweep)) is None else f"of {done['commit']}"
            say(f"{sweep.name:14}{state:14}about {duration(60 * sweep.minutes)}")
        return 0
    found = disturbances(json.loads(told))
    if commit().endswith("+dirty"):
        found.append("files differ from the commit: commit them, results are recorded with it")
    if found and not options.despite:
        say("\n".join([*found, "nothing was measured; --despite measures all the same"]))
        return 1
    if failed := reference.run():
        say(f"failed: {', '.join(failed)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
