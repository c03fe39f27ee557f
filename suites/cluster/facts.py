"""What of a machine's software must be that of the driver's machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from suites.cluster.connection import ray_module
from suites.cluster.link import Node, got, on

FACTS_S = 60.0
"""How long a machine has to say what is installed there."""


def facts_here() -> dict[str, str]:
    """Return what of this process's software must be alike on every machine."""
    return _asked()()


def facts_of(node: Node, stopped: Callable[[], bool]) -> dict[str, str]:
    """Return what of a machine's software must be alike.

    Args:
        node: which machine.
        stopped: says whether the sweep is over; nothing is waited for then.

    Raises:
        LostError: if it does not say.
    """
    ray = ray_module()
    task = ray.remote(_asked()).options(num_cpus=0, max_retries=0, scheduling_strategy=on(node))
    return dict(got(task.remote(), FACTS_S, stopped))


def differing(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Return what differs between the driver and a machine, in words; "" = nothing."""
    return "; ".join(
        f"{name} is {there.get(name, 'none')} there and {value} here"
        for name, value in here.items()
        if there.get(name) != value
    )


def _asked() -> Callable[[], dict[str, str]]:
    """Return the question as a function that needs nothing of ours where it is run."""

    def facts() -> dict[str, str]:
        import importlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import platform

        def version(name: str) -> str:
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return "not installed"

        versions = {
            "python": platform.python_version(),
            "torch": version("torch"),
            "attnbench": version("attnbench"),
        }
        digest = hashlib.sha256()
        for name in ("attention", "models", "suites"):
            spec = importlib.util.find_spec(name)
            places = spec.submodule_search_locations if spec else None
            if not places:
                versions["attnbench"] = "not installed"
                continue
            root = pathlib.Path(next(iter(places)))
            for file in sorted(root.rglob("*.py")):
                digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
        versions["source of attnbench"] = digest.hexdigest()[:12]
        try:
            schema = importlib.import_module("results.schema")
            versions["measurement"] = str(schema.MEASUREMENT)
            versions["schema"] = str(schema.SCHEMA)
        except ImportError:
            pass
        return versions

    return facts
