"""The folder of a plug-in as a package, of which each process imports the part that it needs.

``suite.py`` is the driver's, ``kind.py`` the worker's, ``chapter.py`` the report's. No torch.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

from suites.content_names import file_digest


def folder_digest(folder: Path) -> str:
    """Return one SHA-256 for the Python files of a folder and what is in it, in hex.

    Raises:
        ValueError: if one cannot be read.
    """
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        whole.update(f"{file_digest(file)} {file.relative_to(folder)}\n".encode())
    return whole.hexdigest()


def make_package(folder: Path) -> str:
    """Make a folder importable, so that its modules can import one another.

    Returns:
        The name of the package, another for another content.

    Raises:
        ValueError: if a file cannot be read.
        Exception: whatever its ``__init__.py`` raises, if it has one.
    """
    name = f"attnbench_plugin_{folder.name}_{folder_digest(folder)[:12]}"
    if name in sys.modules:
        return name
    start = folder / "__init__.py"
    spec: importlib.machinery.ModuleSpec | None
    if start.is_file():
        spec = importlib.util.spec_from_file_location(
            name, start, submodule_search_locations=[str(folder)]
        )
    else:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if spec.loader is not None:
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return name
