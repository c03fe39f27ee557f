"""Find classes by name: the files of a package, and third-party plug-ins.

Modules of the package are imported when a name is first asked for; plug-ins are installed
distributions with an entry point in a group of that name whose value is a module that registers.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from attention.options import near_miss


class Named(Protocol):
    """What can be registered: the registry sets its name."""

    name: ClassVar[str]


T = TypeVar("T", bound=Named)
C = TypeVar("C", bound=type[Named])

_LONGEST_MESSAGE = 500

OF_FILE = "attnbench_plugin_"
"""What the name of a module begins with that is made of a file."""

_registries: list[Registry[Any]] = []
"""All that there are."""

_sources: dict[str, str] = {}
"""What plug-ins registered, to the plug-in and its version."""


def loaded() -> dict[str, str]:
    """Return what plug-ins have registered in this process, by kind and name, with their version.

    ``{"backend mine": "my_attention.py sha256-0123456789ab"}``: of a file its name without
    folders, and the start of its content's SHA-256; of an installed plug-in its distribution, the
    version, and likewise of the module that its entry point names. Of modules that these import
    nothing is told.
    """
    keys = sorted(f"{one.kind} {name}" for one in _registries for name in one)
    return {key: _sources[key] for key in keys if key in _sources}


def is_name(text: object) -> bool:
    """Whether options of the command line can name it (`suites.parsing.parse_backend`)."""
    if not isinstance(text, str):
        return False
    return text.replace("_", "").replace("-", "").replace(".", "").isalnum()


def _digest(content: bytes) -> str:
    """Name a content, as `suites.content_names` does."""
    return f"sha256-{hashlib.sha256(content).hexdigest()[:12]}"


def _version(entry: importlib.metadata.EntryPoint) -> str:
    """Return the name and version of an installed plug-in that was imported."""
    distribution = entry.dist
    parts = [distribution.name, distribution.version] if distribution else [entry.name]
    file = getattr(sys.modules.get(entry.module), "__file__", None)
    if file and Path(file).is_file():
        parts.append(_digest(Path(file).read_bytes()))
    return " ".join(parts)


class _Watched:
    """What the registries held at one time."""

    def __init__(self) -> None:
        self._before = {one.kind: dict(one) for one in _registries}

    def restore(self) -> None:
        """Forget what was registered since."""
        for one in _registries:
            one.clear()
            one.update(self._before.get(one.kind, {}))

    def note(self, source: str) -> bool:
        """Remember where what was registered since comes from; say whether there is anything."""
        added = [
            f"{one.kind} {name}"
            for one in _registries
            for name, cls in one.items()
            if self._before.get(one.kind, {}).get(name) is not cls
            and not cls.__module__.startswith(f"{one.package}.")
        ]
        _sources.update(dict.fromkeys(added, source))
        return bool(added)


def interrupts(error: BaseException) -> bool:
    """Say whether an error comes from outside of what was running: Ctrl-C, a time limit.

    The class of such an error says so by the attribute ``interrupts = True``.
    """
    return isinstance(error, KeyboardInterrupt) or getattr(error, "interrupts", False) is True


def said_of(error: BaseException) -> str:
    """Return an error's type and message on one line, whatever its own methods do."""
    try:
        text = " ".join(str(error).split())[:_LONGEST_MESSAGE]
    except Exception:  # a stranger's class
        text = "(its message cannot be written)"
    kind = type(error).__name__
    text = "".join(c if c.isprintable() else "?" for c in text)
    return f"{kind}: {text}" if text else kind


