"""Plug-ins that raise: named, with the reason, and no other is stopped by them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import py_compile
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers_speed import CASE, case, told_of

from attention import plugins
from attention import registry as backends
from attention.plugins import Registry, import_files, interrupts, is_name
from cli import main
from results.schema import CLAIM, IDENTITY, LSTM, PROJECTIONS, SENTINEL
from suites.engine.confirm import Finished, PairedSession
from suites.engine.preparation import completed
from suites.engine.session import MisuseError
from suites.measure.process import TimeLimitError
from suites.parsing import parse_backend
from suites.peers import registry as peers
from suites.plan import plan_sweep
from suites.tasks import registry as tasks
from suites.worker.run import answer

ROOT = Path(__file__).parents[3]

GOOD = """
from attention.backends.full import FullAttention
from attention.registry import register

@register("{name}")
class Mine(FullAttention):
    pass
"""

TASK = """
from suites.tasks.registry import get, register

@register("mine")
class Mine(get("recall")):
    pass
"""

RAISING = {
    "exception": ("1 / 0", "ZeroDivisionError: division by zero"),
    "import": ("import no_such_module_anywhere", "ModuleNotFoundError: No module named"),
    "syntax": ("def (:", "SyntaxError: "),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "base": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    "recursion": ("def f(): return f()\nf()", "RecursionError: maximum recursion depth"),
    "twice": (GOOD.format(name="sdpa"), "ValueError: name: 'sdpa' is already registered"),
    "late": (GOOD.format(name="halfway") + "\nraise OSError('late')", "OSError: late"),
    "message": (
        "class Odd(Exception):\n    def __str__(self): return 1 / 0\nraise Odd",
        "Odd: (its message cannot be written)",
    ),
    "escape": ("raise OSError('\\x1b[31mred\\n\\u202e')", "OSError: ?[31mred ?"),
    "bytes": ("\x00", "ValueError: path:|SyntaxError: |ValueError: "),
    "generator": ("raise GeneratorExit", "GeneratorExit"),
}


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Leave the registries as they were."""
    backends.names(), peers.names(), tasks.names()
    both: tuple[Registry[Any], ...] = (backends._registry, peers._registry, tasks._registry)
    before = [(dict(r), dict(r._broken), dict(r._broken_files)) for r in both]
    yield
    for one, (classes, broken, files) in zip(both, before, strict=True):
        one.clear()
        one.update(classes)
        one._broken, one._broken_files = broken, files


def write(folder: Path, name: str, code: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text(code)
    return file


@pytest.mark.parametrize("kind", RAISING)
def test_a_file_that_raises_is_named_and_registers_nothing(tmp_path: Path, kind: str) -> None:
    code, said = RAISING[kind]
    before = backends.names(), peers.names()
    good = write(tmp_path, "good", GOOD.format(name="mine"))
    bad = write(tmp_path, "bad", code)
    modules = set(sys.modules)
    broken = import_files([good, bad])
    assert list(broken) == [str(bad)]
    assert str(bad) in broken[str(bad)]
    assert any(one in broken[str(bad)] for one in said.split("|"))
    assert broken[str(bad)].isprintable()
    assert (backends.names(), peers.names()) == (sorted([*before[0], "mine"]), before[1])
    assert not [m for m in set(sys.modules) - modules if "plugin_bad" in m]
    with pytest.raises(ValueError, match=r"no backend 'other'.*bad\.py failed: "):
        backends.get("other")
    with pytest.raises(ValueError, match=r"no peer 'other'.*bad\.py failed: "):
        peers.get("other")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), TimeLimitError("too long")])
def test_what_comes_from_outside_is_no_broken_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    assert interrupts(stop)
    assert not interrupts(SystemExit())
    monkeypatch.setattr(sys, "stop_of_this_test", stop, raising=False)
    file = write(tmp_path, "slow", "import sys; raise sys.stop_of_this_test")
    with pytest.raises(type(stop)):
        import_files([file])


class Entry:
    """An installed plug-in."""

    def __init__(self, name: str, error: BaseException | None) -> None:
        self.name, self.error, self.module, self.dist = name, error, f"no_module_{name}", None

    def load(self) -> None:
        own = type("Own", (backends.get("full"),), {"__module__": self.name})
        backends.register(f"of-{self.name}")(own)

        if self.error is not None:
            raise self.error


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    entries = [
        Entry("one", SystemExit(1)), Entry("two", None), Entry("three", RecursionError("deep")),
    ]  # fmt: skip

    def found(*, group: str) -> list[Entry]:
        return entries if group == backends.ENTRY_POINT_GROUP else []

    monkeypatch.setattr(importlib.metadata, "entry_points", found)
    monkeypatch.setattr(backends._registry, "_is_complete", False)
    return entries


