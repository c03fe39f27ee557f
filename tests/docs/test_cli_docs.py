from __future__ import annotations

import importlib.util
from pathlib import Path

import click
import pytest

import cli

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_cli", DOCS / "build_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_every_command_and_option_has_help(name):
    command = cli.main.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_every_command_has_its_place_in_the_reference_with_an_example(name, builder):
    page = (DOCS / ("cli_run.md" if name == "run" else "cli.md")).read_text()
    assert f"## attnbench {name}\n" in page
    assert builder.EXAMPLES[name]


def test_the_reference_is_what_the_command_says(builder):
    for page, text in builder.pages().items():
        assert page.read_text() == text, "run: python docs/build_cli.py"


def test_the_examples_are_accepted(builder, monkeypatch, tmp_path):
    """Each is parsed by its command; folders that it names are made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkouts" / "before").mkdir(parents=True)
    for name in ("today", "a", "b", "part1", "part2", "before", "after"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    parent = click.Context(cli.main, info_name="attnbench", **cli.main.context_settings)
    for examples in builder.EXAMPLES.values():
        for line in examples:
            _, name, *arguments = line.split(" && ")[0].split()
            command = cli.main.commands[name]
            context = command.make_context(name, arguments, parent=parent)
            assert context.params is not None
