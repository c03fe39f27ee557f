"""Measure on a fresh CUDA machine, without network: tests, then sweeps, into one archive.

    python3 tests/programs/measure_gpu.py --wheels wheels --limit 540 --copy-to DIR  # `make gpu`

`STAGES` is what is done, the most valuable first, and docs/gpu.md says how to use it. Each stage
ends by itself or is interrupted at its limit; what it has is kept, and the next call goes on
there. Nothing but Python's own modules is needed to start it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = "attnbench-gpu.tar.gz"
STAGE_LIMIT_S = 530.0
"""The longest that a stage may take at a time: a lent machine ends a command after ten minutes."""
LEAST_S = 40.0
"""A stage is not begun with less time left."""
END_S = 25.0
"""How long an interrupted stage has to write down what it has."""
ARCHIVE_EVERY_S = 60.0
"""The archive is written anew so often while a stage runs: a machine may be taken away."""
LOG_BYTES = 200_000
"""Of a stage's output, the last so many bytes are archived."""
LARGEST_ARCHIVE = 16 << 20

_SHAPE = ("--batch", "4", "--num-heads", "16")
_BOTH = ("--mode", "forward,training")


@dataclass(frozen=True)
class Stage:
    """Something that is run to its end, if need be in several calls.

    Attributes:
        name: of its folder.
        what: it is for.
        arguments: of `attnbench run`, without device, dtype and folder; empty = of its own kind.
        small: in place of `arguments` in a rehearsal.
    """

    name: str
    what: str
    arguments: tuple[str, ...] = ()
    small: tuple[str, ...] = ()


STAGES = (
    Stage("machine", "what is here, and what would disturb a measurement"),
    Stage("tests", "correctness, the tests marked `gpu`"),
    Stage(
        "long", "all backends from 8,192 to 65,536 tokens, the exponents",
        ("--preset", "standard", "--launches", "1", "--seq-len", "8192,16384,32768,65536",
         *_SHAPE, *_BOTH),
        ("--preset", "quick", "--launches", "1", "--backend", "sdpa", "--seq-len", "64,96"),
    ),
    Stage(
        "kernels", "which exact kernel is the fastest at 16,384 tokens",
        ("--preset", "kernels"),
        ("--preset", "kernels", "--launches", "1", "--seq-len", "64"),
    ),
    Stage(
        "peers", "other libraries beside our backends",
        ("peers", "--launches", "2", "--seq-len", "4096", *_SHAPE),
        ("peers", "--launches", "1", "--seq-len", "64", "--peers", "torch-sdpa"),
    ),
    Stage(
        "short", "all backends from 512 to 4,096 tokens",
        ("--preset", "standard", "--launches", "1", "--seq-len", "512,1024,2048,4096",
         *_SHAPE, *_BOTH),
    ),
    Stage(
        "million", "the linear ones to 1,048,576 tokens",
        ("--preset", "million",),
    ),
    Stage(
        "decode", "one token after 512 to 131,072",
        ("--preset", "decode", "--launches", "1", "--seq-len", "512,2048,8192,32768,131072",
         *_SHAPE),
    ),
    Stage(
        "wide", "heads of width 128",
        ("--preset", "standard", "--launches", "1", "--seq-len", "4096,8192,16384,32768",
         "--head-dim", "128", *_SHAPE, *_BOTH),
    ),
    Stage(
        "profile", "where the time goes at 16,384 tokens",
        ("--preset", "standard", "--launches", "1", "--seq-len", "16384", "--profile",
         *_SHAPE, *_BOTH),
    ),
    Stage(
        "longest", "all backends at 131,072 tokens",
        ("--preset", "full", "--launches", "1", "--seq-len", "131072", *_SHAPE, *_BOTH),
    ),
    Stage(
        "block", "a transformer block at 16,384 tokens",
        ("--preset", "standard", "--launches", "1", "--seq-len", "16384", "--level", "block",
         *_SHAPE, *_BOTH),
    ),
    Stage(
        "models", "whole models at their published sizes",
        ("--preset", "models", "--launches", "1"),
    ),
    Stage(
        "compile", "torch.compile against none",
        ("--preset", "standard", "--launches", "1", "--seq-len", "4096", "--compile", "off,on",
         *_SHAPE, *_BOTH),
    ),
    Stage(
        "again", "stage long in two more processes, for intervals",
        ("--preset", "standard", "--launches", "3", "--seq-len", "8192,16384,32768,65536",
         *_SHAPE, *_BOTH),
        ("--preset", "quick", "--launches", "2", "--backend", "sdpa", "--seq-len", "64,96"),
    ),
)  # fmt: skip
GOES_ON_IN = {"again": "long"}
"""Stages that add to the records of another."""


