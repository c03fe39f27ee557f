"""Promises of hours: what is done is kept, a call does what it has time for, and the figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from verification import repeated_runs, time_to_answer
from verification.__main__ import main
from verification.anchors import tools
from verification.anchors.tools import Grid, Stated
from verification.pieces import Pieces, called
from verification.two_runs import REFERENCE

from results.statistics.inference import Difference

GRID = time_to_answer.GRIDS["full"]


def nothing(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the other tools pass for installed: the tests that need them bring stand-ins."""
    monkeypatch.setattr(time_to_answer, "missing", lambda: [])


def tool_that(
    seconds: float, off: list[float], error: float, calls: list[str]
) -> Callable[[Grid, Path], tuple[float, Stated]]:
    """Return a tool whose repetitions are off by so much, and which states such an error."""

    def run(grid: Grid, folder: Path) -> tuple[float, Stated]:
        calls.append(folder.name)
        away = off[int(folder.name[:2]) - 1]
        logs = {
            (backend, length): Difference(
                math.log(length) * (1 + away) + at, error, 1000
            )
            for at, backend in enumerate(grid.backends) for length in grid.lengths
        }  # fmt: skip
        return seconds, tools.stated_of(grid, logs)

    return run


def test_the_answer_takes_as_many_runs_as_repetitions_scatter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[str] = []
    exact = tool_that(60.0, [0.0, 0.001, -0.001], 0.05, calls)
    sure_and_off = tool_that(60.0, [0.0, 0.2, -0.2], 0.001, calls)
    fakes = {"attnbench": exact, "asv": sure_and_off, "pyperf": exact, "pytest-benchmark": exact}
    monkeypatch.setattr(time_to_answer, "TOOLS", fakes)
    pieces = Pieces(3, folder=tmp_path)
    got = time_to_answer.measure("full", nothing, pieces)
    ours, asv, *_ = got.details
    assert ours["slope_coverage"] == 1.0
    assert ours["minutes_to_answer"] == 1.0  # one run at least
    assert asv["slope_coverage"] == pytest.approx(1 / 3)
    assert asv["slope_real"] == pytest.approx(1.96 * 0.2)
    assert asv["ratio_real"] == pytest.approx(0.0, abs=1e-9)  # both times are off by as much
    assert asv["minutes_to_answer"] == pytest.approx((1.96 * 0.2 / 0.10) ** 2)
    assert got.rate == pytest.approx(1.0)
    assert got.passed is False
    assert len(calls) == 12
    assert time_to_answer.measure("full", nothing, pieces) == got  # from what is kept
    assert len(calls) == 12


def test_the_error_of_an_exponent_follows_from_those_of_its_times() -> None:
    grid = Grid(("one",), (1024, 4096))
    logs = {("one", 1024): Difference(0.0, 0.03, 9), ("one", 4096): Difference(2.0, 0.04, 9)}
    slope = tools.stated_of(grid, logs).slopes["one"]
    assert slope.centre == pytest.approx(2.0 / math.log(4))
    assert slope.error == pytest.approx(0.05 / math.log(4))


def test_without_time_nothing_is_started(tmp_path: Path) -> None:
    pieces = Pieces(within_s=1.0, folder=tmp_path)
    for promise in (repeated_runs, time_to_answer):
        got = promise.measure("full", nothing, pieces)
        assert got.passed is None
        assert "the same call goes on" in got.reason
    assert list(tmp_path.iterdir()) == []


def test_a_run_beside_itself_differs_in_nothing() -> None:
    run = REFERENCE / "epyc-2-cores" / "speed"
    counts = repeated_runs.compared(run, run)
    assert {kind: differ for kind, (_, differ) in counts.items()} == dict.fromkeys(counts, 0)
    assert counts["exponent"][0] == 12
    assert counts["crossover"][0] > 0
    other = repeated_runs.compared(run, REFERENCE / "epyc-2-cores/scaling")
    assert sum(tries for tries, _ in other.values()) == 0  # other lengths


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3\nlost"):
        called(["-c", "print('lost'); raise SystemExit(3)"], tmp_path / "log")


@pytest.mark.parametrize(
    "words", [["--pairs", "0"], ["--pairs", "2", "--only", "fuzz"], ["--within", "soon"]]
)
def test_how_much_is_done_is_checked(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_tools_that_are_not_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any) -> list[str]:
        return ["pyperf"]

    monkeypatch.setattr(time_to_answer, "missing", lacking)
    got = time_to_answer.measure("full", nothing)
    assert got.passed is None
    assert got.reason == "pyperf: not installed; pip install attnbench[verify]"
