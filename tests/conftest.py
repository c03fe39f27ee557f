"""What all tests share: seeds, threads and tiers. Torch only for the tests that use it already."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# No deadline: a busy machine makes no example wrong. In CI the examples are always the same.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure() -> None:
    """Make the tests independent of how they were started."""
    # Two workers that both take all cores only wait for each other. Read when torch is imported.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        # Sweeps take all cores all the same, and threads that spin for one another while another
        # worker computes take ten times as long.
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # A shell starts background jobs with Ctrl-C ignored, and children inherit that: the tests that
    # press it would wait in vain.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take a limit for each test of the fast tier: the default suits a slow, busy machine."""
    parser.addoption(
        "--fast-limit", type=float, default=15.0, metavar="SECONDS",
        help="what a test of the fast tier may take: 0: no limit",
    )  # fmt: skip


IMPORTED = 100
"""Modules that a test imports where it is the first to need a library."""


def is_fast(item: pytest.Item) -> bool:
    """Say whether a test is of the fast tier, `make test`."""
    return not any(map(item.get_closest_marker, ("slow", "serial", "gpu")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test of the fast tier that takes long, its fixtures left out.

    Where more processes want to run than there are cores it counts what the test and its children
    computed, if that is less than what the clock says: to wait for a core is no fault of the test.
    The first test that needs a library pays for all of its import: it is not judged.
    """
    began, cpu, modules = time.monotonic(), sum(os.times()[:4]), len(sys.modules)
    yield
    seconds, cpu = time.monotonic() - began, sum(os.times()[:4]) - cpu
    if os.getloadavg()[0] > (os.cpu_count() or 1) + 0.5:
        seconds = min(seconds, cpu)
    limit = item.config.getoption("fast_limit")
    if is_fast(item) and 0 < limit < seconds and len(sys.modules) < modules + IMPORTED:
        pytest.fail(
            f"took {seconds:.1f} s, {cpu:.1f} s of them computing; a test of the fast tier may "
            f"take {limit:g} s: make it cheaper, or mark it slow",
            pytrace=False,
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take figures out of the fast tier: of a report they take most of the time."""
    for item in items:
        if item.get_closest_marker("drawn"):
            item.add_marker("slow")


TESTS = Path(__file__).parent
TOGETHER = (
    "attention/parallel/test_context_parallel.py", "attention/parallel/test_distributed.py",
    "docs/test_docs.py", "results/comparison/test_page.py", "results/figures/test_figures.py",
    "results/page/test_report.py", "results/records/test_untrusted.py",
    "system/test_asv_browser.py", "system/test_cluster.py", "system/test_report_browser.py",
)  # fmt: skip
"""Files whose tests share what is made once and takes long: a page, a browser, the site, ranks,
nodes of a cluster."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Hand each test to whoever is free, and the files of `TOGETHER` whole."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return file if file.endswith(TOGETHER) else nodeid

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from one seed, whatever ran before it in the same process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _no_server(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no test of the fast tier start the server that cases are forked from: seconds each."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a test of the fast tier starts a server: mark it slow", pytrace=False)

    server = sys.modules.get("suites.processes.server")
    with pytest.MonkeyPatch.context() as patch:  # a test's own may be undone
        if server is not None and is_fast(request.node):
            patch.setattr(server.Server, "start", refuse)
        yield


@pytest.fixture
def registry_restored() -> Iterator[None]:
    """Forget afterwards what a test registers: later tests list what there is."""
    from attention import plugins

    for registry in plugins._registries:
        registry.discover()
    before = [
        (held, dict(held))
        for registry in plugins._registries
        for held in (registry, registry._broken, registry._broken_files)
    ]
    yield
    for held, content in before:
        held.clear()
        held.update(content)


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures of reports, most of their time, but where a test is marked `drawn`."""
    folder = request.path.relative_to(TESTS).parts[0]
    if folder not in ("results", "cli") or request.node.get_closest_marker("drawn"):
        return
    from results.figures.svg import Drawn, Inline, Pngs

    def drawn(*_: object, **__: object) -> Drawn:
        return Drawn(Inline("<svg></svg>", []), Pngs(b"", b"", ""))

    monkeypatch.setattr("results.report.drawn", drawn)


@pytest.fixture
def in_process(registry_restored: None) -> Iterator[None]:
    """Run the cases of a test's sweeps in this process, and leave it as it was."""
    import gc

    import torch
    from helpers_in_process import InProcess

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suites.engine.driver.Launcher", InProcess)
        yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    gc.unfreeze()


@pytest.fixture
def suites_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the suites that a test loads: a process has one command, a test's has many."""
    from suites import registry

    monkeypatch.setattr(registry, "_suites", dict(registry._suites))
    monkeypatch.setattr(registry, "_broken", {})


@pytest.fixture
def without_roofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the roofs of sweeps, two seconds each; for tests of everything else."""
    for module in ("engine.preparation", "plan"):
        monkeypatch.setattr(f"suites.{module}.roof_cases", lambda *_, **__: [])


@pytest.fixture(scope="session")
def _launchers() -> Iterator[dict[Any, Any]]:
    """Keep the launchers of `one_server` until the tests end."""
    kept: dict[Any, Any] = {}
    yield kept
    for launcher in kept.values():
        launcher.close()


@pytest.fixture
def one_server(_launchers: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the cases of a test's sweeps from a server that others' are started from too.

    A sweep's own takes seconds, in which it imports torch and the suites.
    """
    from suites.processes.launcher import Launcher

    class Lasting(Launcher):
        def __exit__(self, *error: object) -> None:
            if isinstance(error[1], BaseException) and not isinstance(error[1], Exception):
                # Interrupted: what runs is to end with it.
                _launchers.pop(self.key, None)
                self.close()

    def launcher(folder: Path, *, early: Sequence[str] = ()) -> Lasting:
        key = folder, tuple(early)
        if key not in _launchers:
            _launchers[key] = Lasting(folder, early=early)
            _launchers[key].key = key
        return _launchers[key]

    monkeypatch.setattr("suites.engine.driver.Launcher", launcher)
