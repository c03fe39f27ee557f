"""Machines and environments as asv knows them: by names that may stand in paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.export.asv_history import slug
from results.records.load import Run
from results.schema import content_id, format_option
from results.text import numbers
from results.text.clean import clean


def machines_of(run: Run, frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return each machine as asv knows it, by the records' id: its name says what it is."""
    ids = sorted(frame["machine"].unique())
    described = {machine: _described(run.machines.get(machine, {})) for machine in ids}
    words = {
        machine: slug(d["gpu"] if "gpu" in d else f"{d['cpu']} {d.get('num_cpu', '?')} cores")
        for machine, d in described.items()
    }
    names = list(words.values())
    # The record's own id is a stranger's text: only its hash may name a folder.
    return {
        machine: {
            "machine": name if names.count(name) == 1 else f"{name}-{content_id(machine)[:6]}",
            **described[machine],
        }
        for machine, name in words.items()
    }


def _described(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what is known of a machine, by asv's names where it has one."""
    cores, ram, gpu = about.get("cores"), about.get("ram_bytes"), about.get("gpu_memory_bytes")
    entries = {
        "cpu": about.get("cpu") or "unknown CPU", "num_cpu": cores, "ram": _size(ram),
        "gpu": about.get("gpu"), "gpu_ram": _size(gpu), "os": about.get("os"),
        "arch": about.get("arch"),
    }  # fmt: skip
    return {key: clean(value) for key, value in entries.items() if value}


def _size(value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return numbers.size(float(value)) if number and 0 < value < _LARGEST_MEMORY else None


_LARGEST_MEMORY = 1e18


def versions_of(run: Run, environment: str) -> dict[str, str]:
    """Return what asv draws a curve of its own for; attnbench's version is the commit's."""
    about = run.environments.get(environment, {})
    versions = (about.get(name) or "unknown" for name in ("python", "torch"))
    texts = (bounded(clean(format_option(v))) for v in versions)
    return dict(zip(("python", "torch"), texts, strict=True))


def bounded(text: str) -> str:
    """Return a text that may name a folder of asv's site; cut short, it is still told apart."""
    if len(text.encode()) <= _LONGEST_WORD:
        return text
    return f"{text.encode()[: _LONGEST_WORD - 10].decode(errors='ignore')}~{content_id(text)[:6]}"


_LONGEST_WORD = 150
