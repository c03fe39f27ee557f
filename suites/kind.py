"""The contract of a kind: what measures cases, what it is asked, what it answers. No torch.

A kind is one module, ``suites/<suite>/kind.py``, that ends in ``KIND = Kind(…)``; a plug-in's is
``kind.py`` in the plug-in's folder. `suites.worker.kinds` finds it by the `kind` of a case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from results.schema import UNITS, Case, warm_up_converged

ENVELOPE = ("do", "case", "cases", "lock")
"""Keys of a request in JSON that are no field of `Request`."""


def _quiet(_what: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class ArmBefore:
    """What the first launch of a case found out of an arm.

    Attributes:
        warm_up_calls: calls until they got no faster; ``None`` = they never did.
        fingerprint: of its output, which its gate held against the reference; ``None`` = none did
            (see `suites.measure.fingerprint`).
    """

    warm_up_calls: int | None
    fingerprint: Mapping[str, Any] | None


@dataclass(frozen=True)
class FirstLaunch:
    """What a case's first launch that ended well found out, for those behind it.

    They call as often before their samples, and hold their outputs against its.

    Attributes:
        launch: its index.
        arms: in the order of the case.
    """

    launch: int
    arms: Sequence[ArmBefore]

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> FirstLaunch | None:
        """Read a record; ``None`` if it is no such launch: it failed, or compared none."""
        if record["status"] != "ok":
            return None
        arms = []
        for one in record["arms"]:
            latency = one["metrics"].get("latency", {})
            needed = latency["warm_up"].get("needed") if warm_up_converged(latency) else None
            calls = needed if isinstance(needed, int) else None  # a plug-in's may be anything
            arms.append(ArmBefore(calls, (one.get("gate") or {}).get("fingerprint")))
        if all(arm.fingerprint is None for arm in arms):
            return None
        return cls(record["launch"]["index"], arms)

    def to_json(self) -> dict[str, Any]:
        """Return it as a request holds it."""
        return {"launch": self.launch, "arms": [vars(arm) for arm in self.arms]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FirstLaunch:
        """Read it from a request."""
        return cls(data["launch"], [ArmBefore(**arm) for arm in data["arms"]])


@dataclass(frozen=True)
class Request:
    """How a case is to be measured: all that the driver says beside the case itself.

    Attributes:
        budget_s: sampling time per arm, in seconds.
        deadline_s: seconds after which the case has run out of time.
        memory_limit: bytes that the case may take; ``None`` = no limit.
        first: what the case's first launch found out; ``None`` = this is the first, which checks
            and measures all that there is.
        with_memory: whether to measure the peak memory.
        with_latency: whether to take times; else one call is checked and its memory measured.
        profile: whether to say where each arm's time goes, too.
        traces: the folder in which profiles keep their traces; ``None`` = nowhere.
        store: the folder in which trained models and their tensors lie; ``None`` = none is kept.
        files: name of a content to the file that holds it.
        heartbeat: the file into which a case that takes long writes how it goes.
        plugins: files and folders of plug-ins.
        stage: told what is being done, for the reason of a failure.
    """

    budget_s: float = 0.0
    deadline_s: float = 0.0
    memory_limit: int | None = None
    first: FirstLaunch | None = None
    with_memory: bool = True
    with_latency: bool = True
    profile: bool = False
    traces: Path | None = None
    store: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    heartbeat: Path | None = None
    plugins: Sequence[str] = ()
    stage: Callable[[str], None] = _quiet

    @classmethod
    def from_json(
        cls,
        data: Mapping[str, Any],
        *,
        needs: Sequence[str] = (),
        stage: Callable[[str], None] = _quiet,
    ) -> Request:
        """Read a request of the driver.

        Args:
            data: the fields as JSON's values; those of `ENVELOPE` are the caller's.
            needs: fields that must be there.
            stage: becomes the field.

        Raises:
            ValueError: if a field is missing, or unknown.
            TypeError: if one is of another type.
        """
        given = {name: value for name, value in data.items() if name not in ENVELOPE}
        accepted = [one.name for one in fields(cls) if one.name != "stage"]
        for name in needs:
            if name not in given:
                raise ValueError(f"request: expected {name}, got {', '.join(given) or 'nothing'}")
        for name, value in given.items():
            if name not in accepted:
                raise ValueError(f"request: no field {name}; there are {', '.join(accepted)}")
            given[name] = _read_field(name, value)
        return cls(**given, stage=stage)


_TYPES: Mapping[str, tuple[type, ...]] = {
    "budget_s": (int, float), "deadline_s": (int, float), "memory_limit": (int, type(None)),
    "first": (dict, type(None)), "with_memory": (bool,), "with_latency": (bool,),
    "profile": (bool,), "files": (dict,), "plugins": (list, tuple),
}  # fmt: skip
"""What JSON has for a field; for the others a text or null."""


def _read_field(name: str, value: Any) -> Any:
    types = _TYPES.get(name, (str, type(None)))
    if type(value) not in types:  # true is no number
        names = " or ".join("null" if one is type(None) else one.__name__ for one in types)
        raise TypeError(f"request: {name}: expected {names}, got {value!r}")
    if name == "first" and value is not None:
        return FirstLaunch.from_json(value)
    if name == "files":
        return {content: Path(path) for content, path in value.items()}
    return Path(value) if name not in _TYPES and value is not None else value


def metrics(**values: float) -> dict[str, dict[str, Any]]:
    """Return metrics of one value each as the record holds them, by name."""
    return {name: {"unit": UNITS[name], "value": value} for name, value in values.items()}


def arm(
    metrics: Mapping[str, Any],
    *,
    kernel: str = "",
    gate: Mapping[str, Any] | None = None,
    cost: Mapping[str, int] | None = None,
    **further: Any,
) -> dict[str, Any]:
    """Return an arm as the record holds it.

    Args:
        metrics: what was measured, by name.
        kernel: what computed it.
        gate: how the output was held against its reference; ``None`` = it was not.
        cost: operations and bytes of a call; ``None`` = they are not counted.
        **further: fields that only some kinds have.
    """
    return {"kernel": kernel, "gate": gate, "cost": cost, "metrics": metrics, **further}


class Measured(NamedTuple):
    """What a kind answers: the record's ``arms``, and its ``conditions`` if it took any."""

    arms: list[dict[str, Any]]
    conditions: dict[str, Any] | None = None


@dataclass
class Inspection:
    """What a kind says of a case before it is measured.

    Attributes:
        unsupported: why it cannot run here; empty = it can.
        cost: of each arm: ``pattern_ops``, ``executed_ops``, ``exponentials`` and ``bytes``;
            ``None`` or missing = it is not counted.
        time_exponent: declared growth of the first arm's time in the length; 0 = not told.
        memory_exponent: likewise of its memory.
    """

    unsupported: list[str] = field(default_factory=list)
    cost: list[dict[str, int] | None] = field(default_factory=list)
    time_exponent: float = 0.0
    memory_exponent: float = 0.0


@dataclass(frozen=True)
class Kind:
    """What measures the cases of one kind.

    Attributes:
        name: as the cases have it.
        inspect: says of a case whether it is supported here and what it would cost; nothing large
            is allocated. It raises ValueError or TypeError if the case is no case of the kind,
            and may raise UnsupportedError if it cannot run here.
        run: measures a case. It raises UnsupportedError if the case cannot run here; whatever
            else it raises is a failure, and becomes the record's reason.
    """

    name: str
    inspect: Callable[[Case, Request], Inspection]
    run: Callable[[Case, Request], Measured]
