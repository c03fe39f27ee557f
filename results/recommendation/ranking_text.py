"""One ranking as lines of text: its numbers, and the table of what else was measured."""

from __future__ import annotations

import re
import textwrap

from results.analysis.warm_up import marked
from results.recommendation.interpolation import Reading
from results.recommendation.ranking import Candidate, Ranking, may_be_equal
from results.text import numbers
from results.text.clean import clean

WIDTH = 100
"""Characters of a line; commands are as wide as they are."""

_LEAST_WIDTH = 20
"""Characters of a table's last column, at least."""


def prose(sentence: str, indent: str = "", hang: int = 2) -> list[str]:
    """Return a sentence as lines; what follows the first is indented further."""
    whole = _AMOUNT.sub("\\1\N{NO-BREAK SPACE}", sentence)
    lines = textwrap.wrap(
        whole, WIDTH, initial_indent=indent,
        subsequent_indent=f"{indent}{' ' * hang}" if indent else "",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


_AMOUNT = re.compile(r"([0-9]) (?=%|×|[mµn]?s\b|[KMGT]?i?B\b|tokens?\b)")
"""Where a line is not broken: between a number and its unit."""


def latency_text(one: Candidate) -> str:
    """Write a candidate's latency with its interval, marked where its warm-up was cut short."""
    told = {"converged": one.latency.converged}
    return marked(_time_text(one.latency), told)


def _digits(reading: Reading) -> int:
    """Return how many digits of a value its interval supports."""
    return numbers.supported(reading.value, reading.low, reading.high)


def memory_text(reading: Reading) -> str:
    """Write bytes with the digits that their interval supports."""
    return numbers.size(reading.value, significant=_digits(reading))


def _time_text(reading: Reading) -> str:
    """Write a time, rounded to what its interval supports, with it: 140 ms (124–161 ms).

    The interval names its unit once.
    """
    if not reading.known:
        return numbers.NONE
    value = numbers.seconds(reading.value, significant=_digits(reading))
    low, high = numbers.seconds(reading.low, to="down"), numbers.seconds(reading.high, to="up")
    if not reading.has_interval or reading.low == reading.high:
        return value
    number, _, unit = low.partition(" ")
    return f"{value} ({number if high.endswith(f' {unit}') else low}–{high})"


def speedup_text(one: Candidate, ranking: Ranking) -> str:
    """Write how many times as fast as the exact baseline: ``8.5 × (7.6–9.5) as fast as sdpa``."""
    if ranking.baseline is None:
        return "speed-up not known: no exact method was measured"
    found = one.speedup
    tied = ", statistically tied" if may_be_equal(one, ranking.baseline) else ""
    name = clean(ranking.baseline.label)
    return f"{numbers.times(found.value, found.low, found.high)} as fast as {name}{tied}"


NOT_FASTER = "not shown to be faster than the exact one here: take that"


def is_faster(answer: Candidate) -> bool:
    """Whether an answer is measurably faster than the exact baseline."""
    found = answer.speedup
    return (found.low if found.has_interval else found.value) > 1


def basis_text(reading: Reading) -> str:
    """Say where a time is from: how many processes, or which lengths."""
    if reading.between:
        a, b = reading.between
        said = f"interpolated between {a:,} and {b:,} tokens"
    elif reading.fitted:
        a, b = reading.fitted[0], reading.fitted[-1]
        said = (
            f"predicted from {a:,} to {b:,} tokens" if a != b else f"predicted from {a:,} tokens"
        )
    else:
        count = len(reading.launches)
        said = f"measured in {count} processes" if count > 1 else "measured in one process"
    return f"{said}; {clean(reading.note)}" if reading.note else said


def others_table(ranking: Ranking) -> list[str]:
    """Return every candidate with a time that is no answer as lines of aligned columns."""
    answers = ranking.answers
    shown = [c for c in ranking.candidates if c.latency.known and c not in answers]
    if not shown:
        return []
    memory = "state" if ranking.question.mode == "decode" else "memory"
    rows = [["method", "type", "time", "speed-up", memory, "why not"]]
    rows += [
        [
            clean(c.label), c.type, _short_time(c),
            numbers.times(c.speedup.value) if c.speedup.value == c.speedup.value else numbers.NONE,
            memory_text(c.memory), why(c, ranking.exact if c.is_exact else ranking.other),
        ]
        for c in shown
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    start = 2 * len(widths) + sum(widths[:-1])
    lines = []
    for *row, last in rows:
        told = "".join(f"  {c.ljust(w)}" for c, w in zip(row, widths, strict=False))
        first, *more = textwrap.wrap(last, max(_LEAST_WIDTH, WIDTH - start)) or [""]
        lines += [f"{told}  {first}".rstrip(), *(f"{' ' * start}{part}" for part in more)]
    return lines


def _short_time(one: Candidate) -> str:
    """Write a time without its interval; one that was not measured begins with ≈."""
    told = {"converged": one.latency.converged}
    about = "" if one.latency.basis == "measured" else "≈ "
    time = numbers.seconds(one.latency.value, significant=_digits(one.latency))
    return about + marked(time, told)


def why(one: Candidate, answer: Candidate | None = None) -> str:
    """Say why a candidate is no answer; of what has no time at the length nothing more.

    Args:
        one: the candidate.
        answer: that of its kind.
    """
    if not one.reasons:
        tied = answer is not None and may_be_equal(one, answer)
        return "statistically tied" if tied else "slower"
    return clean(one.reasons.get("latency") or "; ".join(dict.fromkeys(one.reasons.values())))
