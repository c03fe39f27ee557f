"""The answer in sentences, computed from the data: nothing here is typed in.

Each function returns the sentences that its chapter supports, none where it supports none.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from results.analysis.warm_up import is_cut_short, marked
from results.chapters.speed.attention_share import worth
from results.chapters.speed.growth import exponents, reach, short
from results.chapters.speed.rows import Chapter
from results.page.blocks import Paragraph
from results.page.cells import WHOLE, name, time_cell
from results.records.frames import as_rows
from results.schema import IDENTITY
from results.statistics.launches import ratio_of
from results.statistics.questions import BASELINES
from results.text import numbers
from results.text.modes import WORDS


def summarise(chapter: Chapter) -> list[Paragraph]:
    """Return the chapter's answers: one paragraph a mode, then reach and exponents."""
    paragraphs = []
    for mode in chapter.modes:
        sentences = [
            *_fastest(chapter, mode),
            *_overtaking(chapter, mode),
            *_memory(chapter, mode),
            *_floor(chapter, mode),
            *_limit(chapter, mode),
            *exponents(chapter, mode),
        ]
        paragraphs.append(Paragraph(WORDS[mode].heading, sentences))
    paragraphs.append(Paragraph("Short inputs", short(chapter)))
    paragraphs.append(Paragraph("How far each one goes", reach(chapter)))
    return [p for p in paragraphs if p.sentences]


def _rows(chapter: Chapter, mode: str, metric: str) -> pd.DataFrame:
    rows = chapter.points
    rows = rows[(rows["mode"] == mode) & (rows["metric"] == metric) & rows["value"].notna()]
    return rows[rows["backend"] != IDENTITY]


