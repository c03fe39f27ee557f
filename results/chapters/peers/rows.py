"""Peers: how our backends compare with other libraries' implementations, arm beside arm.

The arms of a case ran in alternation in one process, so a launch gives one ratio: the machine's
part is out of it. The ratios of a pair over its lengths are one series of the model of launches
(`results.statistics.launches`). Ratios are the peer's number over ours: above 1, ours needs less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.series import outcome, set_cells
from results.analysis.warm_up import converged
from results.records.case_columns import RESOURCES, RUN, SHAPE
from results.records.frames import rows_by
from results.records.load import Run
from results.schema import PEER, PROJECTIONS
from results.statistics.intervals import Array, Estimate, estimate
from results.statistics.launches import time_of
from results.text.clean import clean
from results.text.labels import rank
from results.text.settings import differing, machine_name, names_precision

SETTING = (*RUN, "device", "dtype", *SHAPE, "threads", "matmul_precision", "compile")
"""What the comparisons of one chapter share."""

TITLE = tuple(c for c in SETTING if c not in ("machine", "environment", "device"))
"""What stands in a chapter's title after the place."""

PAIR = ("backend", "options", "peer", "level", "is_causal")
"""What the comparisons of one table share."""

CASE = ("mode", "allocator", "seq_len", "seed")

PEER_TABLE = (
    "backend", "options", "peer", "library", "level", "mode", "device", "dtype", "batch",
    "num_heads", "head_dim", "seq_len", "is_causal", *RESOURCES, "seed", "latency",
    "peer_latency", "converged", "ratio", "ratio_low", "ratio_high", "attention_ratio",
    "attention_low", "attention_high", "peak_memory", "peer_peak_memory", "memory_ratio",
    "output_difference", "input_scale", "allowed_difference", "same_function", "difference",
    "num_launches", "status", "reason",
)  # fmt: skip
"""The columns of the table `peers`; latencies in s, memory in B, ratios peer over ours."""

_LONGEST_TEXT = 200

_UNKNOWN = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class PeerChapter:
    """The comparisons of one setting.

    Attributes:
        title: the setting in words.
        rows: of `comparisons`.
    """

    title: str
    rows: pd.DataFrame


def comparisons(run: Run) -> pd.DataFrame:
    """Return a row per case of kind peer: `PEER_TABLE`, machine, environment, num_kv_heads.

    A case of which no launch succeeded has no numbers, and its status and reason.
    """
    frame = run.of("peer")
    claims = _claims(run)
    rows: list[dict[str, Any]] = []
    places = ["machine", "environment", "version", "case_id"]
    for (machine, environment, _, case), part in frame.groupby(places, sort=False):
        rows.append(_compare(part, claims.get((machine, environment, case), {})))
    _set_ratios(rows)
    columns = [*PEER_TABLE, "machine", "environment", "version", "num_kv_heads"]
    table = pd.DataFrame.from_records(rows, columns=columns)
    table["rank"] = [rank(backend) for backend in table["backend"]]
    order = [*SETTING, "rank", *PAIR[1:], *CASE]
    return table.sort_values(order, kind="stable").drop(columns="rank").reset_index(drop=True)


def comparison_table(run: Run) -> pd.DataFrame:
    """Return the comparisons with the columns `PEER_TABLE`, machine and environment."""
    return comparisons(run)[[*PEER_TABLE, "machine", "environment"]]


def peer_chapters(run: Run) -> list[PeerChapter]:
    """Return the comparisons by setting, the one with most of them first."""
    table = comparisons(run)
    if table.empty:
        return []
    groups = sorted(rows_by(table, SETTING), key=lambda group: -len(group[1]))
    several = table["machine"].nunique() > 1
    precise = names_precision(setting for setting, _ in groups)
    return [
        PeerChapter(_title(setting, run, several=several, precise=precise), rows)
        for setting, rows in groups
    ]


def _title(setting: Mapping[str, Any], run: Run, *, several: bool, precise: bool) -> str:
    machine = machine_name(run.machines.get(setting["machine"], {})) if several else ""
    where = f"{machine}: {setting['device']}" if machine else f"on {setting['device']}"
    named = [c for c in TITLE if precise or c != "matmul_precision"]
    return f"{where}, {differing(setting, named)}"


# -- one case ------------------------------------------------------------------------------------


