"""Read run folders into one tidy frame; name the file, line and fault of what cannot be used.

Records are untrusted input: a torn line, a wrong type, a duplicate or a record of another version
costs that line, never the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from results.form import Id, checked
from results.records.json_lines import MOST_FAULTS, Line, json_lines, open_regular, short
from results.records.plans import Begun, Unfinished, begun, plans_of, unfinished
from results.records.tidy import tidy
from results.records.validation import drop_faults
from results.records.versions import one_measurement, versions
from results.schema import (
    ENVIRONMENTS,
    MACHINES,
    RECORDS,
    RecordError,
    check_record,
    content_id,
)
from results.text import numbers
from results.text.clean import clean
from results.text.settings import machine_name

_MOST_NAMED = 10

OF_COMMITS = "the results are of several commits"
"""How the remark begins that says so."""


class NoRunError(ValueError):
    """The folder holds no run, or none of its records can be read."""


@dataclass(frozen=True)
class Run:
    """One or several run folders, read.

    Attributes:
        frame: the tidy frame, columns `COLUMNS`.
        records: the records used, as they stood in the files; profiles, conditions and
            predictions that cannot be read are left out of them.
        machines: content id to what the machine is.
        environments: content id to versions and settings.
        warnings: what was left out or mended, one sentence each.
        folders: where it came from.
        unfinished: the runs that lack launches they were to have.
        begun: how the runs began, as far as they say.
    """

    frame: pd.DataFrame
    records: tuple[dict[str, Any], ...]
    machines: Mapping[str, Mapping[str, Any]]
    environments: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()
    folders: tuple[Path, ...] = field(default=())
    unfinished: tuple[Unfinished, ...] = field(default=())
    begun: tuple[Begun, ...] = field(default=())

    def of(self, *kinds: str) -> pd.DataFrame:
        """Return the rows of the tidy frame that are of these kinds."""
        return self.frame[self.frame["kind"].isin(kinds)]

    @property
    def days(self) -> str:
        """The day on which it was measured, or the first and the last of them; "" = unknown."""
        return days_of(self.frame)

    @property
    def incomplete(self) -> tuple[str, ...]:
        """What says of `unfinished` runs what they lack, one sentence each."""
        several = self.frame["run"].nunique() > 1
        return tuple(clean(one.told(by_name=several)) for one in self.unfinished)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known before any number: what is incomplete, then `warnings`."""
        return (*self.incomplete, *self.warnings)


def days_of(frame: pd.DataFrame) -> str:
    """Return the day on which rows were measured, or the first and the last; "" = unknown."""
    days = sorted({str(started)[:10] for started in frame["started"] if started})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""


def load(*folders: str | Path) -> Run:
    """Read run folders, older measuring code left out, duplicates dropped.

    Raises:
        NoRunError: if a folder holds no ``records.jsonl`` or no record at all can be read.
        OSError: if a ``records.jsonl`` is there and cannot be read.
    """
    if not folders:
        raise NoRunError("DIR: expected at least one run folder")
    paths = tuple(Path(f) for f in folders)
    warnings: list[str] = []
    records = read_records(paths, warnings)
    plans = plans_of(paths, warnings)
    lacking = unfinished(plans, records)
    records = one_measurement(records, warnings)
    record_versions = versions(records)
    _note_commits(records, record_versions, warnings)
    machines = read_contents(paths, MACHINES, warnings)
    environments = read_contents(paths, ENVIRONMENTS, warnings)
    _note_unknown(records, "machine", machines, warnings)
    _note_unknown(records, "environment", environments, warnings)
    messages = tuple(clean(w) for w in warnings)  # a folder's name is a stranger's text too
    frame = tidy(records, record_versions, plugin_marks(records, environments))
    return Run(
        frame, tuple(records), machines, environments, messages, paths, lacking, begun(plans)
    )


