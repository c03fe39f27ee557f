"""The short form of `make verify-method`, and what it stands on: exact bounds, a runner that tells
a broken promise from one that cannot be tried."""

from __future__ import annotations

import importlib
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from verification import PROMISES, Measured, broken, not_tried
from verification.__main__ import main, measure, write
from verification.rates import lower, upper
from verification.show import table


@pytest.mark.parametrize(
    ("count", "tries", "expected"),
    [
        (0, 299, 0.0099691),  # 1 - 0.05^(1/299)
        (0, 1, 0.95),
        (1, 1, 1.0),
        (0, 10**6, 2.99573e-6),
        (1, 10, 0.394163),  # R: binom.test(1, 10, alternative = "less")
        (5, 10, 0.777559),
    ],
)
def test_the_upper_bound_is_that_of_clopper_and_pearson(
    count: int, tries: int, expected: float
) -> None:
    assert upper(count, tries) == pytest.approx(expected, rel=2e-5)
    assert lower(tries - count, tries) == pytest.approx(1 - expected, rel=2e-5)


@pytest.mark.parametrize(("count", "tries"), [(1, 0), (-1, 3), (4, 3)])
def test_a_rate_of_nothing_is_refused(count: int, tries: int) -> None:
    with pytest.raises(ValueError, match="count: expected"):
        upper(count, tries)


def fake(monkeypatch: pytest.MonkeyPatch, name: str, got: object) -> None:
    module = types.ModuleType(f"verification.{name}", "What is promised.\n\nHow: not at all.")

    def run(scale: str, report: object) -> object:
        if isinstance(got, Exception):
            raise got
        return got

    module.measure = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"verification.{name}", module)


KEPT = Measured("share", 10, 1, 0.9, 0.6, 0.8, "at least", True)


@pytest.mark.parametrize(
    ("got", "code", "word"),
    [
        (KEPT, 0, "yes"),
        (not_tried("no such device"), 0, "not tried"),
        (Measured("share", 10, 3, 0.7, 0.4, 0.8, "at least", False), 1, "NO"),
        (OSError("gone"), 1, "NO"),
        (ModuleNotFoundError("No module named 'helpers'"), 1, "ModuleNotFoundError"),
    ],
)
def test_the_exit_code_says_whether_a_promise_is_broken(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    got: object,
    code: int,
    word: str,
) -> None:
    fake(monkeypatch, "exponents", got)
    out = tmp_path / "new" / "verified.json"
    assert main(["--short", "--only", "exponents", "--out", str(out)]) == code
    assert word in capsys.readouterr().out
    content = json.loads(out.read_text())
    (written,) = content["promises"]
    assert written["name"] == "exponents"
    assert written["promise"] == "What is promised."
    assert content["scale"] == "short"
    assert content["machine"].keys() == {
        "cpu", "cores", "cores_total", "ram_bytes", "os", "kernel", "arch", "gpu",
        "gpu_memory_bytes",
    }  # fmt: skip


def test_other_promises_stay_if_they_are_of_the_same_kind_of_machine(tmp_path: Path) -> None:
    file = tmp_path / "verified.json"
    one, other = (replace(broken("x"), name=name) for name in ("exponents", "fuzz"))
    write([one], "full", file)
    held = json.loads(file.read_text())
    held["machine"] |= {"kernel": "another", "ram_bytes": 1}
    file.write_text(json.dumps(held))
    write([other], "full", file)
    assert [p["name"] for p in json.loads(file.read_text())["promises"]] == ["exponents", "fuzz"]
    held["machine"]["cpu"] = "another"
    file.write_text(json.dumps(held))
    write([other], "full", file)
    assert [p["name"] for p in json.loads(file.read_text())["promises"]] == ["fuzz"]


def test_a_promise_that_there_is_not_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "exponent"])
    assert ended.value.code == 2
    assert "no promise 'exponent'; there are exponents" in capsys.readouterr().err


@pytest.mark.parametrize("name", PROMISES)
def test_a_promise_says_how_it_is_tested_and_what_is_a_failure(name: str) -> None:
    module = importlib.import_module(f"verification.{name}")
    paragraphs = (module.__doc__ or "").split("\n\n")
    assert [p.split(":")[0] for p in paragraphs[1:]] == ["How", "Failure"]


OF_MINUTES = ("alarms", "power", "repeated_runs", "time_to_answer")
"""Promises that take minutes in the short form too: `make verify-method VERIFY=--short`."""

COMPUTED = (
    "backends", "design", "exponents", "faults", "fewer_launches", "fuzz", "intervals",
    "operations", "split_halves",
)  # fmt: skip
"""Promises that are tested without a clock: beside other tests as well as alone."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [
        p if p in COMPUTED else pytest.param(p, marks=pytest.mark.serial)
        for p in PROMISES
        if p not in OF_MINUTES
    ],
)
def test_the_promise_is_kept(name: str) -> None:
    got = measure(name, "short", lambda line: None)
    if got.passed is None:
        pytest.skip(got.reason)
    assert got.passed, table([got])
