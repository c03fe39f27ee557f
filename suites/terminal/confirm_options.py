"""The options of measuring two versions again, as the command line takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from suites.parameters import PLUGIN, SAMPLE_TIME, Number
from suites.parsing import LARGEST_LIMIT_S
from suites.terminal.group import given_option

F = TypeVar("F", bound=Callable[..., Any])

CONFIRM_OPTIONS = (
    click.option(
        "--base-from",
        type=click.Path(exists=True, path_type=Path),
        metavar="PATH",
        help="Where BASE's version is: a checkout, an environment, or its Python. For --confirm.",
    ),
    click.option(
        "--new-from",
        type=click.Path(exists=True, path_type=Path),
        metavar="PATH",
        help="Where NEW's version is. Default: what runs this command.",
    ),
    click.option(
        "--max-pairs",
        type=click.IntRange(5, 40),
        default=40,
        show_default=True,
        help="Pairs of processes of a case, at most; five at least.",
    ),
    click.option(
        "--sample-time",
        "budget_s",
        type=SAMPLE_TIME,
        default=0.25,
        show_default=True,
        metavar="SECONDS",
        help="Sampling time of a process of --confirm.",
    ),
    click.option(
        "--case-timeout",
        "case_timeout_s",
        type=Number(0, LARGEST_LIMIT_S, min_open=True),
        default=180.0,
        show_default=True,
        metavar="SECONDS",
        help="Longest time of a process of --confirm.",
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=PLUGIN,
        help="A Python file that registers backends or peers, or the folder of a suite, for "
        "--confirm. Repeatable.",
    ),
    click.option("--resume", is_flag=True, help="Go on with the pairs in --out."),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the pairs are written, a run folder a side. Default: runs/<time>-confirm.",
    ),
)


def confirm_options(function: F) -> F:
    """Give a command the options of measuring two versions again, in alternation."""
    for option in reversed(CONFIRM_OPTIONS):
        function = option(function)
    return function


def check_confirm(
    ctx: click.Context, confirm: bool, base_from: Path | None, options: Iterable[str]
) -> None:
    """Check that the options of measuring again go with ``--confirm``, and that it has its base.

    Raises:
        click.UsageError: naming the one that does not, or is missing.
    """
    if confirm and base_from is None:
        raise click.UsageError(
            "--base-from: --confirm measures both versions again; say where BASE's is, a checkout "
            "or an environment",
            ctx,
        )
    if not confirm and (given := given_option(ctx, "base_from", *options)):
        raise click.UsageError(f"{given}: goes with --confirm", ctx)