def read_records(paths: tuple[Path, ...], warnings: list[str]) -> list[dict[str, Any]]:
    """Return the valid records of the folders, first come first kept; `warnings` is added to.

    Of two records of one launch the first is kept; where the second says something else, that is
    said.

    Raises:
        NoRunError: if a folder holds no ``records.jsonl``, or no record can be read.
        OSError: if one cannot be read.
    """
    by_launch: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    duplicates = faults = 0
    for folder in paths:
        for line in _record_lines(folder, warnings):
            try:
                record = check_record(line.data)
            except RecordError as error:
                faults += 1
                if faults <= MOST_FAULTS:
                    warnings.append(f"{line.place}: {short(error)}; left out")
                continue
            warnings.extend(f"{line.place}: {fault}" for fault in drop_faults(record))
            of = record["run"], record["machine"], record["case"]["id"], record["launch"]["index"]
            first = by_launch.setdefault(of, record)
            if first is record:
                continue
            if first == record:
                duplicates += 1
            else:
                warnings.append(
                    f"{line.place}: another result of process {of[3]} of case {of[2]} differs "
                    "from the first, which is kept; left out"
                )
    if faults > MOST_FAULTS:
        warnings.append(f"{faults - MOST_FAULTS:,} further results have faults; left out")
    if duplicates:
        warnings.append(f"{duplicates} duplicate result{'s'[: duplicates != 1]} dropped")
    if not by_launch:
        detail = f": {clean(warnings[0])}" if warnings else ""
        raise NoRunError(f"{', '.join(map(clean, paths))}: no readable result{detail}")
    return list(by_launch.values())


def _record_lines(folder: Path, warnings: list[str]) -> Iterator[Line]:
    file = folder / RECORDS
    source = open_regular(file)
    if source is None:
        there = f"{RECORDS} is no file" if file.exists() else f"no {RECORDS}"
        raise NoRunError(f"{clean(folder)}: no run here ({there})")
    return json_lines(source, file, warnings)


def read_contents(
    paths: tuple[Path, ...], name: str, warnings: list[str]
) -> dict[str, dict[str, Any]]:
    """Return what ``machines.jsonl`` or ``environments.jsonl`` hold: content id to content."""
    contents: dict[str, dict[str, Any]] = {}
    for folder in paths:
        file = folder / name
        try:
            _read_contents(file, contents, warnings)
        except OSError as error:  # a description is missed, no number
            warnings.append(f"{file}: {error.strerror}; left out")
    return contents


def _read_contents(file: Path, contents: dict[str, dict[str, Any]], warnings: list[str]) -> None:
    source = open_regular(file)
    if source is None:
        warnings.append(f"{file}: {'no file' if file.exists() else 'missing'}")
        return
    for line in json_lines(source, file, warnings):
        try:
            content = checked(line.data, dict[str, Any])
            address = content.pop("id", None) or content_id(content)
            checked(address, Id, "id")
        except RecordError as error:
            warnings.append(f"{line.place}: {short(error)}; left out")
            continue
        if contents.setdefault(clean(address), content) != content:
            warnings.append(
                f"{line.place}: {clean(address)} is described twice, and otherwise before; "
                "left out"
            )


def plugin_marks(
    records: list[dict[str, Any]], environments: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], str]:
    """Return what tells versions of a plug-in apart, where the records hold several.

    By environment and what was registered (``backend mine``): ``@`` and six digits of the version.
    """
    found: dict[str, dict[str, str]] = {}
    for address in {clean(record["environment"]) for record in records}:
        plugins = environments.get(address, {}).get("plugins")
        for what, source in plugins.items() if isinstance(plugins, dict) else ():
            found.setdefault(what, {})[address] = str(source)
    return {
        (address, what): f"@{_short_version(source)}"
        for what, sources in found.items()
        if len(set(sources.values())) > 1
        for address, source in sources.items()
    }


def _short_version(source: str) -> str:
    """Return the first digits of the hash at the end of a version, else of one of all of it."""
    digits = source.rpartition(" sha256-")[2][:6]
    return digits if re.fullmatch("[0-9a-f]{6}", digits) else content_id(source)[:6]


def _note_commits(records: list[dict[str, Any]], told: list[str], warnings: list[str]) -> None:
    commits = sorted({clean(r["commit"])[:8] for r in records if r.get("commit")})
    if len(commits) > 1:
        warnings.append(f"{OF_COMMITS}: {numbers.few(commits, _MOST_NAMED)}")
    if found := list(dict.fromkeys(version for version in told if version)):
        warnings.append(
            f"cases were measured with several versions, {numbers.few(found, _MOST_NAMED)}: they "
            "are shown separately; attnbench compare says what changed between two"
        )


def _note_unknown(
    records: list[dict[str, Any]],
    what: str,
    known: Mapping[str, Any],
    warnings: list[str],
) -> None:
    for address in sorted({clean(r[what]) for r in records} - known.keys()):
        warnings.append(f"{what} {address[:40]}: not described in the run folder")


def machine_names(run: Run) -> dict[str, str]:
    """Name every machine of a run; two of one name by their ids too."""
    machines = list(run.frame["machine"].unique())
    names = [machine_name(run.machines.get(m, {})) or f"machine {m[:8]}" for m in machines]
    return {
        machine: name if names.count(name) == 1 else f"{name} ({machine[:8]})"
        for machine, name in zip(machines, names, strict=True)
    }
