"""A comparison as people and programs read it: lines, Markdown for a pull request, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from results.analysis.warm_up import WORDS
from results.comparison.backend_changes import EVERY, BackendChange, counted
from results.comparison.changes import Change, Comparison
from results.comparison.pairing import Side
from results.comparison.verdicts import Verdict
from results.page.markdown import escape_markdown
from results.statistics.intervals import Estimate, estimate
from results.text import numbers
from results.text.written import writer

ORDER: tuple[Verdict, ...] = ("fails", "worse", "better", "inconclusive", "no change")
"""What is read first."""


def summary(comparison: Comparison) -> str:
    """Count the verdicts: ``1 slower, 0 faster, 12 without change, 3 inconclusive``."""
    found = [f"{comparison.count(v)} {comparison.word(v)}" for v in ("worse", "better")]
    found += [f"{comparison.count('no change')} without change"]
    found += [f"{count} {v}" for v in ("inconclusive", "fails") if (count := comparison.count(v))]
    told = ", ".join(found)
    of_backends = [
        f"{b.name} {comparison.word(b.verdict)}" for b in backends_in_order(comparison, brief=True)
        if b.verdict in ("worse", "better")
    ]  # fmt: skip
    return "; ".join([told, *of_backends])


HEAD = ("verdict", "case", "base → new", "new / base", "seen from", "")
"""Of the columns. *Seen from*: the smallest change that could have been seen."""

BACKEND_HEAD = ("verdict", "backend", "cases", "new / base", "over the others", "seen from", "")
"""Of the columns of whole backends."""


class Table(NamedTuple):
    """Columns, and rows with their verdicts."""

    head: Sequence[str]
    rows: list[tuple[Verdict, list[str]]]


LARGEST_SEEN = 10.0
"""A ratio from which on nothing but a catastrophe could have been seen."""


def headline(comparison: Comparison) -> str:
    """Say in a few words how a comparison ended: undecided is never called fine."""
    worse = list(dict.fromkeys(b.backend for b in comparison.worse_backends))
    parts = [f"{counted(n)} became worse" for n in [len(comparison.regressions)] if n]
    if worse:
        whose = "its" if len(worse) == 1 else "their"
        parts.append(f"{numbers.listing(worse)} became worse over {whose} cases")
    return "; ".join(parts) or undecided(comparison) or "no case became worse"


def undecided(comparison: Comparison) -> str:
    """Say how many cases may have become worse, and what could have been seen; "" for none."""
    left = comparison.undecided
    if not left:
        return ""
    total = len(comparison.changes)
    told = f"undecided: {len(left)} of {counted(total)}"
    seen = [c.smallest for c in left if c.smallest < LARGEST_SEEN]
    of_backends = [
        b.smallest for b in comparison.backends if b.backend != EVERY and b.smallest < LARGEST_SEEN
    ]
    found = [
        f"{numbers.percent(median(ratios) - 1)} in a {what}"
        for what, ratios in (("case", seen), ("whole backend", of_backends)) if ratios
    ]  # fmt: skip
    least = "the smallest change that could have been seen is"
    could = f"{least} {' and '.join(found)}, at the median" if found else "no change could be seen"
    return "; ".join([told, could, "more --launches, or --confirm, tell more"])


def parts(comparison: Comparison) -> tuple[list[str], list[Table], str]:
    """Return what stands before the tables, those of backends and cases, and what is behind."""
    before = [f"{name}: {old} → {new}" for name, old, new in comparison.differences]
    before += [f"note: {note}" for note in comparison.notes]
    brief = backends_in_order(comparison, brief=True)
    tables = [
        Table(BACKEND_HEAD, [(b.verdict, backend_cells(comparison, b)) for b in brief]),
        Table(HEAD, [(c.verdict, _cells(comparison, c)) for c in in_order(comparison)]),
    ]
    told = undecided(comparison)
    after = f"{summary(comparison)} ({terms(comparison)})" + f"; {told}" * bool(told)
    return before, [table for table in tables if table.rows], after


def text(comparison: Comparison) -> str:
    """Return the comparison as lines for a pipe."""
    lines, tables, last_line = parts(comparison)
    for _, judged in tables:
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
        parts.append(_table(HEAD[:-1], [_cells(comparison, c) for c in changed]))
    if rest:
        parts += [
            f"<details><summary>{len(rest)} without a change that is certain</summary>",
            _table(HEAD[:-1], [_cells(comparison, c) for c in rest]),
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
        "regression": comparison.is_regression,
        "undecided": len(comparison.undecided),
        "differences": [
            {"name": name, "base": old, "new": new} for name, old, new in comparison.differences
        ],
        "notes": list(comparison.notes),
        "backends": [
            {
                "backend": None if change.backend == EVERY else change.backend,
                "mode": change.mode or None,
                "name": change.name,
                "cases": change.cases,
                "verdict": comparison.word(change.verdict),
                "threshold": change.threshold,
                **_estimate("", change.ratio),
                **_estimate("apart_", change.apart),
                "p_adjusted": _number(change.p),
                "smallest_seen": _number(change.smallest),
                "pairs": change.pairs,
                "reason": change.reason,
            }
            for change in comparison.backends
        ],
        "cases": [
            {
                "case_id": change.case_id,
                "arm": change.arm,
                "name": change.name,
                "verdict": comparison.word(change.verdict),
                "threshold": change.threshold,
                **_estimate("", change.ratio),
                "p_adjusted": _number(change.p),
                "smallest_seen": _number(change.smallest),
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


def backends_in_order(comparison: Comparison, *, brief: bool = False) -> list[BackendChange]:
    """Return the backends, what is read first before the rest.

    Args:
        comparison: of two runs.
        brief: without a single mode whose verdict is that of all modes.
    """
    whole = {(b.machine, b.backend): b.verdict for b in comparison.backends if not b.mode}
    shown = [
        b for b in comparison.backends
        if not brief or not b.mode or whole.get((b.machine, b.backend)) != b.verdict
    ]  # fmt: skip
    return sorted(shown, key=lambda change: ORDER.index(change.verdict))


def terms(comparison: Comparison) -> str:
    """Say what the verdicts are about."""
    least = numbers.percent(comparison.threshold)
    others = [f"of {n} from {numbers.percent(t)}" for n, t in comparison.thresholds.items()]
    what = comparison.metric.replace("_", " ")
    return ", ".join([f"{what}, changes from {least} on", *others])


def _cells(comparison: Comparison, change: Change) -> list[str]:
    return [
        comparison.word(change.verdict),
        change.name,
        f"{_measured(comparison, change.base)} → {_measured(comparison, change.new)}",
        ratio(change.ratio),
        smallest(change.smallest),
        remark(change),
    ]


def backend_cells(comparison: Comparison, change: BackendChange) -> list[str]:
    """Return a backend's row, in the columns of `BACKEND_HEAD`."""
    is_known = math.isfinite(change.apart.value)
    beside = "over the sentinel" if is_known and change.backend == EVERY else ""
    return [
        comparison.word(change.verdict),
        change.name,
        str(change.cases),
        ratio(change.ratio),
        "" if change.pairs else ratio(change.apart) if is_known else change.reason,
        smallest(change.smallest),
        "; ".join(filter(None, [_pairs(change), change.reason if is_known else "", beside])),
    ]


