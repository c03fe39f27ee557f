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
    for page, text in build.built().items():
        assert page.read_text() == text, "run: python docs/build_architecture.py"
    graph = build.rooms()
    assert {"suites.engine", "results.records"} <= graph.keys()
    assert "results.records" in graph["results.analysis"]
    assert not any(room.startswith("suites.") for room in graph["results.report"])


@pytest.mark.parametrize("package", ["attention", "models", "suites", "results"])
def test_no_folder_is_crowded(package: str) -> None:
    for folder in {file.parent for file in (DOCS.parent / package).rglob("*.py")}:
        assert len(list(folder.glob("[!_]*.py"))) <= 16, folder
