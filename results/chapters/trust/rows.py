"""How far the numbers of a run can be trusted: all that its records say about the measuring.

Everything here is computed from records; a record that lacks a field, as old ones do, takes no
part in what needs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.analysis import warm_up
from results.analysis.analysis import Analysis
from results.analysis.exponents import EMPTY_FACTOR
from results.analysis.roofline import Roofs
from results.chapters.trust.between_launches import STEADY, BetweenLaunches, between_launches
from results.chapters.trust.conditions import Conditions, conditions, launch_name
from results.chapters.trust.drift import Drift, drifts
from results.chapters.trust.sampling import Sampling, latencies, sampling
from results.records.case_columns import PEAK_COLUMNS
from results.records.load import Run
from results.schema import STOPS
from results.statistics.spread import Span, number, span
from results.text.clean import clean
from results.text.settings import differing, machine_name

BIASED = (
    "The control benchmark's time depends on the length of the case that it runs with (by more "
    f"than {STEADY:g} of an exponent): correcting times by it may distort exponents."
)

_KEYS = ("run", "machine", "environment")
_OVERHEAD = PEAK_COLUMNS[2:]
"""What an empty call belongs to, beside machine and environment."""


@dataclass(frozen=True)
class Harness:
    """What measuring itself costs in one setting.

    Attributes:
        name: the setting in words.
        empty: latency of an empty call, in s.
        cases: how many cases and arms have a latency.
        small: names of those whose latency is below `EMPTY_FACTOR` empty calls.
        share: of a case's latency that an empty call takes.
    """

    name: str
    empty: float
    cases: int
    small: tuple[str, ...]
    share: Span


@dataclass(frozen=True)
class Predictions:
    """What the driver predicted of one run's cases, against what they took.

    Only a case's first launch counts: the others are predicted from it.

    Attributes:
        latency: measured over predicted; the worst is the farthest from 1.
        memory: likewise, of the peak.
        not_run: launches that a prediction kept from being started.
    """

    latency: Span
    memory: Span
    not_run: int


@dataclass(frozen=True)
class RunTrust:
    """One run on one machine in one environment.

    Attributes:
        name: the run and, where runs share its id, machine and environment.
        drifts: of each sentinel case.
        harness: of each setting that has an empty call.
        sampling, conditions, predictions: see the classes.
    """

    name: str
    drifts: tuple[Drift, ...]
    harness: tuple[Harness, ...]
    sampling: Sampling
    conditions: Conditions
    predictions: Predictions

    @property
    def disturbances(self) -> tuple[str, ...]:
        """What disturbed the run: the one judgement that every sentence about it rests on."""
        disturbed = (drift.warning for drift in self.drifts if drift.is_disturbed)
        return (*disturbed, *self.conditions.disturbances())

    @property
    def has_stops(self) -> bool:
        """Whether the records say why sampling ended."""
        return any(self.sampling.stopped[word] for word in STOPS)


@dataclass(frozen=True)
class Trust:
    """How far to trust the numbers of one or several runs, in the order of their records.

    Attributes:
        runs: one by one.
        between: how far launches scatter, over all series of all runs.
    """

    runs: tuple[RunTrust, ...]
    between: BetweenLaunches

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be said before any number: disturbances, by run where there are several."""
        several = len(self.runs) > 1
        said = [
            f"{run.name}: {text}" if several else text
            for run in self.runs
            for text in run.disturbances
        ]
        cut = sum(run.sampling.not_converged for run in self.runs)
        known = sum(run.sampling.warm_ups for run in self.runs)
        biased = [BIASED] if self.between.is_biased else []
        return (*said, *biased, *([warm_up.sentence(cut, known)] if cut else []))


