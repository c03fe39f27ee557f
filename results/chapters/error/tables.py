"""The errors' tables as rows of text, and what they say in sentences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from results.analysis.warm_up import converged, marked
from results.chapters.error.rows import USELESS, ErrorChapter, budget_text
from results.page.blocks import LONG, Cell, Paragraph, TableView
from results.page.cells import name
from results.records.frames import records
from results.statistics.intervals import is_less
from results.text import numbers
from results.text.labels import label
from results.text.numbers import small_number, status_word

Row = Mapping[Hashable, Any]

_MOST_NAMED, _MOST_INPUTS, _MOST_LINES = 8, 12, 8


# -- tables --------------------------------------------------------------------------------------


def error_tables(chapter: ErrorChapter) -> list[TableView]:
    """Return errors by inputs at one length, and every case."""
    found = [_by_inputs(chapter), _every(chapter)]
    return [view for view in found if view.rows]


def _by_inputs(chapter: ErrorChapter) -> TableView:
    """Return a row a backend at a budget, a column a distribution."""
    shown = chapter.inputs[:_MOST_INPUTS]
    rows = chapter.rows[chapter.rows["seq_len"] == chapter.seq_len]
    result = []
    for key, own in rows.groupby(["backend", "options"], sort=False):
        by_inputs = {r["inputs"]: r for r in records(own)}
        cells = [
            Cell(label(*key)),
            Cell(marked(numbers.seconds(float(own["latency"].median())), _over(own))),
            Cell(_operations(float(own["operations"].median()))),
        ]
        for inputs in shown:
            row = by_inputs.get(inputs)
            if row is None:
                cells.append(Cell(numbers.NONE))
            elif math.isfinite(row["relative_error"]):
                cells.append(Cell(small_number(row["relative_error"])))
            else:
                cells.append(Cell(status_word(row["status"]), is_status=True))
        result.append(cells)
    notes = [
        "Relative L2 distance of the output from exact softmax attention, at sampled rows; "
        f"{USELESS:g} is that of an output of zeros. Latency and operations (those that the code "
        "runs): medians over the inputs."
    ]
    title = f"Relative error at {numbers.tokens(chapter.seq_len)} tokens, by inputs"
    head = ["backend", "latency", "operations", *(s or "inputs" for s in shown)]
    return TableView(title, head, result, notes=notes, is_long=len(result) > LONG)


def _every(chapter: ErrorChapter) -> TableView:
    rows = [
        [
            Cell(label(row["backend"], row["rest"])),
            Cell(budget_text(row)),
            Cell(row["inputs"]),
            Cell(numbers.tokens(row["seq_len"])),
            Cell(_time(row)),
            Cell(_operations(row["operations"])),
            Cell(numbers.size(row["peak_memory"])),
            Cell(small_number(row["relative_error"]), _apart(row)),
            Cell(small_number(row["weights_error"])),
            Cell(small_number(row["weights_kl"])),
            Cell(status_word(row["status"]), is_status=row["status"] != "ok"),
            Cell(row["reason"]),
        ]
        for row in records(chapter.rows)
    ]
    head = [
        "backend", "budget", "inputs", "tokens", "latency", "operations", "memory",
        "relative error", "weights' error", "weights' KL (nat)", "status", "reason",
    ]  # fmt: skip
    notes = [
        "Weights' error: relative L2 distance of the rows of attention weights from exact "
        "softmax's; KL: mean divergence of a method's row from the exact one, where its weights "
        "are a distribution. Below an error: the smallest and largest over launches and seeds."
    ]
    return TableView("Every error", head, rows, text_columns=3, notes=notes, is_long=True)


def _over(rows: pd.DataFrame) -> dict[str, Any]:
    """Return what a time over several rows rests on."""
    return {"converged": converged(rows["converged"])}


def _operations(value: float) -> str:
    return f"{numbers.rate(value)}op" if math.isfinite(value) else numbers.NONE


def _apart(row: Row) -> str:
    low, high = row["error_low"], row["error_high"]
    return f"{small_number(low)}–{small_number(high)}" if low < high else ""


# -- sentences -----------------------------------------------------------------------------------


def error_paragraphs(chapter: ErrorChapter) -> list[Paragraph]:
    """Return what the errors say, one paragraph a distribution."""
    found = []
    for inputs in chapter.inputs[:_MOST_INPUTS]:
        rows = chapter.at(inputs)
        sentences = [
            *_closest(rows, chapter.seq_len), *_too_dear(rows), *_no_better_than_zeros(rows)
        ]  # fmt: skip
        found.append(Paragraph(f"Inputs {inputs}" if inputs else "Inputs", sentences))
    return [p for p in found if p.sentences]


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
    found = records(exact.sort_values("latency", kind="stable"))
    return found[0] if found else None


def beside_exact(rows: pd.DataFrame) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the approximations that are faster than the fastest exact backend, slower, neither.

    `statistics.is_less` tells; what it does not tell is neither.
    """
    found: tuple[list[Row], list[Row], list[Row]] = [], [], []
    exact = _fastest_exact(rows)
    for row in records(rows[~rows["is_exact"].astype(bool) & (rows["latency"] > 0)]):
        if exact is None:
            break
        faster = is_less(row["latencies"], exact["latencies"])
        slower = is_less(exact["latencies"], row["latencies"])
        found[0 if faster else 1 if slower else 2].append(row)
    return found