def _claims(run: Run) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return by machine, environment and case what is said of its peer.

    Keys: `same_function`, `difference`, `input_scale`.
    Records are a stranger's: what has another form is left out.
    """
    claims: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in run.records:
        if record["case"]["kind"] != "peer" or len(record["arms"]) < 2:
            continue
        said = record["arms"][1].get("peer")
        if isinstance(said, dict) and isinstance(said.get("same_function"), bool):
            scale = record["arms"][1]["metrics"].get("output_difference", {}).get("input_scale")
            place = clean(record["machine"]), clean(record["environment"]), record["case"]["id"]
            claims[place] = {
                "input_scale": scale if isinstance(scale, float) else math.nan,
                "same_function": said["same_function"],
                "difference": clean(said.get("difference") or "")[:_LONGEST_TEXT],
            }
    return claims


def _compare(part: pd.DataFrame, claim: Mapping[str, Any]) -> dict[str, Any]:
    first = part.iloc[0]
    status, reason = outcome(part)
    shared = {
        c: first[c]
        for c in (*PEER_TABLE, "machine", "environment", "version", "num_kv_heads")
        if c in part.columns
    }
    beside = part[part["arm"] == 1]
    named = str(beside["backend"].iloc[0]) if len(beside) else ""
    measured = beside[beside["metric"] == "output_difference"]
    latency, memory = _by_launch(part, "latency"), _by_launch(part, "peak_memory")
    alone, doubt = np.empty(0), ""
    if (part["backend"] == PROJECTIONS).any() and len(latency):
        alone = _ratios(latency[:, 1] - latency[:, 2], latency[:, 0] - latency[:, 2])
        if not len(alone):
            doubt = "no ratio of attention alone: the projections took as long as a whole layer"
    memory_ratios = _ratios(memory[:, 1], memory[:, 0])
    kernels = [k for k in dict.fromkeys(beside["kernel"]) if k]
    return {
        **shared,
        "peer": named.removeprefix(PEER),
        "library": " / ".join(kernels)[:_LONGEST_TEXT],
        "latency": _median(latency[:, 0]),
        "peer_latency": _median(latency[:, 1]),
        "converged": converged(part["converged"]),
        "ratios": {"ratio": _ratios(latency[:, 1], latency[:, 0]), "attention": alone},
        "peak_memory": _median(memory[:, 0]),
        "peer_peak_memory": _median(memory[:, 1]),
        "memory_ratio": estimate(memory_ratios).value if len(memory_ratios) else math.nan,
        "output_difference": float(measured["value"].max()) if len(measured) else math.nan,
        "allowed_difference": float(measured["gate_budget"].max()) if len(measured) else math.nan,
        "same_function": claim.get("same_function"),
        "difference": claim.get("difference", ""),
        "input_scale": claim.get("input_scale", math.nan),
        "num_launches": len(latency),
        "status": status,
        "reason": "; ".join(r for r in (reason, doubt) if r),
    }  # fmt: skip


def _by_launch(part: pd.DataFrame, metric: str) -> Array:
    """Return the metric of ours, the peer and the projections, shape [launches, 3]; NaN = none.

    Only launches that have it of both ours and the peer.
    """
    rows = part[part["metric"] == metric]
    wide = rows.pivot_table(
        index=["run", "launch"], columns="arm", values="value", aggfunc="first"
    )
    found = wide.reindex(columns=[0, 1, 2]).dropna(subset=[0, 1])
    numbers: Array = found.to_numpy(dtype=np.float64)
    return numbers


def _median(values: Array) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _ratios(top: Array, bottom: Array) -> Array:
    """Return top / bottom of each launch; none where one of them has no ratio."""
    has_ratios = bool(np.all(top > 0) and np.all(bottom > 0))
    return top / bottom if has_ratios else np.empty(0)


def _set_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """Set the ratios of all cases with their intervals: of the whole call, of attention alone."""
    settings: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        settings.setdefault(tuple(row[c] for c in SETTING), []).append(row)
    names = {"ratio": "ratio", "attention": "attention_ratio"}
    for part in settings.values():
        for kind, name in names.items():
            of_kind = [{**row, "launches": row["ratios"][kind]} for row in part]
            set_cells(of_kind, [c for c in (*PAIR, *CASE) if c != "seq_len"])
            for row, fitted in zip(part, of_kind, strict=True):
                got = _UNKNOWN if fitted["cell"] is None else time_of(fitted["cell"])
                row |= {name: got.value, f"{kind}_low": got.low, f"{kind}_high": got.high}
