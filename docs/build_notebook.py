"""Run docs/read_records.ipynb and keep what its cells show: tables, numbers and figures.

python docs/build_notebook.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FILE = Path(__file__).with_name("read_records.ipynb")

METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
"""What is kept of a notebook's: no version, since a reader's is another."""

KEPT = ("image/png", "text/html", "text/plain")


def executed() -> Any:
    """Return the notebook, run in its own folder on this checkout, with no trace of the machine.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises.
        ValueError: if a cell writes to standard error, as warnings do.
    """
    notebook = nbformat.read(FILE, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(FILE.parent)}},
    )  # fmt: skip
    known = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(FILE.parents[1]), *([known] if known else [])])
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    client.execute(env={**environment, "PYTHONPATH": path})
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            _strip(cell.id, output)
    return notebook


def _strip(cell: str, output: Any) -> None:
    if output.get("name") == "stderr":
        raise ValueError(f"cell {cell}: expected nothing on standard error, got {output.text!r}")
    if "metadata" in output:
        output.metadata = {}
    if "data" not in output:
        return
    output.data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
    if "image/png" in output.data:
        del output.data["text/plain"]  # the size of the figure


def texts(notebook: Any) -> Iterator[tuple[str, str]]:
    """Yield what a notebook shows as text: the cell's id, and each text without addresses."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            shown = [output.text] if "text" in output else []
            shown += [t for kind, t in output.get("data", {}).items() if kind != "image/png"]
            yield from ((cell.id, re.sub(r"0x[0-9a-f]+", "0x…", text)) for text in shown)


if __name__ == "__main__":
    FILE.write_text(nbformat.writes(executed()) + "\n")
