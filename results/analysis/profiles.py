"""Where a call's time goes: the profiles of a run, by series, length and part of the call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from results.analysis.series import SERIES, speed_frame
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.records.load import Run
from results.schema import PROFILE_PARTS
from results.text.clean import clean
from results.text.labels import rank

_LAUNCH = ["run", "machine", "case_id", "launch", "arm"]
_AT = [*SERIES, "seq_len"]
_LONGEST_TEXT = 100

PARTS_COLUMNS = (*SERIES, "seq_len", "part", "call", "seconds", "share", "operations", "rate")
PRODUCT_COLUMNS = (
    *SERIES, "seq_len", "product", "calls", "seconds", "share", "operations", "rate", "alone",
)  # fmt: skip
FAULT_COLUMNS = (*SERIES, "seq_len", "reason")


class Profiles(NamedTuple):
    """What the profiler told of a run; medians over launches.

    Attributes:
        parts: a row per series, length and part, columns `PARTS_COLUMNS`: `call` is the time of
            the whole call and `seconds` that of the part, `share` their quotient; `rate` is in
            op/s, NaN where the part's operations are not counted.
        products: a row per series, length and shape of a matrix product, columns
            `PRODUCT_COLUMNS`: `alone` is the rate in op/s of that product by itself.
        faults: a row per series, length and reason why there is no profile.
    """

    parts: pd.DataFrame
    products: pd.DataFrame
    faults: pd.DataFrame

    def of(self, setting: Mapping[str, Any]) -> Profiles:
        """Return the rows of one setting."""
        return Profiles(*(_of(frame, setting) for frame in self))


def profiles(run: Run) -> Profiles:
    """Return what the launches of kind ``speed`` that were profiled tell."""
    parts: list[dict[str, Any]] = []
    products: list[dict[str, Any]] = []
    faults: list[dict[str, Any]] = []
    for at, profile in _profiled(run):
        if "failed" in profile:
            faults.append({**at, "reason": clean(profile["failed"])[:_LONGEST_TEXT]})
            continue
        call = profile["seconds"]
        for part in PROFILE_PARTS:
            told = profile["parts"].get(part) or {"seconds": 0.0}
            parts.append({**at, "part": part, "call": call, **_timed(told, call)})
        for told in profile.get("products") or []:
            name = clean(told["shape"])[:_LONGEST_TEXT]
            known = {"calls": told["calls"], "alone": _number(told.get("alone"))}
            products.append({**at, "product": name, **known, **_timed(told, call)})
    return Profiles(
        _middle(parts, "part", PARTS_COLUMNS),
        _middle(products, "product", PRODUCT_COLUMNS),
        _ordered(pd.DataFrame(faults, columns=list(FAULT_COLUMNS)).drop_duplicates()),
    )


def longest(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of every series' longest length."""
    keys = ["mode", "backend", "options"]
    return frame[frame["seq_len"] == frame.groupby(keys)["seq_len"].transform("max")]


def _profiled(run: Run) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Yield the series and length of every profile, and the profile."""
    frame = speed_frame(run).drop_duplicates(_LAUNCH)
    known = {tuple(row[k] for k in _LAUNCH): {k: row[k] for k in _AT} for row in as_rows(frame)}
    for record in run.records:
        launch = (
            clean(record["run"]), clean(record["machine"]), record["case"]["id"],
            record["launch"]["index"],
        )  # fmt: skip
        for index, arm in enumerate(record["arms"]):
            at = known.get((*launch, index))
            if at is not None and arm.get("profile") is not None:
                yield at, arm["profile"]


def _timed(told: Mapping[str, Any], call: float) -> dict[str, float]:
    """Return seconds, share of the call, operations and rate of a part or a product."""
    seconds, operations = float(told["seconds"]), _number(told.get("operations"))
    return {
        "seconds": seconds,
        "share": seconds / call,
        "operations": operations,
        "rate": operations / seconds if seconds > 0 else math.nan,
    }


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _middle(rows: list[dict[str, Any]], key: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the medians of the launches, one row per series, length and `key`."""
    table = pd.DataFrame.from_records(rows, columns=list(columns))
    keys = [*_AT, key]
    numbers = [c for c in columns if c not in keys]
    table = table.astype(dict.fromkeys(numbers, "float64"))
    if table.empty:
        return table
    return _ordered(table.groupby(keys, sort=False, as_index=False)[numbers].median())


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by series, the known backends first, and length; within one as it was."""
    table = table.assign(rank=[rank(b) for b in table["backend"]])
    order = [*SETTING, "mode", "rank", "options", "seq_len"]
    return table.sort_values(order, kind="stable").drop(columns="rank").reset_index(drop=True)


def _of(frame: pd.DataFrame, setting: Mapping[str, Any]) -> pd.DataFrame:
    mask = pd.Series(True, index=frame.index)
    for column, value in setting.items():
        mask &= frame[column] == value
    return frame[mask]
