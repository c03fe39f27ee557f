"""What would disturb a measurement on this machine, and what to do about it: `doctor`'s checks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suites.measure.conditions import (
    PROC,
    SYS,
    Ask,
    frequency,
    nvidia_smi,
    processor_time,
    throttles,
    ticks,
)
from suites.measure.conditions import gpu_users as users_of_gpu
from suites.measure.machine import affinity, turbo
from suites.processes import processors

Level = Literal["fine", "note", "problem"]

BUSY_LOAD = 0.25
"""A load beyond this many running processes disturbs."""

MUCH_STOLEN = 0.02
"""A share of the processors' time that another virtual machine may take unnoticed."""

WATCH_S = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        topic: what was looked at.
        level: ``fine``, ``note`` (know it) or ``problem`` (it would disturb or prevent).
        text: what is there.
        advice: what to do; empty where nothing is to be done.
    """

    topic: str
    level: Level
    text: str
    advice: str = ""


def load() -> list[Finding]:
    """Look at the processes that ran in the last minute."""
    average = os.getloadavg()[0]
    text = f"{average:.2f} processes were running on average in the last minute"
    if average <= BUSY_LOAD:
        return [Finding("load", "fine", text)]
    return [Finding("load", "problem", text, "end other programs, or wait for them")]


def clocks(*, proc: Path = PROC, sys: Path = SYS) -> list[Finding]:
    """Look at what may change the processors' clock from one moment to the next."""
    folder = sys / "devices/system/cpu"
    governor = folder / "cpu0/cpufreq/scaling_governor"
    now = frequency(proc, sys)
    at = f"; now {now / 1e9:.2f} GHz on average" if now else ""
    findings: list[Finding] = []
    if not governor.is_file():
        text = f"the system shows no frequency scaling (usual in a virtual machine){at}"
        advice = "take several processes per case: --launches 3"
        findings.append(Finding("frequency", "note", text, advice))
    elif (name := governor.read_text().strip()) == "performance":
        findings.append(Finding("frequency", "fine", f"governor performance{at}"))
    else:
        advice = "as root: cpupower frequency-set --governor performance"
        findings.append(Finding("frequency", "problem", f"governor {name}{at}", advice))
    if turbo(folder):
        intel = folder / "intel_pstate/no_turbo"
        how = f"echo 1 > {intel}" if intel.is_file() else f"echo 0 > {folder / 'cpufreq/boost'}"
        text = "turbo is on: speed depends on heat"
        findings.append(Finding("frequency", "note", text, f"as root: {how}"))
    return findings


def throttling(*, sys: Path = SYS) -> list[Finding]:
    """Look whether processors had to slow down since the machine started."""
    count = throttles(sys)
    if count is None:
        text = "the system does not count it (usual in a virtual machine)"
        return [Finding("throttling", "note", text)]
    if not count:
        return [Finding("throttling", "fine", "no processor slowed down since the start")]
    text = f"processors slowed down {count} times since the start, for heat or power"
    advice = "cool the machine, or measure with fewer --threads; the report counts it"
    return [Finding("throttling", "note", text, advice)]


def steal(*, wait: Callable[[float], None] = time.sleep) -> list[Finding]:
    """Watch for a second how much of the processors' time the hypervisor gives to others."""
    before, began = ticks(), time.perf_counter()
    if before is None:
        return [Finding("steal", "note", "the system does not tell")]
    wait(WATCH_S)
    elapsed = max(WATCH_S, time.perf_counter() - began)
    taken = processor_time(before, ticks(), 0.0, elapsed)["steal"] or 0.0
    share = taken / (os.cpu_count() or 1)
    text = f"{share:.1%} of the processors' time went to other virtual machines"
    if share <= MUCH_STOLEN:
        return [Finding("steal", "fine", text)]
    advice = "measure at another time or on a dedicated machine; take more processes: --launches 5"
    return [Finding("steal", "problem", text, advice)]


def affinities(usable: int | None = None, total: int | None = None) -> list[Finding]:
    """Look whether this process may use all processors of the machine."""
    usable = len(processors.usable()) if usable is None else usable
    total = os.cpu_count() or usable if total is None else total
    if usable >= total:
        return [Finding("affinity", "fine", f"all {total} processors may be used")]
    text = f"bound to {usable} of {total} processors ({affinity()})"
    advice = "it is recorded; compare only with runs that are bound alike (taskset, cpuset)"
    return [Finding("affinity", "note", text, advice)]


def gpu_users(ask: Ask = nvidia_smi) -> list[Finding]:
    """Look whether other processes compute on the GPU."""
    users = users_of_gpu(ask)
    if users is None:
        text = "nvidia-smi is absent or fails: who else uses the GPU is not known"
        return [Finding("gpu users", "note", text, "install NVIDIA's driver tools")]
    others = [str(user) for user in users if user != os.getpid()]
    if not others:
        return [Finding("gpu users", "fine", "nobody else")]
    text = f"{len(others)} other: process {', '.join(others[:5])}"
    return [Finding("gpu users", "problem", text, "end them, or wait")]
