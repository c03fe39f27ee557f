"""Lengths as people write them, wherever one is read."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import main
from results.analysis.selection import parse
from results.schema import LONGEST, parse_length


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("16384", 16_384), ("16k", 16_384), ("16K", 16_384), ("1.5k", 1536), ("1m", 2**20),
     (" 8k ", 8192), ("0.5k", 512)],
)  # fmt: skip
def test_a_length(text: str, tokens: int) -> None:
    assert parse_length(text) == tokens


@pytest.mark.parametrize(
    "text",
    ["", "k", "0", "0k", "-1", "1.5", "1.0001k", "16kk", "16 k", "1e3", "१६",
             "9" * 30, "nan"],
)  # fmt: skip
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(ValueError, match="expected tokens as 16384, 16k or 1m, got "):
        parse_length(text)


@given(st.integers(1, LONGEST))
def test_a_whole_number_is_read_as_it_is(tokens: int) -> None:
    assert parse_length(str(tokens)) == tokens


def test_every_command_that_takes_a_length_reads_it_so() -> None:
    """And compare's cases: a length given both ways is one case."""
    found = {}
    context = main.commands["run"].make_context("run", [], click.Context(main))
    for name, command in {**main.commands, "run": context.command}.items():
        for param in command.params:
            if param.name in ("seq_len", "seq_lens"):
                found[name] = param.type.convert("16k", param, click.Context(command))
    assert found == {"run": (16_384,), "recommend": 16_384}
    assert parse(["seq-len=512,16k"]) == {"seq_len": ("512", "16384")}
