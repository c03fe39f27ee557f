"""The page's question "which attention?": every answer that a run's records give, made beforehand.

One answer is a ranking of `recommendation.ranked`, at a length that was measured or in the middle
between two that were; the page's script only looks it up, so that it says what
``attnbench recommend`` says.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.analysis.warm_up import WORDS, marked
from results.page.blocks import Cell, TableView
from results.page.columns import Columns, table
from results.recommendation import question
from results.recommendation.interpolation import Reading
from results.recommendation.question import error_digits
from results.recommendation.ranking import Candidate, Ranking, relative_time
from results.recommendation.recommend import settings
from results.recommendation.snippet import python_lines
from results.records.load import Run
from results.schema import IDENTITY, MODES
from results.statistics.intervals import Estimate
from results.text import numbers
from results.text.clean import clean
from results.text.settings import in_words, machine_name, names_precision

NEIGHBOURS = 2.5
"""Two measured lengths within this factor have one length in the middle that can be asked for."""

MOST_SETTINGS = 12
"""Settings of a device, a mode and a causality that the page answers for, the best covered."""

_EVERY = "every one measured"


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
            seq_len=seq_len, mode=mode, device=device, is_causal=is_causal, max_error=None,
            min_recall=None, max_memory=None, error_inputs=None, recall_task=None, setting={},
        )  # fmt: skip

    every = settings(points, run.frame, asked(1))
    kept = sorted(every, key=lambda s: -len(s.lengths) * len(s.series))[:MOST_SETTINGS]
    precise = names_precision(s.values for s in kept)
    return [
        Group(
            device, mode, is_causal, _words(run, setting.values, precise),
            tuple(setting.ranking(asked(n)) for n in _lengths(setting.lengths)),
        )
        for setting in kept
        if setting.lengths
    ]  # fmt: skip


def _words(run: Run, setting: Mapping[str, Any], precise: bool) -> str:
    machine = machine_name(run.machines.get(setting["machine"], {}))
    return ": ".join(part for part in (machine, in_words(setting, with_precision=precise)) if part)


def _lengths(measured: Iterable[int]) -> list[int]:
    """Return the measured lengths, and one in the middle of each two neighbours."""
    ends = sorted({int(n) for n in measured})
    between = [
        round(math.sqrt(a * b) / 2) * 2 if b != 2 * a else 3 * a // 2
        for a, b in itertools.pairwise(ends)
        if 1.2 < b / a <= NEIGHBOURS
    ]
    return sorted({*ends, *between})


# -- for the page's script -----------------------------------------------------------------------


def as_data(found: Sequence[Group]) -> dict[str, Any]:
    """Return the answers as the page's script reads them.

    The programs that use a candidate stand once each in ``texts``, and a candidate has the place.
    """
    texts: dict[str, int] = {}
    listed = [
        {
            "device": group.device, "mode": group.mode, "causal": group.is_causal,
            "setting": group.setting,
            "answers": [_answer(ranking, texts) for ranking in group.rankings],
        }
        for group in found
    ]  # fmt: skip
    return {"groups": listed, "texts": list(texts)}


def _answer(ranking: Ranking, texts: dict[str, int]) -> dict[str, Any]:
    asked, good = ranking.question, ranking.qualified
    return {
        "tokens": asked.seq_len,
        "measured": asked.seq_len in ranking.lengths,
        "qualified": [
            {
                **_candidate(candidate),
                "alike": [c.label for c in good[:place] if _alike(candidate, c)],
                "python": texts.setdefault(_python(candidate, ranking), len(texts)),
            }
            for place, candidate in enumerate(good)
        ],
        "rejected": [
            {"label": clean(c.label), "why": clean("; ".join(c.reasons.values()))}
            for c in ranking.rejected
        ],
    }


def _python(candidate: Candidate, ranking: Ranking) -> str:
    return python_lines(
        candidate.backend, candidate.options, setting=ranking.setting,
        mode=ranking.question.mode, seq_len=ranking.question.seq_len,
    )  # fmt: skip


def _alike(candidate: Candidate, faster: Candidate) -> bool:
    """Whether a candidate may be as fast as one before it."""
    times = relative_time(candidate, faster)
    return not (times.has_interval and not times.low <= 1.0 <= times.high)


def _candidate(candidate: Candidate) -> dict[str, Any]:
    error, times = candidate.error, candidate.times
    first = times == Estimate(1.0, 1.0, 1.0)
    return {
        "label": clean(candidate.label),
        "time": _time(candidate),
        "between": _interval(candidate.latency),
        "times": "1 ×" if first else f"{numbers.ratio_digits(times.value)} ×",
        "times_between": "" if first else numbers.interval(
            times.low, times.high, numbers.ratio_digits
        ).strip("()"),
        "memory": numbers.size(candidate.memory.value),
        "error": error_digits(error.value) if error.known else numbers.NONE,
        "error_most": error.greatest if error.known else None,
        "remark": clean(_remark(candidate)),
    }  # fmt: skip


def _interval(reading: Reading) -> str:
    return numbers.interval(reading.low, reading.high, numbers.seconds).strip("()")


def _remark(candidate: Candidate) -> str:
    latency = candidate.latency
    between = latency.between
    interpolated = f"between {between[0]:,} and {between[1]:,} tokens" if between else ""
    short = WORDS if candidate.is_cut_short else ""
    return "; ".join(part for part in (interpolated, latency.note, short) if part)


def _time(candidate: Candidate) -> str:
    told = {"converged": candidate.latency.converged}
    return marked(numbers.seconds(candidate.latency.value), told)


# -- without scripts -----------------------------------------------------------------------------


def tables(found: Sequence[Group]) -> list[TableView]:
    """Return the fastest at each measured length, a table a setting and causality."""
    by_setting: dict[str, list[Group]] = {}
    for group in found:
        by_setting.setdefault(group.setting, []).append(group)
    return [_table(setting, own) for setting, own in by_setting.items()]


def _table(setting: str, of_setting: Sequence[Group]) -> TableView:
    rows = [
        (ranking, ranking.winner)
        for group in of_setting
        for ranking in group.rankings
        if ranking.question.seq_len in ranking.lengths and ranking.winner is not None
    ]
    columns: Columns[tuple[Ranking, Candidate]] = {
        "mode": lambda row: row[0].question.mode,
        "tokens": lambda row: numbers.tokens(row[0].question.seq_len),
        "fastest": lambda row: row[1].label,
        "time": lambda row: Cell(_time(row[1]), _interval(row[1].latency)),
        "not surely slower": lambda row: _not_slower(row[0]),
    }
    return table(f"The fastest at each length: {setting}", rows, columns)


def _not_slower(ranking: Ranking) -> str:
    alike = [
        marked(c.label, {"converged": c.latency.converged}) for c in ranking.not_told_apart
    ]  # fmt: skip
    if len(alike) > 1 and len(alike) == len(ranking.qualified) - 1:
        return _EVERY
    return ", ".join(alike) or numbers.NONE
