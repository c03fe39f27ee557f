"""Whole sweeps, servers, clusters, browsers and notebooks: none of it is of the fast tier."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder slow."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("slow")
