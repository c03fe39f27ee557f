"""`attnbench compare`: exit codes, forms, and pairs of two versions measured in alternation."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner, Result
from helpers_sweep import FAKE_SUITES, wait_until

import cli
from results.schema import MEASUREMENT
from suites.engine.confirm import NAMES
from suites.engine.driver import run_sweep
from suites.engine.session import MisuseError
from suites.engine.versions import version_at
from suites.parsing import parse_backend
from suites.plan import plan_sweep

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "lengths": (512, 1024), "modes": ("forward",), "roof": None, "launches": 5,
}  # fmt: skip
LAWS = {n: synthetic.SEVEN[n] for n in ("full", "sdpa", "longformer", "bigbird")}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of the same, one with sdpa 1.5 times as slow."""
    law = replace(LAWS["sdpa"], coefficient=1.5 * LAWS["sdpa"].coefficient)
    return (
        synthetic.write_run(tmp_path / "base", LAWS, **SMALL),
        synthetic.write_run(tmp_path / "new", {**LAWS, "sdpa": law}, **SMALL, seed=1, run="r2"),
    )


def test_a_regression_is_exit_code_1(folders: tuple[Path, Path]) -> None:
    got = invoke("compare", *folders)
    assert got.exit_code == 1
    assert got.stdout.splitlines()[-1].startswith("2 slower, 0 faster")


def test_one_way_round_is_an_improvement(folders: tuple[Path, Path]) -> None:
    got = invoke("compare", *reversed(folders))
    assert got.exit_code == 0
    assert "0 slower, 2 faster" in got.stdout


def test_json_and_markdown(folders: tuple[Path, Path]) -> None:
    told = json.loads(invoke("compare", *folders, "--json").stdout)
    assert told["regression"] is True
    assert len(told["cases"]) == 8
    assert invoke("compare", *folders, "--markdown").stdout.startswith("### attnbench: a regr")


def test_the_threshold_is_in_percent(folders: tuple[Path, Path]) -> None:
    assert invoke("compare", *folders, "--threshold", 80).exit_code == 0
    assert "changes of at least 80 %" in invoke("compare", *folders, "--threshold", 80).stdout


def test_a_backend_has_a_threshold_of_its_own(folders: tuple[Path, Path]) -> None:
    assert invoke("compare", *folders, "--threshold", "sdpa=80%").exit_code == 0
    got = invoke("compare", *folders, "--threshold", 80, "--threshold", "sdpa=5", "--json")
    assert got.exit_code == 1
    told = json.loads(got.stdout)
    assert (told["threshold"], told["thresholds"]) == (0.8, {"sdpa": 0.05})


def test_only_some_cases_are_judged(folders: tuple[Path, Path]) -> None:
    assert invoke("compare", *folders, "--only", "backend=full,bigbird").exit_code == 0
    got = invoke("compare", *folders, "--only", "backend=sdpa", "--only", "seq-len=512", "--json")
    assert got.exit_code == 1
    assert [c["name"] for c in json.loads(got.stdout)["cases"]] == ["sdpa forward N=512"]


def test_what_is_undecided_fails_on_demand(folders: tuple[Path, Path]) -> None:
    calm = ("compare", folders[0], folders[0], "--threshold", 80, "--fail-on", "inconclusive")
    assert invoke(*calm).exit_code == 0
    got = invoke("compare", *reversed(folders), "--fail-on", "inconclusive")
    assert got.exit_code == 1
    assert "; undecided: " in got.stdout.splitlines()[-1]
    assert invoke("compare", *reversed(folders)).exit_code == 0


def test_memory_can_be_compared(folders: tuple[Path, Path]) -> None:
    got = invoke("compare", *folders, "--metric", "peak_memory")
    assert got.exit_code == 0
    assert "0 larger, 0 smaller, 8 without change" in got.stdout