def _longest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at the longest length that at least two series share, fastest first."""
    counts = rows.groupby("seq_len").size()
    shared = counts[counts >= min(2, counts.max())] if len(counts) else counts
    if shared.empty:
        return rows.iloc[:0]
    return rows[rows["seq_len"] == shared.index.max()].sort_values("value", kind="stable")


def _fastest(chapter: Chapter, mode: str) -> list[str]:
    rows = as_rows(_longest(_rows(chapter, mode, "latency")))
    if not rows:
        return []
    best = rows[0]
    place = f"{WORDS[mode].place} {numbers.tokens(best['seq_len'])} tokens"
    spent = time_cell(best).text
    if len(rows) == 1:
        return [f"{place} only {name(best)} was measured: {spent}."]
    lead = ratio_of(rows[1]["cell"], best["cell"])
    known = f"{numbers.times(lead.value, lead.low, lead.high)}"
    second = marked(name(rows[1]), rows[1])
    if lead.has_interval and lead.low <= 1:
        first = (
            f"{place} {name(best)} ({spent}) and {second}, the fastest two, are "
            f"statistically tied: their ratio is {known}"
        )
    else:
        first = f"{place} {name(best)} is the fastest: {spent}, ahead of {second} by {known}"
    against = []
    for baseline in BASELINES:
        other = [r for r in rows[1:] if r["backend"] == baseline]
        if other and best["backend"] != baseline and other[0] is not rows[1]:
            got = ratio_of(other[0]["cell"], best["cell"])
            exact = marked(baseline, other[0])
            against.append(f"{numbers.times(got.value, got.low, got.high)} as fast as {exact}")
    sentence = f"{first}; {name(best)} is {numbers.listing(against)}." if against else f"{first}."
    if not lead.has_interval:
        sentence += " One process each: these ratios have no interval."
    slower = [marked(name(row), row) for row in rows[2:] if is_cut_short(row)]
    if slower:
        sentence += f" Slower, if their times hold: {numbers.listing(slower)}."
    return [sentence]


def _overtaking(chapter: Chapter, mode: str) -> list[str]:
    sentences = []
    for baseline in ("sdpa", "full"):
        rows = chapter.crossovers
        rows = rows[(rows["mode"] == mode) & (rows["baseline"] == baseline)]
        reached = rows[rows["seq_len"].notna()].sort_values("seq_len", kind="stable")
        always, later = [], []
        for row in as_rows(reached):
            doubt = _doubt(row)
            if row["reason"].startswith("faster at every"):
                always.append(f"{marked(name(row), row)}{doubt}")
            else:
                at = numbers.from_tokens(row)
                later.append(f"{marked(name(row), row)} from {at} tokens on{doubt}")
        if later:
            sentences.append(f"Faster than {baseline}: {numbers.listing(later)}.")
        if always:
            sentences.append(
                f"Faster than {baseline} at every length tried: {numbers.listing(always)}."
            )
        never: dict[str, list[str]] = {}
        for row in as_rows(rows):
            if row["reason"].startswith("not reached") and row["backend"] not in BASELINES:
                tried = row["reason"].split("tried ")[1].split(":")[0]
                never.setdefault(tried, []).append(marked(name(row), row))
        sentences += [
            f"Not faster than {baseline} at the longest length tried ({tried} tokens): "
            f"{numbers.listing(names)}."
            for tried, names in never.items()
        ]
    return sentences


def _doubt(row: dict[Hashable, Any]) -> str:
    """Return the interval of a crossover in brackets, "" where it has none or no width."""
    if "open above" in row["reason"]:
        return " (not certain: the interval has no upper end)"
    always = row["reason"].startswith("faster at every")
    if always and not row["ci_high"] > row["seq_len"]:
        return ""
    between = numbers.interval(row["ci_low"], row["ci_high"], numbers.about_tokens)
    if between and always:
        return f" (measurably from {numbers.about_tokens(row['ci_high'], to='up')} on)"
    return f" {between}" if between else ""


def _memory(chapter: Chapter, mode: str) -> list[str]:
    words = WORDS[mode]
    every = _rows(chapter, mode, words.memory)
    timed = set(_rows(chapter, mode, "latency")["seq_len"])  # elsewhere only some were measured
    rows = as_rows(_longest(every[every["seq_len"].isin(timed)]))
    if len(rows) < 2:
        return []
    least, most = rows[0], rows[-1]
    sentence = (
        f"Least memory {words.place.lower()} {numbers.tokens(least['seq_len'])} tokens: "
        f"{name(least)} with {numbers.size(least['value'])} {words.memory_sentence}; most: "
        f"{name(most)} with "
        f"{numbers.size(most['value'])}."
    )
    return [sentence, *(_materialised(every) if words.memory == "peak_memory" else [])]


def _materialised(every: pd.DataFrame) -> list[str]:
    """Say what `full` takes beside the fused exact attention, at the longest length of both."""
    curves = {
        b: every[every["backend"] == b].drop_duplicates("seq_len").set_index("seq_len")["value"]
        for b in BASELINES
    }
    shared = curves["full"].index.intersection(curves["sdpa"].index)
    if shared.empty or not curves["sdpa"][shared.max()] > 0:
        return []
    full, fused = (curves[b][shared.max()] for b in BASELINES)
    return [
        f"Materialised softmax (full) takes {numbers.size(full)} at "
        f"{numbers.tokens(shared.max())} tokens, {numbers.ratio_digits(full / fused)} × as much "
        f"as fused exact attention (sdpa)."
    ]


def _floor(chapter: Chapter, mode: str) -> list[str]:
    rows = chapter.points
    rows = rows[(rows["mode"] == mode) & (rows["metric"] == "latency") & rows["value"].notna()]
    floor = rows[rows["backend"] == IDENTITY].sort_values("seq_len")
    if floor.empty:
        return []
    last = floor.iloc[-1]
    place, spent = (
        WORDS[mode].place.lower(),
        marked(numbers.seconds(last["value"]), last.to_dict()),
    )
    sentences = [
        f"Without the attention that is compared the rest takes {spent} "
        f"{place} {numbers.tokens(last['seq_len'])} tokens (the identity variant)."
    ]
    shares = [
        f"{marked(name(row), row)} {numbers.percent(row['attention_share'])}"
        for row in as_rows(_longest(worth(chapter.points, mode)))
        if row["attention_share"] > 0
    ]
    if shares:
        sentences.append(f"Attention's share of the time there: {numbers.listing(shares)}.")
    return sentences


def _limit(chapter: Chapter, mode: str) -> list[str]:
    rows = chapter.limits
    rows = rows[(rows["mode"] == mode) & rows["fraction_of_limit"].notna()]
    rows = rows[(rows["backend"] != IDENTITY) & (rows["fraction_of_limit"] <= WHOLE)]
    if rows.empty:
        return []
    rows = _longest(rows).sort_values("fraction_of_limit", ascending=False, kind="stable")
    shares = [
        f"{marked(name(r), r)} {numbers.percent(r['fraction_of_limit'])}" for r in as_rows(rows)
    ]
    place = numbers.tokens(rows["seq_len"].iloc[0])
    return [f"% of peak reached at {place} tokens: {numbers.listing(shares)}."]
