"""Merge run folders: concatenation without duplicates."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from results.records.load import NoRunError, read_contents, read_records
from results.records.plans import read_plans
from results.schema import ENVIRONMENTS, MACHINES, PLANS, RECORDS, canonical
from results.text.clean import clean


class Merged(NamedTuple):
    """What `merge` wrote: the folder, how many records, and what was left out."""

    folder: Path
    num_records: int
    warnings: tuple[str, ...]


def merge(folders: Iterable[str | Path], out: str | Path) -> Merged:
    """Write the records, machines, environments and plans of `folders` to the new folder `out`.

    Records of different measuring code are all kept: what reads them tells them apart. The
    folder appears whole or not at all.

    Raises:
        NoRunError: if a folder holds no run, or nothing in them can be read.
        ValueError: if `out` exists and is not an empty folder.
        OSError: if a folder cannot be read, or `out` not written.
    """
    paths = tuple(Path(f) for f in folders)
    target = Path(out)
    if not paths:
        raise NoRunError("DIR: expected at least one run folder")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"out: {target} exists and is not empty; expected a new folder")
    warnings: list[str] = []
    records = read_records(paths, warnings)
    machines = read_contents(paths, MACHINES, warnings)
    environments = read_contents(paths, ENVIRONMENTS, warnings)
    plans = {canonical(plan): plan for path in paths for plan in read_plans(path, warnings)}
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        _write_lines(temporary / RECORDS, records)
        _write_lines(temporary / MACHINES, ({"id": k, **v} for k, v in machines.items()))
        _write_lines(temporary / ENVIRONMENTS, ({"id": k, **v} for k, v in environments.items()))
        if plans:
            _write_lines(temporary / PLANS, plans.values())
        temporary.chmod(0o755)
        temporary.replace(target)  # an empty folder in its place is replaced
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Merged(target, len(records), tuple(clean(w) for w in warnings))


def _write_lines(file: Path, objects: Iterable[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(f"{canonical(o)}\n" for o in objects)
