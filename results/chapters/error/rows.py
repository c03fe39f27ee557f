"""Error at a budget: records of kind error, by family, budget, inputs and length.

A *line* is a backend with all of its options but the budget: what its family offers to spend, a
window, a rank, a number of features or of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.analysis.series import outcome, set_cells
from results.analysis.warm_up import converged
from results.chapters.titles import joined, named_columns, titled
from results.figures.theme import Look, looks
from results.metrics import of_role
from results.records.case_columns import RESOURCES, RUN, SHAPE
from results.records.frames import rows_by
from results.records.load import Run
from results.text import numbers
from results.text.labels import label, number_of, options_of, rank
from results.text.settings import differing

PLACE = (*RUN, "level", "device", "dtype", *SHAPE, *RESOURCES)

SETTING = (*PLACE, "mode", "is_causal")

BUDGETS = ("window", "rank", "num_features", "num_random_blocks", "block_size")
"""Options that are a budget, the first one that varies; else it is the first number that does."""

EXACT = 1e-4
"""An error below is rounding: the backend computes softmax attention."""

EXACT_NAMES = ("full", "sdpa", "xformers")

USELESS = 1.0
"""The relative error of an output of zeros."""

MOST_INPUTS = 12
"""Distributions that tables and sentences tell of."""

METRICS = of_role("error")
COSTS = ("latency", "operations", "peak_memory")


@dataclass(frozen=True)
class ErrorChapter:
    """One setting.

    Attributes:
        title: form, and what tells it from other chapters.
        setting: values of `SETTING`.
        place: the setting in words.
        rows: a row per inputs, backend with options, and length; see `rows_of`.
        seq_len: the length that figures at one length are of.
        looks: (backend, rest of the options) to colour and marker.
    """

    title: str
    setting: Mapping[str, Any]
    place: str
    rows: pd.DataFrame
    seq_len: int
    looks: Mapping[tuple[str, str], Look]

    @property
    def inputs(self) -> list[str]:
        """The distributions, in the order they were measured."""
        return list(dict.fromkeys(self.rows["inputs"]))

    def at(self, inputs: str) -> pd.DataFrame:
        """Return the rows with an error of these inputs at `seq_len`."""
        rows = self.rows
        mask = (rows["inputs"] == inputs) & (rows["seq_len"] == self.seq_len)
        return rows[mask & rows["relative_error"].notna()]


def error_chapters(run: Run) -> list[ErrorChapter]:
    """Return the errors of a run by setting."""
    groups = rows_by(run.of("error"), SETTING)
    titles = titled([setting for setting, _ in groups], run, PLACE, _name)
    found = []
    for title, (setting, part) in zip(titles, groups, strict=True):
        rows = rows_of(part)
        good = rows[rows["relative_error"].notna()]
        counts = (good if len(good) else rows).groupby("seq_len").size()
        words = differing({"model": "", **setting}, named_columns(setting, PLACE))
        found.append(
            ErrorChapter(
                title,
                setting,
                f"{words[:1].upper()}{words[1:]}.",
                rows,
                int(counts[counts == counts.max()].index.max()),
                looks(zip(rows["backend"], rows["rest"], strict=True)),
            )
        )
    return found


ERROR_TABLE = (
    "backend", "options", "budget_name", "budget", "inputs", "seq_len", "is_causal",
    "relative_error", "error_low", "error_high", "weights_error", "weights_kl", "latency",
    "converged", "operations", "peak_memory", "mode", "level", "device", "dtype", *SHAPE,
    *RESOURCES, "status", "reason", "machine", "environment",
)  # fmt: skip
"""The columns of the table `errors`; latency in s, memory in B, KL in nats."""


def error_table(run: Run) -> pd.DataFrame:
    """Return a row per setting, inputs, backend with options, and length: `ERROR_TABLE`."""
    parts = [chapter.rows.assign(**chapter.setting) for chapter in error_chapters(run)]
    return joined(parts, ERROR_TABLE)


def _name(setting: Mapping[str, Any]) -> str:
    form = "causal" if setting["is_causal"] else "bidirectional"
    return form if setting["mode"] == "forward" else f"{form}, {setting['mode']}"


def rows_of(part: pd.DataFrame) -> pd.DataFrame:
    """Return a row per inputs, backend with options, and length, over launches and seeds.

    Columns: inputs, seq_len, backend, options, rest (of the options without the budget),
    budget_name, budget, budget_text, the medians of `METRICS` and `COSTS`, of the latency its
    value by the model of launches and its cell, launches (the latency of each), converged
    (whether their warm-ups did), error_low and error_high (the smallest and largest relative
    error), is_exact, status, reason.
    """
    budgets = {
        backend: budget_of(sorted(set(own["options"])))
        for backend, own in part.groupby("backend", sort=False)
    }
    rows: list[dict[str, Any]] = []
    keys = ["inputs", "backend", "options", "seq_len"]
    for (inputs, backend, options, seq_len), own in part.groupby(keys, sort=False):
        status, reason = outcome(own)
        good = own[own["status"] == "ok"]
        known = good.groupby("metric")["value"].median().to_dict()
        medians = {m: known.get(m, math.nan) for m in (*METRICS, "peak_memory")}
        times = good[good["metric"] == "latency"]
        errors = good[good["metric"] == "relative_error"]["value"]
        key = budgets[backend]
        held = options_of(options)
        text = held.pop(key, "") if key else ""
        rows.append(
            {
                "inputs": inputs, "seq_len": seq_len, "backend": backend, "options": options,
                "rest": ",".join(f"{k}={v}" for k, v in held.items()),
                "budget_name": key, "budget": number_of(text), "budget_text": text,
                **medians, "launches": tuple(times["value"]),
                "sentinels": tuple(times["sentinel"]),
                "converged": converged(good["converged"]),
                "operations": _median(good["executed_ops"].dropna()),
                "error_low": float(errors.min()) if len(errors) else math.nan,
                "error_high": float(errors.max()) if len(errors) else math.nan,
                "is_exact": backend in EXACT_NAMES or medians["relative_error"] < EXACT,
                "status": status, "reason": reason,
            }
        )  # fmt: skip
    set_cells(rows, ("inputs", "backend", "options"))
    for row in rows:
        row["latency"] = math.nan if row["cell"] is None else row["cell"].value
    order = {text: i for i, text in enumerate(dict.fromkeys(part["inputs"]))}
    rows.sort(
        key=lambda r: (order[r["inputs"]], rank(r["backend"]), r["rest"], r["seq_len"],
                       *((1, r["budget"]) if math.isfinite(r["budget"]) else (0, 0.0)))
    )  # fmt: skip
    return pd.DataFrame.from_records(rows)


def budget_of(options: Sequence[str]) -> str:
    """Return which option of a backend is its budget, "" for none.

    Of the options that are a number everywhere they stand, those that vary come first, of these
    the ones that stand everywhere (the others are variants of the line), then those in `BUDGETS`,
    in that order.
    """
    values: dict[str, set[str]] = {}
    for text in options:
        for key, value in options_of(text).items():
            values.setdefault(key, set()).add(value)
    numeric = {
        k: v
        for k, v in values.items()
        if k != "seed" and all(map(math.isfinite, map(number_of, v)))
    }

    def order(key: str) -> tuple[bool, bool, int]:
        everywhere = all(key in options_of(text) for text in options)
        # Where one has the option and another has its default, it varies too.
        varies = len(numeric[key]) > 1 or not everywhere
        place = BUDGETS.index(key) if key in BUDGETS else len(BUDGETS)
        return not varies, not everywhere, place

    chosen = min(numeric, key=order, default="")
    return chosen if chosen and (not order(chosen)[0] or chosen in BUDGETS) else ""


def default_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, of every line, the rows at its default budget, or at a usual one.

    Without options a backend is at its defaults, and this counts where it was measured at as many
    lengths as any budget. Else it is the middle one of the budgets that were measured at most
    lengths, of an even number the smaller of the two in the middle.
    """
    kept = []
    good = rows[rows["relative_error"].notna()]
    for _, own in good.groupby(["backend", "rest"], sort=False):
        lengths = own.groupby("options")["seq_len"].nunique()
        usual = lengths[lengths == lengths.max()].index
        if "" in lengths.index and lengths[""] == lengths.max():
            chosen = ""
        else:
            at = own[own["options"].isin(usual)].sort_values("budget", kind="stable")
            budgets = at["options"].drop_duplicates()
            chosen = str(budgets.iloc[(len(budgets) - 1) // 2])
        kept.append(own[own["options"] == chosen])
    return pd.concat(kept) if kept else good


def budget_text(row: Mapping[Any, Any]) -> str:
    """Write a row's budget: ``window 64``, ``default``."""
    if not row["budget_text"]:
        return "default" if row["budget_name"] else numbers.NONE
    return f"{row['budget_name'].replace('_', ' ')} {row['budget_text']}"


def line_name(row: Mapping[Any, Any]) -> str:
    """Return a backend with its options but the budget."""
    return label(row["backend"], row["rest"])


def _median(values: pd.Series) -> float:
    return float(values.median()) if len(values) else math.nan
