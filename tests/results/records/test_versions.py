"""Launches of one case by two commits are told apart, never pooled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic_quality
from click.testing import CliRunner
from helpers_recommend import FOUR, a_run
from synthetic import Law

from cli import main
from results.analysis.crossovers import crossover_table
from results.analysis.series import points
from results.chapters.quality.rows import chapters_of_tasks
from results.comparison.compare import compare
from results.comparison.pairing import IncomparableError
from results.export.tables import cases
from results.recommendation.recommend import recommend
from results.recommendation.text import text
from results.records.load import load
from results.records.merge import merge
from results.records.versions import one_version
from results.report import write_report

OLD, NEW = ("1" * 40, "2" * 40)
SLOW = {**FOUR, "linformer": Law(4e-5, 1.0)}
"""The second commit's linformer takes ten times as long."""


def two(folder: Path, **options: Any) -> tuple[Path, Path]:
    """Write a run of each commit."""
    return (
        a_run(folder / "before", commit=OLD, run="b", started="2026-01-01T00:00:00Z", **options),
        a_run(folder / "after", SLOW, commit=NEW, run="a", seed=1, **options),
    )


def times(*folders: Path) -> list[list[float]]:
    table = points(load(*folders))
    own = table[(table["backend"] == "linformer") & (table["seq_len"] == 4096)]
    return [list(row) for row in own[own["metric"] == "latency"]["launches"]]


def test_two_commits_are_two_settings(tmp_path: Path) -> None:
    before, after = two(tmp_path)
    both = times(before, after)
    assert sorted(map(sum, both)) == sorted([*map(sum, times(before)), *map(sum, times(after))])
    assert [len(own) for own in both] == [3, 3]
    run = load(before, after)
    assert set(run.frame["version"]) == {"commit 11111111", "commit 22222222"}
    told = " ".join(run.warnings)
    assert "the results are of several commits: 11111111 and 22222222" in told
    assert "with several versions, commit 11111111 and commit 22222222: they are shown" in told
    assert "pooled" not in told


def test_the_report_has_a_chapter_for_each(tmp_path: Path) -> None:
    (file,) = write_report(two(tmp_path), ["md"], tmp_path / "both")
    written = file.read_text()
    for commit, best in (("11111111", "linformer"), ("22222222", "longformer")):
        start = written.index(f", bidirectional, commit {commit}</summary>")
        assert f"{best} is the fastest" in written[start : start + 600]


def test_every_reader_keeps_them_apart(tmp_path: Path) -> None:
    run = load(*two(tmp_path))
    found = recommend(run.frame, seq_len=4096, mode="forward", device="cpu")
    assert {r.candidates[0].backend for r in found.rankings} == {"linformer", "longformer"}
    said = " ".join(text(found, machines=run.machines, reference=False).split())
    assert "2 threads, commit " in said
    table = cases(run)
    assert set(table[table["metric"] == "latency"]["num_launches"]) == {3}
    assert set(table["commit"]) == {OLD, NEW}
    assert set(crossover_table(run)["version"]) == {"commit 11111111", "commit 22222222"}


def test_compare_takes_no_side_of_two_commits(tmp_path: Path) -> None:
    before, after = two(tmp_path)
    merged = merge([before, after], tmp_path / "merged").folder
    with pytest.raises(IncomparableError, match=r"BASE: holds results of .* commit 11111111 and"):
        compare(load(merged), load(after))


def test_commits_that_share_no_case_stand_together(tmp_path: Path) -> None:
    one = a_run(tmp_path / "1", commit=OLD, run="1", lengths=(512, 1024))
    other = a_run(tmp_path / "2", commit=NEW, run="2", lengths=(2048, 4096))
    run = load(one, other)
    assert set(run.frame["version"]) == {""}
    assert len(run.warnings) == 1
    (ranking,) = recommend(run.frame, seq_len=4096, mode="forward", device="cpu").rankings
    assert ranking.lengths == (512, 1024, 2048, 4096)


@pytest.mark.parametrize(("commit", "count"), [(OLD, 1), (f"{OLD}+dirty", 2), (None, 2)])
def test_only_a_whole_commit_says_that_two_runs_are_of_one_code(
    tmp_path: Path, commit: str | None, count: int
) -> None:
    one = a_run(tmp_path / "1", commit=commit, run="1")
    other = a_run(tmp_path / "2", commit=commit, run="2", seed=1)
    assert len(times(one, other)) == count
    names = set(load(one, other).frame["version"])
    assert all(name.startswith("run ") for name in names) or names == {""}


def test_one_version_is_chosen_in_each_place() -> None:
    columns = ["machine", "environment", "version"]
    rows = [("a", "e", "")] * 3 + [("b", "e", "one"), ("b", "e", "two"), ("b", "e", "two")]
    frame = pd.DataFrame(rows, columns=columns)
    assert list(one_version(frame)["version"]) == ["", "", "", "two", "two"]
    assert one_version(frame[:0]).empty


def test_asvs_files_do_not_call_them_pooled(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["export", *map(str, two(tmp_path)), "--format", "asv", "--out", str(tmp_path / "x")]
    )
    assert done.exit_code == 0
    assert "pooled" not in done.stderr
    assert "the results are of several commits" in done.stderr


def test_details_of_tasks_stay_with_their_run(tmp_path: Path) -> None:
    records = synthetic_quality.task_records()
    old = [{**r, "commit": OLD, "run": "1"} for r in records]
    again = [{**r, "commit": NEW, "run": "2"} for r in records]
    alone = chapters_of_tasks(load(synthetic_quality.write_quality(tmp_path / "1", old)))
    both = synthetic_quality.write_quality(tmp_path / "2", [*old, *again])
    found = chapters_of_tasks(load(both))
    assert len(found) == 2 * len(alone)
    sizes = {len(t.groups) for c in alone for t in c.trials}
    assert {len(t.groups) for c in found for t in c.trials} == sizes
