"""Tell on a terminal, or in a log, what a sweep is doing: a line per launch and the time left."""

from __future__ import annotations

import os
import shlex
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from results.schema import Case
from suites.plan import Item
from suites.registry import rules_of
from suites.terminal.standing import Standing, duration
from suites.terminal.stream import Stream

if TYPE_CHECKING:  # a log needs no rich, which takes a tenth of a second
    from rich.live import Live

COLOURS: Mapping[str, str] = {
    "ok": "green", "unsupported": "bright_black", "not_run": "bright_black",
    "out_of_memory": "yellow", "timeout": "yellow", "crashed": "red", "failed": "red",
}  # fmt: skip
"""Colour of a status, on a terminal."""

BAR_WIDTH = 20

SILENCE_S = 30.0
"""In a log, seconds from one word of a case on itself to the next."""

UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and format characters, surrogates and line separators."""


class Console:
    """Prints a line for every launch that ended; below, on a terminal, a bar.

    A terminal that was closed, or a pipe that nobody reads, does not end what is told of.

    Args:
        stream: where to.
        colour: whether a terminal gets colours; ``None`` = it does.
    """

    def __init__(self, stream: TextIO | None = None, *, colour: bool | None = None) -> None:
        self._stream = Stream(sys.stderr if stream is None else stream)
        is_live = self._stream.is_terminal() and os.environ.get("TERM") != "dumb"
        self._bar = _live_on(self._stream, colour=colour is not False) if is_live else None
        self._total = self._count = 0
        self._remaining: float | None = None
        self._standing: Standing | None = None
        self._told_at = 0.0
        self._now = self._said = ""
        self._line_at = 0.0

    def begin(self, folder: Path, total: int, done: int, notices: Sequence[str]) -> None:
        """Say what is there and what is to come."""
        self._total, self._count = total, done
        there = f", {done} of them there already" if done else ""
        self._line(printable(f"{total} processes into {folder}{there}"))
        for notice in notices:
            self._line(printable(f"note: {notice}"))

    def note(self, text: str) -> None:
        """Say what happened to a machine of a cluster."""
        self._line(printable(f"note: {text}"))
        self._draw()

    def more(self, count: int) -> None:
        """Take note of launches that were not counted at the beginning."""
        self._total += count

    def planned(self, count: int, standing: Standing, remaining_s: float | None) -> None:
        """Say how far the questions are answered, and take note of further launches."""
        self._total += count
        self._standing = standing
        self._remaining, self._told_at = remaining_s, time.monotonic()
        if self._bar is None and count and standing.num_questions:  # the end is told by `closing`
            self._line(printable(standing.told(remaining_s)))
        self._draw()

    def starting(self, item: Item) -> None:
        """Show what runs now."""
        self._now = f"{label(item.case)} · process {item.launch + 1}"
        self._said, self._line_at = "", time.monotonic()
        self._draw()

    def working(self, line: str) -> None:
        """Show what the case that runs says of itself; in a log, now and then."""
        if self._bar is not None:
            self._said = printable(line)
            self._draw()
        elif time.monotonic() - self._line_at >= SILENCE_S:
            self._line(f"    {printable(line)}")

    def finished(self, record: Mapping[str, Any], remaining_s: float | None) -> None:
        """Print how it ended, and the time left."""
        self._count += 1
        asks = self._standing is not None and self._standing.num_questions > 0
        if not asks:  # else the time left is that of the questions, until it is told anew
            self._remaining, self._told_at = remaining_s, time.monotonic()
        case = Case.from_json(record["case"])
        width = len(str(self._total))
        # A log has the time left of questions in a line for each batch of launches.
        left = f"  {self._time_left()}" if self._bar is None and not asks else ""
        self._line(
            f"[{self._count:>{width}}/{self._total}] {printable(label(case))}  ",
            record["status"],
            f"  {printable(describe(record))}{left}".rstrip(),
        )
        self._draw()

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _time_left(self) -> str:
        if self._count >= self._total:
            return ""
        remaining = self._remaining
        if remaining is not None:
            remaining = max(0.0, remaining - (time.monotonic() - self._told_at))
        if self._standing is not None:
            return self._standing.told(remaining)
        if remaining is None:
            return "time left: not known yet"
        return f"about {duration(remaining)} left"

    def _line(self, text: str, status: str = "", rest: str = "") -> None:
        self._line_at = time.monotonic()
        if self._bar is None:
            self._stream.write(f"{text}{status}{rest}\n")
            return
        from rich.text import Text  # a text, never markup: a name may hold brackets

        self._bar.console.print(Text.assemble(text, (status, COLOURS.get(status, "")), rest))

    def _draw(self) -> None:
        if self._bar is None:
            return
        from rich.text import Text

        filled = BAR_WIDTH * self._count // max(1, self._total)
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        text = f"{bar} {self._count}/{self._total}  {self._time_left()}  now: {self._now}"
        text += f"  {self._said}" if self._said else ""
        self._bar.start()
        self._bar.update(Text(printable(text), no_wrap=True, overflow="crop"), refresh=True)


def _live_on(stream: Stream, *, colour: bool) -> Live:
    """Return the last line of a terminal: what its console prints goes above it."""
    from rich.console import Console as Terminal
    from rich.live import Live

    terminal = Terminal(
        file=cast("TextIO", stream), force_terminal=True, highlight=False, soft_wrap=True,
        color_system="standard" if colour else None, legacy_windows=False,
    )  # fmt: skip
    # A sweep that is stopped or killed would leave the cursor hidden.
    terminal.show_cursor = lambda show=True: False  # type: ignore[method-assign]
    return Live(
        console=terminal, auto_refresh=False, transient=True, redirect_stdout=False,
        redirect_stderr=False,
    )  # fmt: skip


def printable(text: str) -> str:
    """Replace what moves the cursor, turns the direction of writing or cannot be shown at all."""
    return "".join("�" if unicodedata.category(c) in UNSHOWN else c for c in text)


def label(case: Case) -> str:
    """Name a case for people: ``longformer:window=64 training N=4096``."""
    return rules_of(case.kind).label(case)


def describe(record: Mapping[str, Any]) -> str:
    """Say in words what a record measured, or why it measured nothing."""
    if record["status"] != "ok":
        return " ".join(str(record["reason"]).split())[:200]
    return rules_of(record["case"]["kind"]).describe(record)


def closing(summary: Summary, report: str = "") -> str:
    """Say at the end what was done, where it lies and what comes next.

    Args:
        summary: of the sweep.
        report: where its report lies; "" = it was not written.
    """
    counts = ", ".join(f"{count} {status}" for status, count in sorted(summary.statuses.items()))
    skipped = f"; {summary.skipped} were there already" if summary.skipped else ""
    going_on = f"--resume --out {shlex.quote(str(summary.folder))}"
    lines = []
    if summary.left_out:
        skipped += (
            f"; {summary.left_out} process{'es'[: 2 * (summary.left_out != 1)]} not started: no "
            "time left of --budget"
        )
        lines = [f"go on with the same command and {going_on}"]
    elif summary.standing is not None:
        lines = [summary.standing.closing(going_on)]
    return "\n".join(
        [
            f"{counts or 'nothing to measure'} in {duration(summary.wall_s)}{skipped}",
            *lines,
            f"results: {summary.folder}",
            f"report:  {report or f'attnbench report {shlex.quote(str(summary.folder))}'}",
        ]
    )


@dataclass(frozen=True)
class Summary:
    """What a sweep did.

    Attributes:
        folder: where the records are.
        statuses: of the launches that were added, how many ended how.
        skipped: launches that the folder held already.
        wall_s: seconds in all.
        left_out: launches that were not started, since they would have ended too late.
        standing: how far the questions of the sweep are answered; ``None`` = it asked none.
    """

    folder: Path
    statuses: Mapping[str, int]
    skipped: int
    wall_s: float
    left_out: int = 0
    standing: Standing | None = None
