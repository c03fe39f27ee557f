"""What a case will take, foretold from its declared cost and from the shorter lengths.

No torch here. A prediction only ever keeps a case from being started; it is never a result.

Predictions are held against what the cases then took: a series that grew faster than declared is
expected to go on so. One that grew slower is not: where the longer lengths leave the caches, or
their fixed costs behind, they grow as declared.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from results.schema import Case
from suites.engine.declared import (
    LIKE,
    Declared,
    inputs_bytes,
    likenesses,
    needed_calls,
    operations,
    setting_of,
)
from suites.engine.growth import LEAST_RATIO, Excess, Seen, exponent_of, scaled
from suites.plan import Item, series_id
from suites.registry import rules_of
from suites.words import size

APART_FROM_FEEDING_S = 2.0
"""Seconds of a launch in mode decode that no context lengthens, at most."""


class History:
    """What the launches so far say about those to come."""

    def __init__(self, declared: Mapping[str, Declared]) -> None:
        """Begin with nothing seen; `declared` is what preflight told, by case id."""
        self._declared = declared
        self._series: dict[str, list[Seen]] = defaultdict(list)
        self._excess: dict[str, Excess] = defaultdict(Excess)
        self._walls: dict[str, list[float]] = defaultdict(list)
        self._cases: dict[str, Case] = {}  # one for all launches of it
        self._roofs: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record into account: of this sweep, or one that the journal holds already."""
        if record["status"] in ("not_run", "unsupported"):
            return
        case = Case.from_json(record["case"])
        case = self._cases.setdefault(case.id, case)
        wall = float(record["launch"].get("wall_s") or 0.0)
        self._walls[case.id].append(wall)
        foretold_by = rules_of(case.kind).foretold_by
        if foretold_by == "nothing":
            self._add_roof(case, record)
            return
        if foretold_by == "likes":
            for likeness in likenesses(case):
                self._walls[likeness].append(wall)
            return
        seen = Seen.from_record(case, record)
        self._compare(seen)
        self._series[series_id(case)].append(seen)

    def _compare(self, seen: Seen) -> None:
        """Hold what a case took against what the longest shorter length foretold of it.

        Another launch of the same length says nothing about growth.
        """
        case, excess = seen.case, self._excess[series_id(seen.case)]
        shorter = [s for s in self._measured(case) if s.case.seq_len < case.seq_len]
        if seen.status != "ok" or not shorter:
            return
        base, declared = shorter[-1], self._declaration(case)
        ratio = case.seq_len / base.case.seq_len
        if ratio < LEAST_RATIO:
            return
        if seen.latency_s and base.latency_s:
            foretold = base.latency_s * self._work_ratio(base.case, case)
            excess.latency = exponent_of(seen.latency_s / foretold, ratio)
        if seen.peak_bytes and base.peak_bytes:
            foretold = base.peak_bytes * ratio**declared.memory_exponent
            excess.peak_memory = exponent_of(seen.peak_bytes / foretold, ratio)

    def _add_roof(self, case: Case, record: Mapping[str, Any]) -> None:
        best = self._roofs[setting_of(case)]
        for arm in record["arms"]:
            for name in ("matmul_rate", "exp_rate"):
                rates = arm["metrics"].get(name, {}).get("samples") or [0.0]
                best[name] = max(best.get(name, 0.0), *rates)

    def foretold(self, case: Case) -> dict[str, float | int | None]:
        """Return the record's ``launch.predicted``, each from the measured lengths or ``None``.

        Keys: ``latency``, seconds of one call of all arms together, and ``peak_memory``, bytes of
        the arm that takes most (in mode decode those of its state).
        """
        measured = rules_of(case.kind).foretold_by == "length" and self._measured(case)
        latency = self._scaled_latency(case) if measured else None
        peak = self._scaled_peak(case) if measured else None
        return {
            "latency": float(f"{latency[0]:.4g}") if latency else None,
            "peak_memory": round(peak[0]) if peak else None,
        }

    # -- not to be started -----------------------------------------------------------------------

    def objection(self, case: Case, *, timeout_s: float, free_bytes: int | None) -> str | None:
        """Say why a case should not be started; ``None`` = start it.

        Args:
            case: what comes next.
            timeout_s: the longest that a launch may take.
            free_bytes: memory that a case may have; ``None`` = unknown.
        """
        if rules_of(case.kind).foretold_by != "length":
            return None
        return (
            self._ended_before(case, timeout_s, free_bytes)
            or self._too_slow(case, timeout_s)
            or self._too_large(case, free_bytes)
        )

    def _ended_before(self, case: Case, timeout_s: float, free: int | None) -> str | None:
        """Say that this length, or a shorter one, already took too much time or memory."""
        for seen in self._series[series_id(case)]:
            if seen.case.seq_len > case.seq_len:
                continue
            where = f"at length {seen.case.seq_len} (process {seen.launch})"
            if seen.status == "timeout" and seen.wall_s >= timeout_s:
                return f"timed out {where}: {seen.reason}"
            killed = seen.status == "crashed" and "out-of-memory" in seen.reason
            if seen.status == "out_of_memory" or killed:
                room = "" if free is None else f"; {size(free)} are free now"
                return f"out of memory {where}: {seen.reason}{room}"
        return None

    def _too_slow(self, case: Case, timeout_s: float) -> str | None:
        if case.mode == "decode":
            return self._too_long_a_context(case, timeout_s)
        predicted = self.latency(case)
        if predicted is None:
            return None
        seconds, source = predicted
        calls = needed_calls(case)
        needed = calls * seconds
        if needed <= timeout_s:
            return None
        return (
            f"predicted {seconds:.3g} s per call ({source}), {needed:.3g} s for the "
            f"{calls} calls of a measurement; the limit is {timeout_s:g} s (--case-timeout)"
        )

    def _too_long_a_context(self, case: Case, timeout_s: float) -> str | None:
        """Say that a context takes too long to be fed: a step's growth, over all its tokens."""
        shorter = [s for s in self._measured(case) if s.case.seq_len < case.seq_len]
        if not shorter:
            return None
        base = shorter[-1]
        exponent = 1 + self._declaration(case).time_exponent
        fed = max(0.0, base.wall_s - APART_FROM_FEEDING_S)
        needed = fed * (case.seq_len / base.case.seq_len) ** exponent
        if needed <= timeout_s:
            return None
        return (
            f"predicted {needed:.3g} s to fill the context (from length {base.case.seq_len}); the "
            f"limit is {timeout_s:g} s (--case-timeout)"
        )

    def _too_large(self, case: Case, free_bytes: int | None) -> str | None:
        if free_bytes is None:
            return None
        inputs = inputs_bytes(case)
        peak, source = self._scaled_peak(case) or (0.0, "inputs only")
        if inputs + peak <= free_bytes:
            return None
        return f"predicted {size(inputs + peak)} of memory ({source}); {size(free_bytes)} are free"

    # -- how long it takes -----------------------------------------------------------------------

    def latency(self, case: Case) -> tuple[float, str] | None:
        """Predict the seconds of one call of all arms, and say from what; ``None`` = unknown.

        With shorter lengths measured, the longest of them is scaled by the declared operations,
        and by how much faster than those the series last grew.
        Else the declared operations at the machine's peak rates are a lower bound.
        """
        if found := self._scaled_latency(case):
            return found
        rates = self._roofs.get(setting_of(case), {})
        costs = [cost for cost in self._declaration(case).costs if cost is not None]
        if not costs or not all(rates.get(name) for name in ("matmul_rate", "exp_rate")):
            return None
        products = sum(c["executed_ops"] for c in costs) / rates["matmul_rate"]
        exponentials = sum(c["exponentials"] for c in costs) / rates["exp_rate"]
        parts = (products, exponentials)
        bound = max(parts) if case.device == "cuda" else sum(parts)
        return bound, "lower bound, from declared FLOPs and the machine's peak rates"

    def _scaled_latency(self, case: Case) -> tuple[float, str] | None:
        """Predict the seconds of one call from the longest length measured, and say from which."""
        measured = [s for s in self._measured(case) if s.latency_s]
        if not measured:
            return None
        base = measured[-1]
        grown = self._work_ratio(base.case, case)
        return scaled(
            base.latency_s or 0.0, grown, base, case, self._excess[series_id(case)].latency
        )

    def _scaled_peak(self, case: Case) -> tuple[float, str] | None:
        """Predict the bytes of a call from the longest length measured, and say from which."""
        measured = [s for s in self._measured(case) if s.peak_bytes]
        if not measured:
            return None
        base = measured[-1]
        ratio = case.seq_len / base.case.seq_len
        grown = ratio ** self._declaration(case).memory_exponent
        return scaled(
            base.peak_bytes or 0, grown, base, case, self._excess[series_id(case)].peak_memory
        )

    def wall(self, case: Case) -> float | None:
        """Estimate the seconds of a whole launch, ``None`` if nothing like it was seen."""
        walls = self._walls.get(case.id)
        if walls:
            return walls[-1]
        if rules_of(case.kind).foretold_by == "likes":
            alike = (self._walls[like] for like in likenesses(case) if like in self._walls)
            return next((fmean(walls) for walls in alike), None)
        measured = [s for s in self._measured(case) if s.latency_s]
        if measured and (predicted := self.latency(case)):
            base = measured[-1]
            more = max(0.0, predicted[0] - (base.latency_s or 0.0))
            return base.wall_s + needed_calls(case) * more
        return None

    def remaining(
        self,
        items: Sequence[Item],
        *,
        timeout_s: float = math.inf,
        free_bytes: int | None = None,
        foretelling: bool = True,
    ) -> float | None:
        """Estimate the seconds that `items` will take, ``None`` while nothing is known.

        Args:
            items: what is to come.
            timeout_s: the longest that a launch may take.
            free_bytes: memory that a case may have; ``None`` = unknown.
            foretelling: what there is an `objection` to will not be started.
        """
        seen = [walls[-1] for key, walls in self._walls.items() if not key.startswith(LIKE)]
        if not seen:
            return None
        usual, taken = fmean(seen), dict[str, float]()
        for case, _ in items:
            if case.id in taken:
                continue
            is_started = not self._declaration(case).unsupported and not (
                foretelling and self.objection(case, timeout_s=timeout_s, free_bytes=free_bytes)
            )
            wall = self.wall(case) or usual
            taken[case.id] = min(wall, timeout_s) if is_started else 0.0
        return sum(taken[case.id] for case, _ in items)

    def _measured(self, case: Case) -> list[Seen]:
        """Return the measured launches of the series up to this length, lengths rising."""
        launches = [
            s
            for s in self._series[series_id(case)]
            if s.status == "ok" and s.case.seq_len <= case.seq_len
        ]
        return sorted(launches, key=lambda s: s.case.seq_len)

    def _declaration(self, case: Case) -> Declared:
        return self._declared.get(case.id, Declared())

    def _work_ratio(self, shorter: Case, longer: Case) -> float:
        """Return how much more `longer` has to do, by the declared operations or exponent."""
        before, after = (operations(self._declaration(c).costs) for c in (shorter, longer))
        if before and after:
            return after / before
        exponent = self._declaration(longer).time_exponent
        return float((longer.seq_len / shorter.seq_len) ** exponent)
