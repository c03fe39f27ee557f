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
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO, cast

from results.schema import (
    CLAIM,
    CONTEXT,
    FULL_PRECISION,
    PEER,
    SENTINEL,
    TRAINING_KINDS,
    Case,
    warm_up_converged,
)
from suites.plan import Item
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
        self._told_at = 0.0
        self._now = self._said = ""
        self._line_at = 0.0

    def begin(self, folder: Path, total: int, done: int, notices: Sequence[str]) -> None:
        """Say what is there and what is to come."""
        self._total, self._count = total, done
        there = f", {done} of them there already" if done else ""
        self._line(printable(f"{total} launches into {folder}{there}"))
        for notice in notices:
            self._line(printable(f"note: {notice}"))

    def note(self, text: str) -> None:
        """Say what happened to a machine of a cluster."""
        self._line(printable(f"note: {text}"))
        self._draw()

    def more(self, count: int) -> None:
        """Take note of launches that were not counted at the beginning."""
        self._total += count

    def starting(self, item: Item) -> None:
        """Show what runs now."""
        self._now = f"{label(item.case)} · launch {item.launch + 1}"
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
        self._remaining, self._told_at = remaining_s, time.monotonic()
        case = Case.from_json(record["case"])
        width = len(str(self._total))
        left = f"  {self._time_left()}" if self._bar is None else ""
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
        if self._remaining is None:
            return "time left: not known yet"
        passed = time.monotonic() - self._told_at
        return f"about {duration(max(0.0, self._remaining - passed))} left"

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
    if case.kind == "roof":
        threads = f"{case.threads} thread{'s'[: case.threads != 1]}"
        return f"roof {case.dtype}{_precision(case)} {threads}"
    if case.kind == SENTINEL:
        return SENTINEL
    if case.kind == CLAIM:
        return f"claim {case.task} seed {case.seed}"
    if case.kind in TRAINING_KINDS:
        form = "causal" if case.is_causal else "bidirectional"
        kept = f" in {case.weights}" if case.weights else ""
        return f"{case.arms[0].label}{kept} {case.task} {form} N={case.seq_len} seed {case.seed}"
    if case.kind == CONTEXT:
        causal = " causal" if case.is_causal else ""
        over = f"{case.ranks} rank{'s'[: case.ranks != 1]}"
        return f"{case.arms[0].label} over {over}{causal}{_precision(case)} N={case.seq_len}"
    if case.kind == "error":
        how = f"{' causal' if case.is_causal else ''}{' compiled' if case.compile else ''}"
        on = f"{case.inputs}{how}{_precision(case)}"
        return f"{case.arms[0].label} on {on} N={case.seq_len}"
    level = "" if case.level == "attention" else f" {case.model or case.level}"
    beside = f" beside {case.arms[1].name.removeprefix(PEER)}" if case.kind == "peer" else ""
    causal = " causal" if case.is_causal else ""
    compiled = " compiled" if case.compile else ""
    anew = " checkpointed" if case.checkpointing else ""
    how = f"{case.mode}{causal}{compiled}{anew}{_precision(case)}"
    return f"{case.arms[0].label}{beside}{level} {how} N={case.seq_len}"


def _precision(case: Case) -> str:
    return "" if case.matmul_precision == FULL_PRECISION else f" {case.matmul_precision}"


def describe(record: Mapping[str, Any]) -> str:
    """Return the latency and memory of a record in words, or why there are none."""
    if record["status"] != "ok":
        return " ".join(str(record["reason"]).split())[:200]
    metrics = record["arms"][0]["metrics"]
    if record["case"]["kind"] == "roof":
        return "  ".join(
            f"{name} {max(metrics[name]['samples']):.3g} {metrics[name]['unit']}"
            for name in ("matmul_rate", "exp_rate", "bandwidth")
            if name in metrics
        )
    if record["case"]["kind"] == "peer":
        beside = record["arms"][1]["metrics"]
        return f"{_measured(metrics)}, the peer {_measured(beside)}"
    if record["case"]["kind"] == CLAIM:
        found = [f"{name} {metric['value']:.3g}" for name, metric in metrics.items()]
        return "  ".join(found)[:200]
    if record["case"]["kind"] in TRAINING_KINDS:
        return _learnt(metrics)
    if record["case"]["kind"] == "error":
        return f"{_measured(metrics)}  error {metrics['relative_error']['value']:.3g}"
    if record["case"]["kind"] == CONTEXT:
        share = metrics["exchanged_bytes"]["value"] / record["case"]["seq_len"]
        return f"{_measured(metrics)}  {share:.4g} B/token exchanged"
    return _measured(metrics)


def _learnt(metrics: Mapping[str, Any]) -> str:
    parts = []
    if "bits_per_byte" in metrics:
        parts.append(f"{metrics['bits_per_byte']['value']:.3f} bits/byte")
    elif "accuracy" in metrics:
        parts.append(f"{100 * metrics['accuracy']['value']:.1f} % right")
    if "training_time" in metrics:
        steps, time_s = (metrics[f"training_{what}"]["value"] for what in ("steps", "time"))
        parts.append(f"{steps:.0f} steps in {seconds(time_s)}")
    return "  ".join([*parts, _measured(metrics)])


def _measured(metrics: Mapping[str, Any]) -> str:
    parts = []
    if "latency" in metrics:
        short = warm_up_converged(metrics["latency"]) is False
        parts.append(
            f"{seconds(median(metrics['latency']['samples']))}"
            f"{' (warm-up cut short)' if short else ''}"
        )
    if "peak_memory" in metrics:
        parts.append(f"{metrics['peak_memory']['value'] / 2**20:.1f} MiB")
    return "  ".join(parts)


def seconds(value: float) -> str:
    """Write a latency with three digits: ``12.3 ms``."""
    if value >= 1:
        return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def duration(value: float) -> str:
    """Write a span of time in the units that people say: ``1 h 5 min``, ``3 min 20 s``."""
    whole = round(value)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def closing(summary: Summary) -> str:
    """Say at the end what was done, where it lies and what comes next."""
    counts = ", ".join(f"{count} {status}" for status, count in sorted(summary.statuses.items()))
    skipped = f"; {summary.skipped} were there already" if summary.skipped else ""
    if summary.left_out:
        skipped += (
            f"; {summary.left_out} launch{'es'[: 2 * (summary.left_out != 1)]} not started: no "
            "time left of --budget\n"
            f"go on with the same command and --resume --out {shlex.quote(str(summary.folder))}"
        )
    return (
        f"{counts or 'nothing to measure'} in {duration(summary.wall_s)}{skipped}\n"
        f"records: {summary.folder}\n"
        f"report:  attnbench report {shlex.quote(str(summary.folder))}"
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
    """

    folder: Path
    statuses: Mapping[str, int]
    skipped: int
    wall_s: float
    left_out: int = 0
