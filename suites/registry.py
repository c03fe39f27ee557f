"""All suites: ours, those that are installed, and the folders that ``--plugin`` names. No torch.

A plug-in suite is a package: ``suite.py`` with ``SUITE``, ``kind.py`` with ``KIND``, which a child
imports (`suites.worker.kinds`), and ``chapter.py`` with ``CHAPTER`` for the report. An installed
one has an entry point in group `GROUP` whose value names the package.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from suites.claims.suite import SUITE as CLAIMS
from suites.content_names import package_digest
from suites.context_parallel.suite import SUITE as CONTEXT
from suites.error.suite import SUITE as ERROR
from suites.machine.cases import RoofRules, SentinelRules
from suites.peers.suite import SUITE as PEERS
from suites.quality.suite import SUITE as QUALITY
from suites.quantized.suite import SUITE as QUANTIZED
from suites.speed.suite import SUITE as SPEED
from suites.suite import SHARED, CaseRules, Suite

GROUP = "attnbench.suites"

_suites: dict[str, Suite[Any]] = {
    suite.name: suite for suite in (SPEED, PEERS, ERROR, QUALITY, QUANTIZED, CLAIMS, CONTEXT)
}
_of_machine = (RoofRules(), SentinelRules())
_broken: dict[str, str] = {}


def suites() -> tuple[Suite[Any], ...]:
    """Return all suites, ours first."""
    return tuple(_suites.values())


def find(name: str) -> Suite[Any]:
    """Return a suite by name.

    Raises:
        ValueError: if there is none.
    """
    if name in _suites:
        return _suites[name]
    failed = "".join(f"; the plug-in {plugin} failed: {why}" for plugin, why in _broken.items())
    raise ValueError(f"suite: expected one of {', '.join(_suites)}, got {name!r}{failed}")


def rules_of(kind: str) -> CaseRules:
    """Return what holds for the cases of a kind; of one whose suite is not here, what is usual."""
    every: tuple[CaseRules, ...] = (*_suites.values(), *_of_machine)
    return next((rules for rules in every if rules.kind == kind), CaseRules())


def takers(name: str) -> list[str]:
    """Return the names of the suites that take an option, by the name of its value."""
    return [
        suite.name
        for suite in _suites.values()
        if name in suite.takes or any(option.name == name for option in suite.options)
    ]


def load_folder(folder: Path) -> None:
    """Load the suite of a plug-in's folder; a folder that is loaded already stays as it is.

    Raises:
        ValueError: if it is none, or its name, its kind or one of its options is taken.
    """
    place = folder.resolve()
    if not (place / "suite.py").is_file():
        raise ValueError(f"{folder} has no suite.py; expected the folder of a suite, or a file")
    package = f"attnbench_plugin_{place.name}_{package_digest(place)[:12]}"
    _make_package(package, place)
    _add(package, str(folder))


def load_installed() -> Mapping[str, str]:
    """Load the suites that are installed; return those that cannot be, with the reason."""
    from importlib.metadata import entry_points  # not where no sweep is asked for

    for entry in entry_points(group=GROUP):
        try:
            _add(entry.value, entry.name)
        except ValueError as error:
            _broken[entry.name] = str(error)
    return _broken


def _add(package: str, where: str) -> None:
    """Import ``suite.py`` of a package, and take what it has to the others."""
    try:
        suite = getattr(importlib.import_module(f"{package}.suite"), "SUITE", None)
    except Exception as error:  # a stranger's module
        message = " ".join(str(error).split())
        raise ValueError(f"{where}: suite.py failed: {type(error).__name__}: {message}") from error
    if not isinstance(suite, Suite):
        was = "no SUITE" if suite is None else f"a {type(suite).__name__}"
        raise ValueError(f"{where}: suite.py: expected SUITE, a suites.suite.Suite, got {was}")
    if _suites.get(suite.name) is suite:
        return
    if suite.name in _suites:
        raise ValueError(f"{where}: the name {suite.name!r} of its suite is taken")
    if suite.kind in {rules.kind for rules in (*_suites.values(), *_of_machine)}:
        raise ValueError(f"{where}: the kind {suite.kind!r} of its cases is taken")
    taken = {o.name for other in _suites.values() for o in other.options} | SHARED.keys()
    for option in suite.options:
        if option.name in taken:
            raise ValueError(f"{where}: its option {option.opts[-1]} is taken")
    _suites[suite.name] = suite


def _make_package(name: str, folder: Path) -> None:
    """Make a folder importable under a name, so that its modules can import one another."""
    if name in sys.modules:
        return
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = importlib.util.module_from_spec(spec)
