"""Sentences on how each backend grows with length, where short inputs cost more, and its reach."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from results.analysis.warm_up import converged, marked
from results.chapters.speed.memory_growth import memory_growth
from results.chapters.speed.rows import Chapter
from results.chapters.speed.short_inputs import BASELINE, FACTOR, SLACK, short_inputs
from results.chapters.speed.tables import IN_CASES, WIDEST
from results.page.cells import name
from results.records.frames import as_rows
from results.schema import IDENTITY
from results.text import numbers
from results.text.labels import label
from results.text.notes import capped

AGREEMENT = 0.1
"""An exponent agrees with the declared one within this, or if its interval holds it."""

FLAT = 0.05
"""What grows with a smaller exponent than this does not grow."""


def exponents(chapter: Chapter, mode: str) -> list[str]:
    """Say how time and memory grow with length, beside what each backend declares."""
    return [*time_growth(chapter, mode), *memory_growth(chapter, mode)]


def _fitted(chapter: Chapter, mode: str, metric: str) -> list[dict[Hashable, Any]]:
    """Return the exponents of a mode that are held against one that is declared."""
    rows = chapter.fits
    rows = rows[(rows["mode"] == mode) & (rows["metric"] == metric)]
    return as_rows(rows[rows["exponent"].notna() & rows["expected"].notna()])


def time_growth(chapter: Chapter, mode: str) -> list[str]:
    """Say whether time grows as the declared operations do over the same lengths."""
    said: dict[tuple[int, str], list[str]] = {}
    for row in _fitted(chapter, mode, "latency"):
        if not row["ci_high"] - row["ci_low"] <= WIDEST:
            continue  # of one process, or too uncertain: the table says so
        beside = numbers.exponent(row["expected"])
        named = f"{marked(name(row), row)} {_exponent(row)} against {beside}"
        said.setdefault(_verdict(row), []).append(named)
    return [f"{head}: {numbers.listing(said[place, head])}." for place, head in sorted(said)]


def _verdict(row: dict[Hashable, Any]) -> tuple[int, str]:
    """Return what is said of time's exponent, and its place among the sentences."""
    what = "its FLOPs" if row["by_operations"] else "declared"
    if not _agrees(row):
        more = row["exponent"] > row["expected"]
        return 3 - more, f"Time grows {'more' if more else 'less'} than {what}, by the exponent"
    if abs(row["expected"]) < FLAT:
        return 1, f"Time does not grow with length, as {what}, by the exponent"
    return 0, f"Time grows with length as {what}, by the exponent"


def _exponent(row: dict[Hashable, Any]) -> str:
    between = numbers.interval(row["ci_low"], row["ci_high"], numbers.exponent)
    return f"{numbers.exponent(row['exponent'])} {between}".rstrip()


def _agrees(row: dict[Hashable, Any]) -> bool:
    covered = row["ci_low"] <= row["expected"] <= row["ci_high"]
    return bool(covered or abs(row["exponent"] - row["expected"]) <= AGREEMENT)


def short(chapter: Chapter) -> list[str]:
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


def reach(chapter: Chapter) -> list[str]:
    """Say per series the longest length that worked, and what stopped the next."""
    groups: dict[str, list[str]] = {}
    for row in as_rows(chapter.feasible):
        if row["backend"] == IDENTITY:
            continue
        reached = None if pd.isna(row["seq_len"]) else numbers.tokens(row["seq_len"])
        word = numbers.STATUS_WORDS.get(row["status"], row["status"])
        why = f" ({row['reason']})" if row["reason"] else ""
        if reached is None:
            what = f"nothing measured: {word}{why}"
        elif pd.isna(row["next_len"]):
            what = f"{reached} tokens, the longest tried"
        else:
            what = f"{reached} tokens; at {numbers.tokens(row['next_len'])}: {word}{why}"
        groups.setdefault(f"{what}.", []).append(f"{name(row)} ({row['mode']})")
    sentences = [
        f"{numbers.listing(_without_modes(names, chapter.modes))}: {what}"
        for what, names in groups.items()
    ]
    return capped(sentences, f"{IN_CASES}.")


def _without_modes(names: list[str], modes: list[str]) -> list[str]:
    """Write ``sdpa`` for ``sdpa (forward), sdpa (training)`` where a name has every mode."""
    shown = []
    for of_mode in names:
        bare = of_mode.rsplit(" (", 1)[0]
        whole = len(modes) == 1 or all(f"{bare} ({m})" in names for m in modes)
        shown.append(bare if whole else of_mode)
    return list(dict.fromkeys(shown))
