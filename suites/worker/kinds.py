"""The kinds of cases: the one table, and those that plug-ins bring."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path

from attention.plugins import import_file, interrupts, said_of
from suites.kind import Kind
from suites.plugin_folder import folder_digest, make_package

MODULES: Mapping[str, str] = {
    "speed": "suites.speed.kind",
    "peer": "suites.peers.kind",
    "error": "suites.error.kind",
    "task": "suites.quality.kind",
    "quantized": "suites.quantized.kind",
    "claim": "suites.claims.kind",
    "context": "suites.context_parallel.kind",
    "roof": "suites.machine.roofs",
}
"""The module of each kind, imported when a case of it is asked about."""

GROUP = "attnbench.suites"
"""Of the entry points whose value is a package with a ``kind.py``."""

_plugged: dict[str, Kind] = {}
_versions: dict[str, str] = {}
_broken: dict[str, str] = {}


def find(name: str) -> Kind:
    """Return the kind of this name.

    Raises:
        ValueError: if there is none.
    """
    if name in MODULES:
        kind = importlib.import_module(MODULES[name]).KIND
        assert isinstance(kind, Kind)
        assert kind.name == name
        return kind
    if name not in _plugged:
        _discover()
    if name in _plugged:
        return _plugged[name]
    failed = "".join(f"; the plug-in {plugin} failed: {why}" for plugin, why in _broken.items())
    there = ", ".join([*MODULES, *_plugged])
    raise ValueError(f"kind: no kind {name!r}; there are {there}{failed}")


def import_all() -> None:
    """Import every kind of the table: once in a server, for all the cases that it forks."""
    for name in MODULES:
        find(name)


def import_plugins(paths: Iterable[str | Path]) -> dict[str, str]:
    """Import plug-ins: files that register something, and folders with a kind of their own.

    Returns:
        Path to error of those that cannot be used; they cost themselves only.
    """
    broken = {}
    for path in paths:
        try:
            if Path(path).is_dir():
                _add_folder(Path(path).resolve())
            else:
                import_file(path)
        except ValueError as error:
            broken[str(path)] = str(error)
    return broken


def loaded() -> dict[str, str]:
    """Return the kinds of plug-ins: ``{"kind toy": "toy sha256-0123456789ab"}``."""
    return dict(_versions)


def _add_folder(folder: Path) -> None:
    """Import the kind of a plug-in's folder.

    Raises:
        ValueError: naming the file, and what is missing or wrong in it.
    """
    file = folder / "kind.py"
    if not file.is_file():
        raise ValueError(f"path: {folder} has no kind.py, which measures the plug-in's cases")
    try:
        package = make_package(folder)
    except BaseException as error:
        if interrupts(error):
            raise
        raise ValueError(f"path: {folder} failed to import: {said_of(error)}") from error
    _add(package, f"path: {file}", f"{folder.name} sha256-{folder_digest(folder)[:12]}")


def _discover() -> None:
    """Import the kinds of installed plug-ins; one that cannot be used is remembered."""
    for entry in importlib.metadata.entry_points(group=GROUP):
        distribution = entry.dist
        version = f"{distribution.name} {distribution.version}" if distribution else entry.name
        try:
            _add(entry.value, f"{entry.value}.kind", version)
        except ValueError as error:
            _broken[entry.name] = str(error)


def _add(package: str, where: str, version: str) -> None:
    """Import ``kind.py`` of a package, and take its kind to the others.

    Raises:
        ValueError: if it cannot be used, beginning with `where`.
    """
    try:
        kind = getattr(importlib.import_module(f"{package}.kind"), "KIND", None)
    except BaseException as error:
        if interrupts(error):
            raise
        raise ValueError(f"{where} failed to import: {said_of(error)}") from error
    if not isinstance(kind, Kind):
        was = "none" if kind is None else type(kind).__name__
        raise ValueError(f"{where}: expected KIND = suites.kind.Kind(…), got {was}")
    if kind.name in MODULES or _plugged.get(kind.name, kind) is not kind:
        raise ValueError(f"{where}: there is a kind {kind.name!r} already")
    _plugged[kind.name] = kind
    _versions[f"kind {kind.name}"] = version
