"""The options of a table for other programs, as the command line takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from suites.terminal.group import given_option

F = TypeVar("F", bound=Callable[..., Any])

TABLES = {
    "cases": "a row per case, variant and metric",
    "launches": "a row per process and variant",
    "scaling": "exponents",
    "crossover": "from which length on a backend wins",
    "peers": "other libraries beside ours",
    "tasks": "what was learnt, at which cost",
    "errors": "error at a budget",
    "quantized": "quantised weights",
    "claims": "what is said of attention, with verdicts",
    "context": "a sequence over several ranks",
}
"""By name, what is in a table."""

EXPORT_OPTIONS = (
    click.option(
        "--table",
        type=click.Choice(list(TABLES)),
        metavar="NAME",
        help=f"{'; '.join(f'{name} = {what}' for name, what in TABLES.items())}. Default: cases.",
    ),
    click.option(
        "--format",
        "form",
        type=click.Choice(["csv", "json", "parquet", "asv"]),
        default="csv",
        show_default=True,
        help="asv = the result files that asv publish and asv compare read.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="The file; for asv the folder. Default: standard output; for asv DIR.",
    ),
    click.option(
        "--delimiter",
        type=click.Choice([",", ";", "tab", "|"]),
        default=",",
        show_default=True,
        help="Of csv: what stands between cells.",
    ),
    click.option(
        "--decimal",
        type=click.Choice([".", ","]),
        default=".",
        show_default=True,
        help="Of csv: the decimal mark of numbers. Spreadsheets of countries with decimal commas "
        "read ; and , as they are.",
    ),
)


def export_options(function: F) -> F:
    """Give a command the options of a table for other programs."""
    for option in reversed(EXPORT_OPTIONS):
        function = option(function)
    return function


def check_export(
    ctx: click.Context,
    num_folders: int,
    *,
    table: str | None,
    form: str,
    out: Path | None,
    delimiter: str,
    decimal: str,
) -> None:
    """Check that the options of a table go together.

    Raises:
        click.UsageError: naming the one that does not.
    """
    if form != "csv" and (given := given_option(ctx, "delimiter", "decimal")):
        raise click.UsageError(f"{given}: goes with --format csv; got {form}", ctx)
    if delimiter == decimal:
        raise click.UsageError(
            f"--decimal: expected another mark than --delimiter, got {decimal} for both", ctx
        )
    if form == "asv" and table is not None:
        raise click.UsageError("--table: goes with csv, json and parquet; asv has all in one", ctx)
    if form == "asv" and out is None and num_folders > 1:
        raise click.UsageError("--out: name the folder for asv's files of several runs", ctx)
