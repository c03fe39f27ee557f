"""Write a run as asv's own files, so that ``asv publish`` makes its site from them.

A folder gets ``asv.conf.json`` and ``asv/`` with the results (asv's JSON, version 2) and a bare
git repository of one empty commit a run: asv drops every result whose commit its repository does
not hold. All of it is made from the records and can be made anew at any time.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results.asv_commits import BRANCH, ExportError, make_commits, seconds
from results.checks import clean
from results.files import check_within, write_text
from results.runs import Run
from results.schema import content_id, format_option
from results.series import label, outcome, speed_frame
from results.statistics import estimate
from results.tidy import CASE_COLUMNS

RESULTS_DIR = "asv/results"
HTML_DIR = "asv/html"
REPOSITORY = "asv/commits.git"

MOST_CELLS = 200_000
"""Combinations of parameters in one of asv's tables."""

RESULT_COLUMNS = (
    "result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b",
    "stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile",
)  # fmt: skip

_KINDS: Mapping[str, tuple[str, str]] = {
    "latency": ("time", "seconds"),
    "peak_memory": ("peakmemory", "bytes"),
    "state_bytes": ("track", "bytes"),
    "relative_error": ("track", "relative L2"),
}
_PARAMS = (
    "backend", "seq_len",
    *(c for c in CASE_COLUMNS if c not in ("kind", "level", "mode", "seq_len", "seed")),
)  # fmt: skip


def export_asv(run: Run, out: str | Path) -> Path:
    """Write asv's files of `run` into the folder `out`; return the path of ``asv.conf.json``.

    ``asv publish`` in `out` then writes its site to ``asv/html``.

    Raises:
        ExportError: if `out` has an ``asv.conf.json`` that this export did not make, git is not
            installed, or asv's tables, which hold every combination, would be too large.
        OSError: if `out` cannot be written, or a link in it leads elsewhere.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "asv.conf.json"
    if configuration.exists() and not _is_ours(configuration):
        raise ExportError(f"out: {configuration} is another project's; expected another folder")
    parts = [folder / RESULTS_DIR, folder / REPOSITORY]
    for part in parts:  # what is there is removed below
        check_within(folder, part)
    if not configuration.exists() and any(part.exists() for part in parts):
        raise ExportError(f"out: {folder} holds files that are not ours; expected another folder")
    frame = _frame(run)
    benchmarks = _benchmarks(frame)
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    commits = make_commits(folder / REPOSITORY, frame)
    results = folder / RESULTS_DIR
    results.mkdir(parents=True)
    _write_json(results / "benchmarks.json", {**benchmarks, "version": 2})
    for (machine, environment, source), part in frame.groupby(
        ["machine", "environment", "run"], sort=True
    ):
        about = _machine(run, machine)
        home = results / about["machine"]
        home.mkdir(exist_ok=True)
        _write_json(home / "machine.json", {**about, "version": 1})
        record = _result_file(run, part, benchmarks, about, environment, commits[source])
        _write_json(home / f"{record['commit_hash'][:8]}-{record['env_name']}.json", record)
    write_text(configuration, json.dumps(_CONFIGURATION, indent=1) + "\n")
    return configuration


_CONFIGURATION = {
    "version": 1,
    "project": "attnbench",
    "project_url": "#",
    "repo": REPOSITORY,
    "dvcs": "git",
    "branches": [BRANCH],
    "environment_type": "existing",
    "benchmark_dir": "asv",
    "results_dir": RESULTS_DIR,
    "html_dir": HTML_DIR,
    "show_commit_url": "#",
}


def _is_ours(configuration: Path) -> bool:
    try:
        content = json.loads(configuration.read_text())
    except ValueError:  # asv allows comments; ours has none
        return False
    return isinstance(content, dict) and content.get("repo") == REPOSITORY


def _frame(run: Run) -> pd.DataFrame:
    frame = speed_frame(run)
    frame["backend"] = [
        label(b, o) for b, o in zip(frame["backend"], frame["options"], strict=True)
    ]
    return frame


def _write_json(path: Path, content: object) -> None:
    # asv reads NaN as "skipped": it is part of its format.
    write_text(path, json.dumps(content) + "\n")


def _benchmarks(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return asv's description of every level, mode and metric; parameters that vary are axes."""
    names = [
        p for p in _PARAMS if p in ("backend", "seq_len") or frame[p].astype(str).nunique() > 1
    ]
    if (frame["key_len"] == frame["seq_len"]).all():
        names = [n for n in names if n != "key_len"]
    metrics = [m for m in _KINDS if m in set(frame["metric"])] or ["latency"]
    described: dict[str, dict[str, Any]] = {}
    for (level, mode), part in frame.groupby(["level", "mode"], sort=True):
        values = [[repr(v) for v in _values(part[n])] for n in names]
        if (cells := math.prod(map(len, values))) > MOST_CELLS:
            raise ExportError(
                f"asv's table of level {level}, mode {mode} holds every combination of "
                f"{', '.join(names)}: {cells:,} of them, more than {MOST_CELLS:,}; export runs "
                "that vary less"
            )
        for metric in metrics:
            kind, unit = _KINDS[metric]
            name = f"speed.{level}_{mode}.{metric}"
            described[name] = {
                "name": name, "pretty_name": f"{level}, {mode}: {metric}", "type": kind,
                "unit": unit, "params": values, "param_names": names, "timeout": 60.0,
                "version": content_id([name, names]),
                "code": f"# {metric} of one {mode} call at level {level}, from records.jsonl",
            }  # fmt: skip
    return described


