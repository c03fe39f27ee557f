"""The picture of rooms and arrows is that of the import graph; no folder is crowded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_rooms_and_arrows_are_those_of_the_import_graph() -> None:
    spec = importlib.util.spec_from_file_location("build", DOCS / "build_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    made = build.built()
    assert made == build.PAGE.read_text(), "run: python docs/build_architecture.py"
    graph = build.rooms()
    assert {"suites.engine", "results.records"} <= graph.keys()
    assert "results.records" in graph["results.analysis"]
    assert not any(room.startswith("suites.") for room in graph["results.report"])


@pytest.mark.parametrize("package", ["attention", "models", "suites", "results"])
def test_no_folder_is_flat_and_crowded(package: str) -> None:
    root = DOCS.parent / package
    for folder in {file.parent for file in root.rglob("*.py")}:
        assert len(list(folder.glob("[!_]*.py"))) <= MOST_FILES.get(str(folder.name), 16), folder


MOST_FILES = {"models": 24}
"""Folders with more files than 16: a file a layer, each small."""
