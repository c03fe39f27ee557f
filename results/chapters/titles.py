"""Where a task or an error was measured, in words: titles, leads, and rows for a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from results.records.case_columns import RESOURCES, RUN
from results.records.frames import as_rows
from results.records.load import Run
from results.text import numbers
from results.text.labels import training_name
from results.text.settings import differing, machine_name, names_precision

PLACE = (*RUN, "level", "device", "dtype", *RESOURCES, "checkpointing", "batch")
"""What a setting has beside the task and the model."""


def task_name(setting: Mapping[str, Any]) -> str:
    """Name a task with its form and length."""
    form = "causal" if setting["is_causal"] else "bidirectional"
    return f"{setting['task'] or 'a task'}, {form}, {numbers.tokens(setting['seq_len'])} tokens"


def place_words(setting: Mapping[str, Any]) -> str:
    """Say what of a setting its title leaves out."""
    model = f"Model {setting['model']}; " if setting["model"] else ""
    return f"{model}{differing({**setting, 'model': ''}, named_columns(setting, PLACE))}."


def named_columns(setting: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the columns that a section's lead names: no ids, no precision that is usual."""
    without = {"machine", "environment", "version"}
    if not names_precision([setting]):
        without.add("matmul_precision")
    return [c for c in columns if c not in without]


def titled(
    settings: Sequence[Mapping[str, Any]],
    run: Run,
    columns: Sequence[str],
    name: Callable[[Mapping[str, Any]], str],
) -> list[str]:
    """Return a title a setting: its machine, where there are several, and its name.

    What else differs between settings of one name stands behind it.
    """
    several = len({s["machine"] for s in settings}) > 1
    first = []
    for setting in settings:
        machine = machine_name(run.machines.get(setting["machine"], {})) if several else ""
        first.append(f"{machine}: {name(setting)}" if machine else name(setting))
    titles = []
    for setting, title in zip(settings, first, strict=True):
        alike = [s for s, t in zip(settings, first, strict=True) if t == title]
        beside = [c for c in columns if len({s[c] for s in alike}) > 1]
        own = [training_name(str(setting["training"]))] if "training" in beside else []
        words = differing({"model": "", **setting}, [c for c in beside if c != "training"])
        titles.append(", ".join(part for part in (title, *own, words) if part))
    return titles


def joined(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows of several frames below each other, with these columns of them."""
    rows = [row for part in parts for row in as_rows(part)]
    return pd.DataFrame.from_records(rows, columns=list(columns))