class Registry(dict[str, type[T]], Generic[T]):
    """The classes of one kind, by name; what is found is found on demand.

    A plug-in that raises when it is imported, whatever it raises but Ctrl-C, registers nothing,
    is remembered with its error, and stops no other.

    Args:
        kind: what a class is, for messages.
        argument: that names one, for messages.
        package: whose modules register.
        group: of the entry points whose modules register.
        blames_all: an unknown name may come from any broken plug-in, not from its namesake alone.
        reserved: names that mean something else.
    """

    def __init__(
        self,
        kind: str,
        *,
        argument: str,
        package: str,
        group: str,
        blames_all: bool = False,
        reserved: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.reserved = reserved
        self.kind, self.argument, self.blames_all = kind, argument, blames_all
        self.package, self.group = package, group
        self._broken: dict[str, str] = {}
        self._broken_files: dict[str, str] = {}
        self._is_complete = False
        _registries.append(self)

    def add(self, name: str, cls: type[T]) -> None:
        """Make a class known under `name`.

        Raises:
            ValueError: if another class already has the name, or options of the command line
                could not take it.
        """
        if not is_name(name):
            raise ValueError(
                f"name: expected letters, digits, _, - and ., which options of the command line "
                f"take; got {name!r}"
            )
        if name in self.reserved:
            raise ValueError(f"name: {name!r} is no {self.kind}'s; it means something else")
        other = self.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise ValueError(f"name: {name!r} is already registered by {other.__module__}")
        cls.name = name
        self[name] = cls

    def register(self, name: str) -> Callable[[C], C]:
        """Return the decorator that makes a class known under `name`; errors as of `add`."""

        def decorate(cls: C) -> C:
            self.add(name, cls)  # type: ignore[arg-type]  # the base is that of the kind's plug-ins
            return cls

        return decorate

    def discover(self) -> None:
        """Import what registers, once."""
        if self._is_complete:
            return
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._is_complete = True  # a plug-in may look for ours while it is imported
        for entry in importlib.metadata.entry_points(group=self.group):
            watched = _Watched()
            try:
                entry.load()
                watched.note(_version(entry))
            except BaseException as error:  # a stranger's module: report it, keep the others
                if interrupts(error):
                    self._is_complete = False
                    raise
                self._broken[entry.name] = said_of(error)
                watched.restore()

    def discover_ours(self) -> None:
        """Import what registers, unless a plug-in is installed, whose import may compute.

        A process that others are forked from calls it: they need not look for plug-ins then.
        """
        if not importlib.metadata.entry_points(group=self.group):
            self.discover()

    def blame(self, path: str | Path, error: BaseException) -> None:
        """Note that a file which may have been meant to register here failed."""
        self._broken_files[str(path)] = said_of(error.__cause__ or error)

    def names(self) -> list[str]:
        """Return the registered names, sorted."""
        self.discover()
        return sorted(self)

    def broken_plugins(self) -> dict[str, str]:
        """Return the installed plug-ins that failed to import: entry point name to the error."""
        self.discover()
        return dict(self._broken)

    def find(self, name: str) -> type[T]:
        """Return the class registered under `name`.

        Raises:
            ValueError: if there is none; the message names the near ones and all.
        """
        self.discover()
        if name in self:
            return self[name]
        failed = {
            repr(plugin): error
            for plugin, error in self._broken.items()
            if self.blames_all or plugin == name
        }
        # A file that was named may have been meant to register any name.
        broken = "".join(
            f"; the plug-in {plugin} failed: {error}"
            for plugin, error in (failed | self._broken_files).items()
        )
        raise ValueError(
            f"{self.argument}: no {self.kind} {name!r}{near_miss(name, self)}; "
            f"there are {', '.join(self.names())}{broken}"
        )


def import_file(path: str | Path) -> None:
    """Import a Python file that registers something; it may be of several kinds.

    Raises:
        ValueError: if the file does not exist, cannot be imported or registers nothing. What it
            raised is the cause, nothing of it stays registered, and `Registry.find` speaks of it
            from then on.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise ValueError(f"path: no file {path}")
    for one in _registries:
        one.discover()
    watched = _Watched()
    # Two files of one name are two modules.
    place = hashlib.blake2b(str(file).encode(), digest_size=4).hexdigest()
    spec = importlib.util.spec_from_file_location(f"{OF_FILE}{file.stem}_{place}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"path: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    content = file.read_bytes()
    try:
        if isinstance(spec.loader, importlib.abc.SourceLoader):
            # What is hashed is what runs: bytecode beside the file may be of an older content.
            exec(spec.loader.source_to_code(content, str(file)), module.__dict__)
        else:
            spec.loader.exec_module(module)
    except BaseException as error:
        if interrupts(error):
            raise
        sys.modules.pop(spec.name, None)
        watched.restore()
        for one in _registries:
            one.blame(path, error)
        raise ValueError(f"path: {path} failed to import: {said_of(error)}") from error
    if not watched.note(f"{file.name} {_digest(content)}"):
        raise ValueError(f"path: {path} registers nothing; decorate its class with @register")


def import_files(paths: Iterable[str | Path]) -> dict[str, str]:
    """Import Python files that register something; one that cannot be costs itself only.

    Returns:
        Path to error of those that failed.
    """
    broken = {}
    for path in paths:
        try:
            import_file(path)
        except ValueError as error:
            broken[str(path)] = str(error)
    return broken
