from __future__ import annotations

import pytest
from click.testing import CliRunner

import cli


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_a_command_called_by_itself_has_the_same_help_options(name):
    result = CliRunner().invoke(cli.main.commands[name], ["-h"])
    assert result.exit_code == 0
    assert "-h, --help" in result.output
