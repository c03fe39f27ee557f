"""The answer in sentences, computed from the data: nothing here is typed in.

Each function returns the sentences that its chapter supports, none where it supports none.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd

from results.analysis.crossovers import BASELINES
from results.analysis.warm_up import converged, is_cut_short, marked
from results.chapters.speed.attention_share import worth
from results.chapters.speed.rows import Chapter
from results.chapters.speed.short_inputs import BASELINE, FACTOR, SLACK, short_inputs
from results.chapters.speed.tables import IN_CASES
from results.page.blocks import Paragraph
from results.records.frames import as_rows
from results.schema import IDENTITY
from results.statistics.intervals import Estimate, ratio
from results.text import numbers
from results.text.labels import label
from results.text.modes import WORDS
from results.text.notes import capped

AGREEMENT = 0.1
"""An exponent agrees with the declared one within this, or if its interval holds it."""

WIDEST = 0.5
"""An interval of an exponent wider than this tells linear and quadratic hardly apart."""


def summarise(chapter: Chapter) -> list[Paragraph]:
    """Return the chapter's answers: one paragraph a mode, then reach and exponents."""
    found = []
    for mode in chapter.modes:
        sentences = [
            *_fastest(chapter, mode),
            *_overtaking(chapter, mode),
            *_memory(chapter, mode),
            *_floor(chapter, mode),
            *_limit(chapter, mode),
            *_exponents(chapter, mode),
        ]
        found.append(Paragraph(WORDS[mode].heading, sentences))
    found.append(Paragraph("Short inputs", _short(chapter)))
    found.append(Paragraph("How far each one goes", _reach(chapter)))
    return [p for p in found if p.sentences]


def _rows(chapter: Chapter, mode: str, metric: str) -> pd.DataFrame:
    rows = chapter.points
    rows = rows[(rows["mode"] == mode) & (rows["metric"] == metric) & rows["value"].notna()]
    return rows[rows["backend"] != IDENTITY]


def _name(row: dict[Hashable, Any]) -> str:
    return label(row["backend"], row["options"])


