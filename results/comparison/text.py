"""A comparison as people and programs read it: lines, Markdown for a pull request, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from results.comparison.backend_changes import EVERY
from results.comparison.changes import Comparison
from results.comparison.verdicts import Verdict
from results.comparison.words import (
    BACKEND_HEAD,
    HEAD,
    ORDER,
    backend_cells,
    backends_in_order,
    cells_of,
    headline,
    in_order,
    summary,
    terms,
    undecided,
)
from results.page.markdown import escape_markdown
from results.statistics.intervals import Estimate


class Table(NamedTuple):
    """Columns, and rows with their verdicts."""

    head: Sequence[str]
    rows: list[tuple[Verdict, list[str]]]


def parts(comparison: Comparison) -> tuple[list[str], list[Table], str]:
    """Return what stands before the tables, those of backends and cases, and what is behind."""
    before = [f"{name}: {old} → {new}" for name, old, new in comparison.differences]
    before += [f"note: {note}" for note in comparison.notes]
    brief = backends_in_order(comparison, brief=True)
    tables = [
        Table(BACKEND_HEAD, [(b.verdict, backend_cells(comparison, b)) for b in brief]),
        Table(HEAD, [(c.verdict, cells_of(comparison, c)) for c in in_order(comparison)]),
    ]
    told = undecided(comparison)
    after = f"{summary(comparison)} ({terms(comparison)})" + f"; {told}" * bool(told)
    return before, [table for table in tables if table.rows], after


def text(comparison: Comparison) -> str:
    """Return the comparison as lines for a pipe."""
    lines, tables, last_line = parts(comparison)
    for head, judged in tables:
        rows = [list(head), *(cells for _, cells in judged)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        for *cells, last in rows:
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            lines.append("  ".join([*padded, last]).rstrip())
    return "\n".join([*lines, last_line]) + "\n"


def markdown(comparison: Comparison) -> str:
    """Return the comparison for a pull request: what changed first, the rest folded."""
    ordered = in_order(comparison)
    changed = [c for c in ordered if c.verdict in ORDER[:3]]
    rest = [c for c in ordered if c.verdict not in ORDER[:3]]
    title = "a regression" if comparison.is_regression else headline(comparison)
    parts = [f"### attnbench: {title.partition(';')[0]}"]
    parts.append(escape_markdown(f"{summary(comparison)} ({terms(comparison)})."))
    parts += [f"{told[:1].upper()}{told[1:]}." for told in [undecided(comparison)] if told]
    if comparison.differences:
        told = [f"{name} {old} → {new}" for name, old, new in comparison.differences]
        parts.append("Between the runs: " + escape_markdown("; ".join(told)) + ".")
    if comparison.backends:
        rows = backends_in_order(comparison, brief=True)
        cells = [backend_cells(comparison, b) for b in rows]
        parts.append(_table(BACKEND_HEAD[:-1], cells))
    if changed:
        parts.append(_table(HEAD[:-1], [cells_of(comparison, c) for c in changed]))
    if rest:
        parts += [
            f"<details><summary>{len(rest)} without a certain change</summary>",
            _table(HEAD[:-1], [cells_of(comparison, c) for c in rest]),
            "</details>",
        ]
    parts += [f"- {escape_markdown(note)}" for note in comparison.notes]
    return "\n\n".join(parts) + "\n"


def as_json(comparison: Comparison) -> str:
    """Return the comparison as a JSON object; times in s, sizes in B, null where unknown."""
    content = {
        "metric": comparison.metric,
        "threshold": comparison.threshold,
        "thresholds": dict(comparison.thresholds),
        "headline": headline(comparison),
        "regression": comparison.is_regression,
        "undecided": len(comparison.undecided),
        "differences": [
            {"name": name, "base": old, "new": new} for name, old, new in comparison.differences
        ],
        "notes": list(comparison.notes),
        "backends": [
            {
                "backend": None if change.backend == EVERY else change.backend,
                "mode": change.mode or None, "name": change.name, "cases": change.cases,
                "verdict": comparison.word(change.verdict), "threshold": change.threshold,
                **_estimate("", change.ratio), **_estimate("apart_", change.apart),
                "p_adjusted": _number(change.p), "smallest_seen": _number(change.smallest),
                "pairs": change.pairs, "reason": change.reason,
            }
            for change in comparison.backends
        ],
        "cases": [
            {
                "case_id": change.case_id, "arm": change.arm, "name": change.name,
                "verdict": comparison.word(change.verdict), "threshold": change.threshold,
                **_estimate("", change.ratio),
                "p_adjusted": _number(change.p), "smallest_seen": _number(change.smallest),
                "base": list(change.base.launches), "new": list(change.new.launches),
                "base_status": change.base.status, "new_status": change.new.status,
                "base_cut_short": change.base.cut_short, "new_cut_short": change.new.cut_short,
                "pairs": change.pairs, "reason": change.reason,
            }
            for change in comparison.changes
        ],
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} | |", "|---" * (len(head) + 1) + "|"]
    lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    return "\n".join(lines)


def _estimate(name: str, value: Estimate) -> dict[str, Any]:
    return {
        f"{name}ratio": _number(value.value), f"{name}ci_low": _number(value.low),
        f"{name}ci_high": _number(value.high),
    }  # fmt: skip


def _number(value: float) -> Any:
    return value if math.isfinite(value) else None
