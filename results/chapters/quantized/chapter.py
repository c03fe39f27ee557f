"""Quantized weights: records of kind quantized as a table and a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.analysis.analysis import Analysis
from results.analysis.series import outcome, set_cells
from results.analysis.warm_up import NOTE, converged, marked
from results.chapters import ReportChapter
from results.chapters.titles import PLACE, joined, place_words, task_name, titled
from results.page.blocks import Cell, Paragraph, Part, Section, TableView
from results.page.cells import name, status_cell, time
from results.page.columns import Columns, Row, Writer, of, table
from results.records.frames import as_rows, rows_by
from results.records.load import Run
from results.statistics.launches import ratio_of
from results.text import numbers
from results.text.labels import label, training_name
from results.text.numbers import small_number, status_word

SETTING = (*PLACE, "task", "is_causal", "model", "seq_len", "training")

METRICS = ("parameter_bytes", "latency", "output_difference", "bits_per_byte", "peak_memory")

QUANTIZED_TABLE = (
    "backend", "options", "weights", *METRICS, "converged", "num_seeds", "task", "is_causal",
    "seq_len", "training", "model", "device", "dtype", "batch", "threads", "allocator", "kernel",
    "status", "reason", "machine", "environment",
)  # fmt: skip
"""The columns of the table `quantized`; bytes in B, latency in s."""

FULL = "float32"
"""The weights that the others stand beside."""

_ORDER = (FULL, "bfloat16", "float16", "int8", "int4")


def quantized_part(analysis: Analysis) -> Part | None:
    """Return the part of the report that has quantized weights."""
    groups = _groups(analysis.run)
    if not groups:
        return None
    titles = titled(
        [setting for setting, _ in groups], analysis.run, (*PLACE, "model", "training"), task_name
    )
    sections = []
    for title, (setting, rows) in zip(titles, groups, strict=True):
        spent = training_name(str(setting["training"]))
        training = f"Trained with {spent}. " if spent else ""
        told = _sentences(rows)
        sections.append(
            Section(
                title,
                lead=f"{training}{place_words(setting)}",
                paragraphs=[Paragraph("", told)] if told else [],
                tables=[_table(rows)],
            )
        )
    said = [
        f"{s.title}: {text[:1].lower()}{text[1:]}"
        for s in sections
        for p in s.paragraphs
        for text in p.sentences
        if text != NOTE
    ]
    answers = [Paragraph("Quantized weights", said[:8])] if said else []
    return Part("quantized", "Quantized weights", sections, answers)


def _groups(run: Run) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Return the settings with their rows."""
    return [(setting, rows_of(part)) for setting, part in rows_by(run.of("quantized"), SETTING)]


def quantized_table(run: Run) -> pd.DataFrame:
    """Return a row per setting, backend and weights, columns `QUANTIZED_TABLE`."""
    return joined([rows.assign(**setting) for setting, rows in _groups(run)], QUANTIZED_TABLE)


def rows_of(part: pd.DataFrame) -> pd.DataFrame:
    """Return a row per backend and weights: medians over launches and seeds.

    Columns: backend, options, weights, `METRICS`, num_seeds, kernel, status, reason; of the
    latency its value by the model of launches and its cell, launches (the latency of each).
    """
    rows: list[dict[str, Any]] = []
    for (backend, options, weights), own in part.groupby(
        ["backend", "options", "weights"], sort=False
    ):
        status, reason = outcome(own)
        good = own[own["status"] == "ok"]
        known = {m: good[good["metric"] == m]["value"] for m in METRICS}
        rows.append(
            {
                "backend": backend, "options": options, "weights": weights,
                **{m: float(v.median()) if len(v) else math.nan for m, v in known.items()},
                "launches": tuple(known["latency"]),
                "sentinels": tuple(good[good["metric"] == "latency"]["sentinel"]),
                "converged": converged(good["converged"]),
                "num_seeds": int(good["seed"].nunique()),
                "kernel": " / ".join(k for k in dict.fromkeys(good["kernel"]) if k),
                "status": status, "reason": reason,
            }
        )  # fmt: skip
    set_cells(rows, ("backend", "options", "weights"))
    for row in rows:
        row["latency"] = math.nan if row["cell"] is None else row["cell"].value
    rows.sort(key=lambda r: (r["backend"], r["options"], _place(str(r["weights"]))))
    return pd.DataFrame.from_records(rows)


