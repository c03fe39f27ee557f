"""Find the chapters: those of this package, of installed plug-ins, and of plug-ins' folders.

A plug-in's ``chapter.py`` is imported without what lies beside it, but what it imports itself: its
suite may need torch, its chapter must not.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import pkgutil
import sys
import types
from collections.abc import Collection, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from results import chapters
from results.chapters import ReportChapter
from results.text.clean import clean

GROUP = "attnbench.suites"
"""Of the entry points whose values name packages; a package's ``chapter.py`` is its chapter."""

FILE = "chapter.py"

_LONGEST_MESSAGE = 300

_numbers = itertools.count()
"""Of the packages that stand for plug-ins' folders."""


class PluginError(ValueError):
    """A plug-in's chapter cannot be loaded; the message says which, and why."""


def built_in() -> list[ReportChapter]:
    """Return the chapters of this package."""
    folders = [m.name for m in pkgutil.iter_modules(chapters.__path__) if m.ispkg]
    modules = [importlib.import_module(f"{chapters.__name__}.{name}.chapter") for name in folders]
    return [module.CHAPTER for module in modules]


def installed(but: Collection[Path] = ()) -> tuple[list[ReportChapter], list[str]]:
    """Return the chapters of installed plug-ins, and what to say of those that are broken.

    Args:
        but: folders whose chapters are known already.
    """
    found, messages = [], []
    for entry in entry_points(group=GROUP):
        try:
            folders = [f for f in _folders(entry) if has_chapter(f) and f.resolve() not in but]
            found += [from_folder(folder) for folder in folders]
        except PluginError as error:
            messages.append(f"plug-in {clean(entry.name)}: {error}; its chapter is left out")
    return found, messages


def _folders(entry: EntryPoint) -> list[Path]:
    """Return where the package of an entry point lies."""
    try:
        spec = importlib.util.find_spec(entry.value)
    except Exception as error:  # a package above it may raise what it will
        raise PluginError(_in_words(error)) from None
    if spec is None:
        raise PluginError(f"no module named {clean(entry.value)}")
    return [Path(place) for place in spec.submodule_search_locations or ()]


def has_chapter(folder: Path) -> bool:
    """Whether a plug-in has a chapter: a suite need not have one."""
    return (folder / FILE).is_file()


def from_folder(folder: Path) -> ReportChapter:
    """Import ``chapter.py`` of a plug-in's folder, which may import its neighbours relatively.

    Raises:
        PluginError: if it is not there, raises when it is imported, or has no `CHAPTER`.
    """
    if not has_chapter(folder):
        raise PluginError(f"{folder / FILE}: no such file")
    package = types.ModuleType(f"attnbench_chapter_{next(_numbers)}")
    package.__path__ = [str(folder.resolve())]  # without its __init__: that is the suite's
    sys.modules[package.__name__] = package
    try:
        module = importlib.import_module(f"{package.__name__}.chapter")
    except Exception as error:  # a stranger's code
        raise PluginError(f"{folder / FILE}: {_in_words(error)}") from error
    chapter = getattr(module, "CHAPTER", None)
    if not isinstance(chapter, ReportChapter):
        raise PluginError(
            f"{folder / FILE}: CHAPTER: expected a results.chapters.ReportChapter, got "
            f"{type(chapter).__name__}"
        )
    return chapter


def _in_words(error: BaseException) -> str:
    return clean(f"{type(error).__name__}: {error}")[:_LONGEST_MESSAGE]


def every(folders: Sequence[Path]) -> tuple[list[ReportChapter], list[str]]:
    """Return all chapters in their order, and what to say of broken installed plug-ins.

    Args:
        folders: of further plug-ins.

    Raises:
        PluginError: if one of them has no chapter that can be loaded.
    """
    try:
        own = [from_folder(folder) for folder in folders]
    except PluginError as error:
        raise PluginError(f"plugin: {error}") from error
    others, messages = installed(but=[folder.resolve() for folder in folders])
    return sorted([*built_in(), *others, *own], key=lambda c: c.order), messages
