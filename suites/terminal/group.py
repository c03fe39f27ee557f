"""What the commands have in common: errors on one line, exit codes, which options were given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from suites.terminal.stream import Stream

HELP_NAMES = ("-h", "--help")


class OneLineGroup(click.Group):
    """A group whose errors are one line on standard error, and whose help leaves nothing out.

    Args:
        order: names of its commands as they are listed: those that are used first come first.
        **extra: of `click.Group`.
    """

    def __init__(self, *args: Any, order: Sequence[str] = (), **extra: Any) -> None:
        super().__init__(*args, **extra)
        self._order = (*order,)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words before a command; where there are none, print the help."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in their order, and then any others."""
        return [*self._order, *sorted(set(self.commands) - set(self._order))]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, each with all of its first paragraph."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _first_paragraph(self.commands[name])) for name in self.list_commands(ctx)]
            )

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the help's names: also where it is called without the group."""
        cmd.context_settings["help_option_names"] = HELP_NAMES
        super().add_command(cmd, name)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command; by itself (`standalone_mode`), end the process with its exit code."""
        given = args[0] if args else extra.get("args")
        extra["obj"] = tuple(sys.argv[1:] if given is None else given)
        run_command: Callable[..., Any] = super().main
        if not extra.pop("standalone_mode", True):
            return run_command(*args, standalone_mode=False, **extra)
        try:
            code = run_command(*args, standalone_mode=False, **extra)
        except click.ClickException as error:
            context: click.Context | None = getattr(error, "ctx", None)
            where = context.command_path if context else "attnbench"
            Stream(sys.stderr).write(f"{where}: {_one_line(error)}\n")
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            code = 130
        sys.exit(code if isinstance(code, int) else 0)


def _first_paragraph(command: click.Command) -> str:
    """Return the first paragraph of a command's help on one line."""
    return " ".join((command.help or "").partition("\n\n")[0].split())


class StoppedError(click.ClickException):
    """A command could not go on; told with the command's name, where its context is given."""

    def __init__(self, message: str, ctx: click.Context | None = None) -> None:
        super().__init__(message)
        self.ctx = ctx


def message_of(error: Exception) -> str:
    """Return what an error says, an error of the system with its file first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _one_line(error: click.ClickException) -> str:
    """Return the message on one line; where a name is unknown, with those that are accepted."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and context is not None:
        accepted = [p.opts[-1] for p in context.command.params if isinstance(p, click.Option)]
        return f"{text} Accepted: {', '.join(accepted)}."
    if context is not None and "No such command" in text:
        return f"{text} Accepted: {', '.join(context.command.list_commands(context))}."
    return text


class NotComparedError(StoppedError):
    """The runs could not be read or measured: no verdict, which exit code 1 would be."""

    exit_code = 3


def given_option(ctx: click.Context, *names: str) -> str | None:
    """Return the first of some options that the user gave, as it is written."""
    default = click.core.ParameterSource.DEFAULT
    for parameter in ctx.command.params:
        if parameter.name in names and ctx.get_parameter_source(parameter.name) != default:
            return parameter.opts[-1]
    return None


@contextmanager
def misuse(
    ctx: click.Context, failure: type[click.ClickException] = click.ClickException
) -> Iterator[None]:
    """Turn what a function does not accept into one line, and what cannot be written too.

    Args:
        ctx: of the command.
        failure: of what cannot be read or written.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error), ctx) from error
    except OSError as error:
        raise failure(f"{error.filename or ''}: {error.strerror}") from error