def _closest(rows: pd.DataFrame, seq_len: int) -> list[str]:
    latency = fair_latency(rows)
    if not math.isfinite(latency):
        return []
    told = [
        f"{marked(name(r), r)} {small_number(r['relative_error'])}"
        for r in closest_within(rows, latency)[:_MOST_NAMED]
    ]
    return [
        f"Within {numbers.seconds(latency)} at {numbers.tokens(seq_len)} tokens, where each "
        f"family has a point, the closest to exact attention is {told[0]}"
        f"{f'; then {numbers.listing(told[1:])}' if told[1:] else ''}."
    ]


def _too_dear(rows: pd.DataFrame) -> list[str]:
    who, latency = exact_latency(rows)
    if not math.isfinite(latency):
        return []
    faster, dear, near = beside_exact(rows)
    count = len(faster) + len(dear) + len(near)
    where = f"exact attention ({who}, {numbers.seconds(latency)})"
    once = "" if _has_launches(rows) else " (one launch each)"
    if not dear and not near:
        return [f"All approximations take less time than {where}{once}."] if count else []
    if len(dear) == count:
        return [f"No approximation takes less time than {where}{once}: here they are of no use."]
    said = []
    if dear:
        told = _few([f"{name(r)} {_time(r)}" for r in dear])
        said.append(
            f"Of no use here, since they take longer than {where}{once} and are not exact: {told}."
        )
    if near:
        told = _few([f"{name(r)} {_time(r)}" for r in near])
        said.append(f"Not told apart in time from {where}{once}: {told}.")
    return said


def _time(row: Row) -> str:
    return marked(numbers.seconds(row["latency"]), row)


def _has_launches(rows: pd.DataFrame) -> bool:
    """Whether every latency is of several launches."""
    return all(len(times) > 1 for times in rows[rows["latency"] > 0]["latencies"])


def _no_better_than_zeros(rows: pd.DataFrame) -> list[str]:
    lost = records(rows[rows["relative_error"] >= USELESS])
    if not lost:
        return []
    told = _few([f"{name(r)} {small_number(r['relative_error'])}" for r in lost])
    return [f"No closer than an output of zeros (relative error {USELESS:g}): {told}."]


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
            if math.isfinite(exact) and not faster:
                said.append(
                    f"{where}: no approximation is told to be faster than exact attention "
                    f"({numbers.seconds(exact)})."
                    if near
                    else f"{where}: exact attention ({numbers.seconds(exact)}) is faster than "
                    "every approximation."
                )
                continue
            said.append(
                f"{where}: within "
                f"{numbers.seconds(latency)}{beside} {marked(name(best[0]), best[0])} is closest, "
                f"relative error {small_number(best[0]['relative_error'])}."
            )
    more = len(said) - _MOST_LINES
    said = [*said[:_MOST_LINES], *([f"{more} more below."] if more > 0 else [])]
    return [Paragraph("Error at a budget", said)] if said else []
