"""Find tasks by name: the files of ``suites/tasks/`` and installed plug-ins.

A task registers itself with the decorator `register`. Modules in ``suites/tasks/`` are imported
on demand; plug-ins are installed distributions with an entry point in the group
``attnbench.tasks`` whose value is a module that registers.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attention.plugins import Registry
from results.schema import Arm
from suites.parsing import parse_backend
from suites.tasks.base import Form, Task

T = TypeVar("T", bound=Task)

ENTRY_POINT_GROUP = "attnbench.tasks"

_registry: Registry[Task] = Registry(
    "task", argument="task", package="suites.tasks", group=ENTRY_POINT_GROUP, blames_all=True
)


def register(name: str) -> Callable[[type[T]], type[T]]:
    """Make a class known under `name`.

    Raises:
        ValueError: if another class already has the name.
    """

    def add(cls: type[T]) -> type[T]:
        _registry.add(name, cls)
        return cls

    return add


def names() -> list[str]:
    """Return the registered names, sorted."""
    return _registry.names()


def get(name: str) -> type[Task]:
    """Return the class registered under `name`.

    Raises:
        ValueError: if there is none; the message names the near ones and all.
    """
    return _registry.find(name)


def build(
    arm: Arm | str,
    *,
    seq_len: int | None = None,
    form: Form,
    files: Mapping[str, Path] | None = None,
) -> Task:
    """Build a task: ``build("recall:num_pairs=8", seq_len=128, form="causal")``.

    Args:
        arm: name and options, or the text that `parse_backend` reads.
        seq_len: N, tokens; ``None`` = the task's own default.
        form: causal or bidirectional.
        files: a content's name to its path, for the tasks that read files.

    Raises:
        ValueError: if the name is unknown, or an option is out of range or impossible.
        TypeError: if an option is unknown, missing or of the wrong type; the message names those
            accepted.
    """
    arm = parse_backend(arm) if isinstance(arm, str) else arm
    cls = get(arm.name)
    _check_options(cls, arm)
    length = cls.default_seq_len if seq_len is None else seq_len
    given = {"files": files} if cls.needs_files else {}
    return cls(seq_len=length, form=form, **arm.options, **given)


def _check_options(cls: type[Task], arm: Arm) -> None:
    accepted = cls.options()
    for option in arm.options:
        if option not in accepted:
            near = difflib.get_close_matches(option, accepted, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            listed = ", ".join(accepted) or "none"
            raise TypeError(
                f"{option}: task {cls.name} has no such option{hint}; accepted: {listed}"
            )
    missing = [n for n, p in accepted.items() if _is_required(p) and n not in arm.options]
    if missing:
        raise TypeError(f"{missing[0]}: task {cls.name} needs {', '.join(missing)}")


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def describe() -> list[dict[str, Any]]:
    """Return what every task declares, as plain values for JSON and tables.

    Keys: name, summary, paper, metric, group, seq_len (where nobody says otherwise), options (name
    to type and default; ``required`` where there is none).
    """
    return [
        {
            "name": cls.name,
            "summary": cls.summary,
            "paper": cls.paper,
            "metric": cls.metric,
            "group": cls.group,
            "seq_len": cls.default_seq_len,
            "options": {n: _describe_option(p) for n, p in cls.options().items()},
        }
        for cls in map(get, names())
    ]


def _describe_option(parameter: inspect.Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {"type": str(parameter.annotation)}
    if _is_required(parameter):
        return described | {"required": True}
    default = parameter.default
    return described | {"default": list(default) if isinstance(default, tuple) else default}


def broken_plugins() -> dict[str, str]:
    """Return the installed plug-ins that failed to import: entry point name to the error."""
    return _registry.broken_plugins()
