"""The report's first sentence, computed from the data."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from results.summary.methods import Comparison, Method, faster_from
from results.text import numbers
from results.text.method_types import MethodType
from results.text.modes import WORDS

_KINDS: tuple[tuple[MethodType, str, str], ...] = (
    ("sparse", "a window", "windows"),
    ("approximate", "a linear method", "linear methods"),
    ("own", "another method", "other methods"),
)
"""What the methods of a type are called: one, several; those that change the function."""

MOST_NAMED = 3
"""Methods of a type that the sentence names."""


def title(comparison: Comparison, poor: Collection[tuple[str, str]] = ()) -> str:
    """Say from which length on what is faster than exact attention, by how much, at which cost.

    Args:
        comparison: of the first mode.
        poor: keys of methods whose quality is known and does not do: nobody is sent to them.
    """
    place = _place(comparison)
    if not comparison.baseline:
        return _without_exact(comparison, place, poor)
    changing = [m for m in comparison.methods if not m.is_exact]
    if not changing:
        return _among_exact(comparison, place)
    faster = [m for m in changing if _is_faster(m)]
    if not faster:
        tried = numbers.tokens(comparison.lengths[-1])
        return (
            f"Up to {tried} tokens nothing that was measured is measurably faster than exact "
            f"attention ({comparison.baseline})"
        )
    good = [m for m in faster if m.key not in poor]
    if not good:
        names = numbers.few([m.label for m in faster], MOST_NAMED)
        return (
            f"{_upper(place)} only {names} {_are(faster)} faster than exact attention "
            f"({comparison.baseline}), and {'they learn' if len(faster) > 1 else 'it learns'} far "
            "less"
        )
    faster = good
    how = f"{_named(faster)} {_are(faster)} {_factor(faster)} faster"
    head = f"{_until(comparison, faster)}{place} {how}"
    return f"{_upper(head)}, but compute{'s' * (len(faster) == 1)} something else"


def _place(comparison: Comparison) -> str:
    at = "after a context of" if comparison.mode == "decode" else "at"
    return f"{at} {numbers.tokens(comparison.length)} tokens"


def _is_faster(method: Method) -> bool:
    """Whether a method is faster than the baseline, surely where an interval can say so."""
    row = method.speedup
    if row is None:
        return False
    return bool((row["ci_low"] if math.isfinite(row["ci_low"]) else row["value"]) > 1)


def _until(comparison: Comparison, faster: Sequence[Method]) -> str:
    """Say below which length nothing is faster, where one of the lengths tried is."""
    starts = [at for m in faster if math.isfinite(at := faster_from(m, comparison))]
    if not starts or len(comparison.lengths) < 2:
        return ""
    shortest, first = comparison.lengths[0], min(starts)
    if first <= shortest:
        return f"Already at {numbers.tokens(shortest)} tokens exact attention is not the fastest; "
    return f"Below about {_about(first)} tokens take exact attention ({comparison.baseline}); "


def _about(length: float) -> str:
    """Write a length that was interpolated with two digits: 1,040 → 1,000."""
    return numbers.digits(length, 2)


def _named(faster: Sequence[Method]) -> str:
    parts = []
    for kind, one, several in _KINDS:
        names = [m.label for m in faster if m.type == kind]
        if names:
            told = ", ".join(names) if len(names) <= MOST_NAMED else numbers.few(names, MOST_NAMED)
            parts.append(f"{one if len(names) == 1 else several} ({told})")
    return numbers.listing(parts)


def _are(faster: Sequence[Method]) -> str:
    return "is" if len(faster) == 1 else "are"


def _factor(faster: Sequence[Method]) -> str:
    """Write the smallest and the largest speed-up, as many digits as two of them differ by."""
    factors = sorted(m.speedup["value"] for m in faster if m.speedup is not None)
    low, high = (_rough(f) for f in (factors[0], factors[-1]))
    return f"{low} ×" if low == high else f"{low}–{high} ×"


def _rough(factor: float) -> str:
    if factor < 1.995:
        return f"{factor:.1f}" if factor >= 1.05 else f"{factor:.2f}"
    return numbers.digits(factor, 1 if factor < 9.5 else 2)


def _without_exact(comparison: Comparison, place: str, poor: Collection[tuple[str, str]]) -> str:
    """Say which is the fastest where no exact method was measured; of those that learn as well."""
    timed = [m for m in comparison.methods if m.time is not None]
    if any(m.is_exact for m in timed) or len(timed) < 2:
        return _fastest(comparison, place)
    good = [m for m in timed if m.key not in poor]
    best = (good or timed)[0]
    assert best.time is not None
    head = f"No exact attention was measured here; {place} {best.label} is the fastest"
    spent = numbers.seconds(best.time["value"])
    if not good:
        return f"{head} ({spent}), and all that were are known to learn far less"
    if len(good) == len(timed):
        return f"{head} of {len(timed)} methods, which compute something else: {spent}"
    return f"{head} of the {len(good)} that are not known to learn far less: {spent}"


def _among_exact(comparison: Comparison, place: str) -> str:
    """Say which exact method is the fastest, where no other was measured."""
    timed = [m for m in comparison.methods if m.time is not None]
    if len(timed) < 2:
        return _fastest(comparison, place)
    best = timed[0]
    other = timed[1] if best.label == comparison.baseline else comparison.of_baseline or timed[1]
    if best.time is None or other.time is None:
        return _fastest(comparison, place)
    factor = _rough(other.time["value"] / best.time["value"])
    ahead = f"{factor} × as fast as {other.label}"
    return f"{_upper(place)} {best.label} is the fastest exact method, {ahead}"


def _fastest(comparison: Comparison, place: str) -> str:
    timed = [m for m in comparison.methods if m.time is not None]
    best = min(timed, key=lambda m: m.time["value"] if m.time is not None else math.inf)
    spent = numbers.seconds(best.time["value"]) if best.time is not None else numbers.NONE
    call = WORDS[comparison.mode].call.lower()
    cost = "" if best.is_exact else ", but it computes something else"
    if len(timed) == 1:
        return f"{_upper(place)} {best.label} takes {spent} ({call}); nothing else was measured"
    return (
        f"{_upper(place)} {best.label} is the fastest of {len(timed)} methods: {spent} "
        f"({call}){cost}"
    )


def _upper(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
