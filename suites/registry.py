"""All suites: ours, those that are installed, and the folders that ``--plugin`` names. No torch.

A plug-in suite is a package: ``suite.py`` with ``SUITE``, ``kind.py`` with ``KIND``, which a child
imports (`suites.worker.kinds`), and ``chapter.py`` with ``CHAPTER`` for the report. An installed
one has an entry point in group `GROUP` whose value names the package.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from click import Option

from suites.claims.suite import SUITE as CLAIMS
from suites.context_parallel.suite import SUITE as CONTEXT
from suites.error.suite import SUITE as ERROR
from suites.machine.cases import RoofRules
from suites.peers.suite import SUITE as PEERS
from suites.plugin_folder import make_package
from suites.quality.suite import SUITE as QUALITY
from suites.quantized.suite import SUITE as QUANTIZED
from suites.speed.suite import SUITE as SPEED
from suites.suite import CaseRules, Suite

GROUP = "attnbench.suites"

_suites: dict[str, Suite[Any]] = {
    suite.name: suite for suite in (SPEED, PEERS, ERROR, QUALITY, QUANTIZED, CLAIMS, CONTEXT)
}
_of_machine = (RoofRules(),)
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


def load_folder(folder: Path, taken: Collection[str] = ()) -> None:
    """Load the suite of a plug-in's folder; a folder that is loaded already stays as it is.

    Args:
        folder: with a ``suite.py``.
        taken: names and words of options that are no suite's.

    Raises:
        ValueError: if it is none, or its name, its kind or one of its options is taken.
    """
    if not (folder / "suite.py").is_file():
        raise ValueError(f"{folder} has no suite.py; expected the folder of a suite, or a file")
    try:
        package = make_package(folder.resolve())
    except Exception as error:  # a stranger's module
        raise ValueError(f"{folder} failed to import: {_in_words(error)}") from error
    _add(package, f"{folder / 'suite.py'}", taken)


def load_installed(taken: Collection[str] = ()) -> Mapping[str, str]:
    """Load the suites that are installed; return those that cannot be, with the reason."""
    from importlib.metadata import entry_points  # not where no sweep is asked for

    for entry in entry_points(group=GROUP):
        try:
            _add(entry.value, f"{entry.value}.suite", taken)
        except ValueError as error:
            _broken[entry.name] = str(error)
    return _broken


def _add(package: str, where: str, taken: Collection[str]) -> None:
    """Import ``suite.py`` of a package, and take its suite to the others.

    Raises:
        ValueError: if it cannot be used, beginning with `where`.
    """
    try:
        suite = getattr(importlib.import_module(f"{package}.suite"), "SUITE", None)
    except Exception as error:  # a stranger's module
        raise ValueError(f"{where} failed to import: {_in_words(error)}") from error
    if not isinstance(suite, Suite):
        was = "none" if suite is None else type(suite).__name__
        raise ValueError(f"{where}: expected SUITE, a suites.suite.Suite, got {was}")
    if _suites.get(suite.name) is suite:
        return
    if suite.name in _suites:
        raise ValueError(f"{where}: there is a suite {suite.name!r} already")
    if rules_of(suite.kind).kind:
        raise ValueError(f"{where}: there is a kind {suite.kind!r} already")
    words = set(taken).union(*(_words(one) for other in suites() for one in other.options))
    for option in suite.options:
        if _words(option) & words:
            raise ValueError(f"{where}: there is an option {option.opts[-1]} already")
    _suites[suite.name] = suite


def _words(option: Option) -> set[str]:
    """Return the name of an option's value, and how the command line writes the option."""
    return {str(option.name), *option.opts}


def _in_words(error: Exception) -> str:
    """Write a stranger's error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
