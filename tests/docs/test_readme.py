"""What the README says is what the backends declare and the records hold; the examples run.

That its code runs, its commands are taken and its links lead somewhere: test_docs.py.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import attention

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_backend_is_used_in_six_lines() -> None:
    block, *_ = PYTHON
    assert len([line for line in block.splitlines() if line.strip()]) == 6
    scope: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), scope)
    q, k, v, out, attend = (scope[name] for name in ("q", "k", "v", "out", "attend"))
    assert out.shape == q.shape
    seen = (torch.arange(1000) - 500).abs() <= 256  # what the README says of window=256
    assert int(seen.sum()) == 513
    alone = torch.softmax(q[:, :, 500:501] @ k[:, :, seen].mT / 64**0.5, -1) @ v[:, :, seen]
    torch.testing.assert_close(out[:, :, 500:501], alone, atol=1e-4, rtol=1e-4)
    again = attention.build("longformer", num_heads=8, head_dim=64, window=256)
    again.load_state_dict(attend.state_dict())


def test_it_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 160
    assert "make bench" in README[: README.index("<picture>")], "the first screen has the commands"


def test_the_table_says_what_the_backends_declare() -> None:
    power = {1.0: "N", 2.0: "N²"}
    types = {"dense": "exact", "sparse": "sparse", "recurrent": "recurrent"}
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", README, re.MULTILINE)
    table = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    assert sorted(table) == attention.names()
    for name, (_, kind, causal, cross, time, memory, paper) in table.items():
        declared = attention.describe(name)
        assert kind == types.get(declared["family"], "approximate"), name
        served = {(False, True): "no", (True, True): "yes", (True, False): "only"}
        assert causal == served[declared["causal"], declared["bidirectional"]], name
        assert cross == ("yes" if declared["cross"] else "no"), name
        assert time == power[declared["time_exponent"]], name
        assert memory == power[declared["memory_exponent"]], name
        assert paper in declared["paper"], name


SMALLER = {
    "longformer_checkpoint.py": ("--layers", "1", "--tokens", "1024"),
    "sliding_window.py": ("--tokens", "1024"),
}
"""Sizes at which an example does all that it does, in less time than at those it shows."""


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.py")), ids=lambda f: f.name)
def test_examples_run(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], *, check: bool) -> None:
        """Run what would be a process of its own, which imports for longer than it measures."""
        assert command[:2] == [sys.executable, str(file)]
        assert check
        called(*command[2:])

    def called(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", [str(file), *arguments])
        runpy.run_path(str(file), run_name="__main__")

    monkeypatch.setattr("subprocess.run", run)
    called(*SMALLER.get(file.name, ()))
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_the_measured_figures_are_those_of_the_reference() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "build_measured.py"))
    for page in made["PAGES"]:
        assert made["built"](page) == page.read_text(), "run: python docs/build_measured.py"
    for image in re.findall(r'(?:src|srcset)="([^"]+)"', README):
        assert (ROOT / image).stat().st_size > 0


@pytest.mark.slow
def test_the_reference_report_is_what_the_records_say(tmp_path: Path) -> None:
    built = runpy.run_path(str(ROOT / "docs" / "build_reference.py"))
    built["build"](tmp_path / "again.html")
    again = (tmp_path / "again.html").read_bytes()
    assert built["FILE"].read_bytes() == again, "run: python docs/build_reference.py"
