"""Settle what two finished runs leave open: pairs of launches, both versions side by side.

After `LOOKS` pairs each the suspects are judged. One that is worse is confirmed and needs no more
pairs; neither does one whose interval ends below the threshold. To look several times is to have
several chances of a false alarm: every look has its share (`SHARES`) of the rate that is allowed,
and within a look the number of suspects is accounted for as in `results.comparison.changes`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from results.comparison.backend_changes import Member, by_pairs
from results.comparison.changes import Change, Comparison
from results.comparison.judging import BROKEN, unresolved
from results.comparison.pairing import Place, Side
from results.comparison.verdicts import verdict_of
from results.statistics.inference import Difference, adjusted, paired
from results.text.clean import clean

LOOKS = (5, 7, 10, 14, 20, 28, 40)
"""Pairs after which the suspects are judged."""

SHARES = (1, 2, 3, 4, 6, 8, 10)
"""What part of the allowed false alarms each look may use: most is left for the later ones, which
see the small changes."""

FALSE_CONFIRMATIONS = 0.05
"""Of the changes that are confirmed, the share that is false on average."""

LONGEST_REASON = 600
"""Characters of why a launch did not end well."""

MOST_FAILURES = 3
"""Pairs that did not end well, after which a suspect is given up."""

FAILS = (*BROKEN, "timeout")
"""Ends of NEW's launches that make a case fail, where BASE's ended well each time: time and again
a timeout is no bad luck."""

MIN_PAIRS, MAX_PAIRS = LOOKS[0], LOOKS[-1]


class Confirmation:
    """The suspects of a comparison, and the pairs of launches that settle them.

    Args:
        comparison: of two finished runs.
        max_pairs: after so many pairs a suspect stays as it is; `MIN_PAIRS` to `MAX_PAIRS`.

    Raises:
        ValueError: if `max_pairs` is outside that, or the suspects are of several machines.
    """

    def __init__(self, comparison: Comparison, *, max_pairs: int = MAX_PAIRS) -> None:
        if not MIN_PAIRS <= max_pairs <= MAX_PAIRS:
            raise ValueError(f"max_pairs: expected {MIN_PAIRS} to {MAX_PAIRS}, got {max_pairs}")
        machines = {change.machine for change in comparison.suspects}
        if len(machines) > 1:
            raise ValueError(
                f"--confirm: the suspects are of {len(machines)} machines; expected runs of one"
            )
        self._comparison = comparison
        self._looks = tuple(look for look in LOOKS if look <= max_pairs)
        self._suspects = {change.key: change for change in comparison.suspects}
        self._pairs: dict[Place, list[tuple[float, float]]] = defaultdict(list)
        self._failures: dict[Place, list[tuple[Side, Side]]] = defaultdict(list)
        self._differences: dict[Place, Difference] = {}
        self._p: dict[Place, float] = dict.fromkeys(self._suspects, math.nan)
        self._settled: dict[Place, Change] = {}
        self._rounds = 0

    @property
    def undecided(self) -> list[str]:
        """The cases that need another pair."""
        left = (key[1] for key in self._suspects if key not in self._settled)
        return list(dict.fromkeys(left))

    def add(self, base: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """Take one pair of records of one case into account; `close_round` judges."""
        case_id = base["case"]["id"]
        for key, suspect in self._suspects.items():
            if key[1] != case_id or key in self._settled:
                continue
            sides = [_side(r, suspect.arm, self._comparison.metric) for r in (base, new)]
            if all(side.launches for side in sides):
                self._pairs[key].append((sides[0].launches[0], sides[1].launches[0]))
            else:
                self._failures[key].append((sides[0], sides[1]))

    def close_round(self) -> None:
        """Judge, if it is time to, what every undecided case has one more pair of."""
        self._rounds += 1
        for key, failures in self._failures.items():
            if key not in self._settled and len(failures) >= MOST_FAILURES:
                self._settled[key] = self._given_up(key, failures)
        if self._rounds not in self._looks:
            return
        share = SHARES[LOOKS.index(self._rounds)] / sum(SHARES[: len(self._looks)])
        looked_at = []
        for key in [k for k in self._suspects if k not in self._settled]:
            if len(self._pairs[key]) < 2:
                continue
            if (change := self._without_a_test(key)) is not None:
                self._settled[key] = change
            else:
                looked_at.append(key)
        for key in looked_at:
            difference = paired(*zip(*self._pairs[key], strict=True))
            self._differences[key] = difference
            self._p[key] = min(1.0, difference.p / share)
        q_values = dict(zip(self._p, adjusted(list(self._p.values())), strict=True))
        is_last = self._rounds == self._looks[-1]
        for key in looked_at:
            change = self._judged(key, q_values[key])
            is_cleared = change.ratio.high < 1 + change.threshold
            if change.verdict == "worse" or is_cleared or is_last:
                self._settled[key] = change
        if is_last:
            for key in self._suspects.keys() - self._settled.keys():
                self._settled[key] = self._given_up(key, self._failures[key])

    def result(self) -> Comparison:
        """Return the comparison with the suspects as the pairs have settled them."""
        measured = [
            (Member(c.machine, c.backend, c.mode, self._differences[c.key]), c.pairs)
            for c in self._settled.values() if c.key in self._differences
        ]  # fmt: skip
        backends = by_pairs(self._comparison.backends, measured, FALSE_CONFIRMATIONS)
        return replace(
            self._comparison,
            backends=tuple(backends),
            changes=tuple(
                self._settled.get(change.key, change) for change in self._comparison.changes
            ),
        )

    def _without_a_test(self, key: Place) -> Change | None:
        """Return a suspect whose pairs have no ratio that says anything, settled; else None."""
        base, new = (tuple(side) for side in zip(*self._pairs[key], strict=True))
        found = unresolved(self._suspects[key], base, new)
        if found is None:
            return None
        return replace(found, base=Side(base), new=Side(new), pairs=len(base))

    def _judged(self, key: Place, q: float) -> Change:
        threshold = self._suspects[key].threshold
        ratio = self._differences[key].ratio
        verdict = verdict_of(ratio, q <= FALSE_CONFIRMATIONS, threshold)
        reason = ""
        if verdict == "inconclusive":
            word = self._comparison.word("worse")
            reason = f"not {word} by {threshold:.0%}" if ratio.high < 1 + threshold else ""
        base, new = (Side(side) for side in zip(*self._pairs[key], strict=True))
        share = FALSE_CONFIRMATIONS / len(self._suspects)
        smallest = self._differences[key].smallest_seen(share)
        return replace(
            self._suspects[key], base=base, new=new, ratio=ratio, p=q, verdict=verdict,
            reason=reason, pairs=len(self._pairs[key]), smallest=max(1 + threshold, smallest),
        )  # fmt: skip

    def _given_up(self, key: Place, failures: list[tuple[Side, Side]]) -> Change:
        """Return a suspect whose pairs did not end well: it fails, if in NEW alone."""
        suspect = replace(self._suspects[key], pairs=len(self._pairs[key]))
        broken = [new for base, new in failures if base.launches and new.status in FAILS]
        if broken and len(broken) == len(failures):
            told = f"{broken[-1].status}: {broken[-1].reason}"
            return replace(suspect, verdict="fails", reason=told)
        ends = [
            f"{name}: {side.status} ({side.reason})"
            for name, side in zip(("base", "new"), failures[-1] if failures else (), strict=False)
            if not side.launches
        ]
        return replace(suspect, verdict="inconclusive", reason="; ".join(ends))


def _side(record: Mapping[str, Any], arm: int, metric: str) -> Side:
    if record["status"] != "ok":
        reason = clean(record["reason"] or "")[:LONGEST_REASON]
        return Side((), str(record["status"]), reason)
    found = record["arms"][arm]["metrics"].get(metric)
    if found is None:
        return Side((), "failed", f"no {metric}")
    return Side((float(median(found.get("samples", [found.get("value")]))),))
