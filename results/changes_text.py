"""A comparison as people and programs read it: lines, Markdown for a pull request, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from results import format
from results.changes import Change, Comparison, Verdict
from results.report import escape_markdown
from results.statistics import Estimate, estimate
from results.two_runs import Side
from results.warm_up import WORDS

ORDER: tuple[Verdict, ...] = ("fails", "worse", "better", "inconclusive", "no change")
"""What is read first."""


def summary(comparison: Comparison) -> str:
    """Count the verdicts: ``1 slower, 0 faster, 12 without change, 3 inconclusive``."""
    found = [f"{comparison.count(v)} {comparison.word(v)}" for v in ("worse", "better")]
    found += [f"{comparison.count('no change')} without change"]
    found += [f"{count} {v}" for v in ("inconclusive", "fails") if (count := comparison.count(v))]
    return ", ".join(found)


HEAD = ("verdict", "case", "base → new", "new / base", "")
"""Of the columns."""


def parts(comparison: Comparison) -> tuple[list[str], list[tuple[Verdict, list[str]]], str]:
    """Return what stands before a table, its rows with their verdicts, and what stands behind."""
    before = [f"{name}: {old} → {new}" for name, old, new in comparison.differences]
    before += [f"note: {note}" for note in comparison.notes]
    rows = [(change.verdict, _cells(comparison, change)) for change in in_order(comparison)]
    return before, rows, f"{summary(comparison)} ({_terms(comparison)})"


def text(comparison: Comparison) -> str:
    """Return the comparison as lines for a pipe."""
    lines, judged, last_line = parts(comparison)
    rows = [cells for _, cells in judged]
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
    title = "a regression" if comparison.regressions else "no regression"
    parts = [f"### attnbench: {title}", f"{summary(comparison)} ({_terms(comparison)})."]
    if comparison.differences:
        told = [f"{name} {old} → {new}" for name, old, new in comparison.differences]
        parts.append("Between the runs: " + escape_markdown("; ".join(told)) + ".")
    if changed:
        parts.append(_table(comparison, changed))
    if rest:
        parts += [
            f"<details><summary>{len(rest)} without a change that is certain</summary>",
            _table(comparison, rest),
            "</details>",
        ]
    parts += [f"- {escape_markdown(note)}" for note in comparison.notes]
    return "\n\n".join(parts) + "\n"


def as_json(comparison: Comparison) -> str:
    """Return the comparison as a JSON object; times in s, sizes in B, null where unknown."""
    content = {
        "metric": comparison.metric,
        "threshold": comparison.threshold,
        "regression": bool(comparison.regressions),
        "differences": [
            {"name": name, "base": old, "new": new} for name, old, new in comparison.differences
        ],
        "notes": list(comparison.notes),
        "cases": [
            {
                "case_id": change.case_id,
                "arm": change.arm,
                "name": change.name,
                "verdict": comparison.word(change.verdict),
                "ratio": _number(change.ratio.value),
                "ci_low": _number(change.ratio.low),
                "ci_high": _number(change.ratio.high),
                "p_adjusted": _number(change.p),
                "base": list(change.base.launches),
                "new": list(change.new.launches),
                "base_status": change.base.status,
                "new_status": change.new.status,
                "base_cut_short": change.base.cut_short,
                "new_cut_short": change.new.cut_short,
                "pairs": change.pairs,
                "reason": change.reason,
            }
            for change in comparison.changes
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def in_order(comparison: Comparison) -> list[Change]:
    """Return the changes, what is read first before the rest, the largest ratios first."""

    def place(change: Change) -> tuple[int, float]:
        size = abs(math.log(change.ratio.value)) if change.ratio.value > 0 else 0.0
        return ORDER.index(change.verdict), -size

    return sorted(comparison.changes, key=place)


def _terms(comparison: Comparison) -> str:
    """Say what the verdicts are about."""
    least = format.percent(comparison.threshold)
    return f"{comparison.metric.replace('_', ' ')}, changes from {least} on"


def _cells(comparison: Comparison, change: Change) -> list[str]:
    return [
        comparison.word(change.verdict),
        change.name,
        f"{_measured(comparison, change.base)} → {_measured(comparison, change.new)}",
        ratio(change.ratio),
        remark(change),
    ]


def _table(comparison: Comparison, changes: Sequence[Change]) -> str:
    head = f"| {' | '.join(HEAD[:-1])} | |\n|---|---|---|---|---|"
    rows = [
        "| " + " | ".join(map(escape_markdown, _cells(comparison, change))) + " |"
        for change in changes
    ]
    return "\n".join([head, *rows])


def ratio(value: Estimate) -> str:
    """Write new over base to a hundredth: ``1.08 × (1.03–1.12)``."""
    if not math.isfinite(value.value):
        return format.NONE
    if not value.has_interval:
        return f"{value.value:.2f} ×"
    if value.high > format.WIDEST * value.low:
        return f"{value.value:.2f} × (interval wider than {format.WIDEST}-fold)"
    return f"{value.value:.2f} × ({value.low:.2f}–{value.high:.2f})"


def _measured(comparison: Comparison, side: Side) -> str:
    if not side.launches:
        return format.STATUS_WORDS.get(side.status, side.status)
    write = format.seconds if comparison.metric == "latency" else format.size
    return write(estimate(side.launches).value)


def remark(change: Change) -> str:
    """Return why a case has no verdict, or what its verdict rests on."""
    said = [_pairs(change), change.reason, *_lost(change), *_cut_short(change)]
    return "; ".join(filter(None, said))


def _cut_short(change: Change) -> list[str]:
    """Say how many launches had a warm-up that was cut short: their times may be too long."""
    sides = (("base", change.base), ("new", change.new))
    return [
        f"{name}: {WORDS} in {side.cut_short} of {len(side.launches)} launches"
        for name, side in sides
        if side.cut_short
    ]


def _lost(change: Change) -> list[str]:
    """Say how many launches did not end well beside those that were measured."""
    sides = (("base", change.base), ("new", change.new))
    return [f"{name}: {side.reason}" for name, side in sides if side.launches and side.reason]


def _pairs(change: Change) -> str:
    return f"{change.pairs} pairs" if change.pairs else ""


def _number(value: float) -> Any:
    return value if math.isfinite(value) else None
