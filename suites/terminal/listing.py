"""Show what is declared, found and compared: lists on a terminal, plain lines in a pipe.

Everything comes in as plain values or by its attributes; nothing is imported to be asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from results.schema import Arm, format_option
from suites.terminal.output import Page
from suites.terminal.stream import Stream

Declared = Mapping[str, Any]

KINDS: Mapping[str | None, str] = {
    "softmax": "approximate", "pattern": "sparse", "itself": "own", None: "own",
}  # fmt: skip
"""A method's type, in the report's words, by what it says it approximates."""

ABLE = ("causal", "cross", "key_padding", "dropout", "state")
SHAPE_APART = ("name", "parameters", "architecture")
"""Of a model: what stands in the first line."""


def show(
    declared: Sequence[Declared], write: Callable[[Page, Declared], None], *, as_json: bool
) -> None:
    """Print what is declared: as JSON all of it, else what `write` makes of each."""
    if as_json:
        click.echo(json.dumps(declared, indent=2, ensure_ascii=False, default=str))
        return
    page = Page()
    for one in declared:
        write(page, one)


def backend(page: Page, one: Declared) -> None:
    """Show a backend: family, what it supports, exponents, options, whether it runs here."""
    kind = "exact" if one["exact"] and one["family"] == "dense" else KINDS[one["approximates"]]
    page.line(f"{one['name']}  ({kind})", bold=True)
    page.line(f"{one['summary']}. {one['paper']}", indent=2)
    supports = ", ".join(k for k in ABLE if one[k]) or "bidirectional self-attention only"
    page.line(supports, label="supports: ", indent=2)
    exponents = f"time N^{one['time_exponent']:g}, memory N^{one['memory_exponent']:g}"
    if one["state"]:
        step, size = one["decode_time_exponent"], one["decode_memory_exponent"]
        exponents += f"; a step N^{step:g}, its state N^{size:g}"
    page.line(exponents, label="expected: ", indent=2)
    options = ", ".join(_option(n, o) for n, o in one["options"].items())
    page.line(options, label="options: ", indent=2)
    _devices(page, one)


def peer(page: Page, one: Declared) -> None:
    """Show another library's attention: beside what of ours, and what is not the same."""
    around = f" with {one['num_projections']} projections" if one["num_projections"] else ""
    beside = Arm(one["counterpart"], one["options"]).label
    page.line(f"{one['name']}  (beside {beside})", bold=True)
    page.line(f"{one['summary']}{around}. {one['project']}", indent=2)
    page.line(one["difference"] or "the same function", indent=2)
    _devices(page, one)


def model(page: Page, one: Declared) -> None:
    """Show a published model: its architecture, parameters and shape."""
    architecture = one["architecture"].replace("_", "-")
    page.line(f"{one['name']}  ({architecture}, {one['parameters']:,} parameters)", bold=True)
    values = (f"{name}={value}" for name, value in one.items() if name not in SHAPE_APART)
    page.line(", ".join(values), label="values: ", indent=2)


def task(page: Page, one: Declared, rows_of: Callable[[str], Iterable[Any]]) -> None:
    """Show a task: metric, options, and how it is trained where nobody says otherwise.

    Args:
        page: where.
        one: what it declares.
        rows_of: gives the rows that train a task by its name: ``task``, ``seq_len``, ``steps``
            and ``forms``.
    """
    group = f", by {one['group']}" if one["group"] else ""
    metric = one["metric"].replace("_", " ")
    page.line(f"{one['name']}  ({metric}{group}; N={one['seq_len']})", bold=True)
    page.line(f"{one['summary'].removesuffix('?')}. {one['paper']}", indent=2)
    options = (
        name if option.get("required") else f"{name}={format_option(option['default'])}"
        for name, option in one["options"].items()
    )
    page.line(", ".join(options) or "none", label="options: ", indent=2)
    for row in rows_of(one["name"]):
        page.line(
            f"{row.task.label}, N={row.seq_len}, {row.steps} steps",
            label=f"trained {' and '.join(row.forms)}: ", indent=2,
        )  # fmt: skip


def claim(page: Page, one: Declared) -> None:
    """Show a claim, and what decides it."""
    page.line(f"{one['id']}  {one['claim']}", bold=True)
    for question in one["questions"]:
        if question["expected"] is not None:
            page.line(f"{question['question']}: expected {question['expected']}", indent=2)


WRITERS = {"backends": backend, "peers": peer, "models": model, "claims": claim}
"""By kind: what shows one of it. Of tasks it needs the rows too."""


def broken(plugins: Mapping[str, str]) -> None:
    """Say on standard error which plug-ins failed to load."""
    for name, error in plugins.items():
        click.echo(f"plug-in {name} failed to load: {error}", err=True)


def findings(of_backends: Sequence[tuple[str, Any]]) -> None:
    """Show what the checks of backends found, and how to see a failure."""
    page = Page()
    colours = {"passed": "green", "failed": "red", "skipped": "bright_black"}
    for name, finding in of_backends:
        message = f": {finding.message}" if finding.message else ""
        style: dict[str, Any] = (
            {} if finding.status == "passed" else {"fg": colours[finding.status]}
        )
        page.line(f"{name}  {finding.status:7}  {finding.check}{message}", **style)
    failed = [(name, finding) for name, finding in of_backends if finding.status == "failed"]
    for name, finding in failed:
        # Not indented: it is copied as it stands.
        page.write(f"\n# {name}, {finding.check}: Python that fails in the same way\n")
        page.write(f"{finding.how}\n")
    page.write("\n" if failed else "")
    page.line(
        f"{len(of_backends)} checks, {len(failed)} failed",
        bold=True, fg="red" if failed else "green",
    )  # fmt: skip


def examined(topics: Iterable[Any]) -> None:
    """Show what `attnbench doctor` found, and what to do about it."""
    page = Page()
    marks: dict[str, tuple[str, dict[str, Any]]] = {
        "fine": (" ", {}), "note": ("-", {"fg": "yellow"}),
        "problem": ("!", {"fg": "red", "bold": True}),
    }  # fmt: skip
    for finding in topics:
        mark, style = marks[finding.level]
        page.line(f"{mark} {finding.topic}: {finding.text}", **style)
        if finding.advice:
            page.line(f"→ {finding.advice}", indent=4)


def comparison(page: Page, parts: tuple[Any, Any, str], *, is_regression: bool) -> None:
    """Show a comparison on a terminal, as tables of its width.

    Args:
        page: where.
        parts: lines before, tables of heads and of rows with their verdicts, and the line after.
        is_regression: whether the new run is worse.
    """
    before, tables, after = parts
    colours = {"worse": "red", "fails": "red", "better": "green", "inconclusive": "yellow"}
    for line in before:
        page.line(line)
    for head, rows in tables:
        styles = {i: colours.get(verdict, "dim") for i, (verdict, _) in enumerate(rows)}
        page.table(head, [cells for _, cells in rows], styles)
    page.line(after, bold=True, fg="red" if is_regression else None)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    Stream(sys.stdout).write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _devices(page: Page, one: Declared) -> None:
    for device, reasons in one["unavailable"].items():
        style: dict[str, Any] = {"fg": "yellow" if reasons else "green"}
        page.line("; ".join(reasons) or "available", label=f"{device}: ", indent=2, **style)


def _option(name: str, option: Declared) -> str:
    """Write an option as it would be given, with its default, and its choices where few."""
    default = "" if option.get("required") else f"={option['default']}"
    choices = option.get("choices")
    return name + default + (f" ({'|'.join(choices)})" if choices else "")
