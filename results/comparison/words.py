"""A comparison in words: its headline, the order of what it says, and the cells of its rows."""

from __future__ import annotations

import math
from statistics import median

from results.analysis.warm_up import WORDS
from results.comparison.backend_changes import EVERY, BackendChange, counted
from results.comparison.changes import Change, Comparison
from results.comparison.pairing import Side
from results.comparison.verdicts import Verdict
from results.statistics.intervals import Estimate
from results.text import numbers
from results.text.written import writer

ORDER: tuple[Verdict, ...] = ("fails", "worse", "better", "inconclusive", "no change")
"""What is read first."""


def summary(comparison: Comparison) -> str:
    """Count the verdicts: ``1 slower, 0 faster, 12 without change, 3 inconclusive``."""
    counts = [f"{comparison.count(v)} {comparison.word(v)}" for v in ("worse", "better")]
    counts += [f"{comparison.count('no change')} without change"]
    counts += [f"{count} {v}" for v in ("inconclusive", "fails") if (count := comparison.count(v))]
    of_cases = ", ".join(counts)
    of_backends = [
        f"{b.name} {comparison.word(b.verdict)}" for b in backends_in_order(comparison, brief=True)
        if b.verdict in ("worse", "better")
    ]  # fmt: skip
    return "; ".join([of_cases, *of_backends])


HEAD = ("verdict", "case", "base → new", "new / base", "detectable", "")
"""Of the columns. *Detectable*: the smallest change that could have been seen."""


BACKEND_HEAD = ("verdict", "backend", "cases", "new / base", "vs. the others", "detectable", "")
"""Of the columns of whole backends."""


LARGEST_SEEN = 10.0
"""A ratio from which on nothing but a catastrophe could have been seen."""


def headline(comparison: Comparison) -> str:
    """Say in a few words how a comparison ended: what was not decided is never called fine."""
    worse = list(dict.fromkeys(b.backend for b in comparison.worse_backends))
    parts = [f"{counted(n)} became worse" for n in [len(comparison.regressions)] if n]
    if worse:
        whose = "its" if len(worse) == 1 else "their"
        parts.append(f"{numbers.listing(worse)} became worse over {whose} cases")
    if parts:
        return "; ".join(parts)
    if not any(change.base.launches for change in comparison.changes):
        return f"nothing to compare with: BASE measured none of {counted(len(comparison.changes))}"
    return undecided(comparison) or "no case became worse"


def undecided(comparison: Comparison) -> str:
    """Say how many cases may have become worse, and what could have been seen; "" for none.

    Cases that have their pairs of launches already need less noise, not more of them.
    """
    left = comparison.undecided
    if not left:
        return ""
    total = len(comparison.changes)
    how_many = f"undecided: {len(left)} of {counted(total)}"
    seen = [c.smallest for c in left if c.smallest < LARGEST_SEEN]
    of_backends = [
        b.smallest for b in comparison.backends if b.backend != EVERY and b.smallest < LARGEST_SEEN
    ]
    least_seen = [
        f"{numbers.percent(median(ratios) - 1)} in a {what}"
        for what, ratios in (("case", seen), ("whole backend", of_backends)) if ratios
    ]  # fmt: skip
    could = (
        f"a change of {' or '.join(least_seen)} could have been seen (median)"
        if least_seen
        else "no change could have been seen"
    )
    has_pairs = any(change.pairs for change in left)
    remedy = "a quieter machine" if has_pairs else "more --launches, or --confirm,"
    return "; ".join([how_many, could, f"{remedy} can decide more"])


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
    others = [f"of {n} {numbers.percent(t)}" for n, t in comparison.thresholds.items()]
    what = comparison.metric.replace("_", " ")
    return ", ".join([f"{what}, changes of at least {least}", *others])


def cells_of(comparison: Comparison, change: Change) -> list[str]:
    """Return a case's row, in the columns of `HEAD`."""
    return [
        comparison.word(change.verdict),
        change.name,
        " → ".join(
            _measured(comparison, side, value)
            for side, value in zip((change.base, change.new), change.values, strict=True)
        ),
        ratio(change.ratio),
        smallest(change.smallest),
        remark(change),
    ]


def backend_cells(comparison: Comparison, change: BackendChange) -> list[str]:
    """Return a backend's row, in the columns of `BACKEND_HEAD`."""
    is_known = math.isfinite(change.apart.value)
    beside = "vs. the control benchmark" if is_known and change.backend == EVERY else ""
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


def ratio(value: Estimate) -> str:
    """Write new over base to a hundredth: ``1.08 × (1.03–1.12)``."""
    if not math.isfinite(value.value):
        return numbers.NONE
    if not value.has_interval:
        return f"{value.value:.2f} ×"
    if value.high > numbers.WIDEST * value.low:
        return f"{value.value:.2f} × (interval wider than {numbers.WIDEST}-fold)"
    return f"{value.value:.2f} × ({value.low:.2f}–{value.high:.2f})"


def _measured(comparison: Comparison, side: Side, value: Estimate) -> str:
    if not side.launches:
        return numbers.STATUS_WORDS.get(side.status, side.status)
    return writer(comparison.metric)(value.value)


def remark(change: Change) -> str:
    """Return why a case has no verdict, or what its verdict rests on."""
    parts = [_pairs(change), change.reason, *_lost(change), *_cut_short(change)]
    return "; ".join(filter(None, parts))


def _cut_short(change: Change) -> list[str]:
    """Say how many launches had a warm-up that was cut short: their times may be too long."""
    sides = (("base", change.base), ("new", change.new))
    return [
        f"{name}: {WORDS} in {side.cut_short} of {len(side.launches)} processes"
        for name, side in sides
        if side.cut_short
    ]


def _lost(change: Change) -> list[str]:
    """Say how many launches did not end well beside those that were measured."""
    sides = (("base", change.base), ("new", change.new))
    return [f"{name}: {side.reason}" for name, side in sides if side.launches and side.reason]


def _pairs(change: Change | BackendChange) -> str:
    return f"{change.pairs} pairs" if change.pairs else ""
