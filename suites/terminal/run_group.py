"""`attnbench run`: a command a suite, each with its own options, those of plug-ins too."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from suites import names, registry
from suites.plan import refusal, spelled
from suites.suite import Suite
from suites.terminal.group import HELP_NAMES
from suites.terminal.options import TAKEN, suite_options
from suites.terminal.stream import Stream

USUAL = "speed"
"""The suite that is measured where none is named."""

WIDEST = 30
"""Columns of an option in the help; what it does stands behind, of a longer one below."""


class SuiteCommand(click.Command):
    """The command that measures a suite: it has that suite's options alone.

    Args:
        suite: what is measured; its name is the callback's argument ``suite``.
        callback: measures.
        note: said before that, of how the command was written.
    """

    def __init__(self, suite: Suite[Any], callback: Callable[..., Any] | None, note: str) -> None:
        self.suite, self._note = suite, note
        self.groups = suite_options(suite)
        super().__init__(
            suite.name,
            callback=callback,
            params=[option for group in self.groups.values() for option in group],
            help=f"Measure {suite.summary}.",
            context_settings={"help_option_names": HELP_NAMES},
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; of one that is another suite's say whose."""
        ctx.allow_extra_args = True
        try:
            super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            word = error.option_name
            of_others = {f"--{text}": name for name, text in spelled().items()}
            if word not in of_others:
                raise
            why = refusal(self.suite, of_others[word])
            raise click.UsageError(f"{word}: {why}; got suite {self.suite.name}", ctx) from None
        if ctx.args and not ctx.resilient_parsing:
            raise click.UsageError(_unexpected(ctx.args[0]), ctx)
        ctx.params["suite"] = self.suite.name
        return ctx.args

    def invoke(self, ctx: click.Context) -> Any:
        """Measure."""
        if self._note:
            Stream(sys.stderr).write(f"note: {self._note}\n")
        return super().invoke(ctx)

    def records(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """Return by group how options are written and what they do; the help's own comes last."""
        groups = {title: [*options] for title, options in self.groups.items()}
        if (help_option := self.get_help_option(ctx)) is not None:
            [*groups.values()][-1].append(help_option)
        return {
            title: [record for option in options if (record := _record(ctx, option)) is not None]
            for title, options in groups.items()
        }

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by their groups."""
        records = self.records(ctx)
        lengths = [len(term) for rows in records.values() for term, _ in rows]
        width = max((length for length in lengths if length <= WIDEST), default=WIDEST)
        for title, rows in records.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(term.ljust(width), text) for term, text in rows], width)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        examples = self.suite.examples or (f"attnbench run {self.suite.name}",)
        with formatter.section("Example" if len(examples) == 1 else "Examples"):
            for line in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class RunGroup(click.Group):
    """The commands that measure, a suite each; without one `USUAL` is measured.

    A context that is made of it is that of the suite's command.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the suites, ours first."""
        return [suite.name for suite in registry.suites()]

    def get_command(self, ctx: click.Context, cmd_name: str, note: str = "") -> SuiteCommand:
        """Return the command of a suite.

        Raises:
            click.UsageError: if there is none.
        """
        try:
            return SuiteCommand(registry.find(cmd_name), self.callback, note)
        except ValueError as error:
            near = get_close_matches(cmd_name, self.list_commands(ctx), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise click.UsageError(f"{error}{hint}", ctx) from None

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context of the suite that is named, of `USUAL` where none is.

        Raises:
            click.UsageError: if there is no such suite, or a plug-in cannot be loaded.
        """
        here = click.Context(self, parent, info_name, **extra)
        if not here.resilient_parsing:  # what is only completed runs no stranger's code
            _load(here, args)
        suite, words, note = self._suite_of(here, args)
        asks = [word for word in words if word in HELP_NAMES]
        if suite is None and (asks or (here.resilient_parsing and not words)):
            return super().make_context(info_name, asks, parent, **extra)
        command = self.get_command(here, suite or USUAL, note)
        shown = f"{info_name} {suite}" if suite else info_name
        return command.make_context(shown, words, parent, **extra)

    def _suite_of(
        self, ctx: click.Context, args: Sequence[str]
    ) -> tuple[str | None, list[str], str]:
        """Return the suite that words name, the others, and what is to be said of them."""
        before, word, after = _parted(args, "--suite")
        first = args[0] if args and not args[0].startswith("-") else None
        if word is None and "--suite" in args and not ctx.resilient_parsing:
            every = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"--suite: expected one of {every}, got nothing", ctx)
        if word is None:
            if ctx.resilient_parsing and first not in self.list_commands(ctx):
                first = None
            return first, [*args[first is not None :]], ""
        if first is not None:
            raise click.UsageError(f"--suite: {first} is named already; got {word}", ctx)
        return word, [*before, *after], f"--suite {word} is written `attnbench run {word}` now"

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a suite, and options of `USUAL`."""
        if incomplete.startswith("-"):
            return self.get_command(ctx, USUAL).shell_complete(ctx, incomplete)
        return [
            CompletionItem(name) for name in names.suites(self.list_commands(ctx))
            if name.startswith(incomplete)
        ]  # fmt: skip

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return what stands behind the command in its first line."""
        return ["[SUITE]", "[OPTIONS]"]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the suites, and what each measures."""
        with formatter.section("Suites"):
            formatter.write_dl([(suite.name, suite.summary) for suite in registry.suites()])


def load_plugin(ctx: click.Context, folder: Path) -> None:
    """Load the suite of a plug-in's folder; what is wrong with it is misuse."""
    try:
        registry.load_folder(folder, TAKEN)
    except ValueError as error:
        raise click.UsageError(f"--plugin: {error}", ctx) from None


def _load(ctx: click.Context, args: Sequence[str]) -> None:
    """Load the suites that are installed, and those of the folders that are named."""
    for name, reason in registry.load_installed(TAKEN).items():
        click.echo(f"plug-in {name} failed to load: {reason}", err=True)
    for word, following in itertools.pairwise([*args, ""]):
        name, equals, value = word.partition("=")
        folder = Path(value if equals else following)
        if name == "--plugin" and folder.is_dir():
            load_plugin(ctx, folder)


def _record(ctx: click.Context, option: click.Option) -> tuple[str, str] | None:
    """Return how an option is written, and what it does, with what holds without it."""
    record, shown = option.get_help_record(ctx), option.show_default
    if record is None:
        return None
    default = shown if isinstance(shown, str) else option.default
    return record[0], f"{option.help} [default: {default}]" if shown else f"{option.help}"


def _parted(args: Sequence[str], option: str) -> tuple[list[str], str | None, list[str]]:
    """Return the words before an option, its value, and the words behind it."""
    for i, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name == option and (equals or i + 1 < len(args)):
            return [*args[:i]], value if equals else args[i + 1], [*args[i + 2 - bool(equals) :]]
    return [*args], None, []


def _unexpected(word: str) -> str:
    """Say of a word that is no option's that a suite's name comes first."""
    every = [suite.name for suite in registry.suites()]
    if word in every:
        return f"a suite is named first: attnbench run {word} …"
    return f"expected options, or first a suite ({', '.join(every)}); got {word!r}"
