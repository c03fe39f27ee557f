"""The request of the driver, the table of kinds, and kinds of plug-in folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from helpers_speed import CASE

from suites.kind import ENVELOPE, Inspection, Kind, Request
from suites.worker import kinds
from suites.worker.preflight import inspect_case, preflight

TOY = """
from suites.kind import Inspection, Kind, Measured, Request
from .words import GREETING

def inspect(case, request):
    if case.seq_len % 2:
        raise ValueError(f"seq_len: expected an even length, got {case.seq_len}")
    return Inspection(time_exponent=2.0)

def run(case, request):
    request.stage(GREETING)
    arm = {"kernel": "", "gate": None, "cost": None, "metrics": {}}
    return Measured([arm])

KIND = Kind("toy", inspect, run)
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    kinds._plugged.clear()
    kinds._versions.clear()
    kinds._broken.clear()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "words.py").write_text("GREETING = 'playing'\n")
    (folder / "kind.py").write_text(TOY)
    for part in ("suite", "chapter"):
        (folder / f"{part}.py").write_text("raise RuntimeError('not the worker's')\n")
    return folder


# -- the request ---------------------------------------------------------------------------------


def test_a_request_is_read_once_and_paths_are_paths(tmp_path: Path) -> None:
    lines: list[str] = []
    request = Request.from_json(
        {
            "do": "case", "case": {}, "lock": None, "budget_s": 1, "deadline_s": 2.5,
            "memory_limit": None, "profile": True, "traces": "t", "store": None,
            "files": {"sha256-0": str(tmp_path)}, "heartbeat": "h", "plugins": ["a.py"],
        },
        stage=lines.append,
    )  # fmt: skip
    request.stage("timing")
    assert lines == ["timing"]
    assert request == Request(
        budget_s=1, deadline_s=2.5, profile=True, traces=Path("t"), heartbeat=Path("h"),
        files={"sha256-0": tmp_path}, plugins=["a.py"], stage=request.stage,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ({"buget_s": 1.0}, ValueError, "request: no field buget_s; there are budget_s"),
        ({"stage": "x"}, ValueError, "request: no field stage"),
        ({"budget_s": "1"}, TypeError, "budget_s: expected int or float, got '1'"),
        ({"budget_s": True}, TypeError, "budget_s: expected int or float, got True"),
        ({"memory_limit": 1.5}, TypeError, "memory_limit: expected int or null, got 1.5"),
        ({"profile": 1}, TypeError, "profile: expected bool, got 1"),
        ({"store": 1}, TypeError, "store: expected str or null, got 1"),
        ({"files": None}, TypeError, "files: expected dict, got None"),
    ],
)
def test_a_field_that_is_unknown_or_of_another_type_is_refused(
    data: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Request.from_json(data)


def test_what_a_case_needs_is_asked_for() -> None:
    with pytest.raises(ValueError, match="request: expected deadline_s, got budget_s"):
        Request.from_json({"budget_s": 1.0}, needs=("budget_s", "deadline_s"))
    assert set(ENVELOPE).isdisjoint(vars(Request()))


# -- the table -----------------------------------------------------------------------------------


def test_each_kind_of_the_table_is_there_under_its_name() -> None:
    kinds.import_all()
    for name in kinds.MODULES:
        assert kinds.find(name).name == name


def test_a_case_of_no_kind_is_misuse() -> None:
    told = inspect_case(replace(CASE, kind="tea"))  # type: ignore[arg-type]
    assert told["misuse"].startswith("kind: no kind 'tea'; there are speed, peer, ")


# -- plug-in folders -----------------------------------------------------------------------------


def test_a_plug_in_folder_brings_a_kind(toy: Path) -> None:
    told = preflight({"cases": [], "plugins": [str(toy)]})
    assert told["broken"] == {}
    (version,) = (v for k, v in told["environment"]["plugins"].items() if k == "kind toy")
    assert version.startswith("toy sha256-")
    case = replace(CASE, kind="toy")  # type: ignore[arg-type]
    assert inspect_case(case) == {
        "misuse": None, "unsupported": [], "cost": [None], "time_exponent": 2.0,
        "memory_exponent": 0.0,
    }  # fmt: skip
    odd = inspect_case(replace(case, seq_len=3))
    assert odd["misuse"] == "seq_len: expected an even length, got 3"
    stages: list[str] = []
    measured = kinds.find("toy").run(case, Request(stage=stages.append))
    assert (len(measured.arms), stages) == (1, ["playing"])


def test_a_plug_in_folder_with_a_package_file_is_imported_once(toy: Path) -> None:
    (toy / "__init__.py").write_text("TIMES = []\nTIMES.append(1)\n")
    for _ in range(2):
        assert kinds.import_plugins([toy]) == {}
    assert kinds.find("toy").inspect(CASE, Request()) == Inspection(time_exponent=2.0)


BROKEN = [
    (None, "has no kind.py, which measures the plug-in's cases"),
    ("KIND = 1", r"kind.py: expected KIND = suites.kind.Kind\(…\), got int"),
    ("x = 1", "got none"),
    ("raise SystemExit(3)", "kind.py failed to import: SystemExit: 3"),
    ("import nowhere_at_all", "kind.py failed to import: ModuleNotFoundError"),
    (TOY.replace('"toy"', '"speed"'), "kind.py: there is a kind 'speed' already"),
]


@pytest.mark.parametrize(("content", "says"), BROKEN, ids=lambda x: str(x)[:20])
def test_a_plug_in_folder_that_cannot_be_used_costs_itself_alone(
    toy: Path, content: str | None, says: str
) -> None:
    if content is None:
        (toy / "kind.py").unlink()
    else:
        (toy / "kind.py").write_text(content)
    broken = kinds.import_plugins([toy])
    assert list(broken) == [str(toy)]
    with pytest.raises(ValueError, match=says):
        raise ValueError(broken[str(toy)])
    assert isinstance(kinds.find("speed"), Kind)


def test_an_installed_package_brings_a_kind_when_a_case_asks(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(toy.parent)
    entries = [
        EntryPoint(name=name, value=value, group=kinds.GROUP)
        for name, value in (("toys", "toy"), ("lost", "nowhere_at_all"))
    ]
    monkeypatch.setattr(kinds.importlib.metadata, "entry_points", lambda group: entries)
    kinds.find("speed")
    assert kinds.loaded() == {}
    assert kinds.find("toy").name == "toy"
    assert kinds.loaded() == {"kind toy": "toys"}
    with pytest.raises(ValueError, match=r"no kind 'tea'; .* roof, toy; the plug-in lost failed"):
        kinds.find("tea")
    for name in ("toy", "toy.kind", "toy.words"):
        sys.modules.pop(name)


def test_two_folders_of_one_kind_are_one_too_many(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "kind.py").write_text(
        TOY.replace(".words", "suites.kind").replace("GREETING", "ENVELOPE")
    )
    broken = kinds.import_plugins([toy, other])
    assert list(broken) == [str(other)]
    assert "there is a kind 'toy' already" in broken[str(other)]