def _place(weights: str) -> tuple[int, str]:
    return (_ORDER.index(weights) if weights in _ORDER else len(_ORDER)), weights


def _table(rows: pd.DataFrame) -> TableView:
    several = rows[["backend", "options"]].drop_duplicates().shape[0] > 1
    naming: dict[str, Writer[Row]] = {"backend": name} if several else {}
    columns: Columns[Row] = {
        **naming,
        "weights": of("weights"),
        "parameters": _parameters,
        "latency": lambda row: time(row, "latency"),
        "peak memory": of("peak_memory", numbers.size),
        "output difference": of("output_difference", small_number),
        "bits per byte": of("bits_per_byte", _bits),
        "seeds": of("num_seeds"),
        "reason": of("reason"),
    }
    kernels = {
        f"{row['weights']}: {row['kernel']}": None for row in as_rows(rows) if row["kernel"]
    }
    notes = [
        "Weights: of the blocks' linear layers; embeddings, logits, norms and biases are not "
        "quantized. Parameters: bytes of all of them.",
        "Latency (mean over seeds) and peak memory: a call on one sequence. Output difference: "
        f"relative L2 of the logits from those with {FULL} weights, on the test split.",
        *(
            ["One process per latency: their ratios have no interval."]
            if max(map(len, rows["launches"])) == 1
            else []
        ),
        *(
            ["One seed: how far trainings differ is unknown."]
            if rows["num_seeds"].max() == 1
            else []
        ),
        *([f"Kernels: {'; '.join(kernels)}."] if kernels else []),
    ]
    return table(
        "Weights", as_rows(rows), columns, text_columns=1 + several, notes=notes,
        optional=("reason",), is_long=False,
    )  # fmt: skip


def _bits(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else numbers.NONE


def _parameters(row: Row) -> Cell | str:
    if math.isfinite(row["latency"]) or math.isfinite(row["parameter_bytes"]):
        return numbers.size(row["parameter_bytes"])
    return status_cell(row)


def _sentences(rows: pd.DataFrame) -> list[str]:
    """Say, of each backend, what each scheme gives and takes beside full weights."""
    said = []
    for (backend, options), own in rows.groupby(["backend", "options"], sort=False):
        full = own[own["weights"] == FULL]
        if full.empty:
            continue
        base = full.iloc[0]
        told = [
            text for row in as_rows(own) if row["weights"] != FULL and (text := _beside(row, base))
        ]
        if told:
            said.append(f"Against {FULL} ({label(backend, options)}): {'; '.join(told)}.")
    return said


def _latency_beside(row: Row, base: Row) -> str:
    found = ratio_of(row["cell"], base["cell"])
    return f"{numbers.times(*found[:3])} the latency"


def _beside(row: Row, base: Mapping[Any, Any]) -> str:
    parts = []
    if row["parameter_bytes"] > 0 and base["parameter_bytes"] > 0:
        share = row["parameter_bytes"] / base["parameter_bytes"]
        parts.append(f"{numbers.percent(share)} of the bytes")
    if row["latency"] > 0 and base["latency"] > 0:
        told = {"converged": converged([row["converged"], base["converged"]])}
        parts.append(marked(_latency_beside(row, base), told))
    if math.isfinite(row["output_difference"]):
        parts.append(f"logits differ by {small_number(row['output_difference'])}")
    if math.isfinite(row["bits_per_byte"]) and math.isfinite(base["bits_per_byte"]):
        change = round(row["bits_per_byte"] - base["bits_per_byte"], 3)
        parts.append(f"{change:+.3f} bits per byte" if change else "equal bits per byte")
    if not parts:
        return f"{row['weights']} {status_word(row['status'])}" if row["status"] != "ok" else ""
    return f"{row['weights']} {', '.join(parts)}"


CHAPTER = ReportChapter(kinds=("quantized",), order=50, part=quantized_part)
