"""Where the first screen's numbers come from, in one line, and whether the machine was quiet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from results.analysis.analysis import SettingAnalysis
from results.records.case_columns import RUN, SETTING
from results.records.load import Run, days_of
from results.text import numbers
from results.text.clean import clean
from results.text.settings import differing, machine_name, names_precision

_LONGEST_COMMAND = 160


def of_setting(setting: SettingAnalysis, modes: Sequence[str]) -> list[str]:
    """Return what a setting was measured on, part by part."""
    run, values = setting.analysis.run, setting.setting
    frame = run.of("speed")
    frame = frame[(frame["machine"] == values["machine"])
                  & (frame["environment"] == values["environment"])]  # fmt: skip
    words = differing(values, _told(values))
    own = setting.points[setting.points["metric"] == "latency"]
    counts = sorted({len(launches) for launches in own["launches"] if len(launches)})
    return [
        *_machine(run, str(values["machine"]), str(values["environment"])),
        words, ", ".join(modes), _processes(counts), *_when(frame), *_commands(run),
    ]  # fmt: skip


def of_run(run: Run) -> list[str]:
    """Return what a run without timed calls was measured on, part by part."""
    frame = run.frame
    places = frame[["machine", "environment"]].drop_duplicates().itertuples(index=False)
    parts = [part for place in places for part in _machine(run, *map(str, place))]
    return [*dict.fromkeys(parts), *_when(frame), *_commands(run)]


def _told(setting: Mapping[str, Any]) -> list[str]:
    """Return the columns of a setting that the line names: what is usual is left out."""
    usual = {*RUN} | ({"level", "device"} if setting["level"] == "attention" else set())
    if setting["allocator"] == "default":
        usual.add("allocator")
    if not names_precision([setting]):
        usual.add("matmul_precision")
    return [column for column in SETTING if column not in usual]


def _machine(run: Run, machine: str, environment: str) -> list[str]:
    about, versions = run.machines.get(machine, {}), run.environments.get(environment, {})
    name = machine_name(about) or "a machine that is not described"
    cores = about.get("cores")
    told = f", {cores} cores" if isinstance(cores, int) else ""
    parts = [f"{'GPU' if about.get('gpu') else 'CPU'} {name}{told}"]
    parts += [
        f"{what} {clean(versions[what])}" for what in ("attnbench", "torch") if versions.get(what)
    ]
    return parts


def _processes(counts: Sequence[int]) -> str:
    if not counts:
        return ""
    low, high = counts[0], counts[-1]
    many = f"{low}" if low == high else f"{low}–{high}"
    return f"{many} process{'es' if high != 1 else ''} per point"


def _when(frame: pd.DataFrame) -> list[str]:
    versions = [f"version {v}" for v in frame["version"].unique() if v]
    return [*filter(None, [days_of(frame)]), *versions]


def _commands(run: Run) -> list[str]:
    told = list(dict.fromkeys(" ".join(one.command) for one in run.begun if one.command))
    return [numbers.few([clean(t)[:_LONGEST_COMMAND] for t in told], 2)] if told else []
