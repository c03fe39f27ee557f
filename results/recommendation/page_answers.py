"""The page's *your case*: both answers at every length, as texts that its script only picks from.

One point of the grid is a ranking of `recommendation.ranked`, so that the page says what
``attnbench recommend`` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.page.blocks import TableView
from results.page.columns import Columns, table
from results.recommendation import question
from results.recommendation.prediction import REACH
from results.recommendation.ranking import Candidate, Ranking
from results.recommendation.ranking_text import (
    NOT_FASTER,
    is_faster,
    latency_text,
    memory_text,
    speedup_text,
)
from results.recommendation.recommend import evidences, settings
from results.records.load import Run
from results.schema import IDENTITY, MODES
from results.text import numbers
from results.text.clean import clean
from results.text.settings import in_short, machine_name, names_precision

PER_DOUBLING = 8
"""Lengths of the grid from one to twice as many tokens."""

MOST_SETTINGS = 12
"""Settings of a device, a mode and a causality that the page answers for, the best covered."""


@dataclass(frozen=True)
class Group:
    """The answers of one setting in one mode, by length."""

    device: str
    mode: str
    is_causal: bool
    setting: str
    rankings: tuple[Ranking, ...]


def groups(run: Run, points: pd.DataFrame) -> list[Group]:
    """Return the answers of a run, a group a setting and mode; empty without speed records.

    Args:
        run: what was loaded.
        points: its `series.points`.
    """
    points = points[
        (points["level"] == "attention") & (points["cross_len"] == 0)
        & (points["backend"] != IDENTITY)
    ]  # fmt: skip
    found: list[Group] = []
    for (device, is_causal), part in points.groupby(["device", "is_causal"], sort=False):
        for mode in (m for m in MODES if (part["mode"] == m).any()):
            found += _of_mode(run, part, str(device), mode, bool(is_causal))
    order = {"cpu": 1}  # a GPU first, where there is one
    return sorted(found, key=lambda g: (order.get(g.device, 0), MODES.index(g.mode), g.is_causal))


def _of_mode(
    run: Run, points: pd.DataFrame, device: str, mode: str, is_causal: bool
) -> list[Group]:
    def asked(seq_len: int) -> question.Question:
        return question.checked(
            seq_len=seq_len, mode=mode, use=None, device=device, is_causal=is_causal,
            max_error=None, min_recall=None, max_memory=None, error_inputs=None, recall_task=None,
            setting={},
        )  # fmt: skip

    evidence = evidences(run.frame, asked(1), shipped=True)
    every = settings(points, evidence, asked(1))
    kept = sorted(every, key=lambda s: -len(s.lengths) * len(s.series))[:MOST_SETTINGS]
    precise = names_precision(s.values for s in kept)
    return [
        Group(
            device, mode, is_causal, _words(run, setting.values, precise),
            tuple(setting.ranking(asked(n)) for n in grid(setting.lengths)),
        )
        for setting in kept
        if setting.lengths
    ]  # fmt: skip


def _words(run: Run, setting: Mapping[str, Any], precise: bool) -> str:
    machine = machine_name(run.machines.get(setting["machine"], {}))
    return ": ".join(part for part in (machine, in_short(setting, with_precision=precise)) if part)


def grid(measured: Iterable[int]) -> list[int]:
    """Return the lengths that can be asked for: those measured, round ones, a little beyond."""
    ends = sorted({int(n) for n in measured})
    first, last = max(1.0, ends[0] / REACH), ends[-1] * REACH
    steps = round(PER_DOUBLING * math.log2(last / first))
    between = (first * 2 ** (i / PER_DOUBLING) for i in range(1, steps))
    near = (round(n, 1 - math.floor(math.log10(n))) for n in between)  # two digits
    return sorted({*ends, round(first), round(last), *map(round, near)})


# -- for the page's script -----------------------------------------------------------------------


def as_data(found: Sequence[Group]) -> dict[str, Any]:
    """Return the answers as the page's script reads them.

    ``modes``: one a group, with ``mode``, ``device``, ``causal``, ``setting`` (in words) and
    ``points``, by length ``n``, each with its ``candidates``, and with what is said where none of
    a kind fits, ``exact`` and ``other``. The script shows the first that is
    exact, and the first of the others, that has the use and fits the memory; what can be neither
    is left out. A candidate without uses is one whose quality was not measured.
    """
    return {
        "modes": [
            {
                "mode": group.mode, "device": group.device, "causal": group.is_causal,
                "setting": group.setting,
                "points": [
                    {
                        "n": ranking.question.seq_len,
                        "exact": _lacking(ranking, is_exact=True),
                        "other": _lacking(ranking, is_exact=False),
                        "candidates": [_candidate(c, ranking) for c in _shown(ranking)],
                    }
                    for ranking in group.rankings
                ],
            }
            for group in found
        ]
    }  # fmt: skip


def _shown(ranking: Ranking) -> list[Candidate]:
    """Return the candidates that may be shown for some use and memory limit, as they are picked.

    That is by time, but the exact answer comes before those that it is statistically tied with,
    and what has no use, for its quality was not measured, after all that have one.
    """
    kept: list[Candidate] = []
    first = [] if ranking.exact is None else [ranking.exact]
    for one in (*first, *(c for c in ranking.candidates if c is not ranking.exact)):
        wanted = _uses(one) or one.is_untested
        if one.latency.known and wanted and not any(_is_beaten(one, c) for c in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: not _uses(one))


def _lacking(ranking: Ranking, *, is_exact: bool) -> str:
    """Say why there may be no answer of a kind; "" where nothing is to be said."""
    timed = [c for c in ranking.candidates if c.is_exact == is_exact and c.latency.known]
    if not timed:
        kind = "exact method" if is_exact else "method that computes something else"
        return f"no {kind} was measured here" + ("; measure it with --backend sdpa" * is_exact)
    poor = [clean(c.label) for c in timed if c.quality.verdict == "poor"]
    return f"known to learn far less: {numbers.few(poor)}" if poor else ""


def _uses(one: Candidate) -> list[str]:
    return [use for use, why in one.uses.items() if not why]


def _is_beaten(one: Candidate, faster: Candidate) -> bool:
    """Whether a faster one is shown wherever this one could be."""
    return (
        one.is_exact == faster.is_exact
        and set(_uses(one)) <= set(_uses(faster))
        and faster.memory.known
        and not one.memory.value < faster.memory.value
    )


def _candidate(one: Candidate, ranking: Ranking) -> dict[str, Any]:
    is_baseline = ranking.baseline is not None and one.label == ranking.baseline.label
    return {
        "name": clean(one.backend), "options": clean(one.options), "type": one.type,
        "uses": _uses(one), "seconds": one.latency.value, "time": latency_text(one),
        "memory_bytes": one.memory.greatest if one.memory.known else None,
        "memory": memory_text(one.memory),
        "speedup": "" if is_baseline else speedup_text(one, ranking),
        "warning": "" if one.is_exact or is_faster(one) or ranking.exact is None else NOT_FASTER,
        "quality": one.quality.text, "brief": one.quality.judged, "basis": one.latency.basis,
        "code": ranking.python(one),
    }  # fmt: skip


# -- without scripts -----------------------------------------------------------------------------


def tables(found: Sequence[Group]) -> list[TableView]:
    """Return both answers at each measured length, a table a setting and causality."""
    by_setting: dict[str, list[Group]] = {}
    for group in found:
        by_setting.setdefault(group.setting, []).append(group)
    return [_table(setting, own) for setting, own in by_setting.items()]


def _table(setting: str, of_setting: Sequence[Group]) -> TableView:
    rows = [
        ranking
        for group in of_setting
        for ranking in group.rankings
        if ranking.question.seq_len in ranking.lengths and ranking.answers
    ]
    columns: Columns[Ranking] = {
        "mode": lambda r: r.question.mode,
        "tokens": lambda r: numbers.tokens(r.question.seq_len),
        "fastest exact": lambda r: r.exact.label if r.exact else numbers.NONE,
        "time": lambda r: latency_text(r.exact) if r.exact else numbers.NONE,
        "fastest of the others": lambda r: r.other.label if r.other else numbers.NONE,
        "its time": lambda r: latency_text(r.other) if r.other else numbers.NONE,
        "speed-up": lambda r: speedup_text(r.other, r) if r.other else numbers.NONE,
        "quality": lambda r: r.other.quality.text if r.other else numbers.NONE,
    }
    return table(f"Both answers at each length: {setting}", rows, columns)
