"""Peak memory of one call above what is there before it.

The baseline holds the inputs and the module's parameters, so the peak is what the call adds: its
output, its temporaries and, in training, the gradients of inputs and parameters. Of a whole
model's training it holds the optimiser's moments too, which the first step has made.

On a CPU the peak is the kernel's high-water mark of resident memory, so pages that were reserved
and never touched do not count. It is exact to a page where the kernel counts exactly; since Linux
6.2 its per-processor counters may hold back some hundred KiB a processor.
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

from suites.measure.process import status_bytes


def peak_memory(call: Callable[[], object], device: str) -> int:
    """Return the bytes that `call` adds at its peak, its result included.

    Run it apart from timing, after a first call that has made what is made only once.

    Args:
        call: does the work; what earlier calls returned must have been dropped.
        device: ``cpu`` or ``cuda``.

    Raises:
        RuntimeError: on a CPU whose system has no ``/proc/self/clear_refs``.
    """
    gc.collect()
    return _peak_on_cuda(call) if device == "cuda" else _peak_on_cpu(call)


def _peak_on_cpu(call: Callable[[], object]) -> int:
    release_free_memory()
    reset_high_water_mark()
    baseline = status_bytes("VmRSS")
    call()
    return max(0, status_bytes("VmHWM") - baseline)


def _peak_on_cuda(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    baseline = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - baseline


def release_free_memory() -> None:
    """Give the pages that malloc keeps back to the system; else they hide an allocation.

    glibc leaves the top of its other threads' arenas: what the worker threads of an operation
    allocate for themselves may stay hidden.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's; other C libraries keep no such pages
        libc.malloc_trim(0)


def reset_high_water_mark() -> None:
    """Set ``VmHWM`` to the memory that is resident now.

    Raises:
        RuntimeError: if the system does not offer it.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise RuntimeError(f"/proc/self/clear_refs: {error.strerror}") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory was refused, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_REFUSED.search(str(error)))


_REFUSED = re.compile(r"can't allocate memory|not enough memory|std::bad_alloc")
"""How torch's CPU allocator says it, as a RuntimeError."""
