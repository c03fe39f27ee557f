"""What a measurement ran on, as plain values: the machine and the software.

No host name, user or path: two runs on the same kind of machine describe it alike.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import torch

from attention.base import UnsupportedError
from suites.processes import processors

CPUS = Path("/sys/devices/system/cpu")


def machine() -> dict[str, Any]:
    """Describe the hardware and its operating system.

    Keys: cpu, cores (that this process may use), cores_total, ram_bytes, os, kernel, arch, gpu,
    gpu_memory_bytes; the last two are ``None`` without a CUDA device.
    """
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "cpu": cpu_name(),
        "cores": len(processors.usable()),
        "cores_total": os.cpu_count(),
        "ram_bytes": int(psutil.virtual_memory().total),
        "os": platform.system(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "gpu": gpu.name if gpu else None,
        "gpu_memory_bytes": gpu.total_memory if gpu else None,
    }


def check_device(device: str) -> None:
    """Check that a device of this type is here.

    Raises:
        UnsupportedError: if there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("device: torch sees no CUDA device here")


def environment() -> dict[str, Any]:
    """Describe the software and the settings that a latency depends on.

    A library that is absent, or a setting that the system does not show, is ``None``.
    """
    return {
        "attnbench": _version("attnbench"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "blas": _blas(),
        "numpy": _version("numpy"),
        "asv": _version("asv"),
        "xformers": _version("xformers"),
        "triton": _version("triton"),
        "transformers": _version("transformers"),
        "cuda": torch.version.cuda,
        "driver": _gpu_driver(),
        "thp": _transparent_huge_pages(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "turbo": turbo(),
        "affinity": affinity(),
        "openmp": processors.placing(),
        "flags": torch.backends.cpu.get_cpu_capability(),
        "glibc": platform.libc_ver()[1] or None,
    }


def affinity() -> str | None:
    """Return the processors that this process may use, as ``0-3,6``."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return as_ranges(processors.usable())


def as_ranges(numbers: Iterable[int]) -> str:
    """Write whole numbers as ``0-3,6``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def turbo(cpus: Path = CPUS) -> bool | None:
    """Say whether processors may go beyond their base clock; ``None`` if the system does not."""
    for name, word_for_on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
        if (text := _read(str(cpus / name))) is not None:
            return text == word_for_on
    return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    file = Path(path)
    return file.read_text().strip() if file.is_file() else None


def cpu_name() -> str:
    """Return what the processor calls itself."""
    match = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo") or "", re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _blas() -> str:
    """Return the library that multiplies matrices, as torch was built with it."""
    config = torch.__config__.show()
    if torch.backends.mkl.is_available():
        match = re.search(r"Math Kernel Library Version ([\d.]+(?:-Product)?)", config)
        return f"MKL {match[1].removesuffix('-Product')}" if match else "MKL"
    match = re.search(r"BLAS_INFO=(\w+)", config)
    return match[1] if match else "unknown"


def _transparent_huge_pages() -> str | None:
    """Return the chosen word of ``always [madvise] never``."""
    match = re.search(r"\[(\w+)\]", _read("/sys/kernel/mm/transparent_hugepage/enabled") or "")
    return match[1] if match else None


def _gpu_driver() -> str | None:
    match = re.search(r"Kernel Module\D*([\d.]+)", _read("/proc/driver/nvidia/version") or "")
    return match[1] if match else None
