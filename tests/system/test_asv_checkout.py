"""Plain asv in a checkout, as docs/asv.md says: run, show, compare and publish."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic
from asv.commands import make_argparser

from results.export.asv import export_asv
from results.records.load import load

ROOT = Path(__file__).parents[2]

ONE_CASE = r"AttentionSpeed.*'sdpa', 512, 'forward'"
NAME = "benchmarks.AttentionSpeed.measure_latency"


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "gc.auto=0")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of two commits that holds this checkout's files as they are."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    for name in listed.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "results/reference/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch=trunk")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "before")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "after")
    return folder


def asv(checkout: Path, *arguments: str) -> str:
    """Run asv as a user in the checkout does who has no settings of asv yet."""
    home = checkout.parent / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "asv", *arguments], cwd=checkout, capture_output=True, text=True,
        check=False, env={**os.environ, "HOME": str(home), "ASV_PYTHONPATH": str(checkout)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_run_show_compare_and_publish(checkout: Path) -> None:
    asv(checkout, "machine", "--yes", "--machine", "here")
    for commit in ("HEAD~1", "HEAD"):
        of = git(checkout, "rev-parse", commit)
        said = asv(
            checkout, "run", "--set-commit-hash", of, "--machine", "here", "--bench", ONE_CASE
        )
        assert "failed" not in said
        assert "benchmarks.AttentionSpeed.measure_latency" in said
    results = sorted((checkout / ".asv/results/here").glob("*-existing-*.json"))
    assert len(results) == 2
    content = json.loads(results[0].read_text())
    row = dict(zip(content["result_columns"], content["results"][NAME], strict=False))
    measured = [value for value in row["result"] if value is not None and value == value]
    assert len(measured) == 1
    assert 0 < measured[0] < 60

    shown = asv(checkout, "show", "HEAD")
    assert f"{NAME} [here/existing-" in shown
    assert re.search(r"sdpa\s+512\s+\S*\d\S*[mμu]?s", shown), shown

    compared = asv(checkout, "compare", "HEAD~1", "HEAD")
    (line,) = [r for r in compared.splitlines() if f"{NAME}('sdpa', 512, 'forward')" in r]
    _, _, before, after, ratio, _, _ = map(str.strip, line.split("|"))
    assert re.fullmatch(r"[\d.]+(±[\d.]+)?[mμu]?s", before), line
    assert re.fullmatch(r"[\d.]+(±[\d.]+)?[mμu]?s", after), line
    assert re.fullmatch(r"~?\d+\.\d\d", ratio), line

    asv(checkout, "publish")
    index = json.loads((checkout / ".asv/html/index.json").read_text())
    assert index["benchmarks"][NAME]["unit"] == "seconds"
    assert len(index["revision_to_hash"]) == 2
    assert git(checkout, "status", "--short") == "", "asv writes into ignored folders alone"


def test_the_page_shows_commands_that_asv_takes() -> None:
    page = (ROOT / "docs/asv.md").read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    commands = [
        words[1:]
        for part in re.split(r"\n| && ", blocks)
        if (words := shlex.split(part.replace("$(git rev-parse HEAD)", "COMMIT"), comments=True))
        and words[0] == "asv"
    ]
    parser, _ = make_argparser()
    for words in commands:
        assert parser.parse_args(words)  # ends the process where it refuses
    assert {words[0] for words in commands} >= {"publish", "show", "compare", "machine", "run"}


def test_the_addresses_on_the_page_are_of_benchmarks_that_an_export_makes(tmp_path: Path) -> None:
    folder = synthetic.write_run(
        tmp_path / "run", lengths=(512,), launches=1, modes=("forward", "training", "decode")
    )
    out = export_asv(load(folder), tmp_path / "out").parent
    made = json.loads((out / "asv/results/benchmarks.json").read_text())
    page = (ROOT / "docs/asv.md").read_text()
    named = set(re.findall(r"attention\.\w+\.\w+", page))
    assert len(named) >= 3
    assert named <= made.keys()