def test_what_was_left_out_of_a_run_is_said(folders: tuple[Path, Path]) -> None:
    with (folders[0] / "records.jsonl").open("a") as file:
        file.write("torn\n")
    assert "note: BASE: " in invoke("compare", *folders).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--markdown"], "--json: beside --markdown"),
        (["--confirm"], "--base-from: --confirm measures both versions again"),
        (["--base-from", "."], "--base-from: goes with --confirm"),
        (["--max-pairs", "9"], "--max-pairs: goes with --confirm"),
        (["--resume"], "--resume: goes with --confirm"),
        (["--metric", "speed"], "'speed' is not one of 'latency'"),
        (["--threshold", "0"], "expected PERCENT or BACKEND=PERCENT, above 0 to 900, got '0'"),
        (["--threshold", "sdpa=x"], "expected PERCENT or BACKEND=PERCENT, above 0 to 900"),
        (["--threshold", "2", "--threshold", "3"], "--threshold: given twice for all backends"),
        (
            ["--threshold", "sdpaa=2"],
            "threshold: no case of NEW is of sdpaa; there are full,",
        ),
        (["--only", "sdpa"], "--only: expected NAME=VALUE,… with NAME of backend, mode, level"),
        (["--only", "mode=training"], "no case in both runs has mode=training; there are forward"),
        (["--confirm", "--base-from", ".", "--max-pairs", "4"], "4 is not in the range"),
    ],
)
def test_misuse_is_one_line(folders: tuple[Path, Path], options: list[str], message: str) -> None:
    got = invoke("compare", *folders, *options)
    assert (got.exit_code, got.stdout) == (2, "")
    assert message in got.stderr
    assert len(got.stderr.splitlines()) == 1


def test_runs_that_cannot_be_compared_are_misuse(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    old = synthetic.write_run(tmp_path / "old", LAWS, **SMALL, measurement=MEASUREMENT - 1)
    got = invoke("compare", old, folders[1])
    assert got.exit_code == 2
    assert "not comparable" in got.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert invoke("compare", empty, folders[1]).exit_code == 2


# -- where a version is --------------------------------------------------------------------------


def test_a_checkout_an_environment_and_its_python_are_versions(tmp_path: Path) -> None:
    checkout = version_at(ROOT)
    assert checkout.suites == ROOT / "suites"
    environment = Path(sys.executable).parents[1]
    for path in (environment, environment / "bin" / "python"):
        found = version_at(path)
        assert Path(found.python) == environment / "bin" / "python"
        assert (found.suites / "benchmarks.py").is_file()
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "benchmarks.py").touch()
    assert version_at(tmp_path).python == sys.executable
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert version_at(tmp_path).python == str(own)


def test_what_is_no_version_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match=r"neither a checkout .* nor an environment"):
        version_at(tmp_path)
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'no module named suites' >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(MisuseError, match="has no attnbench: no module named suites"):
        version_at(program)
    program.chmod(0o644)
    with pytest.raises(MisuseError, match="cannot be run as a Python"):
        version_at(program)


# -- pairs ---------------------------------------------------------------------------------------


def a_version(place: Path, factor: float = 1.0) -> Path:
    """Lay down a checkout of the stand-in suites whose backend `linear` is slower by a factor."""
    suites = place / "suites"
    suites.mkdir(parents=True)
    (suites / "__init__.py").touch()
    text = (FAKE_SUITES / "benchmarks.py").read_text()
    formula = "scale * one.seq_len**power"
    assert formula in text
    slower = f"({factor} if arm.name == 'linear' else 1.0) * {formula}"
    (suites / "benchmarks.py").write_text(text.replace(formula, slower))
    (place / "results").symlink_to(ROOT / "results")
    return place


def two_versions(tmp_path: Path, factor: float, *backends: str) -> list[Path]:
    """Lay down two versions, and a run of each with one launch: all are suspects."""
    made = []
    for name, by in zip(NAMES, (1.0, factor), strict=True):
        root = a_version(tmp_path / f"{name}-checkout", by)
        grid = plan_sweep(
            "quick", backends=tuple(map(parse_backend, backends)), seq_lens=(16,),
            modes=("forward",), launches=1, threads=(1,), case_timeout_s=20.0,
        )  # fmt: skip
        run_sweep(grid, tmp_path / name, progress=Silent(), benchmark_dir=root / "suites")
        made.append(root)
    return made


def confirming(tmp_path: Path, old: Path, fresh: Path) -> list[object]:
    """Return the command that settles the runs of `two_versions` by pairs of these versions."""
    runs = (tmp_path / name for name in NAMES)
    where = ("--base-from", old, "--new-from", fresh, "--out", tmp_path / "pairs")
    return ["compare", *runs, "--confirm", *where]


class Silent:
    def begin(self, *_: object) -> None: ...
    def starting(self, *_: object) -> None: ...
    def finished(self, *_: object) -> None: ...


def launches(folder: Path) -> list[tuple[str, int]]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [(r["case"]["arms"][0]["name"], r["launch"]["index"]) for r in found]


