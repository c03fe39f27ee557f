"""The frontier: what no other beats in cost and in score at once."""

from __future__ import annotations

from collections.abc import Sequence


def frontier(costs: Sequence[float], scores: Sequence[float], *, lower: bool = False) -> list[int]:
    """Return the places of the points that no other point dominates, the cheapest first.

    A point is dominated by one that costs no more and scores no worse, and is better in one of
    the two. Points with NaN take no part; equal points stand or fall together.

    Args:
        costs: less is better, shape [n].
        scores: more is better, shape [n].
        lower: a lower score is the better one.
    """
    sign = -1.0 if lower else 1.0
    known = [i for i in range(len(costs)) if costs[i] == costs[i] and scores[i] == scores[i]]
    known.sort(key=lambda i: (costs[i], -sign * scores[i]))
    kept: list[int] = []
    for place in known:
        if not kept:
            kept.append(place)
            continue
        last = kept[-1]
        better = sign * scores[place] > sign * scores[last]
        same = costs[place] == costs[last] and scores[place] == scores[last]
        if better or same:
            kept.append(place)
    return kept
