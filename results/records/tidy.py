"""Records as one tidy frame."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from results.form import COMPILED
from results.records.case_columns import CASE_COLUMNS, CASE_TEXTS
from results.records.frames import with_plain_texts
from results.schema import COSTS, LATER_FIELDS, PEER, Arm, sentinel_of, warm_up_converged
from results.text.clean import clean

COLUMNS = (
    "run", "machine", "environment", "version", "commit", "case_id", *CASE_COLUMNS, "arm",
    "backend", "options", "launch", "started", "status", "reason", "kernel", *COSTS,
    "expected_time", "expected_memory", "gate_error", "gate_budget", "gradient_error", "reduced",
    *COMPILED, "fixed_size", "metric", "unit", "value",
    "samples", "stopped", "converged", "sentinel", "num_labels", "chance",
)  # fmt: skip
"""Columns of the tidy frame: one row per case, launch, arm and metric.

`version` is that of attnbench, where a run holds launches of one case by several (`versions`).
`value` is the median of `samples`; `reduced` says that an output is within the budget of reduced
precision only; `fixed_size` holds pairs of a name and a count. Of a latency `stopped` is why
sampling ended (`STOPS`), `converged` whether the warm-up did, and `sentinel` the median in seconds
of the fixed work that was timed in turn with it; "", None and NaN where the record does not say.
`num_labels` is how many labels an accuracy is of and `chance` what a guess reaches, NaN where that
is not said. An arm without results has one row with an empty `metric`.
"""


# A stranger's text may be of any length; a table's cell may not.
_LONGEST_NAME, _LONGEST_OPTIONS, _LONGEST_REASON = 100, 300, 600


def tidy(
    records: list[dict[str, Any]],
    versions: Sequence[str],
    marks: Mapping[tuple[str, str], str] | None = None,
) -> pd.DataFrame:
    """Return the records as a frame with `COLUMNS`, one row per case, launch, arm and metric.

    Args:
        records: valid ones.
        versions: that of each record, see `versions.versions`.
        marks: by environment and what a plug-in registered (``backend mine``): what follows its
            name, where the records hold several versions.
    """
    told = zip(records, versions, strict=True)
    rows = [row for record, version in told for row in _rows(record, version, marks or {})]
    frame = pd.DataFrame.from_records(rows, columns=list(COLUMNS))
    numbers = [
        *COSTS, "expected_time", "expected_memory", "gate_error", "gate_budget", "gradient_error",
        *COMPILED, "value", "sentinel", "num_labels", "chance",
    ]  # fmt: skip
    return with_plain_texts(frame.astype(dict.fromkeys(numbers, "float64")))


def _rows(
    record: Mapping[str, Any], version: str, marks: Mapping[tuple[str, str], str]
) -> Iterator[dict[str, Any]]:
    case = record["case"]

    def mark(kind: str, name: str) -> str:
        return marks.get((clean(record["environment"]), f"{kind} {name}"), "") if marks else ""

    task, colon, options = _bounded(case.get("task", ""), _LONGEST_OPTIONS).partition(":")
    shared = {
        "run": clean(record["run"]),
        "machine": clean(record["machine"]),
        "environment": clean(record["environment"]),
        "version": version,
        "commit": clean(record.get("commit") or ""),
        "case_id": case["id"],
        **{c: case[c] if c in case else LATER_FIELDS[c] for c in CASE_COLUMNS},
        **{c: _bounded(case.get(c, ""), _LONGEST_OPTIONS) for c in CASE_TEXTS},
        "task": f"{task}{mark('task', task)}{colon}{options}",
        "launch": record["launch"]["index"],
        "started": clean(record["launch"].get("started") or "")[:_LONGEST_NAME],
        "status": record["status"],
        "reason": clean(record.get("reason") or "")[:_LONGEST_REASON],
    }
    for index, contestant in enumerate(case["arms"]):
        named = Arm(contestant["name"], contestant.get("options", {}))
        results = record["arms"][index] if index < len(record["arms"]) else {}
        base = {
            **shared,
            "arm": index,
            "backend": _bounded(named.name, _LONGEST_NAME) + mark(*_registered(named.name)),
            "options": _bounded(named.label[len(named.name) + 1 :], _LONGEST_OPTIONS),
            **_arm_columns(results),
        }
        metrics = results.get("metrics") or {}
        for name, metric in metrics.items():
            samples = tuple(float(v) for v in metric.get("samples", [metric.get("value")]))
            yield {
                **base,
                "metric": clean(name),
                "unit": clean(metric["unit"]),
                "value": statistics.median(samples),
                "samples": samples,
                "stopped": (metric.get("stopped") or "") if name == "latency" else "",
                "converged": warm_up_converged(metric),
                "sentinel": sentinel_of(metric),
            }
        if not metrics:
            nothing = {"metric": "", "unit": "", "value": math.nan, "samples": ()}
            yield {**base, **nothing, "stopped": "", "converged": None, "sentinel": math.nan}


def _registered(arm: str) -> tuple[str, str]:
    """Return the kind and the name under which an arm was registered."""
    return ("peer", arm.removeprefix(PEER)) if arm.startswith(PEER) else ("backend", arm)


def _bounded(text: str, longest: int) -> str:
    """Return `text` clean; what is too long is cut, and told from others with one beginning."""
    if len(text) <= longest:
        return clean(text)
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()
    return f"{clean(text[: longest - 9])}~{digest}"


def _arm_columns(results: Mapping[str, Any]) -> dict[str, Any]:
    cost = results.get("cost") or {}
    expected = results.get("expected") or {}
    gate = results.get("gate") or {}
    gradient = gate.get("gradient") or {}
    compiled = results.get("compiled") or {}
    sizes = results.get("fixed_size") or {}
    quality = results.get("quality") or {}
    groups = quality.get("groups") or {}
    return {
        "num_labels": sum(groups["count"]) if groups else None,
        "chance": quality.get("chance"),
        "kernel": clean(results.get("kernel") or "")[:_LONGEST_OPTIONS],
        **{c: cost.get(c) for c in COSTS},
        "expected_time": expected.get("time"),
        "expected_memory": expected.get("memory"),
        "gate_error": gate.get("relative_l2"),
        "gate_budget": gate.get("budget"),
        "gradient_error": gradient.get("relative_l2"),
        "reduced": "reduced" in (gate.get("precision"), gradient.get("precision")),
        **{c: compiled.get(c) for c in COMPILED},
        "fixed_size": tuple((clean(name)[:_LONGEST_NAME], n) for name, n in sizes.items()),
    }
