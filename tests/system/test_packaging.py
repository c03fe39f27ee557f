"""Packaging: what pyproject lists is what there is, pins are whole, `make` speaks clearly."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
TOP_LEVEL = ("attention", "models", "suites", "results")


def requirement_name(line: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", line)
    assert found, line
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in found), found
    return {requirement_name(name): version for name, version in found}


def test_every_package_is_listed_and_typed() -> None:
    there = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in TOP_LEVEL
        for file in (ROOT / top).rglob("__init__.py")
    }
    find = PYPROJECT["tool"]["setuptools"]["packages"]["find"]
    assert set(find_packages(str(ROOT), include=find["include"])) == there
    for top in TOP_LEVEL:
        assert (ROOT / top / "py.typed").exists()
        assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"][top]


def test_data_that_the_code_reads_is_package_data() -> None:
    globs = PYPROJECT["tool"]["setuptools"]["package-data"]
    for top in TOP_LEVEL:
        listed = {file for glob in globs[top] for file in (ROOT / top).glob(glob)}
        data = {
            file
            for file in (ROOT / top).rglob("*")
            if file.is_file() and file.suffix not in (".py", ".pyc")
        }
        assert data <= listed, sorted(str(file) for file in data - listed)


def test_the_wheel_can_reach_no_index_and_starts_the_command() -> None:
    assert "Private :: Do Not Upload" in PROJECT["classifiers"]
    assert PROJECT["scripts"] == {"attnbench": "cli:main"}
    assert PYPROJECT["tool"]["setuptools"]["py-modules"] == ["cli"]
    assert PROJECT["requires-python"] == ">=3.11"


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {PROJECT['version']}\n" in citation
    assert importlib.metadata.version("attnbench") == PROJECT["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings
    assert headings[0] in ("Unreleased", PROJECT["version"])


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    from packaging.requirements import Requirement

    pinned = pins()
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in (line for group in groups for line in group):
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:  # an extra that holds another one
            assert requirement.extras <= set(PROJECT["optional-dependencies"]), line
            continue
        version = pinned[requirement_name(requirement.name)]
        assert requirement.specifier.contains(version), line
    assert "+" not in pinned["torch"]  # a local version would exclude the other builds of torch


def test_what_is_installed_here_is_what_is_pinned() -> None:
    differing = {}
    for name, version in pins().items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is not installed, or of another platform
        if here.partition("+")[0] != version:
            differing[name] = f"pinned {version}, installed {here}"
    assert differing == {}


def test_no_file_names_a_package_index() -> None:
    hosts = re.compile(r"(?:pypi|pythonhosted|download\.pytorch|files\.|conda\.)\S*\.(?:org|io)")
    tracked = [
        *ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.txt"), ROOT / "Makefile",
        *(ROOT / ".ci").iterdir(), *(ROOT / "docs").rglob("*.md"),
    ]  # fmt: skip
    assert len(tracked) > 8
    for file in tracked:
        assert not hosts.search(file.read_text()), file


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def fake_python(folder: Path, name: str, body: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def make(
    cwd: Path, *arguments: str, path: str | None = None, copied: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run make on our Makefile in a folder that holds only what it reads."""
    for name in () if copied else ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, cwd / name)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    if path is not None:
        env["PATH"] = path
    program = shutil.which("make")
    assert program
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


@needs_make
@pytest.mark.parametrize("target", ["bench", "test"])
def test_make_says_when_python_is_too_old(target: str, tmp_path: Path) -> None:
    old = fake_python(tmp_path, "python3.9", 'case "$2" in *exit*) exit 1;; *) echo 3.9.18;; esac')
    done = make(tmp_path, target, f"PYTHON={old}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert f"{old}: 3.9.18" in done.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_make_says_when_there_is_no_python(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "sed"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    done = make(tmp_path, "bench", path=str(tools))
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "python3.12: not there" in done.stderr


@needs_make
def test_make_passes_over_a_python_that_does_not_run(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    fake_python(tools, "python3.13", "exit 127")  # a version manager's shim of nothing
    fake_python(tools, "python3.12", 'test "$1" = -c || { echo "$0 $*"; exit 9; }')
    (tools / "sed").symlink_to(str(shutil.which("sed")))
    (tools / "rm").symlink_to(str(shutil.which("rm")))
    (tools / "sh").symlink_to(str(shutil.which("sh")))
    done = make(tmp_path, "bench", path=str(tools))
    assert "python3.12 -m venv .venv" in done.stdout
    assert "python3.12 cannot make an environment" in done.stderr


@needs_make
def test_make_does_what_is_done_only_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = tmp_path / ".venv" / "bin"
    environment.mkdir(parents=True)
    fake_python(environment, "python", f'echo "python $*" >> {log}')
    fake_python(environment, "attnbench", f'echo "attnbench $*" >> {log}')
    for _ in range(2):
        done = make(tmp_path, "bench")
        assert done.returncode == 0, done.stderr
        assert "--out runs/quick" in done.stdout
    lines = log.read_text().splitlines()
    installs = [line for line in lines if " install " in line]
    assert len(installs) == 1
    assert "--constraint constraints.txt --editable ." in installs[0]
    assert lines.count("attnbench run --preset quick --resume --out runs/quick") == 2

    later = (tmp_path / ".venv" / ".installed-run").stat().st_mtime + 5
    os.utime(tmp_path / "pyproject.toml", (later, later))
    again = make(tmp_path, "bench", copied=True)
    assert again.returncode == 0, again.stderr
    assert len([line for line in log.read_text().splitlines() if " install " in line]) == 2


@needs_make
def test_make_takes_torch_from_the_index_that_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = tmp_path / ".venv" / "bin"
    environment.mkdir(parents=True)
    fake_python(environment, "python", f'echo "$*" >> {log}')
    fake_python(environment, "attnbench", "true")
    done = make(tmp_path, "bench", "TORCH_INDEX=https://example.org/cpu")
    assert done.returncode == 0, done.stderr
    installs = [line for line in log.read_text().splitlines() if " install " in line]
    version = pins()["torch"]
    assert installs[0].endswith(f"--no-deps --index-url https://example.org/cpu torch=={version}")
    assert installs[1].endswith("--editable .")