class Campaign:
    """The stages, and how far each of them is.

    Args:
        folder: of the stages' folders, their logs and `state.json`.
        python: that attnbench is installed for.
        limit_s: when to stop, in seconds from now; ``None`` = when all is done.
        copies: folders that each archive is copied to.
        rehearse: run a few short stages on the CPU instead.
        only: names of stages; empty = all.
    """

    def __init__(
        self,
        folder: Path,
        python: Path,
        *,
        limit_s: float | None = None,
        copies: Sequence[Path] = (),
        rehearse: bool = False,
        only: Sequence[str] = (),
    ) -> None:
        self.folder, self.python, self.rehearse = folder, python, rehearse
        self._copies = copies
        self._ends = float("inf") if limit_s is None else time.monotonic() + limit_s
        self._stages = [
            stage for stage in STAGES
            if (not only or stage.name in only)
            and (not rehearse or stage.small or not stage.arguments)
        ]  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "state.json"
        self.state: dict[str, dict[str, object]] = (
            json.loads(file.read_text()) if file.exists() else {}
        )
        self._archived = 0.0

    @property
    def left(self) -> list[Stage]:
        """Stages that have not come to their end."""
        return [s for s in self._stages if self.state.get(s.name, {}).get("end") != "done"]

    def run(self) -> None:
        """Run what is left, as far as the time goes; stages that were interrupted come last."""
        failed: set[str] = set()
        while waiting := [stage for stage in self.left if stage.name not in failed]:
            for stage in waiting:
                if self._ends - time.monotonic() < LEAST_S:
                    return
                if self._run(stage) == "failed":
                    failed.add(stage.name)

    def _run(self, stage: Stage) -> str:
        """Run a stage until it ends or its time is over; return how it ended."""
        started = time.monotonic()
        seconds = min(STAGE_LIMIT_S, self._ends - started - END_S)
        say(f"{stage.name}: {stage.what}")
        with (self.folder / f"{stage.name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(stage), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            code = self._awaited(process, started + seconds)
        end = "interrupted" if code is None else "failed" if code else "done"
        if stage.name == "tests":
            self._note_tests()
        before = self.state.get(stage.name, {})
        took = time.monotonic() - started
        self.state[stage.name] = {
            "end": end,
            "code": code,
            "seconds": round(float(str(before.get("seconds", 0))) + took, 1),
            **({"passed": before["passed"]} if "passed" in before else {}),
        }
        write(self.folder / "state.json", json.dumps(self.state, indent=1))
        self.archive()
        say(f"{stage.name}: {end} after {took:.0f} s")
        return end

    def _awaited(self, process: subprocess.Popen[bytes], until: float) -> int | None:
        """Wait for a stage; interrupt it when its time is over. None = it was."""
        try:
            while time.monotonic() < until:
                try:
                    return process.wait(timeout=min(5.0, max(0.1, until - time.monotonic())))
                except subprocess.TimeoutExpired:
                    if time.monotonic() - self._archived > ARCHIVE_EVERY_S:
                        self.archive()
            process.send_signal(signal.SIGINT)  # the sweep ends its children itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_S)
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def command(self, stage: Stage) -> list[str]:
        """Return what a stage runs."""
        python = str(self.python)
        if stage.name == "machine":
            return [python, "-m", "cli", "doctor", "--json"]
        if stage.name == "tests":
            passed = self.state.get("tests", {}).get("passed", [])
            assert isinstance(passed, list)
            skipped = [f"--deselect={name}" for name in passed]
            return [
                python, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-q", "-rfE",
                f"--junitxml={self.folder / 'tests.xml'}", *skipped, *files_with_gpu_tests(),
            ]  # fmt: skip
        device = "cpu" if self.rehearse else "cuda"
        dtype = () if self.rehearse else ("--dtype", "bfloat16")
        out = self.folder / GOES_ON_IN.get(stage.name, stage.name)
        arguments = stage.small if self.rehearse else stage.arguments
        return [
            python, "-m", "cli", "run", *arguments, "--device", device, *dtype, "--resume",
            "--out", str(out),
        ]  # fmt: skip

    def _note_tests(self) -> None:
        """Keep which tests passed, for the next call."""
        told = self.state.setdefault("tests", {})
        before = told.get("passed", [])
        assert isinstance(before, list)
        file = self.folder / "tests.xml"
        passed = [*before, *passed_tests(file)] if file.exists() else before
        told["passed"] = sorted(set(passed))
        if file.exists():  # of this call; the next one's is of what is left
            number = len(list(self.folder.glob("tests-*.xml")))
            told_of = ElementTree.parse(file)
            for suite in told_of.iter("testsuite"):
                suite.attrib.pop("hostname", None)  # of whom nobody needs to know
            told_of.write(self.folder / f"tests-{number}.xml")
            file.unlink()

    def archive(self) -> None:
        """Write all that was found so far into one file, and copy that."""
        file = self.folder / ARCHIVE
        new = file.with_suffix(".new")
        with tarfile.open(new, "w:gz") as made:
            for name, path in kept(self.folder):
                made.add(path, name, recursive=False)
        new.replace(file)
        if (size := file.stat().st_size) > LARGEST_ARCHIVE:
            say(f"{file.name} has {size / 2**20:.0f} MiB: more than is carried easily")
        for folder in self._copies:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / f"{file.name}.new")
            (folder / f"{file.name}.new").replace(folder / file.name)
        self._archived = time.monotonic()


