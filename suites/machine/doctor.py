"""Look at this machine as a measuring instrument: what is here, what would disturb, what to do.

Nothing is measured but a second of the processors' time; torch may be imported.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from attention import registry
from attention.backends.sdpa import KERNELS
from attention.backends.xformers import operators
from attention.kernels.compiled.library import compiler
from suites.machine import disturbances
from suites.machine.disturbances import Finding
from suites.measure.machine import environment, machine
from suites.peers import registry as peers
from suites.processes import processors
from suites.processes.free_memory import free_memory

LITTLE_MEMORY = 2 << 30


def examine() -> list[Finding]:
    """Return what there is to know, the machine first."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        _software, _hardware, _threads, disturbances.affinities, disturbances.load,
        disturbances.steal, disturbances.clocks, disturbances.throttling, _huge_pages, _memory,
        _gpu_users, _sdpa_kernels, _xformers_kernels, _compiler, _backends, _plugins,
    )  # fmt: skip
    return [finding for check in checks for finding in check()]


def _software() -> list[Finding]:
    about = environment()
    names = ("attnbench", "python", "torch", "numpy", "asv", "blas", "xformers", "triton", "glibc")
    shown = ", ".join(f"{name} {about[name]}" for name in names if about.get(name))
    cuda = f", CUDA {about['cuda']}, driver {about['driver'] or 'none'}" if about["cuda"] else ""
    return [Finding("versions", "fine", shown + cuda)]


def _hardware() -> list[Finding]:
    about = machine()
    ram = about["ram_bytes"]
    size = f", {ram / 2**30:.1f} GiB" if ram else ""
    capability = environment()["flags"]
    findings = [
        Finding(
            "cpu", "fine", f"{about['cpu']}, {about['cores']} cores{size}, torch: {capability}"
        )
    ]
    if about["gpu"]:
        gpu = f"{about['gpu']}, {about['gpu_memory_bytes'] / 2**30:.1f} GiB"
        return [*findings, Finding("gpu", "fine", gpu)]
    advice = "measure with --device cpu"
    return [*findings, Finding("gpu", "note", "torch sees no CUDA device here", advice)]


def _threads() -> list[Finding]:
    usable, quota = len(processors.usable()), cpu_quota()
    text = f"{usable} processors usable, torch would use {torch.get_num_threads()} threads"
    findings = [Finding("threads", "fine", f"{text}; a sweep uses {usable} unless --threads says")]
    if quota is not None and quota < usable:
        findings.append(
            Finding(
                "threads",
                "problem",
                f"the container may use {quota:g} processors' time, fewer than it sees",
                f"measure with --threads {max(1, int(quota))}",
            )
        )
    settings = {k: v for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if (v := os.environ.get(k))}
    if settings:
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        findings.append(
            Finding("threads", "note", f"{shown} is set", "unset it, or use --threads")
        )
    return findings


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how many processors' time the control group may use; ``None`` = no limit known."""
    file = cgroup / "cpu.max"
    if not file.is_file():
        return None
    quota, period = file.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _huge_pages() -> list[Finding]:
    thp = environment()["thp"]
    if thp is None:
        return [Finding("huge pages", "note", "the system does not show its setting")]
    text = f"transparent huge pages: {thp}; it is recorded with every result"
    if thp != "always":
        return [Finding("huge pages", "fine", text)]
    return [
        Finding("huge pages", "note", text, "compare only with runs that have the same setting")
    ]


def _memory() -> list[Finding]:
    free = free_memory()
    text = f"{free / 2**30:.1f} GiB free"
    if free >= LITTLE_MEMORY:
        return [Finding("memory", "fine", text)]
    return [Finding("memory", "problem", text, "end other programs: long cases will not be run")]


def _gpu_users() -> list[Finding]:
    return disturbances.gpu_users() if torch.cuda.is_available() else []


def _sdpa_kernels() -> list[Finding]:
    """Try each kernel of torch's SDPA on a small call, per dtype."""
    findings = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        runs = {name: _dtypes_run_by(name, device) for name in KERNELS}
        shown = "; ".join(f"{name}: {', '.join(runs[name]) or 'none'}" for name in KERNELS)
        findings.append(Finding(f"sdpa on {device}", "fine", shown))
    return findings


def _dtypes_run_by(kernel: str, device: str) -> list[str]:
    module = registry.build("sdpa", num_heads=1, head_dim=64, kernel=kernel)
    served = []
    for dtype in module.supports.dtypes[device]:
        q = torch.ones(1, 1, 64, 64, dtype=dtype, device=device)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch says why not; the table says that not
                module(q, q, q)
        except (RuntimeError, ValueError):  # how torch and the backend say that it cannot run
            continue
        served.append(str(dtype).removeprefix("torch."))
    return served


def _xformers_kernels() -> list[Finding]:
    """Ask each operator of xformers whether it was built and this machine can run it."""
    if importlib.util.find_spec("xformers") is None:
        return [Finding("xformers", "note", "not installed", "pip install xformers")]
    try:
        fmha = operators()
    except Exception as error:  # a binary package made for another torch fails in its own ways
        text = f"cannot be imported: {type(error).__name__}: {error}"
        return [Finding("xformers", "problem", text, "install the build for this torch")]
    kernels = [*getattr(fmha, "ALL_FW_OPS", []), *getattr(fmha, "ALL_BW_OPS", [])]
    if not kernels:
        return [Finding("xformers", "note", "this version does not list its kernels")]
    states = {kernel.NAME: kernel.is_available() for kernel in kernels}
    built = [name for name, available in states.items() if available]
    others = [name for name, available in states.items() if not available]
    text = f"kernels here: {', '.join(built) or 'none'}; not here: {', '.join(others) or 'none'}"
    if torch.cuda.is_available():
        return [Finding("xformers", "fine" if built else "problem", text)]
    return [Finding("xformers", "note", f"{text}; all of them need a GPU")]


def _compiler() -> list[Finding]:
    """Say whether kernel='compiled' can be built here."""
    if found := compiler():
        return [Finding("compiler", "fine", f"{Path(found).name}: builds kernel=compiled")]
    advice = "install g++ or clang++, or name one in CXX"
    return [Finding("compiler", "note", "no C++ compiler, so no kernel=compiled", advice)]


def _backends() -> list[Finding]:
    findings = []
    for name in registry.names():
        unavailable: dict[str, Any] = registry.describe(name)["unavailable"]
        here = [device for device, reasons in unavailable.items() if not reasons]
        why = "; ".join(f"{r}" for reasons in unavailable.values() for r in dict.fromkeys(reasons))
        text = f"runs on {', '.join(here)}" if here else f"does not run here: {why}"
        findings.append(Finding(f"backend {name}", "fine" if here else "note", text))
    return findings


def _plugins() -> list[Finding]:
    return [
        Finding(f"plug-in {name}", "problem", error, "repair or uninstall the package")
        for name, error in (registry.broken_plugins() | peers.broken_plugins()).items()
    ]
