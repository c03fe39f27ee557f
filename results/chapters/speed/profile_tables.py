"""Tables of calls under the profiler: their parts, and their matrix products by shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from results.analysis.profiles import longest
from results.chapters.speed.rows import Chapter
from results.page.blocks import Cell, TableView
from results.page.cells import name, share_of_peak
from results.page.columns import Columns, Row, Spread, across, of, spread, table
from results.records.frames import as_rows
from results.schema import PROFILE_PARTS
from results.text import numbers
from results.text.notes import capped

_CALL = ("mode", "backend", "options", "seq_len")


def profile_table(chapter: Chapter) -> TableView:
    """Return the parts of each backend's call at its longest length, and two of their rates."""
    profiles = chapter.profiles

    def of_peak(part: str, peak: str) -> Any:
        def write(row: Spread) -> str:
            rate = row[1][part]["rate"] if part in row[1] else math.nan
            return share_of_peak(rate / chapter.peaks.get(peak, math.nan))

        return write

    columns: Sequence[tuple[str, Any]] = [
        ("backend", lambda row: name(row[0])),
        ("mode", lambda row: row[0]["mode"]),
        ("tokens", lambda row: numbers.tokens(row[0]["seq_len"])),
        ("time", _time),
        *across(PROFILE_PARTS, str, of("share", _share)),
        ("products, of peak", of_peak("products", "matmul_rate")),
        ("exponentials, of peak", of_peak("exponentials", "exp_rate")),
    ]
    notes = [
        "Shares of single calls under torch's profiler, which slows those of many small steps: "
        "the fastest of a few calls a process, the median over processes.",
        "Products: matrix products. Fused: torch's fused attention, products and exponentials in "
        "one. Exponentials: with all of a softmax. Copies: also gathers and fills. Passes: every "
        "other operator that reads and writes memory. Compiled: code that torch compiled. "
        "Between: Python, dispatch, allocation and freeing.",
        "Of peak: FLOPs of that part over its time, over this machine's measured peak.",
        *capped(
            [
                f"No profile of {name(row)}, {row['mode']}, {numbers.tokens(row['seq_len'])} "
                f"tokens: {row['reason']}."
                for row in as_rows(profiles.faults)
            ],
            "in the results",
        ),
    ]
    rows = spread(longest(profiles.parts), _CALL, "part")
    profiled = set(profiles.parts[list(_CALL)].itertuples(index=False, name=None))
    failed = profiles.faults[list(_CALL)].drop_duplicates()
    rows += [
        (row, {}) for row in as_rows(failed) if tuple(row[c] for c in _CALL) not in profiled
    ]  # fmt: skip
    title = "Where the time goes"
    return table(title, rows, columns, text_columns=2, notes=notes, is_long=False)


def _time(row: Spread) -> Cell:
    for part in row[1].values():
        return Cell(numbers.seconds(part["call"]))
    return Cell("failed", is_status=True)


def _share(value: float) -> str:
    if not value > 0:
        return numbers.NONE
    return numbers.percent(value) if value >= 0.001 else "<0.1 %"


def product_table(chapter: Chapter) -> TableView:
    """Return the matrix products of each backend's call at its longest length, by shape."""
    peak = chapter.peaks.get("matmul_rate", math.nan)
    columns: Columns[Row] = {
        "backend": name,
        "mode": of("mode"),
        "product": of("product"),
        "calls": of("calls", numbers.tokens),
        "share": of("share", numbers.percent),
        "in the call": lambda row: _rate(row["rate"], peak),
        "alone": lambda row: _rate(row["alone"], peak),
    }
    notes = [
        "Shapes with at least 2 % of a call's time. Alone: the same product by itself, of "
        "contiguous operands, into memory that is there already; below each rate its share of "
        "this machine's measured peak.",
    ]
    rows = as_rows(longest(chapter.profiles.products))
    return table(
        "Matrix products by shape", rows, columns, text_columns=3, notes=notes, is_long=True
    )  # fmt: skip


def _rate(value: float, peak: float) -> Cell:
    if not math.isfinite(value):
        return Cell(numbers.NONE)
    near = value / peak
    return Cell(f"{numbers.rate(value)}FLOP/s", share_of_peak(near) if math.isfinite(near) else "")
