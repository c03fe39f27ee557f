"""Float32 matrix products on a CPU, in full precision and at the machine's full rate.

Torch gives them to MKL, which on AMD processors takes its AVX2 path where AVX-512 would be twice
as fast; products of bfloat16 go to oneDNN, which takes AVX-512. The setting that lets float32
products be rounded to bfloat16 sends them to oneDNN too, and there, on a processor without AMX,
nothing rounds to bfloat16: the result is full float32. So on such a processor, and only after a
trial product has shown its precision, the backends' own kernels run under that setting.

A setting that the user has chosen is left alone. `choose` turns this off. The record of which
kernel ran ends in ``+onednn`` where it was on.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Choice = Literal["auto", "torch"]
CHOICES = ("auto", "torch")

TRIAL_ERROR = 1e-6
"""Relative L2 error that the trial product may have; a rounding to bfloat16 makes far more."""

_DEFAULTS = ("none", "ieee")
_WITH_FLOAT32 = (torch.float32, torch.bfloat16, torch.float16)
"""Inputs whose kernels multiply in float32, or in part."""

_lock = threading.Lock()
_choice: Choice = "auto"
_inside = 0
_faster_here: bool | None = None
_before = "none"


def choose(choice: Choice) -> None:
    """Say how float32 products of the backends run on a CPU, from now on.

    Args:
        choice: ``auto``: as the module says; ``torch``: by whatever torch takes.

    Raises:
        ValueError: if it is neither.
    """
    global _choice
    if choice not in CHOICES:
        raise ValueError(f"choice: expected one of {', '.join(CHOICES)}, got {choice!r}")
    _choice = choice


@contextmanager
def full_rate(like: Tensor) -> Iterator[None]:
    """Run the float32 products of a block at full rate, on a CPU.

    The setting belongs to the process: while a block runs, other threads' products take the same
    way, in the same precision. The last block to end restores what the first one found.

    Args:
        like: one of the kernel's inputs.
    """
    global _inside, _before
    if not applies(like):
        yield
        return
    matmul = _setting()
    with _lock:
        if not _inside:
            _before = matmul.fp32_precision
            matmul.fp32_precision = "bf16"
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                matmul.fp32_precision = _before


def at_full_rate(step: Any) -> Any:
    """Run a step of an autograd function, ``step(ctx, tensor, …)``, under `full_rate`."""

    @functools.wraps(step)
    def wrapped(ctx: Any, like: Tensor, *rest: Any) -> Any:
        with full_rate(like):
            return step(ctx, like, *rest)

    return wrapped


def applies(like: Tensor) -> bool:
    """Whether `full_rate` would change how a product of `like` runs."""
    return (
        like.dtype in _WITH_FLOAT32
        and like.device.type == "cpu"
        and _choice == "auto"
        and is_faster_here()
        and (_inside > 0 or _setting().fp32_precision in _DEFAULTS)
    )


def mark(like: Tensor) -> str:
    """Return what the name of a kernel ends in: ``+onednn`` or nothing."""
    return "+onednn" if applies(like) else ""


def _setting() -> Any:
    """Return torch's setting of oneDNN's products; its type has no stub."""
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


def is_faster_here() -> bool:
    """Whether this is an AMD processor with AVX-512 and without AMX, and oneDNN keeps float32.

    Found out once, when the first backend is built: within a compiled graph it is a constant.
    """
    global _faster_here
    if _faster_here is None:
        _faster_here = _try_here()
    return _faster_here


def _try_here() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    if "AuthenticAMD" not in cpuinfo or "amx_tile" in cpuinfo:
        return False
    with ThreadPoolExecutor(1) as alone:  # what watches torch in this thread shall not see it
        return alone.submit(_keeps_precision).result()


def _keeps_precision() -> bool:
    """Try a product; draws no random number."""
    a = torch.linspace(-40, 40, 96 * 96).sin().view(96, 96)
    matmul = _setting()
    with _lock:
        before = matmul.fp32_precision
        matmul.fp32_precision = "bf16"
        try:
            product = torch.bmm(a[None], a[None])[0]
        finally:
            matmul.fp32_precision = before
    exact = a.double() @ a.double()
    return float((product - exact).norm() / exact.norm()) <= TRIAL_ERROR