def test_an_installed_plugin_that_raises_is_kept_apart(installed: list[Entry]) -> None:
    names = backends.names()
    assert "of-two" in names
    assert not {"of-one", "of-three"} & set(names)
    assert backends.broken_plugins() == {"one": "SystemExit: 1", "three": "RecursionError: deep"}
    installed[0].error = KeyboardInterrupt()
    backends._registry._is_complete = False
    with pytest.raises(KeyboardInterrupt):
        backends.names()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["list"], ["list", "--json"], ["check", "sdpa", "--no-timing"]],
)
def test_commands_name_broken_plugins_and_go_on(
    installed: list[Entry], command: list[str]
) -> None:
    del installed
    if command[0] == "check":
        command = ["check", "sdpa", "--no-timing"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "plug-in one failed to load: SystemExit: 1" in done.stderr
    assert "plug-in three failed to load: RecursionError: deep" in done.stderr
    if "--json" in command:
        assert "of-two" in {one["name"] for one in json.loads(done.stdout)}


def test_doctor_names_broken_plugins(
    installed: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    from suites.machine import doctor

    del installed
    monkeypatch.setattr(peers._registry, "_broken", {"four": "OSError: x"})
    found = {f.topic: f for f in doctor._plugins()}
    assert set(found) == {"plug-in one", "plug-in three", "plug-in four"}
    assert all(f.level == "problem" and f.advice for f in found.values())


# -- in the children -----------------------------------------------------------------------------


def test_preflight_tells_of_broken_files_and_blames_them_for_unknown_names(tmp_path: Path) -> None:
    good = write(tmp_path, "good", GOOD.format(name="mine"))
    bad = write(tmp_path, "bad", "raise SystemExit('no')")
    other, mine = case("other"), case("mine")
    told = told_of(CASE, mine, other, plugins=(str(bad), str(good)))
    assert list(told["broken"]) == [str(bad)]
    assert "SystemExit: no" in told["broken"][str(bad)]
    assert told["cases"][CASE.id]["misuse"] is None
    assert told["cases"][mine.id]["misuse"] is None
    assert f"{bad} failed: SystemExit: no" in told["cases"][other.id]["misuse"]
    assert "mine" in told["names"]


def test_what_was_imported_is_named_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(file: Path) -> str:
        return f"sha256-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"

    monkeypatch.setattr(plugins, "_sources", {})
    file, bad = (
        write(tmp_path, "my own", GOOD.format(name="mine")),
        write(tmp_path, "bad", "1 / 0"),
    )
    told = told_of(CASE, plugins=(str(file), str(bad)))
    assert told["environment"]["plugins"] == {"backend mine": f"my own.py {digest(file)}"}
    file.write_text(f"\ufeff{file.read_text()}# edited\n", encoding="utf-8")
    assert told_of(CASE, plugins=(str(file),))["environment"]["plugins"] == {
        "backend mine": f"my own.py {digest(file)}"
    }

    module = write(tmp_path, "some_distribution_of_theirs", TASK)
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "theirs-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[attnbench.tasks]\nany = some_distribution_of_theirs\n"
    )
    monkeypatch.setattr(tasks._registry, "_is_complete", False)
    assert told_of(CASE)["environment"]["plugins"] == {
        "backend mine": f"my own.py {digest(file)}", "task mine": f"theirs 1.2 {digest(module)}"
    }  # fmt: skip


def test_pairs_are_not_measured_with_another_version_than_the_runs(tmp_path: Path) -> None:
    pairs = PairedSession({}, tmp_path, [], budget_s=0.1, case_timeout_s=1.0)
    pairs._loaded = {"backend mine": "mine.py new"}
    runs = {
        "base": Finished((), (), {"backend other": "other.py old"}),
        "new": Finished((), (), {"backend mine": "mine.py old"}),
    }
    with pytest.raises(MisuseError, match=r"NEW was measured with backend mine of mine\.py old"):
        pairs.notes(runs)


def test_bytecode_of_an_older_content_is_not_run(tmp_path: Path) -> None:
    file = write(tmp_path, "mine", GOOD.format(name="mine_a"))
    py_compile.compile(str(file))
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text(GOOD.format(name="mine_b"))
    os.utime(file, ns=times)  # as after an edit within the second, of as many bytes
    assert backends.load_file(file) == ["mine_b"]


@pytest.mark.parametrize(
    "name", ["my:attn", "a,b", "my attn", "", "é:", "mine", "my-attn.2_x", "-", "a=b", "a/b"]
)
def test_what_is_registered_can_be_named_by_an_option(name: str) -> None:
    try:
        accepted = parse_backend(name).name == name
    except ValueError:
        accepted = False
    assert is_name(name) == accepted
    kinds: tuple[Registry[Any], ...] = (backends._registry, peers._registry, tasks._registry)
    for one in kinds:
        if not accepted:
            with pytest.raises(ValueError, match=r"name: expected letters, digits, _, - and \."):
                one.add(name, type("Mine", (), {}))


@pytest.mark.parametrize("name", [IDENTITY, LSTM, PROJECTIONS, CLAIM, SENTINEL, "roof"])
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no backend's"):
        backends.register(name)(backends.get("full"))


def test_a_file_may_register_a_task_alone(tmp_path: Path) -> None:
    file = write(tmp_path, "task", TASK)
    assert import_files([file]) == {}
    assert "mine" in tasks.names()
    with pytest.raises(ValueError, match=r"task\.py registers no backend"):
        backends.load_file(file)
    bad = write(tmp_path, "bad", f"{TASK.replace('mine', 'half')}\n1 / 0")
    assert list(import_files([bad])) == [str(bad)]
    assert "half" not in tasks.names()


def test_a_case_goes_on_without_a_broken_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write(tmp_path, "bad", "import sys; sys.exit()")
    request = {
        "do": "case", "case": CASE.to_json(), "budget_s": 0.01, "deadline_s": 60.0,
        "memory_limit": None, "plugins": [str(bad)],
    }  # fmt: skip
    record = answer(request)["record"]
    assert record["status"] == "ok", record["reason"]
    assert f"plug-in: path: {bad} failed to import: SystemExit" in capsys.readouterr().err
    gone = answer({**request, "case": case("mine").to_json()})["record"]
    assert gone["status"] == "failed"
    assert f"{bad} failed: SystemExit" in gone["reason"]


def test_a_file_that_hangs_costs_its_case_its_time(tmp_path: Path) -> None:
    file = write(tmp_path, "slow", "import time\nwhile True: time.sleep(0.01)")
    record = answer({
        "do": "case", "case": CASE.to_json(), "budget_s": 0.01, "deadline_s": 0.5,
        "memory_limit": None, "plugins": [str(file)],
    })["record"]  # fmt: skip
    assert record["status"] == "timeout"


def test_an_unknown_peer_is_misuse_that_names_the_broken_file() -> None:
    told = {"peers": [], "broken": {"bad.py": "path: bad.py failed to import: OSError: x"}}
    plan = plan_sweep(None, suite="peers", peers=("mine",))
    with pytest.raises(MisuseError, match=r"peers: .*; --plugin: path: bad.py failed"):
        completed(plan, told)


# -- a whole sweep -------------------------------------------------------------------------------

QUICK = (
    "--seq-len", "32", "--mode", "forward", "--launches", "1", "--num-heads", "2",
    "--head-dim", "8", "--threads", "1",
)  # fmt: skip


def attnbench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)], cwd=ROOT, text=True,
        capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_goes_on_without_the_broken_file(tmp_path: Path) -> None:
    good = write(tmp_path, "good", GOOD.format(name="mine"))
    bad = write(tmp_path, "bad", "raise SystemExit('stop everything')")
    both = ("--plugin", good, "--plugin", bad)
    out = tmp_path / "run"
    done = attnbench("run", *QUICK, *both, "--backend", "mine", "--out", out)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: --plugin")]
    assert len(notes) == 1
    assert f"{bad} failed to import: SystemExit: stop everything; going on" in notes[0]
    assert "mine forward N=32  ok" in done.stderr
    done = attnbench("run", *QUICK, *both, "--backend", "other", "--out", tmp_path / "2")
    assert done.returncode == 2
    assert "no backend 'other'; there are" in done.stderr
    assert f"{bad} failed: SystemExit: stop everything" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "2").exists()
