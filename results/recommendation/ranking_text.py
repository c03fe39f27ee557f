"""One ranking as lines of text: its table, and what the columns mean."""

from __future__ import annotations

import re
import textwrap

from results.analysis.warm_up import NOTE, marked
from results.recommendation.interpolation import Reading
from results.recommendation.question import LIMITS, error_digits
from results.recommendation.ranking import Candidate, Ranking
from results.statistics.intervals import Estimate
from results.text import numbers
from results.text.clean import clean
from results.text.modes import WORDS

WIDTH = 100
"""Characters of a line of prose; tables and commands are as wide as they are."""


def prose(sentence: str, indent: str = "") -> list[str]:
    """Return a sentence as lines; what follows the first is indented further."""
    whole = _AMOUNT.sub("\\1\N{NO-BREAK SPACE}", sentence)
    lines = textwrap.wrap(
        whole, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  " if indent else "",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


_AMOUNT = re.compile(r"([0-9]) (?=%|[mµn]?s\b|[KMGT]?i?B\b|tokens?\b)")
"""Where a line is not broken: between a number and its unit."""


def latency_text(one: Candidate) -> str:
    """Write a candidate's latency, marked where its warm-up was cut short."""
    told = {"converged": one.latency.converged}
    return marked(measured(one.latency, numbers.seconds), told)


def measured(reading: Reading, write: numbers.Write) -> str:
    """Write a value with its interval, which names its unit once: 141 ms (124–161 ms)."""
    if not reading.known:
        return numbers.NONE
    value, low, high = (
        write(reading.value),
        write(reading.low, to="down"),
        write(reading.high, to="up"),
    )
    if not reading.has_interval or reading.low == reading.high:
        return value
    number, _, unit = low.partition(" ")
    return f"{value} ({number if high.endswith(f' {unit}') else low}–{high})"


def ranking_table(ranking: Ranking) -> list[str]:
    """Return the candidates that qualify as lines of aligned columns."""
    memory = "state" if ranking.question.mode == "decode" else "memory"
    known = {n: any(getattr(c, n).known for c in ranking.qualified) for n in ("error", "recall")}
    head = ["rank", "backend", "latency (interval)", "× the first", memory]
    head += [name for name, there in known.items() if there]
    rows = [[*head, "from"]]
    for place, one in enumerate(ranking.qualified, 1):
        cells = [
            f"{place}" if place == 1 or one.told_apart else f"{place} ~",
            clean(one.label),
            latency_text(one),
            numbers.NONE if place == 1 else _times(one.times),
            measured(one.memory, numbers.size),
        ]
        if known["error"]:
            cells.append(measured(one.error, error_digits))
        if known["recall"]:
            few = one.recall.lacking.partition(",")[0]
            cells.append(measured(one.recall, numbers.percent) + (f" ({few})" if few else ""))
        rows.append([*cells, _from(one.latency)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _times(times: Estimate) -> str:
    return numbers.times(times.value, times.low, times.high).replace(" ×", "")


def _from(reading: Reading) -> str:
    if reading.between is not None:
        return f"interpolated between {reading.between[0]:,} and {reading.between[1]:,}" + (
            f"; {reading.note}" if reading.note else ""
        )
    count = len(reading.launches)
    more = f"; {clean(reading.note)}" if reading.note and count > 1 else ""
    return (
        f"measured, {count} launches{more}" if count > 1 else "measured, one launch: no interval"
    )


def legend(ranking: Ranking) -> list[str]:
    """Explain the columns that the table has."""
    mode, shown = ranking.question.mode, ranking.qualified
    lines = [f"  {WORDS[mode].call}: mean over launches, each a process of its own; behind "
             "it the 95 % interval."]  # fmt: skip
    if ranking.not_told_apart:
        lines += [
            "  ~ not told apart from the first: the ratio's interval holds 1, or there is none."
        ]
    if any(c.is_cut_short for c in shown):
        lines += prose(NOTE, "  ")
    lines += [
        "  State: what is kept of the context, in bytes."
        if mode == "decode"
        else "  Memory: peak above the inputs."
    ]
    for name, words in (
        ("error", "Error: relative L2 distance from exact softmax attention, on"),
        ("recall", "Recall: accuracy, mean over seeds, on"),
    ):
        on = sorted({getattr(c, name).on for c in shown if getattr(c, name).known})
        if on:
            lines += [f"  {words} {' / '.join(map(clean, on))}."]
    if shown[0].errors:
        others = ", ".join(
            f"{clean(n)} {measured(r, error_digits)}" for n, r in shown[0].errors.items()
        )
        lines += prose(
            f"{clean(shown[0].label)}'s error on other inputs: {others} (--error-inputs "
            "chooses which counts).", "  ",
        )  # fmt: skip
    if any(c.latency.between for c in shown):
        lines += prose(
            "Interpolated: on the line through both lengths, in logarithms. Behind it bounds: its "
            "interval, opened as far as the curve may bend between them.", "  ",
        )  # fmt: skip
    if any(ranking.question.limit(name) is not None for name in LIMITS):
        lines += prose(
            "Limits: the worse end of an interval has to meet them; where there is no interval, "
            "the value.", "  ",
        )  # fmt: skip
    return lines