def kept(folder: Path) -> Iterator[tuple[str, Path]]:
    """Walk what is archived: records and descriptions, tables of profiles, ends of logs."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        wanted = file.suffix in (".jsonl", ".json", ".xml", ".csv") and name.parts[-2:-1] != (
            "trained",
        )
        if file.is_file() and wanted and not file.name.endswith(".trace.json"):
            yield str(name), file
    for log in sorted(folder.glob("*.log")):
        end = log.with_suffix(".log-end")
        with log.open("rb") as held:
            held.seek(max(0, log.stat().st_size - LOG_BYTES))
            end.write_bytes(held.read())
        yield log.name, end


def passed_tests(file: Path) -> list[str]:
    """Return the tests that a JUnit file says passed, as pytest names them."""
    found = []
    for case in ElementTree.parse(file).iter("testcase"):
        if not any(child.tag in ("failure", "error", "skipped") for child in case):
            path = case.get("classname", "").replace(".", "/")
            found.append(f"{path}.py::{case.get('name')}")
    return found


def files_with_gpu_tests() -> list[str]:
    """Return the files that have tests marked `gpu`: others may need what is not there."""
    return [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in file.read_text()
    ]


# -- the environment -----------------------------------------------------------------------------


def prepare(folder: Path, wheels: Path | None) -> Path:
    """Make an environment beside that of the machine's own Python, with what wheels there are.

    Returns:
        its Python.

    Raises:
        SystemExit: if something is still missing; naming it.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"environment: {folder}")
        subprocess.run(
            [sys.executable, "-m", "venv", "--system-site-packages", str(folder)], check=True
        )
        # An environment of an environment sees the outermost packages alone, but for this.
        own = next((folder / "lib").glob("python*")) / "site-packages"
        outer = [p for p in sys.path if p.endswith("-packages") and Path(p).is_dir()]
        (own / "machine.pth").write_text("\n".join([str(ROOT), *outer]) + "\n")
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        told = own / f"attnbench-{version}.dist-info"  # what pip would have written, for records
        told.mkdir()
        (told / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: attnbench\nVersion: {version}\n"
        )
    files = sorted(map(str, wheels.glob("*.whl"))) if wheels else []
    if files:
        pip(python, "--no-deps", "--no-index", *files)
    told = subprocess.run(
        [str(python), __file__, "--missing"], capture_output=True, text=True, check=False
    )
    if told.returncode or told.stdout.strip():
        raise SystemExit(
            f"measure_gpu: this machine lacks {told.stdout.strip() or told.stderr.strip()}; put "
            "wheels of them into a folder and name it: make gpu WHEELS=folder (docs/gpu.md)"
        )
    return python


