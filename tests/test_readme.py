"""What the README shows works, and what it says is what the backends declare."""

from __future__ import annotations

import itertools
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import torch

import attention
import cli
from models import LSTMLayer
from results.schema import LSTM

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    """Return the `attnbench …` lines of the README's shell blocks, as words."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("attnbench ")]


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


def test_the_example_of_a_state_runs() -> None:
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


def test_every_command_shown_exists_with_its_options() -> None:
    shown = commands()
    assert {words[1] for words in shown} == set(cli.main.commands)
    for words in shown:
        command = cli.main.commands[words[1]]
        context = click.Context(command)
        known = {o for p in command.params for o in p.opts if isinstance(p, click.Option)}
        for index, word in enumerate(words):
            if not word.startswith("--"):
                continue
            assert word in known, (words, word)
            option = next(p for p in command.params if word in p.opts)
            if option.is_flag or option.name in ("out", "plugins", "hf_configs", "base_from"):
                continue
            option.type_cast_value(
                context, (words[index + 1],) if option.multiple else words[index + 1]
            )


def test_backends_in_the_commands_accept_their_options() -> None:
    seen = 0
    option = next(p for p in cli.main.commands["run"].params if "--backend" in p.opts)
    for words in commands():
        for flag, value in itertools.pairwise(words):
            if flag == "--backend" and "--plugin" not in words:
                arm = option.type.convert(value, option, None)
                if arm.name == LSTM:
                    LSTMLayer(d_model=512, is_causal=True, **arm.options)
                else:
                    attention.build(arm.name, num_heads=8, head_dim=64, **arm.options)
                seen += 1
    assert seen >= 3


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


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.py")), ids=lambda f: f.name)
def test_examples_run(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [str(file)])
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/method.md",
        "docs/performance.md",
        "docs/asv.md",
        "docs/shell.md",
        "docs/ci.md",
        "docs/claims.md",
        "docs/faq.md",
        "docs/quality.md",
        "docs/transformers.md",
    ],
)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    file = ROOT / page
    text = file.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
        assert (file.parent / target).exists(), target
    for path in re.findall(
        r"(?<![\w/.])((?:attention|models|suites|results|docs)/[\w/-]*\.?\w*)", text
    ):
        assert (ROOT / path).exists(), path


def test_the_measured_figures_are_those_of_the_reference() -> None:
    built = runpy.run_path(str(ROOT / "docs" / "build_measured.py"))
    assert built["readme"]() == README
    assert built["performance"]() == (ROOT / "docs" / "performance.md").read_text()
    assert built["quality"]() == (ROOT / "docs" / "quality.md").read_text()
    shown = runpy.run_path(str(ROOT / "docs" / "build_method.py"))
    assert shown["method"]() == (ROOT / "docs" / "method.md").read_text()
    for image in re.findall(r'(?:src|srcset)="([^"]+)"', README):
        assert (ROOT / image).stat().st_size > 0
