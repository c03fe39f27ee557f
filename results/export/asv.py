"""Write a run as asv's own files, so that ``asv publish`` makes its site from them.

A folder gets ``asv.conf.json`` and ``asv/`` with the results (asv's JSON, version 2) and a bare
git repository of empty commits: asv drops every result whose commit its repository does not hold.
All of it is made from the records and can be made anew at any time.

A benchmark is a level, a mode and a metric, over backend and tokens alone. What else was chosen,
from the device to the allocator, belongs to a result file, as the machine does: asv's table of a
benchmark holds every combination of its parameters, and its pages open on the first of each, where
a CPU in float32 and a GPU in bfloat16 would have nothing in common to show.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from results.analysis import warm_up
from results.analysis.series import speed_frame
from results.analysis.warm_up import is_cut_short
from results.export.asv_benchmarks import benchmarks_of, result_file
from results.export.asv_history import BRANCH, ExportError, make_commits, slug
from results.export.asv_machines import bounded, machines_of, versions_of
from results.records.atomic_write import check_within, write_text
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.records.load import Run
from results.schema import content_id
from results.text.labels import label, rank

RESULTS_DIR = "asv/results"
HTML_DIR = "asv/html"
REPOSITORY = "asv/commits.git"


_CHOSEN = tuple(c for c in SETTING if c not in ("machine", "environment", "version", "level"))

Settings = Mapping[str, Any]


def _yes(name: str) -> Callable[[Settings], str]:
    return lambda setting: "yes" if setting[name] else "no"


def _heads(setting: Settings) -> str:
    if not setting["num_heads"]:
        return "of the model"
    shown = f"{setting['num_heads']}x{setting['head_dim']}"
    grouped = setting["num_kv_heads"] != setting["num_heads"]
    return f"{shown} with {setting['num_kv_heads']} of keys" if grouped else shown


_SETTING_WORDS: Mapping[str, Callable[[Settings], str]] = {
    "device": lambda s: s["device"],
    "dtype": lambda s: s["dtype"],
    "batch": lambda s: str(s["batch"]),
    "heads": _heads,
    "causal": _yes("is_causal"),
    "keys": lambda s: str(s["cross_len"] or "as queries"),
    "model": lambda s: s["model"] or "none",
    "checkpointing": _yes("checkpointing"),
    "documents": lambda s: s["packed"] or "one",
    "padded": _yes("padded"),
    "threads": lambda s: str(s["threads"]),
    "allocator": lambda s: s["allocator"],
    "precision": lambda s: s["matmul_precision"],
    "compiled": _yes("compile"),
}
"""What asv's pages offer beside machine, Python and torch: name to its value in words. They say
all of `_CHOSEN`, so that two settings never share a curve."""


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
    benchmarks = benchmarks_of(frame)
    machines = machines_of(run, frame)
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    commits = make_commits(folder / REPOSITORY, frame)
    frame["commit_hash"], frame["commit_date"] = (
        [commits[at][i] for at in zip(frame["machine"], frame["run"], strict=True)] for i in (0, 1)
    )
    results = folder / RESULTS_DIR
    results.mkdir(parents=True)
    _write_json(results / "benchmarks.json", {**benchmarks, "version": 2})
    for about in machines.values():
        (results / about["machine"]).mkdir()
        _write_json(results / about["machine"] / "machine.json", {**about, "version": 1})
    _write_results(results, run, frame, benchmarks, machines)
    write_text(configuration, json.dumps(_CONFIGURATION, indent=1) + "\n")
    return configuration


def _write_results(
    results: Path,
    run: Run,
    frame: pd.DataFrame,
    benchmarks: Mapping[str, Mapping[str, Any]],
    machines: Mapping[str, Mapping[str, str]],
) -> None:
    """Write a file for each point, machine, setting and environment."""
    usual = {name: frame[name].mode().iloc[0] for name in _SETTING_WORDS if len(frame)}
    for (point, machine, *_), same in frame.groupby(["commit_hash", "machine", *_SETTING_WORDS]):
        environments = list(same.groupby("environment"))
        for environment, part in environments:
            chosen = {name: bounded(part[name].iloc[0]) for name in _SETTING_WORDS}
            named = [chosen["device"], chosen["dtype"]]
            told = ("device", "dtype", *(["heads"] if chosen["model"] != "none" else []))
            others = [n for n in _SETTING_WORDS if n not in told]
            named += [f"{n} {chosen[n]}" for n in others if chosen[n] != usual[n]]
            if len(environments) > 1:  # else asv would take one for the other
                chosen["environment"] = content_id(environment)[:6]
                named.append(chosen["environment"])
            name = slug(" ".join(named), longest=100)
            about = {"machine": machines[machine]["machine"], **versions_of(run, environment)}
            file = results / about["machine"] / f"{point[:8]}-{name}.json"
            if file.exists():  # two settings whose names differ in what no name of a file holds
                name = f"{name}-{content_id(chosen)[:6]}"
            record = result_file(part, benchmarks, {
                "commit_hash": point, "env_name": name, "python": about["python"],
                "params": {**about, **chosen},
            })  # fmt: skip
            _write_json(file.with_name(f"{point[:8]}-{name}.json"), record)


def unmarked(run: Run) -> list[str]:
    """Say how many times have no place for the mark of a warm-up that was cut short."""
    rows = speed_frame(run)
    told = rows[rows["metric"] == "latency"][["converged"]]
    cut = sum(map(is_cut_short, as_rows(told)))
    if not cut:
        return []
    return [
        f"{warm_up.WORDS} in {cut:,} of {len(told):,} measurements, and asv's files have no "
        "mark for it: attnbench export names them (column converged)"
    ]


_CONFIGURATION = {
    "version": 1,
    "project": "attnbench",
    "project_url": "#/",
    "repo": REPOSITORY,
    "dvcs": "git",
    "branches": [BRANCH],
    "environment_type": "existing",
    "benchmark_dir": "asv",
    "results_dir": RESULTS_DIR,
    "html_dir": HTML_DIR,
    "show_commit_url": "#/?commit=",  # asv's pages put a hash behind it: the grid, not an error
}


def _is_ours(configuration: Path) -> bool:
    try:
        content = json.loads(configuration.read_text())
    except ValueError:  # asv allows comments; ours has none
        return False
    return isinstance(content, dict) and content.get("repo") == REPOSITORY


def _frame(run: Run) -> pd.DataFrame:
    """Return the tidy rows with the series' names, lengths and settings as the pages show them."""
    frame = speed_frame(run)
    frame["order"] = [rank(backend) for backend in frame["backend"]]
    frame["backend"] = [
        label(b, o) for b, o in zip(frame["backend"], frame["options"], strict=True)
    ]
    # asv sorts by text: numbers of one width are in order, and its pages read them as numbers.
    width = len(str(frame["seq_len"].max())) if len(frame) else 0
    frame["tokens"] = [f"{n:>{width}}" for n in frame["seq_len"]]
    settings = as_rows(frame[list(_CHOSEN)])
    for name, words in _SETTING_WORDS.items():
        frame[name] = [words(setting) for setting in settings]
    return frame


def _write_json(path: Path, content: object) -> None:
    # asv reads NaN as "skipped": it is part of its format.
    write_text(path, json.dumps(content) + "\n")