def smallest(value: float) -> str:
    """Write the smallest change that could have been seen: ``12 %``; "" where none is known."""
    if math.isnan(value):
        return ""
    return numbers.percent(value - 1) if value < LARGEST_SEEN else f"> {LARGEST_SEEN:.0f} ×"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} | |", "|---" * (len(head) + 1) + "|"]
    lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    return "\n".join(lines)


def ratio(value: Estimate) -> str:
    """Write new over base to a hundredth: ``1.08 × (1.03–1.12)``."""
    if not math.isfinite(value.value):
        return numbers.NONE
    if not value.has_interval:
        return f"{value.value:.2f} ×"
    if value.high > numbers.WIDEST * value.low:
        return f"{value.value:.2f} × (interval wider than {numbers.WIDEST}-fold)"
    return f"{value.value:.2f} × ({value.low:.2f}–{value.high:.2f})"


def _measured(comparison: Comparison, side: Side) -> str:
    if not side.launches:
        return numbers.STATUS_WORDS.get(side.status, side.status)
    return writer(comparison.metric)(estimate(side.launches).value)


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


def _pairs(change: Change | BackendChange) -> str:
    return f"{change.pairs} pairs" if change.pairs else ""


def _estimate(name: str, value: Estimate) -> dict[str, Any]:
    return {
        f"{name}ratio": _number(value.value), f"{name}ci_low": _number(value.low),
        f"{name}ci_high": _number(value.high),
    }  # fmt: skip


def _number(value: float) -> Any:
    return value if math.isfinite(value) else None
