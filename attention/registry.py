"""Find backends by name: the files of ``attention/backends/`` and third-party plug-ins.

A backend registers itself with the decorator `register`. Modules in ``attention/backends/`` are
imported by `names`, `build` and `describe`; plug-ins are installed distributions with an entry
point in the group ``attnbench.backends`` whose value is a module that registers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from attention.base import Attention
from attention.options import check_options, describe_option
from attention.plugins import OF_FILE, Registry, import_file
from attention.problem import UNMEASURED

A = TypeVar("A", bound=Attention)

ENTRY_POINT_GROUP = "attnbench.backends"

_registry: Registry[Attention] = Registry(
    "backend", argument="name", package="attention.backends", group=ENTRY_POINT_GROUP,
    reserved=("claim", "identity", "lstm", "projections", "roof", "sentinel"),
)  # fmt: skip

broken_plugins = _registry.broken_plugins


def register(name: str) -> Callable[[type[A]], type[A]]:
    """Make a class known under `name`.

    Raises:
        ValueError: if another class already has the name, or ``--backend`` could not take it.
    """
    return _registry.register(name)


def names() -> list[str]:
    """Return the registered names, sorted."""
    return _registry.names()


def get(name: str) -> type[Attention]:
    """Return the class registered under `name`.

    Raises:
        ValueError: if there is none; the message names the near ones and all.
    """
    return _registry.find(name)


def is_registered(cls: type[Attention]) -> bool:
    """Say whether a class is what its name is registered for."""
    return _registry.get(getattr(cls, "name", "")) is cls


def file_of(cls: type[Attention]) -> Path | None:
    """Return the file that `load_file` imported a class from; ``None`` = it was none."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(file) if file and cls.__module__.startswith(OF_FILE) else None


def discover_ours() -> None:
    """Import all backends, unless plug-ins are installed (`Registry.discover_ours`)."""
    _registry.discover_ours()


def class_named(class_name: str) -> type[Attention] | None:
    """Return the registered class of that class name, or None."""
    if class_name.startswith("_") or not class_name[:1].isupper():
        return None
    _registry.discover()
    return next((cls for cls in _registry.values() if cls.__name__ == class_name), None)


def build(name: str, **options: Any) -> Attention:
    """Build a backend: ``build("performer", num_heads=8, head_dim=64, num_features=128)``.

    Raises:
        ValueError: if `name` is unknown or an option is out of range.
        TypeError: if an option is unknown, missing or of the wrong type; the message names the
            valid ones.
    """
    cls = get(name)
    check_options(cls.name, cls.options(), options)
    return cls(**options)


def catalogue() -> list[dict[str, Any]]:
    """Return what every backend declares; see `describe`."""
    return [describe(name) for name in names()]


def describe(name: str) -> dict[str, Any]:
    """Return what a backend declares, as plain values for JSON and tables.

    Keys: name, class, summary, paper, family, exact, time_exponent, memory_exponent,
    decode_time_exponent, decode_memory_exponent (``None`` without a state), approximates (``None``
    = unsaid), causal, bidirectional, cross, key_padding, dropout, state, log_sum_exp, nested,
    value_dim, dtypes (device to names), unmeasured (devices
    among them on which nothing of ours was ever run), options (name to type, default and,
    where there are few, choices), call_inputs, unavailable (device to reasons; an empty list =
    available).
    """
    cls = get(name)
    supports = cls.supports
    return {
        "name": cls.name,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "summary": cls.summary,
        "paper": cls.paper,
        "family": cls.family,
        "exact": cls.exact,
        "time_exponent": cls.time_exponent,
        "memory_exponent": cls.memory_exponent,
        "decode_time_exponent": cls.decode_time_exponent if supports.state else None,
        "decode_memory_exponent": cls.decode_memory_exponent if supports.state else None,
        "approximates": cls.approximates,
        "causal": supports.causal,
        "bidirectional": supports.bidirectional,
        "cross": supports.cross,
        "key_padding": supports.key_padding,
        "dropout": supports.dropout,
        "state": supports.state,
        "log_sum_exp": supports.log_sum_exp,
        "nested": supports.nested,
        "value_dim": supports.value_dim,
        "dtypes": {
            device: [str(d).removeprefix("torch.") for d in dtypes]
            for device, dtypes in supports.dtypes.items()
        },
        "unmeasured": [device for device in supports.dtypes if device in UNMEASURED],
        "options": {n: describe_option(p) | _choices(cls, n) for n, p in cls.options().items()},
        "call_inputs": {n: i.doc for n, i in cls.call_inputs.items()},
        "unavailable": {device: cls.unavailable_reasons(device) for device in ("cpu", "cuda")},
    }


def _choices(cls: type[Attention], option: str) -> dict[str, Any]:
    """Return the words an option takes, where its annotation lists them."""
    try:
        hint = get_type_hints(cls.__init__).get(option)
    except NameError:  # a name that only a type checker imports: the annotation stays a text
        return {}
    return {"choices": list(get_args(hint))} if get_origin(hint) is Literal else {}


def load_file(path: str | Path) -> list[str]:
    """Import a Python file that registers backends; return the names it registered.

    Raises:
        ValueError: if the file does not exist, cannot be imported or registers nothing.
    """
    _registry.discover()
    before = dict(_registry)
    import_file(path)
    if added := sorted(n for n, cls in _registry.items() if before.get(n) is not cls):
        return added
    raise ValueError(f"path: {path} registers no backend; decorate its class with @register")
