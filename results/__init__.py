"""From records to answers: load, fit, compare, plot, report. Reads files; never imports torch.

In a notebook:

    import results

    run = results.load("runs/today")
    run.frame.query("metric == 'latency'")  # a row per case, arm and metric
    results.plots.scaling(run, mode="training")  # matplotlib's Axes
    found = results.recommend(run.frame, seq_len="4k")
    found.exact.label, found.other  # such as sdpa, and what computes something else or None
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.chapters.speed import figures as plots
    from results.recommendation.recommend import recommend
    from results.records.load import load

__all__ = ["load", "plots", "recommend"]

_HOMES = {"load": "records.load", "recommend": "recommendation.recommend"}


def __getattr__(name: str) -> Any:
    """Load what needs pandas when it is asked for: whoever measures knows `schema` alone."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"results.{_HOMES[name]}"), name)
    if name == "plots":
        return importlib.import_module("results.chapters.speed.figures")
    raise AttributeError(f"module 'results' has no attribute {name!r}")
