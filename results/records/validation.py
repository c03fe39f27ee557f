"""What a record says beside its measurements: a fault in one such part costs that part alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, defstruct

from results.form import (
    Amount,
    Name,
    RecordError,
    amounts,
    checked,
    declared,
    dict_of,
    list_of,
    one_of,
)
from results.records.json_lines import short
from results.schema import CONDITIONS, PROFILE_PARTS, STOPS

Seconds = Annotated[float, Meta(ge=0, le=1e6)]
Number = Annotated[float, Meta(ge=0, le=1e18)]
Text = Annotated[str, Meta(max_length=300)]
Entry = Annotated[float, Meta(ge=-1e18, le=1e18)] | Text | bool | list[Any] | dict[str, Any] | None

_SHARE = {"seconds": Seconds, "calls": Amount}
Share = declared(_SHARE, operations=Amount)
Product = declared({**_SHARE, "shape": str}, operations=Amount, alone=Amount)
Parts = defstruct(
    "Parts",
    [(name, Share | UnsetType, UNSET) for name in PROFILE_PARTS],
    forbid_unknown_fields=True,
)
Profile = declared(
    {"seconds": Annotated[float, Meta(ge=1e-9, le=1e6)], "parts": Parts},
    products=list_of(Product, 100),
)
FailedProfile = declared({"failed": str})

Conditions = declared(**dict.fromkeys(CONDITIONS, Amount), gpu_throttled=list_of(Name, 20))
Predicted = amounts(("latency", "peak_memory"))
Stopped = Annotated[str, one_of(STOPS)]

_GROUPS, _CURVE = ("values", "correct", "count"), ("step", "time", "loss")
Quality = declared(
    metric=Literal["accuracy", "bits_per_byte"],
    chance=Annotated[float, Meta(ge=0, le=1)],
    parameters=Amount,
    task=dict_of(Entry),
    facts=dict_of(Entry),
    groups=declared({"name": Text, **dict.fromkeys(_GROUPS, list_of(Number, 20_000))}),
    curve=declared(dict.fromkeys(_CURVE, list_of(Number, 2_000))),
)
"""What a task says beside its metrics."""


def drop_faults(record: dict[str, Any]) -> Iterator[str]:
    """Take out what is said beside the measurements and cannot be read; yield the faults.

    These are `conditions`, the launch's `predicted`, and of an arm its `profile`, its `quality`
    and why sampling `stopped`.
    """
    parts: list[tuple[dict[str, Any], str, str, Any]] = [
        (record, "conditions", "", Conditions),
        (record["launch"], "predicted", "launch.", Predicted),
    ]
    for index, arm in enumerate(record["arms"]):
        where, profile = f"arms[{index}].", arm.get("profile")
        has_failed = isinstance(profile, dict) and "failed" in profile
        parts.append((arm, "profile", where, FailedProfile if has_failed else Profile))
        parts.append((arm, "quality", where, Quality))
        if "latency" in arm["metrics"]:
            latency = arm["metrics"]["latency"]
            parts.append((latency, "stopped", f"{where}metrics.latency.", Stopped))
    for holder, key, where, form in parts:
        if holder.get(key) is None:
            continue
        try:
            checked(holder[key], form, f"{where}{key}")
            if form is Quality:
                _check_columns(f"{where}{key}", holder[key])
        except RecordError as error:
            del holder[key]
            yield f"{short(error)}; {key} left out"


def _check_columns(where: str, quality: Mapping[str, Any]) -> None:
    """Check lists of numbers against one another."""
    for name, columns in (("groups", _GROUPS), ("curve", _CURVE)):
        table = quality.get(name)
        if table and len({len(table[column]) for column in columns}) > 1:
            raise RecordError(f"{where}.{name}: expected {', '.join(columns)} of one length")
    groups = quality.get("groups")
    if groups and any(c > n for c, n in zip(groups["correct"], groups["count"], strict=True)):
        raise RecordError(f"{where}.groups: more correct than there are")