def pip(python: Path, *arguments: str) -> None:
    """Install into an environment."""
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-compile", *arguments],
        check=True,
    )  # fmt: skip


def missing() -> list[str]:
    """Return the packages that attnbench and its tests on a GPU need and that are not here."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*told["dependencies"], "pytest", "pytest-timeout", "hypothesis", "triton"]
    found = []
    for one in needed:
        name = one.split(";")[0].split("#")[0]
        for sign in "=<>[,! ":
            name = name.split(sign)[0]
        if not is_installed(name):
            found.append(name)
    return sorted(set(found))


def is_installed(name: str) -> bool:
    """Say whether a distribution is here."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def unpack(archive: Path, folder: Path) -> None:
    """Put what another machine's call has found in its place, where nothing is yet."""
    if (folder / "state.json").exists():
        say(f"{folder} has results of its own: {archive.name} is not unpacked")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as held:
        held.extractall(folder, filter="data")


# -- the command ---------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that are left; return 0 if none failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="a folder of wheels of what is missing")
    parser.add_argument("--limit", type=float, help="seconds that this call may take")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--copy-to", type=Path, action="append", default=[], metavar="FOLDER",
                        help="where each archive is copied to")  # fmt: skip
    parser.add_argument("--go-on-from", type=Path, metavar="ARCHIVE")
    parser.add_argument("--only", default="", help="names of stages, with commas")
    parser.add_argument("--rehearse", action="store_true", help="short stages on the CPU")
    parser.add_argument("--list", action="store_true", help="say what the stages are")
    parser.add_argument("--missing", action="store_true", help="say which packages are not here")
    given = parser.parse_args(arguments)
    if given.list:
        for stage in STAGES:
            say(f"{stage.name:9} {stage.what}")
        return 0
    if given.missing:
        say(", ".join(missing()))
        return 0
    only = [name for name in given.only.split(",") if name]
    if unknown := set(only) - {stage.name for stage in STAGES}:
        parser.error(f"--only: no stage {', '.join(sorted(unknown))}; see --list")
    started = time.monotonic()
    folder = given.folder.resolve()
    if given.go_on_from:
        unpack(given.go_on_from, folder)
    python = Path(sys.executable)
    if not given.rehearse:
        python = prepare(ROOT / ".venv-gpu", given.wheels)
    spent = time.monotonic() - started
    limit_s = None if given.limit is None else given.limit - spent
    campaign = Campaign(
        folder, python, limit_s=limit_s, copies=given.copy_to, rehearse=given.rehearse, only=only
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with the same end as Ctrl-C
    try:
        campaign.run()
    finally:
        campaign.archive()
    ends = {name: told["end"] for name, told in campaign.state.items()}
    say(f"{sum(end == 'done' for end in ends.values())} of {len(STAGES)} stages are done")
    for stage in campaign.left:
        say(f"  {stage.name}: {ends.get(stage.name, 'not begun')}")
    say(f"all of it: {folder / ARCHIVE}")
    return int("failed" in ends.values())


if __name__ == "__main__":
    sys.exit(main())
