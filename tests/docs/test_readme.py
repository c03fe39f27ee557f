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


def my_layer() -> Any:
    """Run the README's example and return its class."""
    block, *_ = PYTHON
    scope: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), scope)
    return scope["MyLayer"]


def test_the_example_is_short_and_is_causal_attention() -> None:
    block, *_ = PYTHON
    assert len([line for line in block.splitlines() if line.strip()]) == 10
    layer = my_layer()(width=32, heads=4).double()
    x = torch.randn(2, 50, 32, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    assert out.shape == x.shape
    out[:, :20].square().sum().backward()
    assert x.grad is not None
    assert (x.grad[:, 20:] == 0).all()
    assert (x.grad[:, 0] != 0).any()


def test_the_example_of_a_state_takes_all_tokens() -> None:
    scope: dict[str, Any] = {"attention": attention}
    exec(compile(PYTHON[1], "README.md", "exec"), scope)
    assert scope["out"].shape == (2, 8, 1, 64)
    assert scope["state"].lengths.tolist() == [1001, 1001]


def test_the_example_takes_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    build = attention.build
    monkeypatch.setattr(
        attention, "build", lambda name, **o: built.append(name) or build("sdpa", **o)
    )
    layer = my_layer()(width=32, heads=4)
    x = torch.randn(1, 7, 32)
    q, k, v = layer.qkv(x).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(layer(x), layer.out(mixed.transpose(1, 2).flatten(2)))
    assert built == ["performer"]


def test_the_table_says_what_the_backends_declare() -> None:
    power = {1.0: "N", 2.0: "N²"}
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", README, re.MULTILINE)
    table = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    assert sorted(table) == attention.names()
    for name, (_, weights, causal, cross, time, memory, paper) in table.items():
        declared = attention.describe(name)
        assert weights.startswith("exact" if declared["exact"] else "approximate"), name
        assert causal == ("yes" if declared["causal"] else "no"), name
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
    built = runpy.run_path(str(ROOT / "docs" / "build_measured.py"))
    assert built["readme"]() == README
    assert built["context"]() == (ROOT / "docs" / "context_parallel.md").read_text()
    assert built["cluster"]() == (ROOT / "docs" / "cluster.md").read_text()
    assert built["performance"]() == (ROOT / "docs" / "performance.md").read_text()
    assert built["quality"]() == (ROOT / "docs" / "quality.md").read_text()
    for image in re.findall(r'(?:src|srcset)="([^"]+)"', README):
        assert (ROOT / image).stat().st_size > 0


@pytest.mark.slow
def test_the_reference_report_is_what_the_records_say(tmp_path: Path) -> None:
    built = runpy.run_path(str(ROOT / "docs" / "build_reference.py"))
    built["build"](tmp_path / "again.html")
    again = (tmp_path / "again.html").read_bytes()
    assert built["FILE"].read_bytes() == again, "run: python docs/build_reference.py"
