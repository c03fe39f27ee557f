"""docs/read_records.ipynb runs, and what is committed of it is what it shows."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def builder() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "build_notebook.py"))


@pytest.fixture
def committed(builder: dict[str, Any]) -> Any:
    return nbformat.read(builder["FILE"], as_version=4)


def images(notebook: Any) -> list[str]:
    """Return the ids of the cells that show a figure."""
    outputs = ((cell.id, output) for cell in notebook.cells for output in cell.get("outputs", ()))
    return [cell for cell, output in outputs if "image/png" in output.get("data", {})]


def test_it_shows_what_is_committed(
    builder: dict[str, Any], committed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a folder of ours: nobody's kernels, start-up files or running servers take part.
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    again = builder["executed"]()  # raises what a cell raises, and at what it warns of
    shown = list(builder["texts"](again))
    assert shown == list(builder["texts"](committed)), "run: python docs/build_notebook.py"
    assert len(shown) >= 7
    assert images(again) == images(committed) == ["scaling", "speedup", "errors"]
    assert [cell.source for cell in again.cells] == [cell.source for cell in committed.cells]


def test_it_is_committed_whole_and_clean(builder: dict[str, Any], committed: Any) -> None:
    nbformat.validate(committed)
    text = builder["FILE"].read_text()
    assert text == nbformat.writes(committed) + "\n", "not as nbformat writes it"
    assert len(text) < 400_000
    assert committed.metadata == builder["METADATA"]
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in committed.cells:
        assert cell.metadata == {}, cell.id
    for name, shown in builder["texts"](committed):
        assert "Traceback" not in shown, name
        assert "Warning" not in shown, name
        assert not re.search(r"/(home|root|tmp|work)/", shown), name
    assert str(ROOT) not in text


def test_the_builder_refuses_what_a_cell_warns_of(builder: dict[str, Any]) -> None:
    said = nbformat.v4.new_output("stream", name="stderr", text="a warning\n")
    with pytest.raises(ValueError, match="cell load: expected nothing on standard error"):
        builder["_strip"]("load", said)
