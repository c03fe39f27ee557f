"""What the chapter "How far to trust these numbers" says, computed from the records."""

from __future__ import annotations

from results.analysis import warm_up
from results.analysis.exponents import EMPTY_FACTOR
from results.chapters.trust.between_words import between_sentences
from results.chapters.trust.drift import DRIFT_LIMIT, SPREAD_LIMIT, Drift
from results.chapters.trust.rows import RunTrust, Trust
from results.chapters.trust.sampling import TARGET
from results.page.blocks import Paragraph
from results.schema import STOPS
from results.text import numbers

TITLE = "How far to trust these numbers"

_NAMED = 3
"""So many cases a sentence names."""

TARGET_TEXT, LIMIT_TEXT, SPREAD_TEXT, VISIBLE_TEXT = (
    f"{100 * v:g} %" for v in (TARGET, DRIFT_LIMIT, SPREAD_LIMIT, 1 / EMPTY_FACTOR)
)
"""The limits of the chapter as it writes them: of sampling, drift, spread, an empty call."""


def trust_paragraphs(trust: Trust) -> list[Paragraph]:
    """Return what the chapter says: of all runs what holds for each of them, then run by run."""
    said = {run.name: _sentences(run) for run in trust.runs}
    between = between_sentences(trust.between)
    if len(said) == 1:
        return [
            Paragraph(_headed(name), [*told, *between])
            for name, told in said.items()
            if told or between
        ]
    first = next(iter(said.values()), [])
    shared = [s for s in first if all(s in told for told in said.values())]
    found = [Paragraph("All runs", [*shared, *between])]
    for name, told in said.items():
        found.append(Paragraph(_headed(name), [s for s in told if s not in shared]))
    return [p for p in found if p.sentences]


def _headed(name: str) -> str:
    return f"{name[:1].upper()}{name[1:]}"


def _sentences(run: RunTrust) -> list[str]:
    return [
        *run.disturbances,
        *_drift(run),
        *_conditions(run),
        *_launches(run),
        *_sampling(run),
        *_outliers(run),
        *_harness(run),
        *_predictions(run),
    ]


def _drift(run: RunTrust) -> list[str]:
    """Say what the sentinels tell that no disturbance is."""
    if not run.drifts:
        return ["No control benchmark was run: whether the machine's speed changed is unknown."]
    return [_kept(drift) for drift in run.drifts if not drift.is_disturbed]


def _kept(drift: Drift) -> str:
    if not len(drift.seconds):
        return (
            "Whether the machine's speed changed is unknown (control benchmark, "
            f"{drift.name}): {drift.reason}."
        )
    limits = f" (limits: spread {SPREAD_TEXT}, drift {LIMIT_TEXT})"
    return f"{_headed(drift.told)}{'' if drift.reason else limits}."


def _conditions(run: RunTrust) -> list[str]:
    """Say what else went on that is no disturbance; that there was none, only where it is so."""
    known = run.conditions
    if not known.launches:
        return ["Load, clock and throttling of the machine were not recorded."]
    if slight := known.slight():
        return slight
    if run.disturbances:
        return []
    return [
        f"No disturbance in the {known.launches:,} "
        f"process{'es' if known.launches != 1 else ''} whose conditions were recorded."
    ]


def _launches(run: RunTrust) -> list[str]:
    between, within = run.sampling.between, run.sampling.within
    if not run.sampling.arms:
        return []
    if not between.num_values:
        return ["Each case was measured in one process: how far processes differ is unknown."]
    inside = (
        "; within a process, the interquartile range of the samples is "
        f"{numbers.percent(within.median)} (median)"
        if within.num_values
        else ""
    )
    return [
        f"Processes of a case differ by {numbers.percent(between.median)} (median of "
        f"{between.num_values:,} cases; at most {numbers.percent(between.high)}, in "
        f"{between.where}){inside}."
    ]


def _sampling(run: RunTrust) -> list[str]:
    told, said = run.sampling, []
    if run.has_stops:
        known = sum(told.stopped[w] for w in STOPS)
        said.append(
            f"{share(told.stopped['spread'], known)} of the measurements were sampled until "
            f"their median was known to ±{TARGET_TEXT}, "
            f"{share(told.stopped['budget'], known)} until their time ran out."
        )
    if told.not_converged:
        said.append(warm_up.sentence(told.not_converged, told.warm_ups))
    width = told.half_width
    if width.num_values and width.high > TARGET:
        said.append(
            f"The least certain median of a process is known to ±{numbers.percent(width.high)} "
            f"({width.where})."
        )
    return said


def _outliers(run: RunTrust) -> list[str]:
    table = run.sampling.outliers
    looked, samples = int(table["looked"].sum()), int(table["samples"].sum())
    if not looked:
        return []
    low, high = (
        int(table[[f"{side}_mild", f"{side}_severe"]].to_numpy().sum()) for side in ("low", "high")
    )
    if not low + high:
        return [f"None of {samples:,} samples is an outlier."]
    return [
        f"{share(low + high, samples)} of {samples:,} samples are outliers, {low:,} low and "
        f"{high:,} high; none was dropped."
    ]


def _harness(run: RunTrust) -> list[str]:
    said = []
    for cost in run.harness:
        if not cost.small:
            continue
        more = len(cost.small) - _NAMED
        named = [*cost.small[:_NAMED], *([f"{more:,} more"] if more > 0 else [])]
        said.append(
            f"Overhead of measuring: an empty call takes {numbers.seconds(cost.empty)} "
            f"({cost.name}), more than {VISIBLE_TEXT} of the time of {'; '.join(named)}."
        )
    if run.harness and not said:
        largest = max(cost.share.high for cost in run.harness)
        said.append(
            "The overhead of measuring is negligible: an empty call takes at most "
            f"{tiny_share(largest)} of any case's time."
        )
    return said


def _predictions(run: RunTrust) -> list[str]:
    told, said = run.predictions, []
    for what, ratio in (("Latency", told.latency), ("Memory", told.memory)):
        if ratio.num_values:
            said.append(
                f"{what} was {numbers.times(ratio.median)} the prediction (median of "
                f"{ratio.num_values:,} cases; range {numbers.times(ratio.low)} to "
                f"{numbers.times(ratio.high)})."
            )
    if told.not_run:
        said.append(
            f"{told.not_run:,} process{'es were' if told.not_run != 1 else ' was'} not started: "
            "the prediction exceeded memory or time."
        )
    return said


def share(part: int, whole: int) -> str:
    """Write a part of a whole: 12 %; 0 % for nothing of something."""
    return numbers.percent(part / whole) if part and whole else "0 %" if whole else numbers.NONE


def tiny_share(value: float) -> str:
    """Write a share that may be next to nothing."""
    return "0.1 %" if value < 0.001 else numbers.percent(value)
