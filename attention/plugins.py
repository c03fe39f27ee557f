"""Find classes by name: the files of a package, and third-party plug-ins.

Modules of the package are imported when a name is first asked for; plug-ins are installed
distributions with an entry point in a group of that name whose value is a module that registers.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar


class Named(Protocol):
    """What can be registered: the registry sets its name."""

    name: ClassVar[str]


T = TypeVar("T", bound=Named)

_LONGEST_MESSAGE = 500


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
    """

    def __init__(
        self, kind: str, *, argument: str, package: str, group: str, blames_all: bool = False
    ) -> None:
        super().__init__()
        self.kind, self.argument, self.blames_all = kind, argument, blames_all
        self.package, self.group = package, group
        self._broken: dict[str, str] = {}
        self._broken_files: dict[str, str] = {}
        self._is_complete = False

    def add(self, name: str, cls: type[T]) -> None:
        """Make a class known under `name`.

        Raises:
            ValueError: if another class already has the name.
        """
        other = self.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise ValueError(f"name: {name!r} is already registered by {other.__module__}")
        cls.name = name
        self[name] = cls

    def discover(self) -> None:
        """Import what registers, once."""
        if self._is_complete:
            return
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._is_complete = True  # a plug-in may look for ours while it is imported
        for entry in importlib.metadata.entry_points(group=self.group):
            before = dict(self)
            try:
                entry.load()
            except BaseException as error:  # a stranger's module: report it, keep the others
                if interrupts(error):
                    self._is_complete = False
                    raise
                self._broken[entry.name] = said_of(error)
                self.restore(before)

    def restore(self, before: Mapping[str, type[T]]) -> None:
        """Forget what was registered since `before` was copied."""
        self.clear()
        self.update(before)

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
        near = difflib.get_close_matches(str(name), self, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
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
            f"{self.argument}: no {self.kind} {name!r}{hint}; "
            f"there are {', '.join(self.names())}{broken}"
        )

    def import_file(self, path: str | Path) -> list[str]:
        """Import a Python file; return the names it registered here, maybe none.

        Raises:
            ValueError: if the file does not exist or cannot be imported; its cause is what the
                file raised. `find` speaks of it from then on.
        """
        file = Path(path).resolve()
        if not file.is_file():
            raise ValueError(f"path: no file {path}")
        self.discover()
        before = dict(self)
        # Two files of one name are two modules.
        place = hashlib.blake2b(str(file).encode(), digest_size=4).hexdigest()
        spec = importlib.util.spec_from_file_location(
            f"attnbench_plugin_{file.stem}_{place}", file
        )
        if spec is None or spec.loader is None:
            raise ValueError(f"path: {path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            if interrupts(error):
                raise
            sys.modules.pop(spec.name, None)
            self.restore(before)
            self.blame(path, error)
            raise ValueError(f"path: {path} failed to import: {said_of(error)}") from error
        return sorted(n for n, cls in self.items() if before.get(n) is not cls)
