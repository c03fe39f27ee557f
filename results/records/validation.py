"""What a record says beside its measurements: a fault in one such part costs that part alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from results.form import Amount, Name, RecordError, checked, checked_each, one_of
from results.records.json_lines import short
from results.schema import CONDITIONS, PROFILE_PARTS, STOPS

Text = Annotated[str, Meta(max_length=300)]
Entry = Annotated[float, Meta(ge=-1e18, le=1e18)] | Text | bool | list[Any] | dict[str, Any] | None
Entries = Annotated[dict[str, Any], Meta(max_length=64)]
Seconds = Annotated[float, Meta(ge=0, le=1e6)]
Number = Annotated[float, Meta(ge=0, le=1e18)]


class Share(Struct):
    """What a part of a call took."""

    seconds: Seconds
    calls: Amount
    operations: Amount | None = None


class Product(Share, kw_only=True):
    """What a matrix product took, in the call and `alone`."""

    shape: str
    alone: Amount | None = None


class Profile(Struct):
    """A call under the profiler, or why there is none; each of `parts` is a `Share`."""

    failed: str | UnsetType = UNSET
    seconds: Annotated[float, Meta(ge=1e-9, le=1e6)] | UnsetType = UNSET
    parts: dict[str, Any] | UnsetType = UNSET
    products: Annotated[list[Product], Meta(max_length=100)] | None = None

    def __post_init__(self) -> None:
        """Check the parts."""
        if self.failed is not UNSET:
            return
        if self.seconds is UNSET or self.parts is UNSET:
            raise ValueError("seconds, parts: expected both")
        if set(self.parts) - set(PROFILE_PARTS):
            raise ValueError(f"parts: expected {', '.join(PROFILE_PARTS)}")
        checked_each(self.parts, Share, "parts")


Conditions = defstruct(
    "Conditions",
    [
        *((name, Amount | None, None) for name in CONDITIONS),
        ("gpu_throttled", Annotated[list[Name], Meta(max_length=20)] | None, None),
    ],
)
"""What the machine was like while a launch was timed."""


class Predicted(Struct):
    """What a launch was thought to take."""

    latency: Amount | None = None
    peak_memory: Amount | None = None


class Groups(Struct):
    """How many labels of each value were met, of how many."""

    name: Text
    values: Annotated[list[Number], Meta(max_length=20_000)]
    correct: Annotated[list[Number], Meta(max_length=20_000)]
    count: Annotated[list[Number], Meta(max_length=20_000)]

    def __post_init__(self) -> None:
        """Check one column against another."""
        if not len(self.values) == len(self.correct) == len(self.count):
            raise ValueError("values, correct, count: expected lists of one length")
        if any(c > n for c, n in zip(self.correct, self.count, strict=True)):
            raise ValueError("correct: more than there are")


class Curve(Struct):
    """A training's loss by its steps and seconds."""

    step: Annotated[list[Number], Meta(max_length=2_000)]
    time: Annotated[list[Number], Meta(max_length=2_000)]
    loss: Annotated[list[Number], Meta(max_length=2_000)]

    def __post_init__(self) -> None:
        """Check one column against another."""
        if not len(self.step) == len(self.time) == len(self.loss):
            raise ValueError("step, time, loss: expected lists of one length")


class Quality(Struct):
    """What a task says beside its metrics; each of `task` and `facts` is an `Entry`."""

    metric: Literal["accuracy", "bits_per_byte"] | None = None
    chance: Annotated[float, Meta(ge=0, le=1)] | None = None
    parameters: Amount | None = None
    task: Entries | None = None
    facts: Entries | None = None
    groups: Groups | None = None
    curve: Curve | None = None

    def __post_init__(self) -> None:
        """Check the entries."""
        checked_each(self.task or {}, Entry, "task")
        checked_each(self.facts or {}, Entry, "facts")


Stopped = Annotated[str, one_of(STOPS)]


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
        where = f"arms[{index}]."
        parts += [(arm, "profile", where, Profile), (arm, "quality", where, Quality)]
        if "latency" in arm["metrics"]:
            latency = arm["metrics"]["latency"]
            parts.append((latency, "stopped", f"{where}metrics.latency.", Stopped))
    for holder, key, where, form in parts:
        if holder.get(key) is None:
            continue
        try:
            checked(holder[key], form, f"{where}{key}")
        except RecordError as error:
            del holder[key]
            yield f"{short(error)}; {key} left out"
