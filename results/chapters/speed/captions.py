"""Titles and captions of a chapter's figures."""

from __future__ import annotations

import pandas as pd

from results.records.load import Run

TITLES = {
    "time": "Time against length",
    "memory": "Memory against length",
    "speedup": "Speed-up over the exact baselines",
    "error": "Error against cost",
    "limit": "% of peak (roofline)",
    "profile": "Where the time goes",
}
_CAPTIONS = {
    "time": (
        "Mean over processes, both axes logarithmic, so that a line's slope is the exponent; it "
        "stands behind the name, with its 95 % interval. Whiskers are 95 % intervals, with "
        "an arrow where they go on. A cross marks a length that gave no time, and why."
    ),
    "memory": (
        "Peak above the inputs, output included; both axes logarithmic; behind the name "
        "stands the exponent p of a + c·N^p. "
        "Materialised softmax (full) holds all scores at once; fused exact attention (sdpa) "
        "does not."
    ),
    "speedup": (
        "Time of the baseline over time of the backend, in the same run; above the dashed line "
        "the backend is faster. full materialises the scores, sdpa is the fused exact kernel."
    ),
    "error": (
        "Relative L2 distance of the output from exact softmax attention, against time; low and "
        "left is better. Methods that compute softmax attention differ by rounding alone."
    ),
    "limit": (
        "The least time that the method's products, exponentials and bytes need at the peaks "
        "measured on this machine in this run, over the time taken."
    ),
    "profile": (
        "Parts of a single call under torch's profiler, the fastest of a few, median over "
        "processes, at the longest length that most backends were profiled at. A bar that would "
        "leave nothing of the others is pressed together, and says so; its shares hold. The table "
        "of this name says what the parts are."
    ),
}
_OF_DECODING = {
    "time": "In mode decode: a token after a context; a flat line is a state that does not grow.",
    "memory": "In mode decode: what is kept of the tokens so far.",
}
"""What a caption says besides, where a run has that mode."""


def figure_caption(name: str, run: Run) -> str:
    """Return what stands under the figure `name` of a run."""
    scale = input_scale(run) if name == "error" else ""
    parts = [_CAPTIONS[name], f"Taken on {scale}." if scale else ""]
    if "decode" in set(run.frame["mode"]):
        parts.append(_OF_DECODING.get(name, ""))
    return " ".join(part for part in parts if part)


def input_scale(run: Run) -> str:
    """Return on which inputs the errors were taken, as a half-sentence, "" if not recorded."""
    found = pd.unique(
        pd.Series(
            [
                f"inputs of scale {m['input_scale']:g}, {m['rows']} sampled query rows"
                for record in run.records
                if record["case"]["kind"] == "speed"  # kind error has inputs of its own
                for arm in record["arms"]
                if isinstance(m := arm["metrics"].get("relative_error"), dict)
                and isinstance(m.get("input_scale"), int | float)
                and isinstance(m.get("rows"), int)
            ],
            dtype=object,
        )
    )
    return " / ".join(found[:3]) + (" / …" if len(found) > 3 else "")