def _values(column: pd.Series) -> list[Any]:
    return [_plain(v) for v in sorted(column.unique())]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _machine(run: Run, machine: str) -> dict[str, str]:
    about = run.machines.get(machine, {})
    cpu = clean(about.get("cpu") or "unknown CPU")
    slug = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")[:40]
    text = {
        "os": about.get("os"), "arch": about.get("arch"), "cpu": cpu,
        "num_cpu": about.get("cores"), "ram": about.get("ram_bytes"), "gpu": about.get("gpu"),
    }  # fmt: skip
    known = {k: clean(v) if v is not None else "" for k, v in text.items()}
    # The record's own id is a stranger's text: only its hash may name a folder.
    return {"machine": f"{slug or 'machine'}-{content_id(machine)[:6]}", **known}


def _result_file(
    run: Run,
    part: pd.DataFrame,
    benchmarks: Mapping[str, Mapping[str, Any]],
    machine: Mapping[str, str],
    environment: str,
    commit: tuple[str, int],
) -> dict[str, Any]:
    about = run.environments.get(environment, {})
    python = clean(about.get("python") or "unknown")
    versions = {k: clean(format_option(about[k])) for k in ("torch", "attnbench") if about.get(k)}
    name = f"python{re.sub(r'[^0-9.]', '', python)[:20]}-{content_id(environment)[:6]}"
    started = [seconds(s) for s in part["started"]]
    rows = {}
    for key, benchmark in benchmarks.items():
        row = _result_row(part, benchmark, started_at=min(started) * 1000)
        if row is not None:
            rows[key] = row
    return {
        "commit_hash": commit[0], "date": commit[1] * 1000, "env_name": name, "env_vars": {},
        "params": {**machine, "python": python, **versions}, "python": python,
        "requirements": {}, "result_columns": list(RESULT_COLUMNS), "results": rows,
        "durations": {}, "version": 2,
    }  # fmt: skip


def _result_row(
    part: pd.DataFrame, benchmark: Mapping[str, Any], *, started_at: int
) -> list[Any] | None:
    """Return the row of one benchmark in the order of its parameters; None = nothing of it."""
    _, place, metric = benchmark["name"].split(".")
    level, mode = place.split("_", 1)
    rows = part[(part["level"] == level) & (part["mode"] == mode)]
    names = benchmark["param_names"]
    cells = {
        tuple(repr(_plain(v)) for v in (key if isinstance(key, tuple) else (key,))): group
        for key, group in rows.groupby(names, sort=False)
    }
    products = list(itertools.product(*benchmark["params"]))
    found = [_cell(cells.get(values), metric) for values in products]
    if all(cell is None for cell in found):
        return None
    columns: list[Any] = [[c["result"] if c else math.nan for c in found], benchmark["params"]]
    columns += [benchmark["version"], started_at, None]
    for key in ("ci_99_a", "ci_99_b", "q_25", "q_75", "number", "repeat", "samples"):
        values = [c.get(key) if c else None for c in found]
        columns.append(values if any(v is not None for v in values) else None)
    while columns[-1] is None:
        columns.pop()
    return columns


def _cell(group: pd.DataFrame | None, metric: str) -> dict[str, Any] | None:
    """Return one result with its statistics; asv's null = failed, NaN = skipped."""
    if group is None:
        return None
    rows = group[group["metric"] == metric]
    if rows.empty:
        status, _ = outcome(group)
        skipped = status in ("ok", "unsupported", "not_run")
        return {"result": math.nan if skipped else None}
    launches = list(rows["value"])
    got = estimate(launches, level=0.99)
    samples = [s for sample in rows["samples"] for s in sample]
    cell: dict[str, Any] = {"result": got.value, "number": 1, "repeat": len(samples)}
    if got.has_interval:
        cell |= {"ci_99_a": got.low, "ci_99_b": got.high}
    cell["q_25"], cell["q_75"] = (float(q) for q in np.quantile(samples, [0.25, 0.75]))
    if metric == "latency":
        cell["samples"] = samples
    return cell
