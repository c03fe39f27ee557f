"""The program that measures on a lent GPU, rehearsed on the CPU."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure_gpu
import pytest
from click.testing import CliRunner
from measure_gpu import ARCHIVE, GOES_ON_IN, STAGE_LIMIT_S, STAGES, Campaign, Stage, passed_tests

from cli import main
from results.records.load import load
from suites.suite import Plan
from suites.terminal.progress import Summary

ROOT = Path(__file__).parents[2]
SWEEPS = [stage for stage in STAGES if stage.arguments]


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Return the grids that `attnbench run` was asked for; it measures none."""
    asked: list[Plan] = []

    def sweep(grid: Plan, folder: Path, **_: Any) -> Summary:
        asked.append(grid)
        return Summary(folder, {}, 0, 0.0)  # type: ignore[arg-type]

    monkeypatch.setattr("suites.engine.driver.run_sweep", sweep)
    return asked


def ask(campaign: Campaign, stage: Stage) -> None:
    _, module, name, *arguments = campaign.command(stage)
    assert (module, name) == ("-m", "cli")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("stage", SWEEPS, ids=lambda stage: stage.name)
def test_every_stage_is_a_sweep_that_the_command_takes(
    stage: Stage, grids: list[Plan], tmp_path: Path
) -> None:
    campaign = Campaign(tmp_path, Path(sys.executable))
    ask(campaign, stage)
    (grid,) = grids
    assert (grid.device, grid.dtypes) == ("cuda", ("bfloat16",))


def test_a_stage_that_goes_on_in_another_has_its_cases(grids: list[Plan], tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, Path(sys.executable))
    by_name = {stage.name: stage for stage in STAGES}
    for later, earlier in GOES_ON_IN.items():
        ask(campaign, by_name[earlier])
        ask(campaign, by_name[later])
        first, second = grids[-2:]
        assert replace(second, launches=first.launches) == first
        assert second.launches > first.launches
        outs = [campaign.command(by_name[name])[-1] for name in (earlier, later)]
        assert outs[0] == outs[1]


def test_a_stage_takes_less_than_nine_minutes() -> None:
    assert STAGE_LIMIT_S + measure_gpu.END_S < 560
    assert len({stage.name for stage in STAGES}) == len(STAGES)


def test_the_docs_list_the_stages() -> None:
    text = (ROOT / "docs" / "gpu.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{stage.name}` | {stage.what} |" for stage in STAGES]


def test_nothing_but_a_compiler_for_gpus_is_missing_here() -> None:
    assert set(measure_gpu.missing()) <= {"triton"}


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "programs" / "measure_gpu.py"), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_a_rehearsal_ends_in_an_archive_that_the_next_call_goes_on_from(tmp_path: Path) -> None:
    asked = ("--rehearse", "--folder", str(tmp_path / "here"), "--limit", "280")
    done = call(*asked, "--only", "machine,long", "--copy-to", str(tmp_path / "copies"))
    assert done.returncode == 0, done.stdout + done.stderr
    archive = tmp_path / "copies" / ARCHIVE
    with tarfile.open(archive) as held:
        names = set(held.getnames())
    assert {"state.json", "machine.log", "long.log", "long/records.jsonl"} <= names
    there = ("--rehearse", "--folder", str(tmp_path / "there"), "--go-on-from", str(archive))
    done = call(*there, "--only", "machine,long,again")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "long: all backends" not in done.stdout  # it is done
    assert "again: done" in done.stdout
    run = load(tmp_path / "there" / "long")
    speed = run.frame[run.frame["kind"] == "speed"]
    assert set(speed["launch"]) == {0, 1}
    assert set(speed["status"]) == {"ok"}


STAND_IN = """
import signal, sys, time
count, file = int(sys.argv[1]), sys.argv[2]
def stop(*_):
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
done = len(open(file).readlines()) if __import__("os").path.exists(file) else 0
for _ in range(count - done):
    time.sleep(0.2)
    open(file, "a").write("x\\n")
sys.exit(3 if count == 0 else 0)
"""


class Small(Campaign):
    """Stages that write as many lines as they are called, five a second; of 0 fails."""

    def command(self, stage: Stage) -> list[str]:
        return [sys.executable, "-c", STAND_IN, stage.name, str(self.folder / f"{stage.name}.txt")]


def test_what_is_interrupted_waits_for_the_others_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        measure_gpu, "STAGES", (Stage("12", "long"), Stage("0", "bad"), Stage("1", "short"))
    )
    monkeypatch.setattr(measure_gpu, "STAGE_LIMIT_S", 1.6)
    told: list[str] = []
    monkeypatch.setattr(measure_gpu, "say", told.append)
    campaign = Small(tmp_path, Path(sys.executable))
    campaign.run()
    ends = [line.split(" after")[0] for line in told if " after " in line]
    assert ends[:3] == ["12: interrupted", "0: failed", "1: done"]
    assert ends[-1] == "12: done"
    assert len((tmp_path / "12.txt").read_text().splitlines()) == 12
    assert campaign.state["0"]["code"] == 3
    assert [stage.name for stage in Small(tmp_path, Path(sys.executable)).left] == ["0"]


def test_no_stage_is_begun_without_time(tmp_path: Path) -> None:
    campaign = Small(tmp_path, Path(sys.executable), limit_s=measure_gpu.LEAST_S - 1)
    campaign.run()
    assert campaign.state == {}


JUNIT = """<testsuites><testsuite name="pytest" hostname="someone">
<testcase classname="tests.test_a" name="test_fine[x y]"/>
<testcase classname="tests.test_a" name="test_bad"><failure message="no"/></testcase>
<testcase classname="tests.test_a" name="test_not"><skipped/></testcase>
</testsuite></testsuites>"""


def test_tests_that_passed_are_not_run_again(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, Path(sys.executable))
    (tmp_path / "tests.xml").write_text(JUNIT)
    assert passed_tests(tmp_path / "tests.xml") == ["tests/test_a.py::test_fine[x y]"]
    campaign._note_tests()
    (stage,) = (stage for stage in STAGES if stage.name == "tests")
    assert "--deselect=tests/test_a.py::test_fine[x y]" in campaign.command(stage)
    assert not any("test_bad" in word for word in campaign.command(stage))
    assert "someone" not in (tmp_path / "tests-0.xml").read_text()


def test_files_with_gpu_tests_can_be_collected_without_what_others_need() -> None:
    """On a lent machine there is no browser, no Ray and none of the peers' libraries."""
    files = measure_gpu.files_with_gpu_tests()
    assert "tests/attention/kernels/test_cuda_kernels.py" in files
    absent = ("playwright", "ray", "nbformat", "transformers", "torchao", "mkdocs")
    script = (
        "import sys, pytest\n"
        f"for name in {absent!r}: sys.modules[name] = None\n"
        f"sys.exit(pytest.main(['--collect-only', '-q', '-m', 'gpu', *{files!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_name_that_is_no_stage_is_misuse() -> None:
    done = call("--only", "nonesuch")
    assert done.returncode == 2
    assert "--only: no stage nonesuch; see --list" in done.stderr
    assert call("--list").stdout.startswith("machine")
