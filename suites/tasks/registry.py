"""Find tasks by name: the files of ``suites/tasks/`` and installed plug-ins.

A task registers itself with the decorator `register`. Modules in ``suites/tasks/`` are imported
on demand; plug-ins are installed distributions with an entry point in the group
``attnbench.tasks`` whose value is a module that registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attention.options import check_options, describe_option
from attention.plugins import Registry
from results.schema import Arm
from suites.parsing import parse_backend
from suites.tasks.base import Form, Task

T = TypeVar("T", bound=Task)

ENTRY_POINT_GROUP = "attnbench.tasks"

_registry: Registry[Task] = Registry(
    "task", argument="task", package="suites.tasks", group=ENTRY_POINT_GROUP, blames_all=True
)

names, get = _registry.names, _registry.find
broken_plugins = _registry.broken_plugins


def register(name: str) -> Callable[[type[T]], type[T]]:
    """Make a class known under `name`.

    Raises:
        ValueError: if another class already has the name.
    """
    return _registry.register(name)


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
    check_options(f"task {cls.name}", cls.options(), arm.options)
    length = cls.default_seq_len if seq_len is None else seq_len
    given = {"files": files} if cls.needs_files else {}
    return cls(seq_len=length, form=form, **arm.options, **given)


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
            "options": {n: describe_option(p) for n, p in cls.options().items()},
        }
        for cls in map(get, names())
    ]
