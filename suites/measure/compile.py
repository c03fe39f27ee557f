"""What torch.compile made of a call: its graphs, where it broke off, and what it took.

The compiler counts for itself (``torch._dynamo.utils.counters``). The first call compiles; the
second, at the same shape, is to find everything there: what it compiles anew is recorded.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from suites.measure.timers import Timed
from suites.processes.outcome import scrub

MOST_REASONS = 3
"""Reasons of graph breaks that are kept, each on one line of at most `LONGEST_REASON` letters."""
LONGEST_REASON = 200


def compile_by_calling(timed: Timed, device: str) -> dict[str, Any]:
    """Call twice and say what the compiler did.

    Args:
        timed: its `call` runs a compiled module that has not run before.
        device: ``cpu`` or ``cuda``.

    Returns:
        ``first_call`` and ``compile_time`` in s (the first call less the second), ``graphs``,
        ``breaks``, ``break_reasons`` (the first few) and ``recompiles``: graphs that the second
        call at the same shape compiled anew. Without a graph the module ran as it is.
    """
    from torch._dynamo.utils import counters  # seconds to import, which only this needs

    counters.clear()
    first = _seconds(timed, device)
    graphs, breaks = counters["stats"]["unique_graphs"], counters["graph_break"]
    first_call = {
        "first_call": first,
        "graphs": int(graphs),
        "breaks": int(sum(breaks.values())),
        "break_reasons": [scrub(" ".join(reason.split()))[:LONGEST_REASON] for reason in breaks][
            :MOST_REASONS
        ],
    }
    second = _seconds(timed, device)
    again = int(counters["stats"]["unique_graphs"] - graphs)
    return {**first_call, "compile_time": max(0.0, first - second), "recompiles": again}


def _seconds(timed: Timed, device: str) -> float:
    timed.prepare()
    start = time.perf_counter()
    timed.call()
    if device == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    timed.settle()
    return elapsed
