"""The notebook in examples/ runs as a reader would run it, and shows what its prose says."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell

import cli

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "bert_to_longformer.ipynb"

# Put after the notebook's last cell: what it computed, as JSON.
ASK = """
import json, models
print(json.dumps({
    "models": models.__file__,
    "parity": parity,
    "scale": theirs.abs().max().item(),
    "notes": longformer.swap_notes,
    "differences": json.loads(differences.reset_index().to_json(orient="values")),
    "lengths": LENGTHS,
    "names": list(MODELS),
    "costs": {top: json.loads(costs[top].to_json(orient="index"))
              for top in costs.columns.levels[0]},
}))
"""


def committed() -> Any:
    return nbformat.read(FILE, as_version=4)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the notebook, in an empty folder, on this checkout; return it and what it computed."""
    # In a folder of ours: nobody's kernels, start-up files or running servers take part.
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *([known] if known else [])]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # what is checked holds for any number of threads
    work = tmp_path / "work"
    work.mkdir()
    notebook = committed()
    (costs,) = [cell for cell in notebook.cells if "budget_s=0.5" in cell.source]
    costs.source = costs.source.replace("budget_s=0.5", "budget_s=0.05")  # fewer samples
    notebook.cells.append(new_code_cell(ASK))
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(work)}}
    )
    client.execute()  # raises what a cell raises
    asked = notebook.cells.pop()
    assert list(work.iterdir()) == []
    return notebook, json.loads(asked.outputs[0].text)


def test_the_notebook_runs_and_shows_what_it_says(run: tuple[Any, dict[str, Any]]) -> None:
    notebook, found = run
    assert Path(found["models"]).is_relative_to(ROOT)

    assert found["scale"] > 1  # logits that could differ
    assert found["parity"] < 1e-4
    assert "encoder_embeddings.positions.weight: 512 positions, repeated to 2048" in found["notes"]

    inside = [row for row in found["differences"] if row[1]]
    outside = [row for row in found["differences"] if not row[1]]
    assert len(inside) == 2
    assert all(difference < 1e-5 for *_, difference in inside), inside
    assert {512, 1024, 2048} <= {length for length, *_ in outside}
    assert all(0.01 < difference < 1 for *_, difference in outside), outside

    assert found["lengths"] == [512, 1024, 2048]
    assert found["names"] == ["full", "sdpa", "longformer"]
    times, peaks, ratios = (
        found["costs"][name]
        for name in ("median time (ms)", "peak memory (MiB)", "time ÷ longformer's")
    )
    for table in (times, peaks):
        assert list(table) == ["512", "1024", "2048"]
        for row in table.values():
            assert set(row) == {"full", "sdpa", "longformer"}
            assert all(value > 0 for value in row.values()), row
    for length, row in ratios.items():
        for name, ratio in row.items():
            expected = times[length][name] / times[length]["longformer"]
            assert math.isclose(ratio, expected, rel_tol=1e-6)
    # At 2,048 tokens the scores of four heads fill 64 MiB.
    assert peaks["2048"]["full"] > 64
    assert peaks["2048"]["full"] > peaks["2048"]["sdpa"]

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    said = [line for o in outputs if o.get("name") == "stderr" for line in o.text.splitlines()]
    # transformers imports torchao where it is there, which speaks of CUDA and of torch to come.
    assert [line for line in said if not re.search("torchao|register_constant", line)] == []
    for note in found["notes"]:
        assert note in printed
    images = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(images) == 1
    tables = [o for o in outputs if "text/html" in o.get("data", {})]
    assert len(tables) == 2


def test_the_notebook_is_committed_without_what_it_computed() -> None:
    notebook = committed()
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    names = [cell.id for cell in notebook.cells]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z-]+", name) for name in names), "ids that say what a cell is"
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [], cell.id
            assert cell.execution_count is None, cell.id
    assert FILE.read_text() == nbformat.writes(notebook) + "\n", "not as nbformat writes it"


def test_the_commands_and_files_that_the_notebook_names_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()  # as the first command leaves it for the second
    text = "\n".join(cell.source for cell in committed().cells if cell.cell_type == "markdown")
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    commands = [words[1:] for words in map(shlex.split, lines) if words[0] == "attnbench"]
    assert [words[0] for words in commands] == ["run", "report"]
    for name, *words in commands:
        # Parses, and starts nothing. Within the group's context, since a command keeps the help
        # option of the first context that it meets.
        with cli.main.make_context("attnbench", [name, *words]) as group:
            cli.main.commands[name].make_context(name, words, parent=group)
    files = re.findall(r"examples/\w+\.\w+", text)
    assert len(files) == 2
    for file in files:
        assert (ROOT / file).exists(), file
