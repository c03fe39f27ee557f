"""One sequence over several ranks: what kind ``context`` measured, by setting.

*Strong scaling* is the time of one sequence by the number of ranks, *weak scaling* that of
sequences which grow with the ranks. What the ranks exchange is counted by themselves, and stands
beside the formula of the backend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.analysis.memory_growth import MemoryGrowth, judge
from results.analysis.series import set_cells, summarise
from results.chapters.titles import PLACE, joined, named_columns, titled
from results.metrics import METRICS, of_role
from results.records.case_columns import SHAPE
from results.records.frames import rows_by
from results.records.load import Run
from results.schema import CONTEXT
from results.statistics.intervals import Estimate
from results.statistics.launches import ratio_of, time_of
from results.text.labels import label
from results.text.settings import differing

SETTING = (*PLACE, "num_heads", "num_kv_heads", "head_dim", "is_causal", "seed")
"""What must be equal before two cases are compared."""

KEYS = ("backend", "options", "ranks", "seq_len")

_METRICS = {
    "latency": "latency", "peak_memory": "memory",
    **{name: METRICS[name].short for name in of_role("exchange")},
}  # fmt: skip
"""Metric to its column."""


@dataclass(frozen=True)
class ContextChapter:
    """One setting.

    Attributes:
        title: in words.
        place: the rest of the setting, a sentence.
        setting: values of `SETTING`.
        rows: one a backend with options, number of ranks and length: `KEYS`, `status`, `reason`,
            `expected_memory` (the declared exponent of memory),
            `latency` (s, mean over launches of the slowest rank) with `low` and `high`,
            `cell`, `memory` (B, of the rank that took most), and in bytes over all ranks
            `exchanged` (a step), `forward` and `formula` (its forward pass).
    """

    title: str
    place: str
    setting: Mapping[str, Any]
    rows: pd.DataFrame

    def at(self, backend: str, options: str, ranks: int, seq_len: int) -> Mapping[Any, Any] | None:
        """Return the row of a case; None where it was not measured."""
        rows = self.rows
        found = rows[
            (rows["backend"] == backend)
            & (rows["options"] == options)
            & (rows["ranks"] == ranks)
            & (rows["seq_len"] == seq_len)
        ]
        return None if found.empty else found.iloc[0].to_dict()


def context_chapters(run: Run) -> list[ContextChapter]:
    """Return the cases over several ranks of a run, by setting."""
    groups = rows_by(run.of(CONTEXT), SETTING)
    titles = titled([setting for setting, _ in groups], run, SETTING, _name)
    chapters = []
    for title, (setting, part) in zip(titles, groups, strict=True):
        words = differing({"model": "", **setting}, named_columns(setting, PLACE))
        rows = _rows(part)
        chapters.append(ContextChapter(title, f"{words[:1].upper()}{words[1:]}.", setting, rows))
    return chapters


def _name(setting: Mapping[str, Any]) -> str:
    form = "causal" if setting["is_causal"] else "bidirectional"
    return f"{form}, {setting['num_heads']} heads × {setting['head_dim']}"


def _rows(part: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row, own in rows_by(part, KEYS):
        row |= dict.fromkeys(("expected_memory", *_METRICS.values(), "low", "high"), math.nan)
        row |= {"launches": (), "converged": None}
        for one in summarise(own):
            row |= {"status": one["status"], "reason": one["reason"]}
            row["expected_memory"] = one["expected_memory"]
            if one["metric"] in _METRICS:
                row[_METRICS[one["metric"]]] = one["value"]
            if one["metric"] == "latency":
                row |= {"converged": one["converged"], "launches": one["launches"]}
        rows.append(row)
    # Without sentinels: what several ranks take from one another is no noise of the machine.
    set_cells(rows, KEYS[:-1])
    for row in rows:
        if row["cell"] is not None:
            row["latency"], row["low"], row["high"], _ = time_of(row["cell"])
    columns = [*KEYS, "status", "reason", "expected_memory", *_METRICS.values(), "low", "high",
               "cell", "converged"]  # fmt: skip
    table = pd.DataFrame.from_records(rows, columns=columns)
    return table.sort_values(list(KEYS), kind="stable").reset_index(drop=True)


def memory_growths(chapter: ContextChapter, ranks: int) -> list[tuple[str, MemoryGrowth]]:
    """Return how the memory of the rank that takes most grows with the sequence, by series.

    Args:
        chapter: a setting.
        ranks: over so many.
    """
    rows = chapter.rows
    rows = rows[(rows["ranks"] == ranks) & (rows["memory"] > 0)]
    return [
        (
            label(*key),
            judge(list(part["seq_len"]), list(part["memory"]), part["expected_memory"].iloc[0]),
        )
        for key, part in rows.groupby(["backend", "options"], sort=False)
    ]


def speed_up(chapter: ContextChapter, row: Mapping[Any, Any]) -> Estimate | None:
    """Return how many times as fast as on one rank; None where that was not measured."""
    one = chapter.at(row["backend"], row["options"], 1, row["seq_len"])
    return _ratio(one, row)


def weak_efficiency(chapter: ContextChapter, row: Mapping[Any, Any]) -> Estimate | None:
    """Return the time of one rank with as many tokens over this one's: 1 = nothing is lost."""
    if row["seq_len"] % row["ranks"]:
        return None
    alone = chapter.at(row["backend"], row["options"], 1, row["seq_len"] // row["ranks"])
    return _ratio(alone, row)


def _ratio(one: Mapping[Any, Any] | None, other: Mapping[Any, Any]) -> Estimate | None:
    if one is None or one["cell"] is None or other["cell"] is None:
        return None
    return ratio_of(one["cell"], other["cell"])


CONTEXT_TABLE = (
    "backend", "options", "ranks", "seq_len", "is_causal", "latency", "low", "high",
    "converged", "memory", "exchanged", "forward", "formula", "device", "dtype", *SHAPE,
    "threads", "matmul_precision", "status", "reason", "machine", "environment",
)  # fmt: skip
"""The columns of the table `context`; latency in s, memory and what was exchanged in B."""


def context_table(run: Run) -> pd.DataFrame:
    """Return a row per setting, backend with options, number of ranks, and length."""
    parts = [chapter.rows.assign(**chapter.setting) for chapter in context_chapters(run)]
    return joined(parts, CONTEXT_TABLE)
