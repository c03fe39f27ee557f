"""What else went on while a run was timed: other programs, clocks, heat; and what to do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.schema import CONDITIONS, SENTINEL, Arm
from results.statistics.spread import Span, number, span
from results.text import numbers
from results.text.clean import clean

BUSY = 0.1
"""Processors: so much of their time may go elsewhere while a launch is timed."""

DISTURBED_SHARE = 0.1
"""So many of a run's launches may lose more than `BUSY`."""

MOST_LOAD = 1.5
"""Programs that ran, at the median, as a launch started: the sweep's own last case is one."""

CLOCK_SPREAD = 1.15
"""The fastest over the slowest clock of a run's launches, at most."""

LOAD = "load"
"""The launch's own field beside `CONDITIONS`: the system's load as it started."""

_SLOW_IS_WORSE = ("frequency", "gpu_frequency")


@dataclass(frozen=True)
class Conditions:
    """The conditions of one run's launches.

    Attributes:
        launches: how many have conditions, with a value of one of them at least.
        busy: by name of what goes elsewhere, the share of launches that lost more than `BUSY`.
        threads: that the largest case has.
        cores: of the machine; None = not known.
        spans: by name of `CONDITIONS`, and `LOAD`; the worst clock is the slowest.
        throttled: how often processors slowed themselves down, in all launches together.
        shared: launches that were not alone on the GPU.
        gpu_throttled: reasons for which the GPU held back, idleness aside, to launches.
    """

    launches: int
    busy: Mapping[str, float]
    spans: Mapping[str, Span]
    threads: int
    cores: int | None
    throttled: float
    shared: int
    gpu_throttled: Mapping[str, int]

    def disturbances(self) -> list[str]:
        """Say what disturbed the launches, and what to do about it; empty for nothing."""
        said = []
        for name, (who, remedy) in _TAKEN.items():
            told = self.spans[name]
            if self.busy[name] > DISTURBED_SHARE:
                said.append(
                    f"{who} more than {BUSY:g} of a core in "
                    f"{numbers.percent(self.busy[name])} of the processes (median "
                    f"{numbers.digits(told.median, 2)} of {self._processors}, at most "
                    f"{numbers.digits(told.high, 2)} in {told.where}): {remedy}."
                )
        if self.spans[LOAD].median > MOST_LOAD * self.threads:
            said.append(
                f"{numbers.digits(self.spans[LOAD].median, 2)} programs were running when "
                "processes started (median), more than the sweep's own: stop the others."
            )
        clock = self.spans["frequency"]
        if clock.high > CLOCK_SPREAD * clock.low > 0:
            said.append(
                f"The CPU clock varied from {numbers.digits(clock.low / 1e9)} to "
                f"{numbers.digits(clock.high / 1e9)} GHz between processes (slowest in "
                f"{clock.where}): fix it (governor performance, turbo off)."
            )
        if self.throttled > 0:
            said.append(
                f"The CPU throttled {self.throttled:,.0f} "
                f"time{'s' if self.throttled != 1 else ''} for heat or power "
                f"(most in {self.spans['throttled'].where}): improve cooling, or cap the clock."
            )
        if self.shared:
            said.append(
                f"{_processes(self.shared)} shared the GPU with other programs: stop them, or "
                "use a GPU that is free."
            )
        for reason, count in self.gpu_throttled.items():
            said.append(
                f"The GPU throttled in {_processes(count)} ({reason}): lock its clock below the "
                "limit, or improve power and cooling."
            )
        return said

    @property
    def _processors(self) -> str:
        return f"{self.cores} cores" if self.cores else "a core"

    def slight(self) -> list[str]:
        """Say what happened in too few launches to be a disturbance; empty for nothing."""
        said = []
        for name, (who, _) in _TAKEN.items():
            told = self.spans[name]
            if 0 < self.busy[name] <= DISTURBED_SHARE:
                said.append(
                    f"{who} more than {BUSY:g} of a core in "
                    f"{numbers.percent(self.busy[name])} of the processes (at most "
                    f"{numbers.digits(told.high, 2)} in {told.where})."
                )
        load = self.spans[LOAD]
        if load.high > MOST_LOAD * self.threads >= load.median:
            said.append(
                f"Up to {numbers.digits(load.high, 2)} programs were running when a process "
                f"started ({load.where})."
            )
        return said


_TAKEN = {
    "steal": (
        "The hypervisor took",
        "use a dedicated machine, or measure when its host is quiet",
    ),
    "other_cpu": ("Other programs took", "stop them, or measure when they are done"),
}
"""Of `CONDITIONS` those that are processors' time which goes elsewhere: in words, and a remedy."""


def conditions(records: Sequence[Mapping[str, Any]], cores: int | None = None) -> Conditions:
    """Return the conditions of one run's records; what a system does not tell is left out.

    Args:
        records: of the run.
        cores: of its machine.
    """
    told = [r["conditions"] if r.get("conditions") is not None else {} for r in records]
    names = [launch_name(r) for r in records]
    spans = {}
    for name in CONDITIONS:
        values = [number(c.get(name)) for c in told]
        worst = [-v for v in values] if name in _SLOW_IS_WORSE else values
        spans[name] = span(values, names, worst)
    spans[LOAD] = span([number(r["launch"].get(LOAD)) for r in records], names)
    reasons = Counter(
        clean(reason)
        for c in told
        for reason in dict.fromkeys(c.get("gpu_throttled") or ())
        if reason and "idle" not in reason.lower()
    )
    slowed = [number(c.get("throttled")) for c in told]
    return Conditions(
        launches=sum(any(math.isfinite(number(c.get(n))) for n in CONDITIONS) for c in told),
        busy={name: _share_above(told, name) for name in ("steal", "other_cpu")},
        threads=max((r["case"]["threads"] for r in records), default=1),
        cores=cores,
        spans=spans,
        throttled=sum(v for v in slowed if math.isfinite(v)),
        shared=sum(number(c.get("gpu_users")) > 0 for c in told),
        gpu_throttled=dict(sorted(reasons.items())),
    )


def _share_above(told: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the share of launches that lost more than `BUSY`, of those that tell."""
    values = [v for v in (number(c.get(name)) for c in told) if math.isfinite(v)]
    return sum(v > BUSY for v in values) / len(values) if values else 0.0


def launch_name(record: Mapping[str, Any]) -> str:
    """Return a launch in words: its first arm, mode, length and index."""
    case, index = record["case"], record["launch"]["index"]
    arm = Arm(case["arms"][0]["name"], case["arms"][0].get("options", {}))
    length = f"{case['seq_len']:,} tokens" if case["seq_len"] else ""
    mode = case["mode"] if case["seq_len"] else ""
    label = "control benchmark" if case["kind"] == SENTINEL else clean(arm.label)[:100]
    parts = (label, mode, length, f"process {index}")
    return ", ".join(part for part in parts if part)


def _processes(count: int) -> str:
    return f"{count:,} process{'es' if count != 1 else ''}"
