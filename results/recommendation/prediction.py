"""One quantity of one series at a length that was not measured: predicted from a fit to others.

The fit is the line through the nearest lengths, in logarithms. Its interval is that of the fit,
opened to where the curve comes that grows from the nearest length as the last two do, or as the
backend declares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from results.analysis.warm_up import converged
from results.recommendation.interpolation import (
    GREATEST_EXPONENT,
    LEAST_EXPONENT,
    Reading,
    Row,
    at_length,
    ending,
    on_line,
)
from results.statistics.launches import contrast, estimate_of, slope_weights

REACH = 2.0
"""So many times below the lengths measured a prediction goes, of what is not `sdpa`: a call's
fixed cost decides there, which no fit knows. And so far beyond them, where it has no interval."""

WIDEST = 10.0
"""A prediction whose interval's ends lie further apart, as a ratio, is none."""

MOST_FITTED = 3
"""Lengths that a fit is made of."""

_ENDS = ("out_of_memory", "unsupported", "failed", "crashed")
"""Statuses of a length beyond which a method is not said to run."""

_LARGEST_LOG = 600.0


CAUSAL_PART = (0.5, 1.0)
"""Of a call's time, that of the causal one: it computes half of the scores and saves no more."""

HALVED = ("sdpa", "longformer", "bigbird")
"""Backends of which that is known."""


def as_causal(reading: Reading, seq_len: int) -> Reading:
    """Return the time of a causal call, predicted from that of a bidirectional one.

    Both of a ratio are to be such times: the share that is taken off is not in `terms`.
    """
    if not reading.known:
        return reading
    least, most = CAUSAL_PART
    middle = math.sqrt(least * most)
    bend = reading.bend[0] * least / middle, reading.bend[1] * most / middle
    return replace(
        reading, value=reading.value * middle, low=reading.low * least, high=reading.high * most,
        between=None, fitted=reading.between or reading.fitted or (seq_len,), bend=bend,
        launches=np.empty(0), note="half to all of the time of a bidirectional call",
    )  # fmt: skip


def at_any_length(
    rows: Sequence[Row],
    seq_len: int,
    declared: str,
    *,
    down: float = REACH,
    is_exact: bool = False,
) -> Reading:
    """Return what one series' rows say about a length, and where they say nothing a prediction.

    Args:
        rows: one a length, as of `at_length`.
        seq_len: the length asked for, in tokens.
        declared: the column of the exponent that the backend declares.
        down: how far below the lengths measured it goes, as a factor.
        is_exact: whether it is predicted, too, where measuring it took too long: as a baseline.

    Returns:
        A reading that is not known, with the reason, where the prediction would be wider than
        `WIDEST`.
    """
    found = at_length(rows, seq_len)
    measured = sorted(
        (row for row in rows if math.isfinite(row["value"]) and row["value"] > 0),
        key=lambda row: int(row["seq_len"]),
    )
    if found.known or not measured:
        return found
    if any(row["status"] in _ENDS and row["seq_len"] <= seq_len for row in rows):
        return found
    if not is_exact and any(row["seq_len"] == seq_len for row in rows):
        return found  # it was tried, in vain
    if seq_len * down < measured[0]["seq_len"]:
        return found
    fitted = _fitted(rows, measured, seq_len, declared)
    is_far = seq_len > REACH * measured[-1]["seq_len"]
    if fitted.high > WIDEST * fitted.low or (is_far and not fitted.has_interval):
        first, last = (int(measured[i]["seq_len"]) for i in (0, -1))
        return Reading(note=f"too far from what was measured, {first:,} to {last:,} tokens")
    return fitted


def _fitted(rows: Sequence[Row], measured: Sequence[Row], seq_len: int, declared: str) -> Reading:
    def away(row: Row) -> float:
        return abs(math.log(row["seq_len"] / seq_len))

    used = sorted(sorted(measured, key=away)[:MOST_FITTED], key=lambda row: int(row["seq_len"]))
    near = min(used, key=away)
    weights = _weights([int(row["seq_len"]) for row in used], seq_len)
    log = float(sum(w * math.log(row["value"]) for w, row in zip(weights, used, strict=True)))
    value = math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, log)))
    terms = [(w, row["cell"]) for w, row in zip(weights, used, strict=True) if row.get("cell")]
    low, high, note = _interval(used, value)
    if len(terms) == len(used):
        got = estimate_of(contrast(terms))
        value, low, high, note = got.value, got.low, got.high, got.reason
    bent = [value, *_otherwise(used, near, seq_len, declared)]
    bend = min(bent) / value, max(bent) / value
    tried = next((row for row in rows if row["seq_len"] == seq_len), None)
    said = f"measuring it ended with {ending(tried)}" if tried is not None else ""
    return replace(
        Reading(value, low * bend[0], high * bend[1]),
        fitted=tuple(int(row["seq_len"]) for row in used),
        note="; ".join(part for part in (note, said) if part),
        terms=tuple(terms) if len(terms) == len(used) else (), bend=bend,
        converged=converged(row.get("converged") for row in used),
    )  # fmt: skip


def _weights(lengths: Sequence[int], seq_len: int) -> list[float]:
    """Return the weights with which logs at some lengths sum to the fitted line at another."""
    if len(lengths) == 1:
        return [1.0]
    mean = float(np.mean(np.log(lengths)))
    slope = slope_weights(lengths) * (math.log(seq_len) - mean)
    return [float(w) for w in 1 / len(lengths) + slope]


def _interval(used: Sequence[Row], value: float) -> tuple[float, float, str]:
    """Return the widest interval of some rows, relative to their values, about another value."""
    low = min(row["ci_low"] / row["value"] for row in used)
    high = max(row["ci_high"] / row["value"] for row in used)
    return value * low, value * high, ""


def _otherwise(used: Sequence[Row], near: Row, seq_len: int, declared: str) -> list[float]:
    """Return where the curve may come instead, from the nearest length on."""
    ratio = seq_len / near["seq_len"]
    told = near.get(declared)
    exponents = [float(told)] if told is not None and math.isfinite(told) else []
    if len(used) == 1:
        exponents = [LEAST_EXPONENT, GREATEST_EXPONENT]
    found = [near["value"] * ratio**exponent for exponent in exponents]
    if len(used) > 1:
        pair = used[-2:] if near is used[-1] else used[:2]
        found.append(on_line(pair[0], pair[1], seq_len))
    return [float(one) for one in found]
