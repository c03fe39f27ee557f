"""What the errors say in sentences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from results.analysis.warm_up import marked
from results.chapters.error.rows import MOST_INPUTS, USELESS, ErrorChapter
from results.page.blocks import Paragraph
from results.page.cells import name, time
from results.page.columns import Row
from results.records.frames import records
from results.statistics.launches import is_less
from results.text import numbers
from results.text.numbers import small_number

_MOST_NAMED, _MOST_CLOSEST, _MOST_LINES = 8, 4, 8


def error_paragraphs(chapter: ErrorChapter) -> list[Paragraph]:
    """Return what the errors say, one paragraph a distribution."""
    paragraphs = []
    for inputs in chapter.inputs[:MOST_INPUTS]:
        rows = chapter.at(inputs)
        sentences = [
            *_closest(rows, chapter.seq_len), *_too_dear(rows), *_no_better_than_zeros(rows)
        ]  # fmt: skip
        paragraphs.append(Paragraph(f"Inputs {inputs}" if inputs else "Inputs", sentences))
    return [p for p in paragraphs if p.sentences]


def fair_latency(rows: pd.DataFrame) -> float:
    """Return the latency within which every approximate line has a point, NaN for fewer than 2.

    It is the slowest of the lines' fastest points: at less, a line would have none.
    """
    timed = rows[~rows["is_exact"].astype(bool) & (rows["latency"] > 0)]
    fastest = timed.groupby(["backend", "rest"])["latency"].min()
    return float(fastest.max()) if len(fastest) > 1 else math.nan


def closest_within(rows: pd.DataFrame, latency: float) -> list[dict[Hashable, Any]]:
    """Return each line's measured point of least error within `latency`, the closest first."""
    timed = rows[~rows["is_exact"].astype(bool) & (rows["latency"] <= latency)]
    best = timed.sort_values("relative_error", kind="stable")
    return records(best.drop_duplicates(["backend", "rest"]))


def exact_latency(rows: pd.DataFrame) -> tuple[str, float]:
    """Return name and latency of the fastest exact backend, NaN for none."""
    first = _fastest_exact(rows)
    return (marked(name(first), first), float(first["latency"])) if first else ("", math.nan)


def _fastest_exact(rows: pd.DataFrame) -> Row | None:
    exact = rows[rows["is_exact"].astype(bool) & (rows["latency"] > 0)]
    fastest = records(exact.sort_values("latency", kind="stable"))
    return fastest[0] if fastest else None


def beside_exact(rows: pd.DataFrame) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the approximations that are faster than the fastest exact backend, slower, neither.

    `launches.is_less` tells; what it does not tell is neither.
    """
    sides: tuple[list[Row], list[Row], list[Row]] = [], [], []
    exact = _fastest_exact(rows)
    for row in records(rows[~rows["is_exact"].astype(bool) & (rows["latency"] > 0)]):
        if exact is None:
            break
        faster = is_less(row["cell"], exact["cell"])
        slower = is_less(exact["cell"], row["cell"])
        sides[0 if faster else 1 if slower else 2].append(row)
    return sides


def _closest(rows: pd.DataFrame, seq_len: int) -> list[str]:
    latency = fair_latency(rows)
    if not math.isfinite(latency):
        return []
    told = [
        f"{marked(name(r), r)} {small_number(r['relative_error'])}"
        for r in closest_within(rows, latency)[:_MOST_CLOSEST]
        if r["relative_error"] < USELESS
    ]
    if not told:
        return []
    return [
        f"Smallest error within {numbers.seconds(latency)} at {numbers.tokens(seq_len)} tokens, "
        f"a time that each method can meet: {told[0]}"
        f"{f'; then {numbers.listing(told[1:])}' if told[1:] else ''}."
    ]


def _too_dear(rows: pd.DataFrame) -> list[str]:
    who, latency = exact_latency(rows)
    if not math.isfinite(latency):
        return []
    faster, dear, near = beside_exact(rows)
    count = len(faster) + len(dear) + len(near)
    where = f"exact attention ({who}, {numbers.seconds(latency)})"
    if count and len(near) == count and are_single(rows):
        return []  # a note of the table says it
    if not dear and not near:
        return [f"All approximations are faster than {where}."] if count else []
    if len(dear) == count:
        return [f"No approximation is faster than {where}: here they bring nothing."]
    said = []
    if dear:
        told = _few([f"{name(r)} {time(r, 'latency')}" for r in dear])
        said.append(f"Slower than {where}, so of no use here: {told}.")
    if near:
        told = _few([f"{name(r)} {time(r, 'latency')}" for r in near])
        said.append(f"Statistically tied in time with {where}: {told}.")
    return said


def are_single(rows: pd.DataFrame) -> bool:
    """Whether every latency is of one launch."""
    return all(len(launches) == 1 for launches in rows[rows["latency"] > 0]["launches"])


def _no_better_than_zeros(rows: pd.DataFrame) -> list[str]:
    """Say of each backend how many of its settings are no better than an output of zeros."""
    known = rows[rows["relative_error"].notna()]
    told = []
    for backend, own in known.groupby("backend", sort=False):
        lost = int((own["relative_error"] >= USELESS).sum())
        if lost:
            settings = f" ({lost} of {len(own)} settings)" if len(own) > 1 else ""
            told.append(f"{backend}{settings}")
    zeros = f"No better than an output of zeros (relative error {USELESS:g})"
    return [f"{zeros}: {numbers.listing(told)}."] if told else []


def _few(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return numbers.listing([*names[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


def error_answers(chapters: Sequence[ErrorChapter]) -> list[Paragraph]:
    """Return what the page's summary says of the errors: a sentence per setting and inputs."""
    said = []
    for chapter in chapters:
        for inputs in chapter.inputs:
            rows = chapter.at(inputs)
            latency = fair_latency(rows)
            best = closest_within(rows, latency) if math.isfinite(latency) else []
            if not best:
                continue
            _, exact = exact_latency(rows)
            beside = f" (exact: {numbers.seconds(exact)})" if math.isfinite(exact) else ""
            where = f"{inputs}, {chapter.title}, {numbers.tokens(chapter.seq_len)} tokens"
            faster, _, near = beside_exact(rows)
            if math.isfinite(exact) and not faster and not (near and are_single(rows)):
                said.append(
                    f"{where}: no approximation is measurably faster than exact attention "
                    f"({numbers.seconds(exact)})."
                    if near
                    else f"{where}: exact attention ({numbers.seconds(exact)}) is faster than "
                    "every approximation."
                )
                continue
            if best[0]["relative_error"] >= USELESS:
                said.append(
                    f"{where}: within {numbers.seconds(latency)}{beside} no approximation is "
                    "better than an output of zeros."
                )
                continue
            said.append(
                f"{where}: within {numbers.seconds(latency)}{beside} "
                f"{marked(name(best[0]), best[0])} has the smallest relative error, "
                f"{small_number(best[0]['relative_error'])}."
            )
    more = len(said) - _MOST_LINES
    said = [*said[:_MOST_LINES], *([f"{more} more below."] if more > 0 else [])]
    return [Paragraph("Approximation error", said)] if said else []
