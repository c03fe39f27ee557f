"""What is said of attention, and what a run's records say of it.

A claim is asked several questions, each about one value: one that an experiment found
(`suites.claims`), or a fitted exponent of records of kind speed. A value has an interval, over
seeds and launches, and a range in which the claim holds; a question is answered by where the
interval lies, and the claim by its questions. No verdict is written anywhere: all are computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.analysis.analysis import Analysis
from results.chapters.claims.catalogue import CLAIMS, Claim, Question, Verdict
from results.records.frames import as_rows
from results.records.load import Run
from results.records.versions import one_version
from results.schema import CLAIM
from results.statistics.intervals import Estimate, estimate

PLACE = ("machine", "environment", "device", "dtype", "threads", "allocator")
"""What the values of a verdict have in common."""

CLAIMS_TABLE = ("id", "claim", "verdict", "value", "ci_low", "ci_high", "evidence")
"""The columns of the table `claims`; the value is that of the first question which decided."""


@dataclass(frozen=True)
class Answer:
    """What the records say to a question."""

    question: Question
    verdict: Verdict
    value: Estimate | None
    reason: str = ""


@dataclass(frozen=True)
class Ruling:
    """A claim with its answers."""

    claim: Claim
    verdict: Verdict
    answers: tuple[Answer, ...]
    reason: str = ""

    @property
    def leading(self) -> Answer | None:
        """The first answer that is a ground of the verdict, or the first with a value."""
        grounds = [a for a in self.answers if a.question.decides and a.verdict == self.verdict]
        known = [a for a in (*grounds, *self.answers) if a.value is not None]
        return known[0] if known else None

    @property
    def evidence(self) -> str:
        """The values in a sentence, or why there are none."""
        told = [f"{a.question.says}: {in_words(a.value)}" for a in self.answers if a.value]
        if told:
            return "; ".join(told)
        return self.reason


def in_words(value: Estimate | None) -> str:
    """Write a value with its interval."""
    if value is None:
        return "not measured"
    if not math.isfinite(value.low) or value.low == value.high:
        return _number(value.value)
    return f"{_number(value.value)} ({_number(value.low)} to {_number(value.high)})"


def _number(value: float) -> str:
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e5):
        return f"{value:.1e}"
    return f"{value:.3g}" if size < 1000 else f"{value:,.0f}"


def rulings(analysis: Analysis) -> list[Ruling]:
    """Return every claim with what the run says of it; empty if the run tested none."""
    run = analysis.run
    frame = one_version(run.of(CLAIM))
    if frame.empty:
        return []
    place = frame.groupby(list(PLACE), sort=False).size().idxmax()  # where most was found
    frame, fits = (_at(place, one) for one in (frame, analysis.fits))
    return [_ruling(claim, frame[frame["task"] == claim.id], fits) for claim in CLAIMS]


def _at(place: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a machine in its settings; those of others are never mixed in."""
    for column, value in zip(PLACE, place, strict=True):
        frame = frame[frame[column] == value]
    return frame


def _ruling(claim: Claim, own: pd.DataFrame, fits: pd.DataFrame) -> Ruling:
    answers = tuple(_answer(question, own, fits) for question in claim.questions)
    return Ruling(claim, _verdict(answers), answers, _reason(answers, own))


def _verdict(answers: Sequence[Answer]) -> Verdict:
    given = [a.verdict for a in answers if a.question.decides]
    if "refuted" in given:
        return "refuted"
    if all(verdict == "not_run" for verdict in given):
        return "not_run"
    return "supported" if all(v == "supported" for v in given) else "inconclusive"


def _reason(answers: Sequence[Answer], own: pd.DataFrame) -> str:
    reasons = [*own.loc[own["status"] != "ok", "reason"], *(a.reason for a in answers)]
    found = [reason for reason in dict.fromkeys(reasons) if reason]
    return found[0] if found else "not tested in this run"


def _answer(question: Question, own: pd.DataFrame, fits: pd.DataFrame) -> Answer:
    value, reason = _value(question, own, fits)
    if value is None:
        return Answer(question, "not_run", None, reason)
    return Answer(question, _judged(question, value), value, reason)


def _judged(question: Question, value: Estimate) -> Verdict:
    """Say on which side of the range an interval lies."""
    if not question.decides:
        return "inconclusive"
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return "inconclusive"
    if question.low <= value.low and value.high <= question.high:
        return "supported"
    is_outside = value.high < question.low or value.low > question.high
    return "refuted" if is_outside else "inconclusive"


def _value(
    question: Question, own: pd.DataFrame, fits: pd.DataFrame
) -> tuple[Estimate | None, str]:
    if question.name:
        found = own[(own["status"] == "ok") & (own["metric"] == question.name)]["value"]
        return (estimate(list(found)), "") if len(found) else (None, "")
    rows = fits[
        (fits["backend"] == question.backend) & (fits["options"] == "")
        & (fits["metric"] == question.metric) & (fits["mode"] == "forward")
        & (fits["is_causal"] == question.is_causal) & (fits["level"] == "attention")
    ]  # fmt: skip
    for row in as_rows(rows):
        reason = str(row["reason"])
        if math.isfinite(row["exponent"]):
            return Estimate(row["exponent"], row["ci_low"], row["ci_high"], reason), reason
        return None, reason
    return None, ""


def claims_table(run: Run) -> pd.DataFrame:
    """Return a row per claim, columns `CLAIMS_TABLE`."""
    return pd.DataFrame.from_records(list(_rows(run)), columns=list(CLAIMS_TABLE))


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    for ruling in rulings(Analysis(run)):
        leading = ruling.leading
        value = None if leading is None else leading.value
        yield {
            "id": ruling.claim.id, "claim": ruling.claim.text, "verdict": ruling.verdict,
            "value": math.nan if value is None else value.value,
            "ci_low": math.nan if value is None else value.low,
            "ci_high": math.nan if value is None else value.high,
            "evidence": ruling.evidence,
        }  # fmt: skip


Lines = Mapping[str, Sequence[tuple[float, float]]]


def lines_of(run: Run, claim: str) -> tuple[tuple[str, str], dict[str, list[tuple[float, float]]]]:
    """Return what an experiment's figure shows: its axes, and by label the medians over seeds.

    What a record holds of another form is left out.
    """
    axes = ("", "")
    found: dict[str, dict[float, list[float]]] = {}
    for record in run.records:
        case = record["case"]
        if case["kind"] != CLAIM or case["task"] != claim or record["status"] != "ok":
            continue
        shown: Any = record["arms"][0].get("claim")
        if not isinstance(shown, dict):
            continue
        if _is_axes(shown.get("axes")):
            axes = (str(shown["axes"][0])[:60], str(shown["axes"][1])[:60])
        for label, line in _read_lines(shown.get("lines")):
            for x, y in line:
                found.setdefault(label, {}).setdefault(x, []).append(y)
    medians = {
        label: [(x, float(pd.Series(ys).median())) for x, ys in sorted(at.items())]
        for label, at in found.items()
    }
    return axes, medians


def _is_axes(axes: Any) -> bool:
    return isinstance(axes, list) and len(axes) == 2 and all(isinstance(a, str) for a in axes)


def _read_lines(lines: Any) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    if not isinstance(lines, dict):
        return
    for label, line in list(lines.items())[:12]:
        if isinstance(label, str) and isinstance(line, list):
            yield label[:60], [(p[0], p[1]) for p in line[:200] if _is_point(p)]


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(v, int | float) and math.isfinite(v) for v in point)
    )
