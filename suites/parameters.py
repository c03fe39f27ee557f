"""What options of the command line take: types that say on one line what they accept. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from results.schema import parse_length

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:  # in older versions of click the class takes no parameters
    _Type = click.ParamType

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def one_of(names: Callable[[], Iterable[str]]) -> Complete:
    """Return a completion by names."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names() if name.startswith(incomplete)]

    return complete


def several_of(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    """Complete the last of values separated by commas; one that is there already is left out."""
    before, comma, last = incomplete.rpartition(",")
    there = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}")
        for name in names
        if name.startswith(last) and name not in there
    ]


def any_of(names: Callable[[], Iterable[str]]) -> Complete:
    """Return a completion of the last of several names."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return several_of(incomplete, names())

    return complete


def flattened(
    ctx: click.Context, param: click.Parameter, values: Iterable[tuple[Any, ...]] | None
) -> tuple[Any, ...]:
    """Return the values of a repeated option, of which each may hold several, as one row."""
    return tuple(one for several in values or () for one in several)


class Several(_Type):
    """One or several values, separated by commas."""

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self.kind = kind
        self.name = f"{kind.name},…"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the choices, or the kind of value."""
        if isinstance(self.kind, click.Choice):
            return f"{'|'.join(self.kind.choices)},…"
        return "N,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Read each part; the same value twice counts once."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        return tuple(dict.fromkeys(self.kind.convert(part, param, ctx) for part in parts))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the last part by the choices."""
        choices = self.kind.choices if isinstance(self.kind, click.Choice) else ()
        return several_of(incomplete, map(str, choices))


class Number(click.FloatRange):
    """A number of a range: not a number is outside of every one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value."""
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


class Parsed(_Type):
    """A value that a function of the suites reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self.parse = parse

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the form."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value; what the function does not accept is misuse."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Length(_Type):
    """A length in tokens, as ``16384``, ``16k`` or ``1m``.

    Args:
        most: the longest that is accepted.
    """

    name = "tokens"

    def __init__(self, most: int) -> None:
        self.most = most

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the form."""
        return "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the value."""
        try:
            length = parse_length(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if length > self.most:
            self.fail(f"{value} is above the longest length, {self.most:,}", param, ctx)
        return length


class Switch(_Type):
    """``on``, ``off`` or both, as booleans."""

    name = "off|on,…"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the choices."""
        return self.name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[bool, ...]:
        """Read each part."""
        words = Several(click.Choice(["off", "on"])).convert(value, param, ctx)
        return tuple(word is True or word == "on" for word in words)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the last part."""
        return several_of(incomplete, ("off", "on"))


SAMPLE_TIME = Number(0, 600, min_open=True)
COUNTS = Several(click.IntRange(1, 2**30))
LENGTHS = Several(Length(2**30))
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PLUGIN = click.Path(exists=True, path_type=Path)
"""A file, or a folder."""
