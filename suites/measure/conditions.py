"""What the machine did while a launch was timed: steal, other programs, clocks, heat.

Read once before the warm-up and once after the last sample, so that reading disturbs no sample.
The system counts processors' time in ticks of some 10 ms: over less than `LEAST_TICKS` of them it
says nothing, and neither does the record.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

PROC, SYS = Path("/proc"), Path("/sys")

LEAST_TICKS = 10
"""Ticks of the system's clock over which its count of processors' time means something."""

NVIDIA_SMI_TIMEOUT_S = 5.0

GPU_THROTTLES = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of nvidia-smi's ``clocks_event_reasons.active`` that slow a GPU down; the others say that
it idles, or that its clocks were set."""


@dataclass(frozen=True)
class Ticks:
    """Time of all processors together, in seconds: at work, and taken by the hypervisor."""

    busy: float
    stolen: float


@dataclass(frozen=True)
class _Reading:
    """Counters at one moment; ``None`` where the system does not tell."""

    at: float
    ticks: Ticks | None
    own: float
    throttles: int | None
    switches: int


class Watch:
    """Reads the machine's counters now, and says at the end what happened meanwhile.

    Args:
        device: type of the device; GPUs are asked about on ``cuda`` alone.
        proc: where the system's counters are.
        sys: where the processors' settings are.
    """

    def __init__(self, device: str, *, proc: Path = PROC, sys: Path = SYS) -> None:
        self._device, self._proc, self._sys = device, proc, sys
        self._before = self._read()

    def conditions(self) -> dict[str, Any]:
        """Return the record's ``conditions`` (see `results.schema.CONDITIONS`)."""
        now, before = self._read(), self._before
        changes = {
            **processor_time(before.ticks, now.ticks, now.own - before.own, now.at - before.at),
            "frequency": frequency(self._proc, self._sys),
            "throttled": _difference(before.throttles, now.throttles),
            "switches": now.switches - before.switches,
        }
        return changes | (gpu_conditions() if self._device == "cuda" else _NO_GPU)

    def _read(self) -> _Reading:
        return _Reading(
            time.perf_counter(),
            ticks(),
            time.process_time(),
            throttles(self._sys),
            resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        )


def processor_time(
    before: Ticks | None, now: Ticks | None, own_s: float, wall_s: float
) -> dict[str, float | None]:
    """Return ``steal`` and ``other_cpu`` of a span, in processors.

    Args:
        before: counters at its beginning.
        now: at its end.
        own_s: processors' time that this process took.
        wall_s: length of the span.
    """
    if before is None or now is None or wall_s < LEAST_TICKS / os.sysconf("SC_CLK_TCK"):
        return {"steal": None, "other_cpu": None}
    others = now.busy - before.busy - own_s
    return {
        "steal": round(max(0.0, now.stolen - before.stolen) / wall_s, 4),
        "other_cpu": round(max(0.0, others) / wall_s, 4),
    }


def ticks() -> Ticks | None:
    """Return the time of all processors since the start; ``None`` if the system does not tell."""
    try:
        spent = psutil.cpu_times()  # what guests took is within user
    except OSError:
        return None
    if not hasattr(spent, "steal"):
        return None
    busy = spent.user + spent.nice + spent.system + spent.irq + spent.softirq
    return Ticks(busy, spent.steal)


def throttles(sys: Path = SYS) -> int | None:
    """Return how often processors slowed down for heat or power, since the start."""
    counts = [
        int(text)
        for file in sys.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
        if (text := (_text(file) or "").strip()).isdecimal()
    ]
    return sum(counts) if counts else None


def frequency(proc: Path = PROC, sys: Path = SYS) -> float | None:
    """Return the mean clock of the processors in Hz."""
    files = sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    kilohertz = [int(text) for file in files if (text := (_text(file) or "").strip()).isdecimal()]
    if kilohertz:
        return round(fmean(kilohertz) * 1e3)
    shown = re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", _text(proc / "cpuinfo") or "", re.MULTILINE)
    return round(fmean(map(float, shown)) * 1e6) if shown else None


# -- the GPU -------------------------------------------------------------------------------------

_NO_GPU: dict[str, Any] = {
    "gpu_users": None, "gpu_temperature": None, "gpu_frequency": None, "gpu_throttled": [],
}  # fmt: skip

Ask = Callable[..., str | None]
"""Asks nvidia-smi; the arguments are its options."""


def nvidia_smi(*options: str) -> str | None:
    """Return what nvidia-smi prints; ``None`` if it is absent, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *options], capture_output=True, text=True, check=False,
            timeout=NVIDIA_SMI_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def gpu_conditions(ask: Ask = nvidia_smi) -> dict[str, Any]:
    """Return the ``gpu_…`` conditions of the first GPU, of a process that uses it itself."""
    readings = dict(_NO_GPU)
    users = gpu_users(ask)
    if users is not None:
        # One of them is this process, under whatever id: a container has ids of its own.
        readings["gpu_users"] = max(0, len(users) - 1)
    for word in ("event", "throttle"):  # the older name
        query = f"--query-gpu=temperature.gpu,clocks.sm,clocks_{word}_reasons.active"
        lines = (ask(query, "--format=csv,noheader,nounits") or "").strip().splitlines()
        if lines:
            temperature, megahertz, reasons, *_ = [*lines[0].split(","), "", "", ""]
            readings["gpu_temperature"] = _number(temperature)
            clock = _number(megahertz)
            readings["gpu_frequency"] = None if clock is None else round(clock * 1e6)
            readings["gpu_throttled"] = _reasons(reasons)
            break
    return readings


def gpu_users(ask: Ask = nvidia_smi) -> list[int] | None:
    """Return the ids of the processes that compute on the GPUs, this one's maybe among them."""
    text = ask("--query-compute-apps=pid", "--format=csv,noheader")
    if text is None:
        return None
    return [int(line) for line in map(str.strip, text.splitlines()) if line.isdecimal()]


def _reasons(text: str) -> list[str]:
    try:
        bits = int(text.strip(), 16)
    except ValueError:  # "[N/A]"
        return []
    return [reason for bit, reason in GPU_THROTTLES.items() if bits & bit]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _difference(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None