def test_a_slowdown_is_confirmed_in_alternating_launches(tmp_path: Path) -> None:
    old, fresh = two_versions(tmp_path, 1.1, "linear", "quadratic")
    got = invoke(*confirming(tmp_path, old, fresh), "--json")
    assert got.exit_code == 1
    told = {c["name"].split()[0]: c for c in json.loads(got.stdout)["cases"]}
    assert (told["linear"]["verdict"], told["linear"]["pairs"]) == ("slower", 5)
    assert told["linear"]["ratio"] == pytest.approx(1.1)
    assert (told["quadratic"]["verdict"], told["quadratic"]["pairs"]) == ("no change", 5)
    held = [sorted(launches(tmp_path / "pairs" / name)) for name in NAMES]
    assert held[0] == held[1]
    assert held[0] == sorted((n, i) for n in ("linear", "quadratic") for i in range(5))
    assert "pair 5: 2 of 2 cases open" in got.stderr


def changed(root: Path, old: str, new: str) -> None:
    """Change the text of a version's suites."""
    file = root / "suites" / "benchmarks.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_running_out_of_memory_in_every_pair_is_confirmed(tmp_path: Path) -> None:
    old, fresh = two_versions(tmp_path, 1.0, "linear")
    changed(
        fresh, "    arms = [_arm(", "    return _out_of_memory(one, request)\n    arms = [_arm("
    )
    got = invoke(*confirming(tmp_path, old, fresh))
    assert got.exit_code == 1
    assert "out_of_memory: could not allocate 9 GiB" in got.stdout
    assert launches(tmp_path / "pairs" / "new") == [("linear", i) for i in range(3)]


def test_a_version_that_measures_otherwise_is_misuse(tmp_path: Path) -> None:
    old, fresh = two_versions(tmp_path, 1.0, "linear")
    changed(old, '"measurement": MEASUREMENT', '"measurement": 1')
    got = invoke(*confirming(tmp_path, old, fresh))
    assert got.exit_code == 2
    assert "--base-from: its version of the measuring code is 1" in got.stderr
    assert not (tmp_path / "pairs" / "base" / "records.jsonl").exists()


def test_pairs_of_another_version_are_not_taken(tmp_path: Path) -> None:
    old, fresh = two_versions(tmp_path, 1.0, "linear")
    command = [*confirming(tmp_path, old, fresh), "--resume"]
    first = invoke(*command)
    assert first.exit_code == 0
    assert "note: both versions are the same" in first.stderr
    changed(fresh, '"torch": "none"', '"torch": "other"')
    got = invoke(*command)
    assert got.exit_code == 2
    assert "holds pairs of another version (environment" in got.stderr


def test_pairs_that_are_there_are_not_measured_again(tmp_path: Path) -> None:
    old, fresh = two_versions(tmp_path, 1.0, "linear")
    command = [*confirming(tmp_path, old, fresh)]
    assert invoke(*command).exit_code == 0
    files = [tmp_path / "pairs" / name / "records.jsonl" for name in NAMES]
    before = [file.read_bytes() for file in files]
    refused = invoke(*command)
    assert refused.exit_code == 2
    assert "add --resume" in refused.stderr
    # The last pair is half there: its other half alone is measured.
    files[1].write_bytes(b"".join(before[1].splitlines(keepends=True)[:-1]))
    assert invoke(*command, "--resume").exit_code == 0
    assert files[0].read_bytes() == before[0]
    assert launches(tmp_path / "pairs" / "new") == [("linear", i) for i in range(5)]


def test_suites_that_do_not_start_are_exit_code_3(tmp_path: Path) -> None:
    old, _ = two_versions(tmp_path, 1.0, "linear")
    broken = tmp_path / "broken"
    (broken / "suites").mkdir(parents=True)
    (broken / "suites" / "__init__.py").touch()
    (broken / "suites" / "benchmarks.py").write_text("import no_such_module")
    got = invoke(*confirming(tmp_path, old, broken))
    assert got.exit_code == 3
    assert "the pairs cannot be measured" in got.stderr
    assert "no_such_module" in got.stderr


def test_a_signal_ends_the_pairs_and_says_how_to_go_on(tmp_path: Path) -> None:
    old, fresh = two_versions(tmp_path, 1.0, "sleeps:seconds=0.3")
    process = subprocess.Popen(
        [sys.executable, ROOT / "cli.py", *map(str, confirming(tmp_path, old, fresh))],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT,
    )  # fmt: skip
    file = tmp_path / "pairs" / "new" / "records.jsonl"
    wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") >= 1, 60)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"--resume --out {tmp_path / 'pairs'}" in told
