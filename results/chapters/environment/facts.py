"""Where the numbers come from: machines, environments, runs and peaks, as names and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from results.analysis.analysis import Analysis
from results.metrics import METRICS, of_role
from results.records.case_columns import PEAK_COLUMNS
from results.records.load import Run
from results.schema import format_option
from results.text import numbers
from results.text.clean import clean
from results.text.settings import names_precision

_LONGEST_NAME, _MOST_FACTS, _MOST_NAMED = 100, 100, 20
"""Of a stranger's description no more is shown."""


class Facts(NamedTuple):
    """A heading with names and values."""

    title: str
    pairs: list[tuple[str, str]]


def provenance(analysis: Analysis) -> list[Facts]:
    """Return machines, environments, runs and peaks as names and values."""
    run, facts = analysis.run, []
    for title, column, known in (
        ("Machine", "machine", run.machines),
        ("Environment", "environment", run.environments),
    ):
        for address in run.frame[column].unique():
            about = known.get(address, {})
            pairs = [
                (clean(k[:_LONGEST_NAME]).replace("_", " "), _fact(k, v))
                for k, v in list(about.items())[:_MOST_FACTS]
            ]
            facts.append(Facts(title, [p for p in pairs if p[1]] or [("id", clean(address))]))
    facts.append(Facts("Run", _run_facts(run)))
    shown = set()
    precise = names_precision(one.setting for one in analysis.settings)
    for one in analysis.settings:
        setting = one.setting
        key = tuple(setting[column] for column in PEAK_COLUMNS)
        if not one.peaks or key in shown:
            continue
        shown.add(key)
        pairs = [
            (METRICS[name].words, f"{numbers.rate(one.peaks[name])}{_per_second(name)}")
            for name in of_role("peak")
            if name in one.peaks
        ]
        if "empty_latency" in one.peaks:
            pairs.append(
                (METRICS["empty_latency"].words, numbers.seconds(one.peaks["empty_latency"]))
            )
        where = f"{setting['device']}, {setting['dtype']}, {setting['threads']} threads, "
        how = f", matmul precision {setting['matmul_precision']}" if precise else ""
        facts.append(
            Facts(f"Measured peaks ({where}{setting['allocator']} allocator{how})", pairs)
        )
    return facts


def _per_second(peak: str) -> str:
    if peak == "exp_rate":  # they are what is counted
        return "/s"
    return METRICS[peak].unit.replace("op/s", "FLOP/s")


def _run_facts(run: Run) -> list[tuple[str, str]]:
    frame = run.frame
    launches = frame.drop_duplicates(["run", "machine", "case_id", "launch"])
    failed = launches[launches["status"] != "ok"]["status"].value_counts()
    started = sorted(s for s in frame["started"].unique() if s)
    pairs = [
        ("runs", _few(frame["run"].unique())),
        ("commits", _few(frame["commit"].unique())),
        ("started", started[0] if started else ""),
        ("cases", f"{frame['case_id'].nunique():,}"),
        ("processes", f"{len(launches):,}"),
        ("not ok", ", ".join(f"{n} {numbers.STATUS_WORDS[s]}" for s, n in failed.items())),
        ("measuring code", f"version {run.records[0]['measurement']}"),
        ("seeds", _few(sorted(frame["seed"].unique()))),
    ]
    return [p for p in pairs if p[1]]


def _few(values: Iterable[object]) -> str:
    """Join what is not empty, the first twenty of it."""
    texts = [text for value in values if (text := str(value))]
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _fact(name: str, value: object) -> str:
    if value is None or value == "":
        return ""
    if str(name).endswith("_bytes") and isinstance(value, int | float):
        return numbers.size(float(value)) if abs(value) < 1e300 else ""
    if isinstance(value, Mapping):  # plug-ins, by what they registered
        return clean(", ".join(f"{k} of {format_option(v)}" for k, v in value.items()))[:600]
    text = " ".join(map(format_option, value)) if isinstance(value, list) else format_option(value)
    return clean(text)[:600]
