"""Read run folders into one tidy frame; name the file, line and fault of what cannot be used.

Records are untrusted input: a torn line, a wrong type, a duplicate or a record of another version
costs that line, never the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from results.checks import check_profile, check_values, clean, drop_faults
from results.schema import (
    ENVIRONMENTS,
    MACHINES,
    RECORDS,
    RecordError,
    check_record,
    content_id,
)
from results.tidy import tidy


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
    """

    frame: pd.DataFrame
    records: tuple[dict[str, Any], ...]
    machines: Mapping[str, Mapping[str, Any]]
    environments: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()
    folders: tuple[Path, ...] = field(default=())


class Line(NamedTuple):
    """One readable JSON object of a file."""

    path: Path
    number: int
    data: Any


def load(*folders: str | Path) -> Run:
    """Read run folders, oldest measuring code left out, duplicates dropped.

    Raises:
        NoRunError: if a folder holds no ``records.jsonl`` or no record at all can be read.
    """
    if not folders:
        raise NoRunError("DIR: expected at least one run folder")
    paths = tuple(Path(f) for f in folders)
    warnings: list[str] = []
    records = read_records(paths, warnings)
    if not records:
        detail = f": {warnings[0]}" if warnings else ""
        raise NoRunError(f"{', '.join(map(str, paths))}: no record that can be read{detail}")
    records = _one_measurement(records, warnings)
    _note_commits(records, warnings)
    machines = read_contents(paths, MACHINES, warnings)
    environments = read_contents(paths, ENVIRONMENTS, warnings)
    _note_unknown(records, "machine", machines, warnings)
    _note_unknown(records, "environment", environments, warnings)
    return Run(tidy(records), tuple(records), machines, environments, tuple(warnings), paths)


def read_records(paths: tuple[Path, ...], warnings: list[str]) -> list[dict[str, Any]]:
    """Return the valid records of the folders, first come first kept; `warnings` is added to.

    Raises:
        NoRunError: if a folder holds no ``records.jsonl``.
    """
    kept: dict[tuple[str, str, int], dict[str, Any]] = {}
    duplicates = 0
    for folder in paths:
        file = folder / RECORDS
        if not file.is_file():
            raise NoRunError(f"{folder}: no run here (no {RECORDS})")
        for line in _lines(file, warnings):
            try:
                record = check_record(line.data)
                check_values(record)
            except (ValueError, TypeError, RecursionError) as error:
                warnings.append(f"{file}:{line.number}: {_short(error)}; left out")
                continue
            _drop_bad_profiles(record, line, warnings)
            warnings.extend(f"{file}:{line.number}: {fault}" for fault in drop_faults(record))
            source = f"{record['run']}\0{record['machine']}"
            key = (source, record["case"]["id"], record["launch"]["index"])
            duplicates += key in kept
            kept.setdefault(key, record)
    if duplicates:
        warnings.append(f"{duplicates} duplicate record{'s'[: duplicates != 1]} dropped")
    return list(kept.values())


def _drop_bad_profiles(record: dict[str, Any], line: Line, warnings: list[str]) -> None:
    """Take the profiles that cannot be read out of a record; its measurements stand."""
    for index, arm in enumerate(record["arms"]):
        try:
            check_profile(f"arms[{index}].profile", arm.get("profile"))
        except RecordError as error:
            del arm["profile"]
            warnings.append(f"{line.path}:{line.number}: {_short(error)}; the profile left out")


def read_contents(
    paths: tuple[Path, ...], name: str, warnings: list[str]
) -> dict[str, dict[str, Any]]:
    """Return what ``machines.jsonl`` or ``environments.jsonl`` hold: content id to content."""
    contents: dict[str, dict[str, Any]] = {}
    for folder in paths:
        file = folder / name
        if not file.is_file():
            warnings.append(f"{file}: missing")
            continue
        for line in _lines(file, warnings):
            if not isinstance(line.data, dict):
                warnings.append(f"{file}:{line.number}: expected an object; left out")
                continue
            content = {k: v for k, v in line.data.items() if k != "id"}
            try:
                address = clean(line.data.get("id") or content_id(content))
            except (ValueError, RecursionError) as error:
                warnings.append(f"{file}:{line.number}: {_short(error)}; left out")
                continue
            contents.setdefault(address, content)
    return contents


def _lines(file: Path, warnings: list[str]) -> Iterator[Line]:
    """Yield the JSON values of a file's lines; a line that is none is named in `warnings`."""
    for number, raw in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            yield Line(file, number, json.loads(raw.decode(), parse_constant=_no_constant))
        except (ValueError, RecursionError) as error:
            warnings.append(f"{file}:{number}: not JSON ({_short(error)}); left out")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _short(error: BaseException) -> str:
    text = clean(str(error)) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


# -- what may not be mixed -----------------------------------------------------------------------


def _one_measurement(records: list[dict[str, Any]], warnings: list[str]) -> list[dict[str, Any]]:
    """Keep the newest version of the measuring code: numbers of two are not comparable."""
    newest = max(r["measurement"] for r in records)
    kept = [r for r in records if r["measurement"] == newest]
    if left := len(records) - len(kept):
        warnings.append(
            f"{left} record{'s'[: left != 1]} of an older measuring code left out: their numbers "
            f"are not comparable with measurement {newest}"
        )
    return kept


def _note_commits(records: list[dict[str, Any]], warnings: list[str]) -> None:
    commits = sorted({clean(r["commit"])[:8] for r in records if r.get("commit")})
    if len(commits) > 1:
        warnings.append(f"launches of several commits are pooled: {', '.join(commits)}")


def _note_unknown(
    records: list[dict[str, Any]],
    what: str,
    known: Mapping[str, Any],
    warnings: list[str],
) -> None:
    for address in sorted({clean(r[what]) for r in records} - known.keys()):
        warnings.append(f"{what} {address[:40]}: not described in the run's folder")