def _longest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at the longest length that at least two series share, fastest first."""
    counts = rows.groupby("seq_len").size()
    shared = counts[counts >= min(2, counts.max())] if len(counts) else counts
    if shared.empty:
        return rows.iloc[:0]
    return rows[rows["seq_len"] == shared.index.max()].sort_values("value", kind="stable")


def _between(top: dict[Hashable, Any], bottom: dict[Hashable, Any]) -> Estimate:
    return ratio(top["launches"], bottom["launches"])


def _fastest(chapter: Chapter, mode: str) -> list[str]:
    rows = as_rows(_longest(_rows(chapter, mode, "latency")))
    if not rows:
        return []
    best = rows[0]
    place = f"{WORDS[mode].place} {numbers.tokens(best['seq_len'])} tokens"
    spent = marked(numbers.seconds(best["value"]), best)
    if len(rows) == 1:
        return [f"{place} only {_name(best)} was measured: {spent}."]
    lead = _between(rows[1], best)
    known = f"{numbers.times(lead.value, lead.low, lead.high)}"
    second = marked(_name(rows[1]), rows[1])
    if lead.has_interval and lead.low <= 1:
        first = (
            f"{place} {_name(best)} ({spent}) and {second}, the fastest two, are not told "
            f"apart: their ratio is {known}"
        )
    else:
        first = f"{place} {_name(best)} is the fastest: {spent}, ahead of {second} by {known}"
    against = []
    for baseline in BASELINES:
        other = [r for r in rows[1:] if r["backend"] == baseline]
        if other and best["backend"] != baseline and other[0] is not rows[1]:
            got = _between(other[0], best)
            name = marked(baseline, other[0])
            against.append(f"{numbers.times(got.value, got.low, got.high)} as fast as {name}")
    sentence = f"{first}; {_name(best)} is {numbers.listing(against)}." if against else f"{first}."
    if not lead.has_interval:
        sentence += " One launch each: these ratios have no interval."
    slower = [marked(_name(row), row) for row in rows[2:] if is_cut_short(row)]
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
                always.append(f"{marked(_name(row), row)}{doubt}")
            else:
                at = numbers.about_tokens(row["seq_len"], to="up")
                later.append(f"{marked(_name(row), row)} from {at} tokens on{doubt}")
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
                never.setdefault(tried, []).append(marked(_name(row), row))
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
        return f" (surely from {numbers.about_tokens(row['ci_high'], to='up')} on)"
    return f" {between}" if between else ""


def _memory(chapter: Chapter, mode: str) -> list[str]:
    words = WORDS[mode]
    every = _rows(chapter, mode, words.memory)
    rows = as_rows(_longest(every))
    if len(rows) < 2:
        return []
    least, most = rows[0], rows[-1]
    sentence = (
        f"Least memory {words.place.lower()} {numbers.tokens(least['seq_len'])} tokens: "
        f"{_name(least)} with {numbers.size(least['value'])} {words.memory_sentence}; most: "
        f"{_name(most)} with "
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
    found = [
        f"Without the attention that is compared the rest takes {spent} "
        f"{place} {numbers.tokens(last['seq_len'])} tokens (the identity arm)."
    ]
    shares = [
        f"{marked(_name(row), row)} {numbers.percent(row['attention_share'])}"
        for row in as_rows(_longest(worth(chapter.points, mode)))
        if row["attention_share"] > 0
    ]
    if shares:
        found.append(f"Attention's share of the time there: {numbers.listing(shares)}.")
    return found


def _limit(chapter: Chapter, mode: str) -> list[str]:
    rows = chapter.limits
    rows = rows[(rows["mode"] == mode) & rows["fraction_of_limit"].notna()]
    rows = rows[rows["backend"] != IDENTITY]
    if rows.empty:
        return []
    rows = _longest(rows).sort_values("fraction_of_limit", ascending=False, kind="stable")
    shares = [
        f"{marked(_name(r), r)} {numbers.percent(r['fraction_of_limit'])}" for r in as_rows(rows)
    ]
    place = numbers.tokens(rows["seq_len"].iloc[0])
    return [f"Share of the machine's limit reached at {place} tokens: {numbers.listing(shares)}."]


def _exponents(chapter: Chapter, mode: str) -> list[str]:
    sentences = []
    for metric, word in (("latency", "Time"), (WORDS[mode].memory, "Memory")):
        rows = chapter.fits
        rows = rows[(rows["mode"] == mode) & (rows["metric"] == metric)]
        rows = rows[rows["exponent"].notna() & rows["expected"].notna()]
        agree: list[str] = []
        flat: list[str] = []
        differ, unsure, wide = [], [], []
        for row in as_rows(rows):
            text = f"{marked(_name(row), row)} {_exponent(row)}"
            if not math.isfinite(row["ci_low"]):
                unsure.append(text)
            elif row["ci_high"] - row["ci_low"] > WIDEST:
                wide.append(text)
            elif _agrees(row):
                (agree if row["expected"] else flat).append(text)
            else:
                differ.append(f"{text} against {row['expected']:g}")
        if agree:
            sentences.append(
                f"{word} grows with length as declared, by the exponent: {numbers.listing(agree)}."
            )
        if flat:
            sentences.append(
                f"{word} does not grow with length, as declared, by the exponent: "
                f"{numbers.listing(flat)}."
            )
        if differ:
            sentences.append(f"{word} grows otherwise than declared: {numbers.listing(differ)}.")
        if wide:
            sentences.append(
                f"{word}'s exponent is too uncertain to be judged: {numbers.listing(wide)}."
            )
        if unsure:
            sentences.append(
                f"{word}'s exponent, from too few lengths for an interval: "
                f"{numbers.listing(unsure)}."
            )
    return sentences


def _exponent(row: dict[Hashable, Any]) -> str:
    between = numbers.interval(row["ci_low"], row["ci_high"], numbers.exponent)
    return f"{numbers.exponent(row['exponent'])} {between}".rstrip()


def _agrees(row: dict[Hashable, Any]) -> bool:
    covered = row["ci_low"] <= row["expected"] <= row["ci_high"]
    return bool(covered or abs(row["exponent"] - row["expected"]) <= AGREEMENT)


def _short(chapter: Chapter) -> list[str]:
    """Say which backends cost more than exact attention where the input is short, and why."""
    rows = short_inputs(chapter.points)
    rows = rows[rows["baseline"].notna()]
    if rows.empty:
        return []
    bound = f"{FACTOR:g} × the time of {BASELINE} plus {SLACK * 1e6:g} µs"
    over = rows[rows["over"].astype(bool)]
    sentences = []
    for (backend, options), part in over.groupby(["backend", "options"], sort=False):
        places = []
        for mode, own in part.groupby("mode", sort=False):
            lengths = numbers.listing([numbers.tokens(n) for n in own["seq_len"]])
            places.append(f"at {lengths} tokens ({mode})")
        reasons = [why for why in part["why"] if why]
        named = f"; {reasons[-1]} {_until(part)}" if reasons else ""
        sentences.append(
            f"{_marked_any(label(backend, options), part)} takes more than {bound} "
            f"{numbers.listing(places)}{named}."
        )
    fine = [
        _marked_any(label(*key), part)
        for key, part in rows.groupby(["backend", "options"], sort=False)
        if not part["over"].any()
    ]
    if fine:
        lengths = f"up to {numbers.tokens(rows['seq_len'].max())} tokens"
        sentences.append(f"Within {bound} {lengths}: {numbers.listing(fine)}.")
    return sentences


def _marked_any(name: str, part: pd.DataFrame) -> str:
    return marked(name, {"converged": converged(part["converged"])})


def _until(part: pd.DataFrame) -> str:
    """Return up to which length a fixed size explains the time."""
    explained = part[part["why"] != ""]["seq_len"]
    return f"up to {numbers.tokens(explained.max())} tokens"


def _reach(chapter: Chapter) -> list[str]:
    """Say per series the longest length that worked, and what stopped the next."""
    groups: dict[str, list[str]] = {}
    for row in as_rows(chapter.feasible):
        if row["backend"] == IDENTITY:
            continue
        reached = None if pd.isna(row["seq_len"]) else numbers.tokens(row["seq_len"])
        word = numbers.STATUS_WORDS.get(row["status"], row["status"])
        why = f" ({row['reason']})" if row["reason"] else ""
        if reached is None:
            told = f"nothing measured: {word}{why}"
        elif pd.isna(row["next_len"]):
            told = f"{reached} tokens, the longest tried"
        else:
            told = f"{reached} tokens; at {numbers.tokens(row['next_len'])}: {word}{why}"
        groups.setdefault(f"{told}.", []).append(f"{_name(row)} ({row['mode']})")
    said = [
        f"{numbers.listing(_without_modes(names, chapter.modes))}: {told}"
        for told, names in groups.items()
    ]
    return capped(said, f"{IN_CASES}.")


def _without_modes(names: list[str], modes: list[str]) -> list[str]:
    """Write ``sdpa`` for ``sdpa (forward), sdpa (training)`` where a name has every mode."""
    result = []
    for name in names:
        bare = name.rsplit(" (", 1)[0]
        whole = len(modes) == 1 or all(f"{bare} ({m})" in names for m in modes)
        shown = bare if whole else name
        if shown not in result:
            result.append(shown)
    return result
