"""docs/method*.md: the tables are those of what was measured, and none stands for what was not."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("method*.md"))
TEXT = "".join(page.read_text() for page in PAGES)


@pytest.fixture
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("built", ROOT / "docs" / "build_method.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_what_was_measured(build: ModuleType, page: Path) -> None:
    assert build.method(page) == page.read_text()


def test_every_promise_with_details_has_a_place(build: ModuleType) -> None:
    marks = set(re.findall(r"<!-- method: (\S+) -->", TEXT))
    assert {name.replace("_", "-") for name in build.DETAILS} <= marks


def test_what_was_not_measured_has_no_table(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(build.VERIFIED.read_text()) | {"promises": []}
    (tmp_path / "verified.json").write_text(json.dumps(content))
    monkeypatch.setattr(build, "VERIFIED", tmp_path / "verified.json")
    text = "".join(map(build.method, PAGES))
    parts = re.findall(r"<!-- method: (\S+) -->\n(.*?)\n<!-- /method: \1 -->", text, re.DOTALL)
    assert len(parts) > 8
    for name, content in parts:
        if name == "rates":
            rows = [line for line in content.splitlines() if line.startswith("| `")]
            assert len(rows) == len(build.PROMISES)
            assert all(row.endswith("| not measured yet |") for row in rows)
        else:
            assert content == build.NOT_MEASURED


def test_no_estimator_is_described_that_is_gone() -> None:
    for word in ("resampl", "asymptotic", "with replacement"):
        assert word not in TEXT
