"""Whether a run folder may stand among the reference records: sound, and naming nobody."""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results.records.load import OF_COMMITS, NoRunError, Run, load
from results.schema import ENVIRONMENTS, MACHINES, PLANS, RECORDS

NEEDED = (RECORDS, MACHINES, ENVIRONMENTS)
HOW = "reference.json"
"""How a whole sweep of the reference results came about: its command, commit and seconds."""

FILES = (*NEEDED, PLANS, HOW)

LARGEST = 2**20
"""Bytes of a file: a folder beside it takes what is more."""

SENTINELS_SINCE = 2
"""Version of the measuring code; earlier runs had none. Those of 2 had launches of it."""

_PLACES = re.compile(
    r"(?<![\w.])(?:/(?:home|root|Users|Volumes|mnt|media|srv|data|scratch|work|opt|tmp)/"
    r"|~/|[A-Za-z]:\\|\\\\)[^\s'\"]*"
)
_ADDRESS = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b(?!\.)")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")

_COMMON = {"root", "user", "localhost", "admin", "runner", "ubuntu", "linux"}
"""Names of users and hosts that say nothing, and are words of records."""


def faults(folder: Path) -> list[str]:
    """Say what speaks against a folder; empty = nothing.

    Args:
        folder: a run folder.
    """
    found = [f"{p.name}: expected only {', '.join(FILES)}" for p in _strangers(folder)]
    for name in FILES:
        file = folder / name
        if not file.is_file():
            found += [f"{name}: it is missing"] if name in NEEDED else []
        elif file.stat().st_size > LARGEST:
            size = file.stat().st_size / 2**20
            found.append(
                f"{name}: {size:.2f} MiB, at most 1; split the run by --seq-len or --shard"
            )
    try:
        run = load(folder)
    except (NoRunError, OSError) as error:
        return [*found, str(error)]
    found += [w for w in run.notes if not w.startswith(OF_COMMITS)]
    found += _unsound(run)
    return [*found, *dict.fromkeys(_private(folder))]


def _strangers(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name not in FILES) if folder.is_dir() else []


def _unsound(run: Run) -> Iterator[str]:
    """Say what a reader could not believe."""
    if not (run.frame["status"] == "ok").any():
        yield "no case was measured successfully"
    for machine in run.frame["machine"].unique():
        about = run.machines.get(machine, {})
        if not about.get("cpu"):
            yield f"machines.jsonl: machine {machine} is not described"
    failed = run.frame[run.frame["status"].isin(("failed", "crashed"))]
    for reason in dict.fromkeys(failed["reason"]):
        yield f"a case failed, which is a defect: {str(reason)[:120]}"
    with_sentinel = all(r["measurement"] >= SENTINELS_SINCE for r in run.records)
    is_timed = (run.frame["metric"] == "latency").any()
    has_sentinel = (run.frame["kind"] == "sentinel") | run.frame["sentinel"].notna()
    if with_sentinel and is_timed and not has_sentinel.any():
        yield "no control benchmark: whether the machine's speed changed is unknown"


def _private(folder: Path) -> Iterator[str]:
    """Walk what names a user, a machine or a place on it."""
    own = {getpass.getuser(), socket.gethostname(), Path.home().name} - _COMMON
    names = [name for name in own if len(name) > 3]
    for file in FILES:
        if not (folder / file).is_file():
            continue
        for line in (folder / file).read_text(encoding="utf-8-sig", errors="replace").splitlines():
            try:
                texts = list(_texts(json.loads(line)))
            except (json.JSONDecodeError, RecursionError):
                continue  # the reader has named it
            for text in texts:
                yield from (f"{file}: {what}" for what in _named(text, names))


def _named(text: str, names: list[str]) -> Iterator[str]:
    for kind, pattern in (("a path", _PLACES), ("an address", _ADDRESS), ("an address", _MAIL)):
        if match := pattern.search(text):
            yield f"it names {kind}: {match[0][:80]!r}"
    for name in names:
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            yield f"it names this user or this machine: {name!r}"


def _texts(value: Any) -> Iterator[str]:
    """Walk every string of a JSON value, its keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield str(key)
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