def trust(analysis: Analysis) -> Trust:
    """Return how far to trust the numbers of a run, by run, machine and environment."""
    run = analysis.run
    records: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in run.records:
        records.setdefault(tuple(clean(record[k]) for k in _KEYS), []).append(record)
    names = _names(list(records), run)
    found = []
    for key, frame in run.frame.groupby(list(_KEYS), sort=False):
        own = records[tuple(map(str, key))]
        found.append(
            RunTrust(
                name=names[tuple(map(str, key))],
                drifts=drifts(frame),
                harness=_harness(frame, analysis.roofs),
                sampling=sampling(frame),
                conditions=conditions(own, _cores(run.machines.get(str(key[1]), {}))),
                predictions=_predictions(own),
            )
        )
    return Trust(tuple(found), between_launches(analysis.points))


def _cores(about: Mapping[str, Any]) -> int | None:
    cores = about.get("cores")
    return cores if isinstance(cores, int) and not isinstance(cores, bool) else None


def _names(keys: Sequence[tuple[str, ...]], run: Run) -> dict[tuple[str, ...], str]:
    """Return a name a run: its id, with machine and environment where that is not enough."""
    ids = [key[0] for key in keys]
    names = {}
    for key in keys:
        name = f"run {key[0][:60]}"
        if ids.count(key[0]) > 1:
            machine = machine_name(run.machines.get(key[1], {})) or f"machine {key[1][:8]}"
            name = f"{name}, {machine}, environment {key[2][:8]}"
        names[key] = name
    return names


def _harness(frame: pd.DataFrame, roofs: Roofs) -> tuple[Harness, ...]:
    """Return what measuring costs in the settings of one run that have an empty call."""
    rows = latencies(frame)
    varying = [c for c in _OVERHEAD if rows[c].nunique() > 1 and c != "device"]
    found = []
    for _, part in rows.groupby(list(_OVERHEAD), sort=False):
        setting = part.iloc[0]
        empty = roofs.empty_latency(setting)
        if not empty > 0:
            continue
        cases = part.groupby(["case_id", "arm"], sort=False)
        latency, names = cases["value"].median(), list(cases["name"].first())
        small = [n for n, s in zip(names, latency, strict=True) if s < EMPTY_FACTOR * empty]
        where = [str(setting["device"]), differing(setting, varying)]
        found.append(
            Harness(
                name=", ".join(part for part in where if part),
                empty=empty,
                cases=len(names),
                small=tuple(small),
                share=span([empty / s for s in latency], names),
            )
        )
    return tuple(found)


def _predictions(records: Sequence[Mapping[str, Any]]) -> Predictions:
    names, times, peaks = [], [], []
    for record in _first_launches(records):
        told = record["launch"].get("predicted") or {}
        names.append(launch_name(record))
        # What is foretold is a case's: its arms run in turn, and each frees its memory.
        spent = [_median(arm, "latency") for arm in record["arms"]]
        memory = "state_bytes" if record["case"]["mode"] == "decode" else "peak_memory"
        held = [_median(arm, memory) for arm in record["arms"]]
        known = [h for h in held if math.isfinite(h)]
        times.append(_over(sum(spent), told.get("latency")))
        peaks.append(_over(max(known, default=math.nan), told.get("peak_memory")))
    return Predictions(
        latency=span(times, names, _distance(times)),
        memory=span(peaks, names, _distance(peaks)),
        not_run=sum(r["status"] == "not_run" for r in records),
    )


def _first_launches(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the first launch of every case that has one that succeeded."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in sorted(records, key=lambda r: r["launch"]["index"]):
        if record["status"] == "ok":
            found.setdefault(record["case"]["id"], record)
    return list(found.values())


def _over(measured: float, predicted: object) -> float:
    foretold = number(predicted)
    return measured / foretold if measured > 0 and foretold > 0 else math.nan


def _distance(ratios: Sequence[float]) -> list[float]:
    return [abs(math.log(r)) if 0 < r < math.inf else math.nan for r in ratios]


def _median(arm: Mapping[str, Any], name: str) -> float:
    metric = arm["metrics"].get(name)
    if metric is None:
        return math.nan
    return float(np.median(metric.get("samples", [metric.get("value")])))
